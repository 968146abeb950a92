"""The report as a reader meets it: what is ranked where, a page that stands alone, odd input that breaks nothing."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from stages.common.explanations import write_explanations
from stages.common.store import write_store
from stages.common.truth import write_truth
from stages.evaluate import charts, pictures, report, show, tables
from stages.evaluate.figures import ReportParams
from stages.evaluate.report_inputs import PARAMETERS

METHODS = {"coin": 0.8, "rise": 0.3, "random": 0.05}  # how much of the lesion each fake method finds
REPORT = {"title": "Flipside <b>& co</b>", "policy": "val", "rank_by": "iou_val",
          "rank_by_without_masks": "judge_flip_rate", "controls": ["random"], "gallery_cases": 3, "healthy_cases": 2}
REALISM = {"metrics": {}, "missing": {name: f"weights {name[:3]}.pth not found" for name in
                                      ("fid_64", "fid_768", "fid_64_coin", "lpips")},
           "cautions": {"fd_clf": "5 counterfactuals for 96 features", "fd_clf_unchanged": "the same"}}


def build_project(root: Path, images: np.ndarray, methods: dict[str, float], counterfactual: tuple[str, ...],
                  controls: tuple[str, ...]) -> None:
    """A finished run's artifacts with made-up methods on images (N,H,W) in [-1,1]; every other slice has a lesion."""
    rng = np.random.default_rng(0)
    count, size = len(images), images.shape[-1]
    rows, columns = np.mgrid[:size, :size]
    lesion = np.zeros(images.shape, np.uint8)
    for i in range(0, count, 2):
        centre = rng.uniform(0.35, 0.65, 2) * size
        lesion[i] = np.hypot(rows - centre[0], columns - centre[1]) < rng.uniform(0.05, 0.14) * size
    images = np.clip(images + 0.6 * lesion, -1, 1).astype(np.float16)
    labels = np.arange(count) % 2 == 0
    index = pd.DataFrame({
        "slice_id": [f"scan{i // 4:02d}<&>_{i:03d}" for i in range(count)],
        "scan_id": [f"scan{i // 4:02d}" for i in range(count)], "patient_id": [f"p{i // 4:02d}" for i in range(count)],
        "z": range(count), "relative_height": 0.5, "spacing_row_mm": 1.0, "spacing_col_mm": 1.0, "spacing_z_mm": 3.0,
        "native_rows": 128, "native_cols": 128, "label": labels.astype(int), "split": "test", "organ_px": 900,
        "source_file": "a.nii.gz",
    })
    write_store(root / "data/slices", images, np.ones_like(lesion), index)
    write_truth(root / "data/truth", lesion)
    metrics, cases, curves = {}, [], []
    for name, skill in methods.items():
        maps = skill * lesion * rng.uniform(0.4, 1, (count, 1, 1)) + 0.25 * rng.random(images.shape) ** 3
        maps = np.clip(np.stack([(m + np.roll(m, 1, 0) + np.roll(m, 1, 1)) / 3 for m in maps]), 0, 1)
        makes = name in counterfactual
        changed = np.clip(images - maps * 0.9, -1, 1) if makes else None
        f_x = np.where(labels, 0.9, 0.1)
        write_explanations(root / f"data/explanations/{name}", maps, changed, pd.DataFrame({
            "slice_id": index["slice_id"], "f_x": f_x, "f_x_cf": 0.1 if makes else np.nan, "steps": np.nan}),
            {"seconds": 2.0, "images": count, "seconds_per_image": 2.0 / count, "device": "CPU, 1 threads",
             "peak_memory_gb": 0.5})
        masks = (maps > 0.2).astype(np.uint8)
        folder = root / f"data/masks/{name}"
        folder.mkdir(parents=True)
        np.save(folder / "val.npy", masks)
        (folder / "thresholds.json").write_text(json.dumps({"fixed": 0.25, "otsu": 0.3, "val": 0.2, "oracle": 0.22}))
        index[["slice_id", "split"]].to_csv(folder / "index.csv", index=False)
        union = np.maximum((masks | lesion).sum((1, 2)), 1)
        iou = np.where(labels, (masks & lesion).sum((1, 2)) / union, np.nan)
        cases.append(pd.DataFrame({
            "method": name, **{key: index[key] for key in ("slice_id", "scan_id", "patient_id", "label")},
            "organ_px": 900, "lesion_px": lesion.sum((1, 2)), "iou_val": iou, "dice_val": 2 * iou / (1 + iou),
            "fp_area": np.where(labels, np.nan, masks.mean((1, 2))), "f_x": f_x,
            "f_x_cf": 0.1 if makes else np.nan,
        }))
        mean = float(np.nanmean(iou))
        metrics[name] = {
            "iou_val": mean, "iou_val_ci_low": mean * 0.9, "iou_val_ci_high": mean * 1.1, "iou_fixed": mean * 0.8,
            "iou_otsu": mean * 0.7, "iou_oracle": mean * 1.05, "dice_val": mean * 1.2, "pixel_ap": mean,
            "per_fixed": 0.1, "fp_area_healthy": float(np.nanmean(cases[-1]["fp_area"])),
            "seconds_per_image": 2.0 / count, "n_cases": int(labels.sum()),
            "n_healthy": int((~labels).sum()),
        }
        if makes:
            metrics[name] |= {"n_success_rate": 5, "success_rate": 0.9, "cv": 0.8, "judge_flip_rate": 0.7, "l1": 0.02,
                              "ssim": 0.95, "perceptual_clf": 0.125, "fd_clf": 1.5, "fd_clf_unchanged": 44.25,
                              "n_realism": 5}
            (root / "data/realism").mkdir(exist_ok=True)
            (root / f"data/realism/{name}.json").write_text(json.dumps(REALISM))
        threshold = np.linspace(0, 1, 21)
        curves.append(pd.DataFrame({"method": name, "threshold": threshold,
                                    "iou": mean * np.exp(-((threshold - 0.22) ** 2) / 0.03)}))
    reports = root / "reports"
    (reports / "curves").mkdir(parents=True)
    (reports / "metrics.json").write_text(json.dumps(metrics))
    pd.concat(cases).to_csv(reports / "cases.csv", index=False)
    pd.concat(curves).to_csv(reports / "curves/thresholds.csv", index=False)
    for role in ("classifier", "judge"):
        (reports / f"{role}.json").write_text(json.dumps(
            {"auc": 0.97, "accuracy": 0.93, "f1": 0.92, "ece": 0.04, "n": count, "n_abnormal": int(labels.sum())}))
    for model in ("classifier", "judge", "coin"):
        plots = reports / "training" / model / "plots/metrics/train"
        plots.mkdir(parents=True)
        steps = np.arange(1000)
        for value in ("loss", "auc"):
            pd.DataFrame({"step": steps, value: np.exp(-steps / 200) + 0.02 * rng.random(1000)}).to_csv(
                plots / f"{value}.tsv", sep="\t", index=False)
    pd.DataFrame({"fpr": [0, 0.1, 1], "tpr": [0, 0.9, 1]}).to_csv(reports / "training/classifier/roc.csv", index=False)
    manifest = {"counts": {"slices": count, "scans": 3},
                "left_out": [{"file": "<bad>.nii.gz", "reason": "truncated & odd"}],
                "grouped": [["a", "b"], ["c", "d"]], "nothing": []}
    for folder in ("extracted", "filtered", "slices"):
        (root / "data" / folder).mkdir(parents=True, exist_ok=True)
        (root / f"data/{folder}/manifest.json").write_text(json.dumps(manifest))
    parameters = dict.fromkeys(PARAMETERS, {}) | {
        "profile": "cpu", "dataset": "phantom", "seed": 0, "image_size": size, "generators": {"coin": {"width": 8}},
        "evaluate": {"confidence": 0.95},
        "datasets": {"phantom": {"root": "data/raw/phantom"}, "kits23": {"root": "UNUSED_BLOCK"}},
        "runtime": {"device": "auto"}, "report": REPORT | {"controls": list(controls)},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))


