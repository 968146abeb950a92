"""Models applied to another data set: a tiny finished run in a folder, and images with lesions elsewhere."""

import contextlib
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from flipside.artifacts.explanations import Explanations
from flipside.classifiers.networks.backbones import build_classifier
from flipside.cli import apply
from flipside.cli.predict import predict
from flipside.core import paths
from flipside.core.checkpoint import save_model
from flipside.core.params import ParamsError
from flipside.core.store import SliceStore
from flipside.generators.coin import Coin
from flipside.masks.method_masks import open_masks
from tests.parameters import project_parameters, write_parameters

METHODS = ("coin", "gradient", "intensity")
LEFT_OUT = "mean_healthy"  # of training slices, of which there are none
RULE = {"rule": "healthy_quantile", "background": "zero", "smooth_px": 1, "quantile": 0.9, "threshold": 0.6}
CARRIED = {f"{policy}{suffix}": cut for suffix in ("", "_raw") for policy, cut in {
    "label_free": RULE, "fixed": 0.25, "otsu": 0.3141, "val": 0.2718, "oracle": 0.99}.items()}
TARGET = {
    "layout": "image_mask", "page": "https://example.org", "modality": "other", "anomalies": True,
    "lesion_threshold_px": 0, "image": "images/{case}.png", "organ": {"files": ["masks/{case}.png"], "values": [1, 2],
                                                                     "colours": None},
    "lesion": {"files": ["masks/{case}.png"], "values": [2], "colours": None}, "ignored": [],
    "patient": "^(p[0-9]+)_", "spacing_mm": [1.0, 1.0],
}


def write_images(folder: Path, healthy: bool) -> None:
    """Two slices each of four patients with a bright square in the organ; every second slice lacks it if `healthy`."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for patient in range(4):
        for z in range(2):
            image, mask = generator.integers(60, 110, (32, 32)), np.zeros((32, 32), np.uint8)
            mask[6:26, 6:26] = 1
            if not (healthy and z):
                mask[10:17, 8 + patient:16 + patient] = 2
                image[mask == 2] += 100
            Image.fromarray(image.astype(np.uint8)).save(folder / f"images/p{patient}_{z}.png")
            Image.fromarray(mask).save(folder / f"masks/p{patient}_{z}.png")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What apply reads of a finished run on the phantom, with untrained models; the stages run in this process."""
    root = tmp_path / "project"
    root.mkdir()
    params = project_parameters()
    params |= {"image_size": 32, "datasets": params["datasets"] | {"target": TARGET | {"root": "elsewhere"}},
               "runtime": {"device": "cpu", "precision": "float32", "threads": 1}}
    params["methods"] = {name: params["methods"][name] for name in (*METHODS, LEFT_OUT)}
    params["evaluate"]["upper_bound"] = None
    params["filter"] |= {"window": "fingerprint", "min_organ_px": 8}
    params["evaluate"]["bootstrap_samples"] = 100
    write_parameters(root, params)
    monkeypatch.chdir(root)
    torch.manual_seed(0)
    architecture = {"architecture": "small_resnet", "width": 8}
    for role in ("classifier", "judge"):
        save_model(f"models/classifiers/{role}", build_classifier(**architecture, pretrained=False),
                   {"architecture": architecture})
        write(f"reports/{role}.json", {"auroc": 0.9})
        confusion = Path(f"reports/training/{role}/confusion.csv")
        confusion.parent.mkdir(parents=True)
        confusion.write_text("actual,predicted\nabnormal,abnormal\n")
        write(f"reports/training/{role}/parameters.json", {"width": 8})
    arguments = {"channels": [8, 16], "skips": 1, "fuse": "clamp", "upsampling": "nearest", "spectral_norm": True,
                 "spectral_sigma": "differentiable"}
    save_model("models/generators/coin", Coin.build(arguments), {"architecture": arguments})
    write("reports/training/coin/timing.json", {"seconds": 3.5})
    write("reports/training/coin/parameters.json", arguments)
    for method in METHODS:
        write(f"data/masks/{method}/thresholds.json", CARRIED)
    write("data/filtered/manifest.json", {"dataset": "phantom", "anomalies": True, "window": [20.0, 230.0],
                                          "channels": ["image"]})
    monkeypatch.setattr(apply, "run_stage", in_this_process)
    yield root
    torch.set_flush_denormal(False)  # which a stage switches on for its process


