"""The stage measure_realism with and without the weights of the published networks; the network is out of reach."""

from __future__ import annotations

import json
import pickle
import re
import socket
import sys
from pathlib import Path

import lpips
import numpy as np
import pandas as pd
import pytest
import pytorch_fid.inception
import torch
import torchvision
import yaml
from PIL import Image
from pytorch_fid.fid_score import calculate_fid_given_paths

from flipside.artifacts.explanations import ABNORMAL, Explanations, write_explanations
from flipside.classifiers.networks.backbones import build_classifier
from flipside.classifiers.networks.pretrained import ALEXNET, INCEPTION, Weights, load_inception, load_lpips
from flipside.core.checkpoint import save_model
from flipside.core.files import file_digest, read_json
from flipside.core.store import INDEX_COLUMNS, write_store
from stages import measure_realism

SIZE, SLICES = 32, 16
BOTH = [f"fid_{dims}_both_directions" for dims in (64, 768, 2048)]
FID = [f"fid_{dims}{suffix}" for suffix in ("", "_coin") for dims in (64, 768, 2048)] + ["kid"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"a connection was tried: {arguments}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="session")
def made_up_cache(tmp_path_factory):
    """A TORCH_HOME with weights of the right names and shapes and random values."""
    home = tmp_path_factory.mktemp("torch")
    folder = home / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # the bare network, as pytorch-fid builds it
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torchvision.models.Inception3, "load_state_dict", lambda *_: None)
        inception = pytorch_fid.inception.fid_inception_v3()
    for layer in inception.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)  # keeps the features' size over all layers
    torch.save({name: value.half() for name, value in inception.state_dict().items()}, folder / INCEPTION.file.name)
    alexnet = torchvision.models.alexnet(weights=None).state_dict()
    unused = {name: torch.zeros(1).expand(value.shape) for name, value in alexnet.items() if "classifier" in name}
    torch.save(alexnet | unused, folder / ALEXNET.file.name)
    return home


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A store of 4 training and 12 test slices, a classifier, one method with counterfactuals and one without."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 256, (SLICES, SIZE // 4, SIZE // 4)).repeat(4, axis=1).repeat(4, axis=2)
    images = (levels / 127.5 - 1).astype(np.float16)
    index = pd.DataFrame({column: [0] * SLICES for column in INDEX_COLUMNS}).assign(
        slice_id=[f"slice_{n}" for n in range(SLICES)], split=["train"] * 4 + ["test"] * 12,
        label=np.arange(SLICES) % 2)
    write_store("data/slices", images, np.ones(images.shape, np.uint8), index)
    architecture = {"architecture": "small_resnet", "width": 8}
    torch.manual_seed(0)
    save_model("models/classifiers/classifier", build_classifier(**architecture, pretrained=False),
               {"architecture": architecture})
    explained = np.arange(SLICES - 1, 3, -1)  # the order of an explanation's slices is its own
    counterfactuals = images[explained].astype(np.float32)
    counterfactuals[:, 8:16, 8:16] *= 0.25
    table = pd.DataFrame({"slice_id": index["slice_id"].iloc[explained], "f_x_cf": 0.1, "steps": np.nan,
                          "f_x": np.where(explained % 4, 0.9, 0.2)})
    maps = np.zeros(counterfactuals.shape)
    write_explanations("data/explanations/maker", maps, counterfactuals, table, {})
    write_explanations("data/explanations/blind", maps, None, table.assign(f_x_cf=np.nan), {})
    Path("params.yaml").write_text(yaml.safe_dump({
        "seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
        "realism": {"batch_size": 8, "kid_subset_size": 50, "kid_subsets": 10}, "evaluate": {"cv_tau": 0.7},
        "methods": {"maker": {}, "blind": {}}}))
    return images, index


def run(monkeypatch) -> tuple[dict, pd.DataFrame]:
    monkeypatch.setattr(sys, "argv", ["measure_realism"])
    measure_realism.main()
    return read_json("data/realism/maker.json"), pd.read_csv("data/realism/maker.csv")