@pytest.fixture
def project(tmp_path, monkeypatch):
    images = np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24))
    build_project(tmp_path, images, METHODS, ("coin",), ("random",))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    return tmp_path


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_ranking_follows_each_metrics_own_direction_and_puts_missing_last():
    metrics = {"a": {"iou_val": 0.2, "l1": 0.5}, "b": {"iou_val": 0.6}, "c": {"iou_val": 0.4, "l1": 0.1}}
    assert tables.ranking(metrics, "iou_val") == ["b", "c", "a"]
    assert tables.ranking(metrics, "l1") == ["c", "a", "b"]
    assert not tables.higher_is_better("hd95_val") and not tables.higher_is_better("kid_clf")
    with pytest.raises(ValueError, match="rank_by.*'nonsense'.*iou_val"):
        tables.ranking(metrics, "nonsense")


def test_the_answer_names_a_control_never_as_winner_and_says_when_intervals_overlap():
    metrics = {"coin": {"iou_val": 0.4, "iou_val_ci_low": 0.3, "iou_val_ci_high": 0.5, "n_cases": 9},
               "centre": {"iou_val": 0.45, "iou_val_ci_low": 0.4, "iou_val_ci_high": 0.5, "n_cases": 9}}
    said = " ".join(tables.answer(metrics, "iou_val", ["centre"]))
    assert "No method beats the controls" in said and "coin: 0.400 (interval 0.300 to 0.500, n = 9)" in said
    assert "intervals overlap" in said
    metrics["coin"] |= {"iou_val": 0.9, "iou_val_ci_low": 0.8, "iou_val_ci_high": 0.95}
    said = " ".join(tables.answer(metrics, "iou_val", ["centre"]))
    assert said.startswith("coin is first of 1 methods") and "do not overlap" in said


