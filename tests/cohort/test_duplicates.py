import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from flipside.cohort import duplicates
from flipside.cohort.duplicates import (
    drop_copies,
    find_identical,
    near_identical_pairs,
    patient_groups,
    perceptual_hashes,
)

DISTANCE = 24


def smooth(count: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(count, 64, 64))
    return np.stack([ndimage.gaussian_filter(image, 4) for image in noise]).astype(np.float32) * 1000


def pairs_of(images: np.ndarray, patients: list[str], distance: int = DISTANCE) -> set[tuple[int, int]]:
    hashes, informative = perceptual_hashes(images, np.arange(len(images)))
    assert informative.all()
    return set(map(tuple, near_identical_pairs(hashes, np.array(patients), distance).tolist()))


def test_one_copy_stays_and_conflicting_labels_lose_all():
    sha256 = np.array(["a", "b", "a", "c", "b", "a", "d"])
    labels = np.array([0, 0, 0, 1, 1, 0, 1])
    found = find_identical(sha256, labels, np.array([""] * 7))
    assert found.extra.tolist() == [2, 5]
    assert found.conflicting.tolist() == [1, 4]
    assert {tuple(group) for group in found.groups} == {(0, 2, 5), (1, 4)}


def test_a_copy_in_the_given_test_part_is_the_one_that_stays():
    found = find_identical(np.array(["a", "a", "a"]), np.zeros(3, int), np.array(["train", "train", "test"]))
    assert found.extra.tolist() == [0, 1]


def test_brightness_contrast_and_noise_leave_an_image_near_identical():
    images = smooth(6)
    noisy = images[2] + np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    together = np.concatenate([images, [images[0] * 3 + 200, noisy]])
    assert pairs_of(together, [str(number) for number in range(8)]) == {(0, 6), (2, 7)}


def test_slices_of_one_patient_are_never_compared():
    images = smooth(2)
    copies = np.concatenate([images, images])
    assert pairs_of(copies, ["a", "b", "a", "b"]) == set()
    assert pairs_of(copies, ["a", "b", "c", "d"]) == {(0, 2), (1, 3)}


@pytest.mark.parametrize("distance", [0, 6, 24, 60])
@pytest.mark.parametrize("alike", [False, True])
def test_pairs_are_those_of_a_comparison_of_all_with_all(distance, alike, monkeypatch):
    monkeypatch.setattr(duplicates, "CANDIDATES", 100)
    generator = np.random.default_rng(distance)
    base = generator.integers(0, 2**63, (3 if alike else 40, 4), dtype=np.uint64)
    bits = np.unpackbits(base[generator.integers(0, len(base), 400)].view(np.uint8), axis=1)
    for row in bits:  # up to as many changed as lie just beyond the distance from another's
        row[generator.permutation(256)[:generator.integers(0, distance // 2 + 3)]] ^= 1
    patients = generator.integers(0, 50, len(bits)).astype(str)
    far = (bits[:, None] != bits[None]).sum(axis=2)  # (N,N)
    slow = np.argwhere(np.triu((far <= distance) & (patients[:, None] != patients[None]), 1))
    assert len(slow) > 100 and (far == distance).any() and (far == distance + 1).any()
    assert near_identical_pairs(np.packbits(bits, axis=1).view(np.uint64), patients, distance).tolist() == slow.tolist()


def test_patients_are_grouped_through_others():
    patients = np.array(["a", "b", "b", "c", "d"])
    groups = patient_groups(patients, np.array([[0, 1], [2, 3]]))
    assert groups["a"] == groups["b"] == groups["c"] != groups["d"]
    assert len(set(patient_groups(patients, np.empty((0, 2), int)).values())) == 4


def test_a_blank_image_is_not_evidence():
    images = np.concatenate([smooth(1), np.full((2, 64, 64), -1000, np.float32)])
    assert perceptual_hashes(images, np.arange(3))[1].tolist() == [True, False, False]


def real(folder: str) -> Path:
    root = os.environ.get("FLIPSIDE_TEST_DATA")
    if not root or not (Path(root) / folder).is_dir():
        pytest.skip(f"FLIPSIDE_TEST_DATA is not set or has no {folder}")
    return Path(root) / folder


def grey(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("L").resize((64, 64), Image.BILINEAR), np.float32)


def test_abdominal_ct_slices_of_different_patients_are_not_taken_for_copies():
    files = sorted((real("curvas") / "images").glob("*.png"))
    images = np.stack([grey(file) for file in files])
    assert pairs_of(images, [file.name.split("_")[0] for file in files]) == set()


def test_the_leaks_of_the_brain_mri_set_are_found():
    files = sorted(real("brain_mri").glob("*/*/*.jpg"))
    sha256 = np.array([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    part = np.array([file.parts[-3] for file in files])
    label = np.array([int(file.parts[-2] == "meningioma") for file in files])
    identical = find_identical(sha256, label, part)
    assert sum(len(set(part[group])) == 2 for group in identical.groups) == 157
    assert not len(identical.conflicting)

    stay = np.setdiff1d(np.arange(len(files)), identical.extra)
    images = np.stack([grey(files[row]) for row in stay])
    pairs = pairs_of(images, [str(files[row]) for row in stay])
    groups = patient_groups(stay.astype(str), np.array(sorted(pairs)))
    sizes = np.bincount(list(groups.values()))
    assert 100 < (sizes > 1).sum() < 180 and sizes.max() < 20  # copies are found, and the set doesn't collapse into one


def test_blank_slices_tie_no_patients_together():
    images = smooth(4)
    images[1], images[3] = 0, 0  # beyond the brain
    index = pd.DataFrame({"slice_id": list("abcd"), "patient_id": ["p", "p", "q", "q"], "source_file": list("abcd"),
                          "sha256": ["1", "0", "2", "0"]})
    rows, labels, given = np.arange(4), np.zeros(4, int), np.array([""] * 4)
    assert drop_copies(images, index, rows, labels, given, DISTANCE).groups == {"p": 0, "q": 1}
    images[[1, 3]] = smooth(1, 9)
    assert drop_copies(images, index, rows, labels, given, DISTANCE).groups == {"p": 0, "q": 0}