def write(file: str, content: dict) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps(content))


def in_this_process(workspace, module, *options):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setattr(sys, "argv", [module, *options])
        importlib.import_module(module).main()


def everything_below(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
            and not {".scratch", "applied"} & set(path.parts)}


def masks_of(project, method, name):
    with contextlib.chdir(project):
        return open_masks(method, name, Explanations.open(paths.explanations(method)), SliceStore.open(paths.SLICES))[:]


def test_frozen_models_and_carried_thresholds_are_scored_on_the_other_data(project, tmp_path, capsys):
    write_images(tmp_path / "data set", healthy=True)
    before = everything_below(project)
    apply.apply("target", str(tmp_path / "data set"))
    assert everything_below(project) == before  # the finished run stays as it is

    workspace = project / ".scratch/applied/target"
    index = pd.read_csv(workspace / "data/slices/index.csv")
    assert set(index["split"]) == {"test"} and index["label"].tolist() == [1, 0] * 4  # no anomaly was drawn
    assert json.loads((workspace / "data/slices/manifest.json").read_text())["window"] == [20.0, 230.0]
    for method in METHODS:
        folder = workspace / "data/masks" / method
        thresholds = json.loads((folder / "thresholds.json").read_text())
        own = {name: thresholds.pop(name) for name in ("oracle", "oracle_raw")}
        assert thresholds == {name: t for name, t in CARRIED.items() if not name.startswith("oracle")}
        assert own["oracle"] != 0.99
        maps = np.load(workspace / "data/explanations" / method / "attribution.npy").astype(np.float32)
        shown = pd.read_csv(workspace / "data/explanations" / method / "index.csv")["f_x"].to_numpy() >= 0.5
        for name, threshold in (("val_raw", 0.2718), ("label_free_raw", 0.6)):
            np.testing.assert_array_equal(masks_of(workspace, method, name),
                                          (maps > np.float32(threshold)) & shown[:, None, None])

    results = project / "reports/applied/target"
    assert {file.name for file in results.iterdir()} == {
        "metrics.json", "cases.csv", "flips_by_bound.csv", "populations.csv", "subgroups.csv",
        "metrics.md", "comparison.png"}
    metrics = json.loads((results / "metrics.json").read_text())
    for values in metrics.values():
        assert (values["n_cases"], values["n_healthy"], values["n_patients"]) == (4, 4, 4)
        assert values["iou_oracle"] >= max(values["iou_fixed"], values["iou_otsu"], values["iou_val"])
    assert metrics["intensity"]["iou_oracle"] > 0.5  # the lesions are bright
    text = (results / "metrics.md").read_text()
    assert "trained on `phantom` with synthetic anomalies, applied unchanged to `target`: 8 slices of 4 pati" in text
    assert "4 lesion cases of 4 patients, 4 healthy slices; window 20 to 230." in text
    assert "| intensity | healthy quantile = 0.6 (quantile 0.9, background zero) | 0.250 | 0.314 | 0.272 |" in text
    assert "| intensity *(control)* † |" in text and "rest on only 4" in text
    assert metrics["gradient"]["sanity_randomisation_passed"] == 1  # checked on the other data too
    assert "sanity_randomisation_passed" not in metrics["coin"]
    assert "intensity (control)" in capsys.readouterr().out


def test_without_healthy_slices_their_metric_is_absent(project, tmp_path):
    write_images(tmp_path / "ill", healthy=False)
    apply.apply("target", str(tmp_path / "ill"))
    metrics = json.loads((project / "reports/applied/target/metrics.json").read_text())
    for values in metrics.values():
        assert values["n_healthy"] == 0 and values["n_cases"] == 8 and "fp_area_healthy" not in values