def test_markdown_and_terminal_tables_agree_with_the_metrics():
    metrics = {"rise": {"iou_val": 0.25, "n_cases": 7}, "coin": {"iou_val": 0.5, "ssim": 0.9123456, "n_cases": 7}}
    markdown = tables.markdown_table(metrics, "iou_val", ["rise"], "the run")
    rows = [line for line in markdown.splitlines() if line.startswith("| 1 ") or line.startswith("| 2 ")]
    assert rows[0].startswith("| 1 | coin | 0.500 |") and "0.912" in rows[0]
    assert rows[1].startswith("| 2 | rise *(control)* | 0.250 |") and f"| {tables.MISSING} |" in rows[1]
    assert len({line.count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    plain = tables.plain_table(metrics, "iou_val", ["rise"]).splitlines()
    assert "coin" in plain[2] and "rise (control)" in plain[3] and len(plain) == 4


def test_report_is_one_page_without_outside_references_that_shows_every_method(project, capsys):
    report.main()
    page = (project / "reports/report.html").read_text()
    for address in re.findall(r"""(?:src|href|action|srcset)\s*=\s*["']?([^"'\s>]+)""", page):
        assert address.startswith(("data:", "#")), address
    assert not re.search(r"url\(|@import|https?://", page)
    for name in METHODS:
        assert f'id="method-{name}"' in page
    assert 'title="flipped of coin, n = 5"' in page and 'title="FP healthy of rise, n = 6"' in page
    assert page.count("control</span>") >= 2 and "upper bound" in page and "not a medical device" in page
    assert page.count('type="range"') == 3  # three cases of the one method with counterfactuals
    assert "UNUSED_BLOCK" not in page and "truncated &amp; odd" in page
    for name in ("gallery", "comparison", "thresholds", "ranking"):
        assert (project / f"reports/figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.index("coin  ") < printed.index("rise  ") and str(project / "reports/report.html") in printed
    show.main()
    assert "coin is first of 2 methods" in capsys.readouterr().out


def test_special_characters_are_escaped(project):
    report.main()
    page = (project / "reports/report.html").read_text()
    assert "Flipside &lt;b&gt;&amp; co&lt;/b&gt;" in page and "<b>& co" not in page
    assert "&lt;bad&gt;.nii.gz" in page and "<bad>" not in page
    assert "scan00&lt;&amp;&gt;_" in page and "scan00<&>" not in page


def test_same_inputs_same_bytes(project):
    def outputs() -> dict[str, bytes]:
        report.main()
        files = [Path("reports/report.html"), Path("reports/metrics.md"), *Path("reports/figures").iterdir()]
        return {str(file): file.read_bytes() for file in files}
    first = outputs()
    assert len(first) == 6 and outputs() == first


def test_missing_optional_metrics_show_a_dash_with_the_reason(project):
    def strip(content):
        for values in content.values():
            for name in ("pixel_ap", "iou_oracle", "iou_val_ci_low"):
                del values[name]
        content["rise"].pop("iou_val")
    edit_json(project / "reports/metrics.json", strip)
    report.main()
    page = (project / "reports/report.html").read_text()
    reason = "needs a counterfactual image; this method gives an attribution map only"
    assert f'title="{reason}">{tables.MISSING}</td>' in page
    assert f'title="not computed for this method in reports/metrics.json">{tables.MISSING}</td>' in page
    assert re.findall(r'<th scope="row"><a href="#method-(\w+)"', page) == ["coin", "random", "rise"]


def test_distances_that_were_not_measured_are_listed_with_the_reason_and_doubtful_ones_starred(project):
    report.main()
    page = (project / "reports/report.html").read_text()
    section = page[page.index('<section id="realism">'):page.index('<section id="classifiers">')]
    rows = {row[0]: row[1:] for row in re.findall(
        r'<th scope="row">(.*?) [↑↓]</th><td title="(.*?)">(.*?)</td><td>(.*?)</td>', section)}
    assert rows["FD clf"] == ("FD clf of coin, n = 5. 5 counterfactuals for 96 features", "1.500*", "44.250")
    assert rows["perceptual clf"][1:] == ("0.125", tables.MISSING)
    assert set(rows) == {"L1", "SSIM", "perceptual clf", "FD clf"}  # what nobody has is below
    assert "<b>FID 64, FID 64 (all slices), FID 768</b> not measured: weights fid.pth not found" in section
    assert "<b>LPIPS</b> not measured: weights lpi.pth not found" in section
    assert "<b>FD clf</b> * read with care: 5 counterfactuals for 96 features" in section
    Path("data/realism/coin.json").unlink()
    with pytest.raises(FileNotFoundError, match="data/realism/coin.json not found.*measure_realism"):
        report.main()


def test_every_distance_is_better_when_small_and_knows_its_count():
    for name in (*tables.DISTANCES, "fid_768_coin", "fd_clf_unchanged", "perceptual_clf", "lpips"):
        assert not tables.higher_is_better(name) and tables.METRICS[name].needs_counterfactual
    values = {"n_realism": 3, "n_realism_coin": 9, "n_success_rate": 4}
    counts = [tables.count(values, name) for name in ("kid", "fid_768", "fid_768_coin", "lpips")]
    assert counts == [3, 3, 9, 4]


def test_a_data_set_without_lesion_masks_is_ranked_by_the_other_metric(project):
    cases = pd.read_csv("reports/cases.csv").assign(lesion_px=0).drop(columns=["iou_val", "dice_val"])
    cases.to_csv("reports/cases.csv", index=False)
    for name in METHODS:
        Path(f"data/masks/{name}/val.npy").unlink()
    edit_json(project / "reports/metrics.json", lambda content: [
        values.pop(key) for values in content.values() for key in list(values)
        if key.startswith(("iou", "dice", "n_cases"))])
    report.main()
    assert "coin is first of 1 methods by judge flipped" in (project / "reports/report.html").read_text()


def test_artifacts_of_different_runs_are_refused(project):
    masks = np.load("data/masks/rise/val.npy")
    np.save("data/masks/rise/val.npy", masks[:-1])
    with pytest.raises(ValueError, match="data/masks/rise/val.npy has 11 masks for 12.*extract_masks@rise"):
        report.main()
    Path("data/masks/rise/val.npy").unlink()
    with pytest.raises(FileNotFoundError, match="rise/val.npy not found.*extract_masks@rise"):
        report.main()


def test_overlay_colours_and_difference_scale():
    scan = np.full((2, 2), -1.0, np.float16)
    mask, lesion = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [1, 0]])
    picture = pictures.mask_overlay(scan, mask, lesion)
    assert [int(picture[0, 0].argmax()), int(picture[0, 1].argmax())] == [1, 0]  # green hit, red false alarm
    assert picture[1, 0, 0] > 100 and picture[1, 0, 1] > 100 and picture[1, 0, 2] < 60  # yellow miss
    assert picture[1, 1].tolist() == [0, 0, 0]
    unchanged, darker = pictures.difference(scan, scan), pictures.difference(np.ones((2, 2)), scan)
    assert unchanged.max() < 40 and (darker[..., 2] > darker[..., 0]).all()


def test_best_median_and_worst_are_the_right_slices_with_stable_ties():
    scores = pd.Series({"d": 0.1, "a": 0.9, "c": 0.5, "b": 0.5, "e": 0.0})
    assert pictures.spread_cases(scores, 3) == [("best", "a"), ("median", "c"), ("worst", "e")]
    assert pictures.spread_cases(scores.iloc[::-1], 3) == pictures.spread_cases(scores, 3)
    assert pictures.spread_cases(scores.iloc[:0], 3) == []


def test_long_curves_are_thinned_to_means():
    table = pd.DataFrame({"step": np.arange(3000.0), "loss": np.tile([0.0, 1.0], 1500)})
    thinned = charts.thin(table)
    assert len(thinned) == 300 and np.allclose(thinned["loss"], 0.5)


def test_report_params_refuse_an_unknown_policy():
    with pytest.raises(ValueError, match="policy"):
        ReportParams.model_validate(REPORT | {"policy": "best"})


def test_a_distance_that_one_method_lacks_says_why(project):
    edit_json(project / "reports/metrics.json", lambda content: content["rise"].update(lpips=0.5))
    report.main()
    page = (project / "reports/report.html").read_text()
    assert f'title="not measured: weights lpi.pth not found">{tables.MISSING}</td>' in page