def test_without_weights_their_metrics_are_absent_and_the_files_named(project, empty_cache, tmp_path, monkeypatch,
                                                                      capsys):
    found, cases = run(monkeypatch)
    assert sorted(path.name for path in Path("data/realism").iterdir()) == ["maker.csv", "maker.json"]
    assert {"fd_clf", "fd_clf_unchanged", "kid_clf", "kid_clf_std", "n_realism"} <= set(found["metrics"])
    assert not [name for name in found["metrics"] if name.startswith(("fid", "lpips")) or name == "kid"]
    assert set(found["missing"]) == {*FID, "lpips"}
    printed = capsys.readouterr().out
    for name, file in (("fid_64", "pt_inception-2015-12-05-6726825d.pth"), ("lpips", "alexnet-owt-7be5be79.pth")):
        reason = found["missing"][name]
        assert str(tmp_path / "torch/hub/checkpoints" / file) in reason and "http" not in reason  # the report shows it
        assert reason in printed and re.search(f"https://.*{file}", printed)
    assert not (tmp_path / "torch").exists()
    assert cases["lpips"].isna().all() and (cases["perceptual_clf"] > 0).all()
    assert list(cases["slice_id"]) == [f"slice_{n}" for n in range(4, SLICES)]  # the test split, in its order
    assert [found["metrics"][f"n_realism{side}"] for side in ("", "_real", "_coin")] == [9, 6, 12]
    first = Path("data/realism/maker.json").read_bytes(), Path("data/realism/maker.csv").read_bytes()
    run(monkeypatch)
    assert first == (Path("data/realism/maker.json").read_bytes(), Path("data/realism/maker.csv").read_bytes())


def make_abnormal(images: np.ndarray) -> np.ndarray:
    """Let maker also make images abnormal, and the classifier be sure of half of the slices, to either side.

    Returns (N,) bool of all slices: called abnormal for sure, called healthy for sure.
    """
    written = Explanations.open("data/explanations/maker")
    explained = np.arange(SLICES - 1, 3, -1)
    abnormal = images[explained].astype(np.float32)
    abnormal[:, 20:28, 8:24] = 0.9
    f_x = np.array([0.9, 0.6, 0.1, 0.4])[np.arange(SLICES) % 4]
    write_explanations("data/explanations/maker", np.array(written.attribution), np.array(written.counterfactual),
                       written.index.assign(f_x=f_x[explained], f_x_ab=0.9), {}, {ABNORMAL: abnormal})
    return f_x == 0.9, f_x == 0.1


def test_without_weights_both_directions_are_missing_where_a_method_goes_both_ways(project, empty_cache, monkeypatch,
                                                                                   capsys):
    before, _ = run(monkeypatch)
    assert "fid_768_both_directions" not in capsys.readouterr().out
    assert "n_realism_both_directions" not in before["metrics"]
    make_abnormal(project[0])
    found, _ = run(monkeypatch)
    assert set(found["missing"]) - set(before["missing"]) == set(BOTH)
    assert "no fid_64" in (printed := capsys.readouterr().out) and "fid_768_both_directions" in printed
    assert found["metrics"]["n_realism_both_directions"] == 6


def write_pictures(folder: str, images: np.ndarray) -> str:
    Path(folder).mkdir()
    for number, image in enumerate(images):
        levels = ((image.astype(np.float32) + 1) * 127.5).round().astype(np.uint8)
        Image.fromarray(levels).convert("RGB").save(f"{folder}/{number:02d}.png")
    return folder


def test_with_weights_fid_is_what_pytorch_fid_says_of_the_pictures(project, made_up_cache, monkeypatch):
    images, index = project
    monkeypatch.setenv("TORCH_HOME", str(made_up_cache))
    found, cases = run(monkeypatch)
    assert not found["missing"] and {*FID, "kid_std", "fid_2048_unchanged"} <= set(found["metrics"])
    changed = images.astype(np.float32)
    changed[:, 8:16, 8:16] *= 0.25
    number = np.arange(SLICES)
    pictures = {name: write_pictures(name, chosen) for name, chosen in {
        "healthy": images[(number >= 4) & (number % 2 == 0)], "called": changed[(number >= 4) & (number % 4 > 0)],
        "all": images[4:], "all_changed": changed[4:]}.items()}
    for name, dims, sides in (("fid_64", 64, ("healthy", "called")), ("fid_768", 768, ("healthy", "called")),
                              ("fid_64_coin", 64, ("all", "all_changed"))):
        expected = calculate_fid_given_paths([pictures[side] for side in sides], 10, "cpu", dims, num_workers=0)
        assert found["metrics"][name] == pytest.approx(expected, rel=0.01), name  # pictures have 256 levels

    with pytest.warns(UserWarning):  # torchvision's, which the stage keeps to itself
        network = lpips.LPIPS(net="alex", verbose=False)
    pair = [torch.tensor(stack[7]).float().expand(1, 3, -1, -1) for stack in (images, changed.astype(np.float16))]
    assert cases.set_index("slice_id")["lpips"]["slice_7"] == pytest.approx(network(*pair).item(), rel=1e-4)
    assert (cases["lpips"] > 0).all()
    assert not set(BOTH) & set(found["metrics"])
    # They are not the published weights, and the reader is told; so are too few images for so many features.
    for name in (*FID, "lpips"):
        assert "not the published ones" in found["cautions"][name]
    assert "for 768 features" in found["cautions"]["fid_768"]