def test_a_fixed_window_is_used_as_it_is_and_the_difference_is_told(project):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["filter"]["window"] = [0, 255]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    write_images(project / "elsewhere", healthy=True)  # datasets.target.root, relative to the project
    apply.apply("target")
    text = (project / "reports/applied/target/metrics.md").read_text()
    assert "window 0 to 255 (the models were trained with 20 to 230)" in text


@pytest.mark.parametrize(("own", "trained", "applied"), [
    ("auto", [-160.0, 350.0], [-160.0, 350.0]), ("auto", "per_scan", "per_scan"), ("per_scan", "per_scan", "per_scan"),
    ("fingerprint", [[0.0, 1.0], [2.0, 9.0]], [[0.0, 1.0], [2.0, 9.0]]), ([0, 9], "per_scan", [0, 9])])
def test_the_window_is_made_as_that_of_the_models(project, own, trained, applied):
    params = project_parameters()
    params["filter"]["window"] = own
    params["datasets"] |= {"target": TARGET | {"root": "elsewhere"}}
    assert apply.derived_params(params, "target", None, trained)["filter"]["window"] == applied


def test_predict_gives_the_same_answers(project, tmp_path):
    """By the stages with labels, or one scan after the other without: the same probabilities, maps and masks."""
    write_images(tmp_path / "data set", healthy=True)
    apply.apply("target", str(tmp_path / "data set"))
    data, policy = project / ".scratch/applied/target/data", project_parameters()["segment_scans"]["policy"]
    scans = pd.read_csv(data / "slices/index.csv").set_index("slice_id")["scan_id"]
    (tmp_path / "data set/scans.csv").write_text("path,organ\n" + "".join(
        f"images/{scan}.png,masks/{scan}.png\n" for scan in scans))
    for method in ("coin", "gradient"):
        out, index = tmp_path / method, pd.read_csv(data / f"explanations/{method}/index.csv")
        predict(table=[tmp_path / "data set/scans.csv"], out=out, method=method)
        predictions = pd.read_csv(out / "predictions.csv").set_index("scan")
        maps = np.load(data / f"explanations/{method}/attribution.npy")
        masks = masks_of(data.parent, method, policy)
        assert len(index) == len(predictions) == 8 and maps.any() and masks.any() == (method == "gradient")
        for row, slice_id in enumerate(index["slice_id"]):
            name = f"images_{scans[slice_id]}"
            np.testing.assert_allclose(predictions["probability"][name], index["f_x"][row], rtol=1e-4)
            np.testing.assert_array_equal(np.asarray(Image.open(out / name / "mask.png")) // 255, masks[row])
            shown = np.asarray(Image.open(out / name / "attribution.png"), np.float32) / 65535
            np.testing.assert_allclose(shown, maps[row], atol=1e-3)


def test_what_cannot_be_applied_is_refused_before_any_work(project):
    with pytest.raises(ParamsError, match="phantom is what the models were trained on"):
        apply.apply("phantom")
    with pytest.raises(ParamsError, match="datasets.nonsense"):
        apply.apply("nonsense")
    Path("models/generators/coin/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="models/generators/coin/model.safetensors not found .1 of"):
        apply.apply("target")
    write("data/filtered/manifest.json", {"dataset": "curvas", "window": [0, 255], "channels": ["image"]})
    with pytest.raises(ParamsError, match="`dataset` is 'phantom', but the models .* are of 'curvas'"):
        apply.apply("target")
    assert not Path(".scratch/applied").exists() and not Path("reports/applied").exists()


def test_a_failing_stage_ends_the_run_by_name(tmp_path):
    with pytest.raises(RuntimeError, match="stages.extract_slices failed with exit status 1"):
        apply.run_stage(tmp_path, "stages.extract_slices")  # there is no params.yaml
