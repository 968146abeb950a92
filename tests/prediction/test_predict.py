"""`flipside predict` on new volumes and pictures: grids, numbers, faults, what is made again."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image
from typer.testing import CliRunner

from flipside.cli import app
from flipside.cli.predict import predict as predict_command
from flipside.prediction import outputs
from flipside.prediction import predict as prediction
from tests.killed import dies_at
from tests.prediction.conftest import CT_AFFINE, NIFTI, body, write_run
from tests.scans.scans_fixture import write_nifti
from tests.scans.test_second_opinion import affine_of

VOLUME_FILES = {"mask.nii.gz", "attribution.nii.gz", "counterfactual.nii.gz", "prediction.json", "slices.csv",
                "thumbnail.jpg"}


def call(*arguments, fails=False):
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == int(fails), result.output
    return result.output


def table_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "predictions.csv").set_index("scan")


def everything(out: Path) -> dict:
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def test_volumes_come_back_on_their_own_grid_in_a_second_reader(run, scans, tmp_path):
    out = tmp_path / "out"
    call(scans, "-o", out, "--run", run, "--method", "intensity")
    table = table_of(out)
    assert sorted(table.index) == ["case0", "case1", "case2"] and (table["status"] == "done").all()
    for name, shape in (("case0", (40, 36, 10)), ("case1", (30, 44, 7)), ("case2", (52, 52, 12))):
        for kind in ("mask", "attribution"):
            image = sitk.ReadImage(str(out / name / f"{kind}.nii.gz"))
            source = sitk.ReadImage(str(scans / f"{name}.nii.gz"))
            assert image.GetSize() == shape
            np.testing.assert_allclose(affine_of(image), affine_of(source), atol=1e-5)
        # The bright rod and nothing else: SimpleITK sees it where it lies in the scan.
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(out / name / "mask.nii.gz")))
        hounsfield = sitk.GetArrayFromImage(sitk.ReadImage(str(scans / f"{name}.nii.gz")))
        both = (mask > 0) & (hounsfield > 200)
        assert both.sum() / ((mask > 0) | (hounsfield > 200)).sum() > 0.6
        assert table.loc[name, "lesion_mm3"] == pytest.approx(mask.sum() * 0.9 * 0.8 * 2.5, rel=1e-4)
        assert table.loc[name, "largest_component_mm3"] == table.loc[name, "lesion_mm3"]
        slices = pd.read_csv(out / name / "slices.csv")
        assert slices["z"].tolist() == list(range(shape[2]))
        assert slices["probability"].max() == pytest.approx(table.loc[name, "probability"], rel=1e-5)
        assert (slices["marked_px"] > 0).sum() == table.loc[name, "slices_marked"]


def test_attributions_are_interpolated_before_they_are_cut(tmp_path):
    """At 16 pixels for 128 the outline of a disc has no steps of 8 pixels."""
    run = write_run(tmp_path / "run", size=16)
    y, x = np.indices((128, 128))
    disc = (x - 60) ** 2 + (y - 66) ** 2 <= 30**2
    write_nifti(tmp_path / "disc.nii.gz", np.where(disc, 290, 0)[..., None].astype(np.int16), np.diag([1.0, 1, 3, 1]))
    call(tmp_path / "disc.nii.gz", "-o", tmp_path / "out", "--run", run, "--method", "intensity")
    mask = np.asarray(nib.load(tmp_path / "out/disc/mask.nii.gz").dataobj)[..., 0] > 0
    assert (mask & disc).sum() / (mask | disc).sum() > 0.75  # cut above the middle
    edges = np.concatenate([np.flatnonzero(np.diff(row.astype(int))) for row in mask if row.any()])
    assert len(np.unique(edges % 8)) == 8  # blocks would have all their edges at one place of eight
    attribution = nib.load(tmp_path / "out/disc/attribution.nii.gz").get_fdata()
    assert 0 <= attribution.min() and attribution.max() <= 1


def test_the_counterfactual_is_the_scan_where_nothing_changed(run, scans, tmp_path):
    call(scans / "case0.nii.gz", "-o", tmp_path / "out", "--run", run)  # coin is the run's best
    assert set(everything(tmp_path / "out/case0")) == VOLUME_FILES
    scan, made = nib.load(scans / "case0.nii.gz"), nib.load(tmp_path / "out/case0/counterfactual.nii.gz")
    assert made.get_data_dtype() == scan.get_data_dtype() and made.shape == scan.shape
    change = made.get_fdata() - scan.get_fdata()
    attribution = nib.load(tmp_path / "out/case0/attribution.nii.gz").get_fdata()
    assert np.abs(change).max() > 1
    # Half the change in the models' range is the attribution; the window is 400 HU wide, rounding half a unit.
    np.testing.assert_array_less(np.abs(change), attribution * 400 + 1.5)


def test_pictures_become_pictures_of_their_size(tmp_path):
    block = {"layout": "class_folders", "root": "data/raw/mine", "image": "{class}/{case}.png",
             "classes": {"healthy": 0, "ill": 1}}
    run = write_run(tmp_path / "run", block, "per_scan")
    new = tmp_path / "new"
    (new / "b").mkdir(parents=True)
    grey = np.random.default_rng(0).integers(0, 90, (50, 70)).astype(np.uint8)
    grey[10:25, 30:50] = 240
    Image.fromarray(grey).save(new / "one.png")
    Image.fromarray(grey[:, ::-1].astype(np.uint16) * 100).save(new / "b/deep.png")
    call(new, "-o", tmp_path / "out", "--run", run, "--method", "coin")
    for name, source in (("one", new / "one.png"), ("b_deep", new / "b/deep.png")):
        files = {kind: np.asarray(Image.open(tmp_path / f"out/{name}/{kind}.png"))
                 for kind in ("mask", "attribution", "counterfactual")}
        assert {array.shape for array in files.values()} == {(50, 70)}
        assert files["mask"].dtype == np.uint8 and set(np.unique(files["mask"])) <= {0, 255}
        assert files["counterfactual"].dtype == np.asarray(Image.open(source)).dtype
    table = table_of(tmp_path / "out")
    assert table["lesion_mm3"].isna().all() and table["lesion_px"].notna().all()


def test_colours_stay_colours(tmp_path):
    block = {"layout": "class_folders", "root": "x", "image": "{class}/{case}.png", "colour": "rgb",
             "classes": {"healthy": 0, "ill": 1}}
    run = write_run(tmp_path / "run", block, "per_scan", ("red", "green", "blue"))
    picture = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "c.png")
    call(tmp_path / "c.png", "-o", tmp_path / "out", "--run", run, "--method", "coin")
    made = np.asarray(Image.open(tmp_path / "out/c/counterfactual.png"))
    assert made.shape == picture.shape and made.dtype == np.uint8
    assert 0 < np.abs(made.astype(int) - picture).mean() < 40


def test_one_bad_file_of_many_is_listed_and_the_rest_goes_on(run, scans, tmp_path):
    (scans / "broken.nii.gz").write_bytes((scans / "case0.nii.gz").read_bytes()[:500])
    write_nifti(scans / "blank.nii.gz", np.full((8, 8, 3), np.nan, np.float32), np.eye(4))
    output = call(scans, "-o", tmp_path / "out", "--run", run, "--method", "intensity", fails=True)
    table = table_of(tmp_path / "out")
    assert len(table) == 5 and (table["status"] == "done").sum() == 3
    assert "can't be decoded" in table.loc["broken", "status"]
    assert "NaN" in table.loc["blank", "status"] and "2 failed" in output
    page = (tmp_path / "out/index.html").read_text()
    assert "broken.nii.gz" in page and "2 scans could not be predicted" in page


def test_killed_and_resumed_it_gives_the_same_bytes_and_no_scan_twice(run, scans, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    call(scans, "-o", whole, "--run", run)
    with dies_at(2, outputs, "draw_thumbnail"):
        predict_command([scans], halves, run)
    assert [folder.name for folder in sorted(halves.iterdir()) if folder.is_dir()] == ["case0"]
    written = (halves / "case0/mask.nii.gz").stat().st_mtime_ns
    with pytest.raises(ValueError, match="go on with --resume"):
        call(scans, "-o", halves, "--run", run)
    call(scans, "-o", halves, "--run", run, "--resume")
    assert everything(halves) == everything(whole)
    assert (halves / "case0/mask.nii.gz").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="another method: 'coin', now 'intensity'"):
        call(scans, "-o", halves, "--run", run, "--resume", "--method", "intensity")
    call(scans / "case1.nii.gz", "-o", halves, "--run", run, "--overwrite", "--method", "intensity")
    assert table_of(halves).index.tolist() == ["case1"] and not (halves / "case0").exists()


def test_results_among_the_scans_are_no_scans_and_half_written_ones_no_results(run, scans, tmp_path):
    call(scans, "-o", scans / "out", "--run", run, "--method", "intensity")
    shutil.copytree(scans / "out/case0", scans / "out/.case9.partial")  # as kill -9 just before the renaming
    call(scans, "-o", scans / "out", "--run", run, "--method", "intensity", "--resume")
    assert sorted(table_of(scans / "out").index) == ["case0", "case1", "case2"]


def test_a_folder_with_something_else_is_never_emptied(run, scans, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("Jane")
    with pytest.raises(ValueError, match="isn't empty and holds no predictions"):
        call(scans, "-o", tmp_path / "letters", "--run", run, "--overwrite")
    assert (tmp_path / "letters/dear.txt").read_text() == "Jane"


def test_batches_are_shared_by_scans_and_change_no_answer(scans, tmp_path):
    small, large = write_run(tmp_path / "a", batch_size=3), write_run(tmp_path / "b", batch_size=16)
    sizes = []
    original = prediction._explain_batch

    def counted(waiting, explainer):
        sizes.append(min(sum(one.left for one in waiting), explainer.batch_size))
        original(waiting, explainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "_explain_batch", counted)
        call(scans, "-o", tmp_path / "small", "--run", small)
        assert sizes == [3] * 9 + [2]  # 29 slices
        call(scans, "-o", tmp_path / "large", "--run", large)
    assert sizes[10:] == [16, 13]
    for name in ("case0", "case2"):
        ours, theirs = (nib.load(tmp_path / f"{out}/{name}/attribution.nii.gz").get_fdata()
                        for out in ("small", "large"))
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_a_table_gives_organs_and_channels_and_its_labels_are_not_looked_at(tmp_path):
    block = NIFTI | {"image": ["{case}/{case}_t1.nii.gz", "{case}/{case}_t2.nii.gz"]}
    run = write_run(tmp_path / "run", block, "per_scan", ("t1", "t2"))
    new = tmp_path / "new"
    for name in ("a", "b"):
        for channel in ("t1", "t2"):
            write_nifti(new / f"{name}/{name}_{channel}.nii.gz", body(seed=len(channel)), CT_AFFINE)
    organ = np.zeros((40, 36, 10), np.uint8)
    organ[8:30, 8:30, 3:7] = 1
    write_nifti(new / "b/organ.nii.gz", organ, CT_AFFINE)
    (new / "list.csv").write_text("path,t2,label,mask,organ\n"
                                  "a/a_t1.nii.gz,a/a_t2.nii.gz,nonsense,gone.nii.gz,\n"
                                  "b/b_t1.nii.gz,b/b_t2.nii.gz,,,b/organ.nii.gz\n"
                                  "c/c_t1.nii.gz,c/c_t2.nii.gz,,,\n")
    call("--table", new / "list.csv", "-o", tmp_path / "out", "--run", run, "--method", "coin", fails=True)
    table = table_of(tmp_path / "out")
    assert table.loc["a_a_t1", "slices"] == 10 and table.loc["b_b_t1", "slices"] == 4
    assert "not found" in table.loc["c_c_t1", "status"]
    assert {"counterfactual_t1.nii.gz", "counterfactual_t2.nii.gz"} <= set(everything(tmp_path / "out/a_a_t1"))
    shutil.rmtree(tmp_path / "out")
    call(new, "-o", tmp_path / "out", "--run", run, "--method", "coin")  # the folder lies as the run's own data set
    assert sorted(table_of(tmp_path / "out").index) == ["a", "b"]


def test_organ_labels_choose_the_slices_and_missing_ones_are_said(tmp_path):
    block = NIFTI | {"organ": {"files": ["{case}/organ.nii.gz"], "values": [1]}, "patient": "^(.)"}
    run, new = write_run(tmp_path / "run", block), tmp_path / "new"
    organ = np.zeros((40, 36, 10), np.uint8)
    organ[8:30, 8:30, 3:7] = 1
    for name, labels in (("with", organ), ("without", None), ("none", organ * 0)):
        write_nifti(new / name / "scan.nii.gz", body(), CT_AFFINE)
        if labels is not None:
            write_nifti(new / name / "organ.nii.gz", labels, CT_AFFINE)
    call(new, "-o", tmp_path / "out", "--run", run, "--method", "intensity", fails=True)
    table = table_of(tmp_path / "out")
    assert table.loc["with", "slices"] == 4 and table.loc["without", "slices"] == 10
    assert "organ labels not used" in table.loc["without", "warnings"]
    assert "no organ in any slice" in table.loc["none", "status"]


def test_a_scan_of_another_modality_is_warned_about(run, scans, tmp_path):
    index = "slice_id,scan_id,split\n" + "".join(f"s{k},s{k},train\n" for k in range(5))
    (run / "data/filtered/index.csv").write_text(index)
    (run / "data/extracted").mkdir()
    samples = {f"s{k}": np.random.default_rng(k).normal(40, 8, 500).astype(np.float32) for k in range(5)}
    for values in samples.values():
        values[:60] = 290
    np.savez(run / "data/extracted/foreground.npz", **samples)
    magnetic = np.random.default_rng(9).gamma(2, 200, (30, 30, 6)).astype(np.int16)
    write_nifti(scans / "mr.nii.gz", magnetic, CT_AFFINE)
    call(scans, "-o", tmp_path / "out", "--run", run, "--method", "intensity")
    warnings = table_of(tmp_path / "out")["warnings"].fillna("")
    assert "intensity unlike the training scans" in warnings["mr"] and warnings["case0"] == ""
    assert "no pixel is as dark as air: the lowest value is " in warnings["mr"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--method", "octet"], "octet searches among the latent codes.*choose one of coin, gradient, intensity"),
    (["--method", "magic"], "no method 'magic'; choose one of: coin"),
])
def test_methods_that_cannot_explain_new_scans_are_refused(run, scans, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        call(scans, "-o", tmp_path / "out", "--run", run, *arguments)
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_and_no_scan_is_named(run, scans, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a finished run"):
        call(scans, "-o", tmp_path / "out", "--run", scans)
    with pytest.raises(ValueError, match="gone not found"):
        call(tmp_path / "gone", "-o", tmp_path / "out", "--run", run)
    with pytest.raises(ValueError, match="no scan found"):
        (tmp_path / "empty").mkdir()
        call(tmp_path / "empty", "-o", tmp_path / "out", "--run", run)


def test_equal_names_stay_apart_whatever_else_is_named(run, scans, tmp_path):
    first, second = tmp_path / "p1/ct.nii.gz", tmp_path / "p2/ct.nii.gz"
    for path in (first, second):
        path.parent.mkdir()
        shutil.copy(scans / "case0.nii.gz", path)
    call(first, second, "-o", tmp_path / "out", "--run", run, "--method", "intensity")
    names = table_of(tmp_path / "out").index
    assert len(names) == 2 and all(re.fullmatch("ct_[0-9a-f]{6}", name) for name in names)


def test_the_page_shows_every_scan_and_needs_no_network(run, scans, tmp_path):
    call(scans, "-o", tmp_path / "out", "--run", run, "--method", "intensity")
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 and "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    for link in re.findall(r'href="([^"]+)"', page):
        assert (tmp_path / "out" / link).is_file()
    table = table_of(tmp_path / "out")
    assert f"<strong>{(table['called'] == 'abnormal').sum()} called abnormal</strong>" in page
    assert 'href="predictions.csv"' in page and "0\nfailed" in page
    order = [page.index(f"<strong>{name}</strong>") for name in table.index]
    assert order == sorted(order)  # as the table, by probability
    content = json.loads((tmp_path / "out/case0/prediction.json").read_text())
    thumbnail = np.asarray(Image.open(tmp_path / "out/case0/thumbnail.jpg"))
    assert content["row"]["worst_z"] in range(10) and max(thumbnail.shape) <= 224


def test_a_volume_is_cleaned_as_the_parameters_say(scans, tmp_path):
    volumes = {"vote_slices": 1, "fill_holes": True, "components": "all", "least_mm3": 1e6}
    run = write_run(tmp_path / "run", volumes=volumes)
    call(scans / "case0.nii.gz", "-o", tmp_path / "out", "--run", run, "--method", "intensity")
    assert not np.asarray(nib.load(tmp_path / "out/case0/mask.nii.gz").dataobj).any()
    assert table_of(tmp_path / "out").loc["case0", "slices_marked"] == 0


def test_memory_does_not_grow_with_the_number_of_scans(run, tmp_path):
    """Of the slices of all scans only those of a few are alive at any time."""
    for number in range(12):
        write_nifti(tmp_path / f"new/s{number}.nii.gz", body((20, 20, 5), number), CT_AFFINE)
    alive, most = [], []
    original, written = prediction.prepare, prediction.write_prediction

    def preparing(*arguments):
        alive.append(1)
        most.append(len(alive))
        return original(*arguments)

    def writing(*arguments):
        written(*arguments)
        alive.pop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "prepare", preparing)
        patch.setattr(prediction, "write_prediction", writing)
        call(tmp_path / "new", "-o", tmp_path / "out", "--run", run, "--method", "intensity")
    assert max(most) <= 5 and not alive
