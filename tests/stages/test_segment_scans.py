import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from flipside.artifacts.explanations import write_explanations
from flipside.core.files import write_json
from flipside.core.packed_masks import write_packed
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.scans.geometry import Geometry, to_slices
from flipside.scans.pixels import resize_nearest
from stages import segment_scans

SIZE = 16
OBLIQUE = np.array([[-0.8, 0.1, 0, 30], [0.1, 0.8, 0.2, -20], [0, -0.1, 3, 5], [0, 0, 0, 1]], float)
VOLUME = Geometry.of_volume((SIZE, SIZE, 5), OBLIQUE)
REVERSED = Geometry.of_volume(
    (5, SIZE * 2, SIZE), np.array([[0, 0, 1.5, 0], [0, -0.5, 0, 0], [-4, 0, 0, 0], [0, 0, 0, 1]]))


def write_project(scans, draws=1, policy="label_free", method="coin"):
    """A project whose test scans have the given geometries and slice numbers, with random masks."""
    Path("params.yaml").write_text(yaml.safe_dump({
        "methods": {"coin": {}}, "foreign_maps": {}, "segment_scans": {"method": method, "policy": policy, "volumes": {
            "vote_slices": 1, "fill_holes": False, "components": "all", "least_mm3": 0.0}}}))
    rows = [(f"{scan_id}:{z}" + (f":d{draw}" if draws > 1 else ""), draw, scan_id, z)
            for scan_id, (_, numbers) in scans.items() for z in numbers for draw in range(draws)]
    index = pd.DataFrame(rows, columns=["slice_id", "draw", "scan_id", "z"]).reindex(columns=INDEX_COLUMNS).assign(
        split="test", label=1)
    train = index.iloc[:1].assign(slice_id="train:0", scan_id="train", split="train")
    index = pd.concat([train, index], ignore_index=True)
    images = np.zeros((len(index), SIZE, SIZE))
    write_store("data/slices", images, images, index)
    Path("data/extracted").mkdir()
    pd.DataFrame({"scan_id": list(scans), "geometry": [geometry.to_json() for geometry, _ in scans.values()]}).to_csv(
        "data/extracted/scans.csv", index=False)
    folder = Path("data/masks/coin")
    folder.mkdir(parents=True)
    order = index.iloc[:0:-1]  # another order than the store's
    order[["slice_id", "split"]].to_csv(folder / "index.csv", index=False)
    masks = np.random.default_rng(0).integers(0, 2, (len(order), SIZE, SIZE)).astype(np.uint8)
    write_packed(folder / "label_free.npy", masks)
    write_json(folder / "thresholds.json", {"label_free": 0.5, "fixed": 0.25})
    write_json(folder / "parameters.json", {})
    write_explanations("data/explanations/coin", masks, None, order[["slice_id"]].assign(f_x=0.9), {})
    return dict(zip(order["slice_id"], masks, strict=True))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segment_scans"])


def test_masks_come_back_on_the_scans_own_grid_and_affine(project):
    masks = write_project({"case/1": (VOLUME, [1, 3]), "case_2": (REVERSED, [0, 4])})
    segment_scans.main()
    first, second = nibabel.load("data/segmentations/case_1.nii.gz"), nibabel.load("data/segmentations/case_2.nii.gz")
    for image, geometry in ((first, VOLUME), (second, REVERSED)):
        assert image.shape == geometry.shape and image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, geometry.affine, atol=1e-5)
    shown = to_slices(np.asarray(first.dataobj), VOLUME)
    np.testing.assert_array_equal(shown[1], masks["case/1:1"])
    np.testing.assert_array_equal(shown[3], masks["case/1:3"])
    assert not shown[[0, 2, 4]].any()
    shown = to_slices(np.asarray(second.dataobj), REVERSED)
    # 16 mm x 24 mm: 11 rows of 16 show the scan, so that a pixel is as high as wide.
    np.testing.assert_array_equal(shown[4], resize_nearest(masks["case_2:4"][2:13], 2 * SIZE, SIZE))
    assert not shown[1:4].any()
    index = pd.read_csv("data/segmentations/index.csv").set_index("scan_id")
    assert index.loc["case/1", "marked_voxels"] == masks["case/1:1"].sum() + masks["case/1:3"].sum()
    assert index.loc["case_2", "marked_mm3"] == pytest.approx(index.loc["case_2", "marked_voxels"] * 4 * 0.5 * 1.5)
    assert not Path("data/segmentations/train.nii.gz").exists()


def test_images_become_png_of_their_own_size(project):
    masks = write_project({"xray": (Geometry.of_image(48, 32), [0])})
    segment_scans.main()
    written = np.array(Image.open("data/segmentations/xray.png"))
    np.testing.assert_array_equal(written, resize_nearest(masks["xray:0"][:, 2:13], 48, 32) * 255)


def test_of_several_draws_the_first_is_placed(project, capsys):
    masks = write_project({"case": (VOLUME, [2, 4])}, draws=12)
    segment_scans.main()
    shown = to_slices(np.asarray(nibabel.load("data/segmentations/case.nii.gz").dataobj), VOLUME)
    np.testing.assert_array_equal(shown[2], masks["case:2:d0"])
    np.testing.assert_array_equal(shown[4], masks["case:4:d0"])
    assert "draw 0 is placed, 22 others" in capsys.readouterr().out


def test_two_scans_never_share_a_file(project):
    write_project({"case/1": (VOLUME, [1]), "case:1": (VOLUME, [1])})
    with pytest.raises(ValueError, match="same file name"):
        segment_scans.main()
    assert not Path("data/segmentations").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"policy": "otsu"}, "no threshold of the policy otsu; there are: fixed, label_free"),
    ({"method": "magic"}, "segment_scans.method` is 'magic'.*coin"),
])
def test_a_choice_that_is_not_there_is_named(project, arguments, message):
    write_project({"case": (VOLUME, [1])}, **arguments)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        segment_scans.main()


def test_a_scan_of_unknown_geometry_is_named(project):
    write_project({"case": (VOLUME, [1])})
    pd.DataFrame({"scan_id": ["other"], "geometry": [VOLUME.to_json()]}).to_csv("data/extracted/scans.csv", index=False)
    with pytest.raises(ValueError, match="lacks 1 scans.*case"):
        segment_scans.main()