def test_both_directions_are_the_sure_slices_and_their_counterfactuals_on_the_other_side(project, made_up_cache,
                                                                                         monkeypatch):
    images, _ = project
    abnormal, healthy = make_abnormal(images)
    monkeypatch.setenv("TORCH_HOME", str(made_up_cache))
    found, _ = run(monkeypatch)
    tested = np.arange(SLICES) >= 4
    turned = images.astype(np.float32)
    turned[abnormal, 8:16, 8:16] *= 0.25
    turned[healthy, 20:28, 8:24] = 0.9
    sides = [write_pictures(name, chosen[tested & (abnormal | healthy)])
             for name, chosen in (("sure", images), ("turned", turned))]
    for dims in (64, 768):
        expected = calculate_fid_given_paths(sides, 10, "cpu", dims, num_workers=0)
        assert found["metrics"][f"fid_{dims}_both_directions"] == pytest.approx(expected, rel=0.01)
        assert found["metrics"][f"fid_{dims}_coin"] != pytest.approx(expected, rel=0.05)
    assert not found["missing"]
    for words in ("not the published ones", "6 counterfactuals in both directions and as many scans for 768"):
        assert words in found["cautions"]["fid_768_both_directions"]


def test_explanations_of_other_slices_are_refused(project, empty_cache, monkeypatch):
    file = Path("data/explanations/maker/index.csv")
    file.write_text(file.read_text().replace("slice_9,", "slice_99,"))
    with pytest.raises(ValueError, match=r"maker lacks 1 of the 12 test slices .first: slice_9.*explain@maker"):
        run(monkeypatch)
    assert not Path("data/realism").exists()


def test_without_a_test_slice_there_is_nothing_to_measure(project, empty_cache, monkeypatch):
    images, index = project
    write_store("data/slices", images, np.ones(images.shape, np.uint8), index.assign(split="train"))
    with pytest.raises(ValueError, match="no slice of the test split"):
        run(monkeypatch)


class Harmful:
    """Unpickled in full, it would leave a file behind."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("write", [
    lambda file: file.write_bytes(b"<html>Not found</html>"),
    lambda file: file.write_bytes(b""),
    lambda file: torch.save({"conv.weight": torch.zeros(3)}, file),
    lambda file: torch.save([1, 2], file),
    lambda file: torch.save(Harmful(), file),
    lambda file: file.write_bytes(pickle.dumps(Harmful())),
], ids=["page", "empty", "other network", "a list", "harmful", "harmful pickle"])
@pytest.mark.parametrize(("weights", "load"), [(INCEPTION, load_inception), (ALEXNET, load_lpips)])
def test_a_file_that_is_not_the_weights_is_refused_and_never_run(empty_cache, tmp_path, monkeypatch, runtime, write,
                                                                 weights, load):
    monkeypatch.chdir(tmp_path)
    weights.file.parent.mkdir(parents=True)
    write(weights.file)
    with pytest.raises(ValueError, match=f"{weights.file.name} is damaged or not the file that https://"):
        load(runtime)
    assert not Path("executed").exists()


def test_a_file_whose_digest_is_in_its_name_is_not_doubted(empty_cache, tmp_path):
    content = tmp_path / "content"
    content.write_bytes(b"weights")
    published = Weights(f"https://example.org/net-{file_digest(content)[:8]}.pth")
    published.file.parent.mkdir(parents=True)
    published.file.write_bytes(b"weights")
    assert published.absence() is None and published.doubt() is None
    published.file.write_bytes(b"others")
    assert "SHA-256" in published.doubt()


def test_reasons_do_not_name_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert "someone" not in INCEPTION.absence() and "~/.cache/torch/hub/checkpoints/pt_inc" in INCEPTION.absence()


def test_the_written_numbers_are_finite_json(project, empty_cache, monkeypatch):
    found, _ = run(monkeypatch)
    json.dumps(found, allow_nan=False)
    assert all(np.isfinite(value) for value in found["metrics"].values())
