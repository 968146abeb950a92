"""What a step sees: pairs by height, everything at its row, nothing that depends on more than seed and step."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from flipside.core.runtime import Runtime, RuntimeParams, generator_for
from flipside.core.store import INDEX_COLUMNS, SliceStore, write_store
from flipside.generators.base.data import TrainingSlices, draw_pairs
from tests.generators.toys import COUNT, BlobClassifier, slices, toy_data

HEIGHTS = torch.tensor([0.05, 0.95, 0.00, 0.08, 0.99, 0.50])
LABELS = torch.tensor([True, True, False, False, False, True])


def data_with(heights=HEIGHTS, labels=LABELS):
    data = toy_data()
    return dataclasses.replace(data, images=data.images[: len(labels)], organ=data.organ[: len(labels)], labels=labels,
                               heights=heights)


def pairs(data, bins=10, draws=200):
    return draw_pairs(data, draws, bins, generator_for(0))


def test_partners_are_healthy_and_of_the_same_height_bin():
    rows, partners = pairs(data_with())
    seen = {row: set(partners[rows == row].tolist()) for row in set(rows.tolist())}
    assert seen[0] == {2, 3}  # both healthy slices of the lowest bin
    assert seen[1] == {4}
    assert seen[5] == {4}  # nobody at half height: the bins at a distance of 4 and 5, so the nearer


def test_finer_bins_part_what_coarse_ones_join():
    rows, partners = pairs(data_with(), bins=50)  # 0.05, 0.00 and 0.08 are in the bins 2, 0 and 4: both equally near
    assert set(partners[rows == 0].tolist()) == {2, 3}
    rows, partners = pairs(data_with(heights=HEIGHTS.index_fill(0, torch.tensor([2]), 0.04)), bins=50)
    assert set(partners[rows == 0].tolist()) == {2}


def test_pairs_depend_on_the_generator_alone():
    first, again = pairs(data_with()), pairs(data_with())
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


@pytest.mark.parametrize(("label", "counts"), [(True, "6 abnormal and 0 healthy"), (False, "0 abnormal and 6 healthy")])
def test_pairing_refuses_a_split_of_one_label_with_counts(label, counts):
    with pytest.raises(ValueError, match=counts):
        pairs(data_with(labels=torch.full((6,), label)))


def test_a_batch_holds_what_belongs_to_its_rows():
    data, rows = toy_data(), torch.tensor([4, 1, 4])
    batch = data.batch(rows, generator_for(1))
    torch.testing.assert_close(batch.images[:, 0], slices()[rows])
    torch.testing.assert_close(data.images_at(rows), batch.images)
    torch.testing.assert_close(batch.logits, BlobClassifier()(slices()[rows][:, None]))
    features = BlobClassifier().pooled(BlobClassifier().features(slices()[:, None]))
    torch.testing.assert_close(data.features, features)
    assert batch.organ.dtype == torch.bool and batch.organ.shape == batch.images.shape
    assert batch.organ[:, :, :8].all() and not batch.organ[:, :, 8:].any()
    assert batch.uniform.min() >= 0 and batch.uniform.max() < 1 and len(batch.uniform.unique()) == 3


def test_a_batch_asks_the_classifier_for_no_features():
    class Plain(torch.nn.Module):  # a classifier that could not give any
        def forward(self, images):
            return images.mean(dim=(1, 2, 3))

    assert toy_data(Plain()).batch(torch.tensor([0]), generator_for(0)).images.shape == (1, 1, 16, 16)


def test_the_classifier_is_asked_once():
    asked = []

    class Counting(BlobClassifier):
        def forward(self, images):
            asked.append(len(images))
            return super().forward(images)

    data = toy_data(Counting())
    for step in range(3):
        data.batch(torch.tensor([step]), generator_for(step))
    assert asked == [COUNT]


def test_training_slices_are_the_training_split_alone(tmp_path):
    count = 9
    index = pd.DataFrame({column: [0] * count for column in INDEX_COLUMNS}).assign(
        slice_id=[f"s{i}" for i in range(count)], split=["train", "val", "test"] * 3, label=[1, 0, 1, 0, 1, 0, 1, 0, 1],
        relative_height=np.linspace(0, 1, count))
    images = np.linspace(-1, 1, count)[:, None, None] * np.ones((count, 16, 16))
    write_store(tmp_path / "slices", images, np.ones(images.shape), index)
    data = TrainingSlices.from_store(SliceStore.open(tmp_path / "slices"), BlobClassifier(),
                                     Runtime(RuntimeParams(device="cpu", threads=1)))
    assert data.images[:, 0, 0].tolist() == [-1.0, -0.25, 0.5]
    assert data.labels.tolist() == [True, False, True]
    assert data.heights.tolist() == pytest.approx([0, 3 / 8, 6 / 8])
