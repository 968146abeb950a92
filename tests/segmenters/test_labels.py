"""Pseudo-masks: two cuts, and the check that filling one lowers the logit more than filling elsewhere does."""

import pydantic
import pytest
import torch

from flipside.generators.flip_mask import MaskNetwork
from flipside.segmenters.labels import PseudoMaskParams, cut, describe, pseudo_labels, verified
from tests.generators.toys import BlobClassifier, slices, toy_data

TRANSPLANTS = {"share": 0.0, "contrast": [1.0, 1.0], "dark": 0.0, "shift": 0.0, "scale": 0.0, "rotate_degrees": 0.0}
PSEUDO = {"cuts": [0.3, 0.6], "morphology": [], "verify": True, "transplants": TRANSPLANTS, "rounds": 1}


class Filler(MaskNetwork):
    """Content that is grey all over."""

    def __init__(self):
        super().__init__([8])

    def parts(self, images):
        return (images > 0.5).float(), torch.full_like(images, -0.3)


def params(**changes):
    return PseudoMaskParams(**PSEUDO | changes)


def blobs(images):
    """What a good mask network would say."""
    return (images > 0.5).float() * 0.9


def test_pixels_between_the_cuts_are_ignored():
    probability = torch.tensor([[[0.1, 0.4, 0.7]]])
    lesion, ignored = cut(probability, (0.3, 0.6), [])
    assert lesion.tolist() == [[[False, False, True]]] and ignored.tolist() == [[[False, True, False]]]


def test_either_cut_is_cleaned():
    probability = torch.zeros(1, 12, 12)
    probability[0, 1:5, 1:5], probability[0, 9, 9], probability[0, 5, 1:5] = 0.9, 0.9, 0.4
    lesion, ignored = cut(probability, (0.3, 0.6), ["open", "largest_component"])
    assert lesion.sum() == 16 and not lesion[0, 9, 9]  # the speck is gone
    assert ignored.sum() == 4 and ignored[0, 5, 1:5].all()


def test_a_mask_is_kept_only_where_filling_it_lowers_the_logit_and_filling_elsewhere_does_not():
    images = torch.full((4, 1, 16, 16), -0.3)
    images[:3, :, 4:8, 2:6] = 0.9
    masks = torch.zeros_like(images)
    masks[0, :, 4:8, 2:6] = 1  # the blob
    masks[1, :, 10:14, 2:6] = 1  # beside it
    masks[2, :, 4:8, 2:6] = 1  # the blob of an image in which anything heals
    masks[3, :, 4:8, 2:6] = 1  # of a slice that is healthy as it is
    content = torch.full_like(images, -0.3)

    class Fickle(BlobClassifier):
        def forward(self, seen):
            logits = super().forward(seen)
            logits[2] = -9.0
            return logits

    assert verified(Fickle(), images, masks, content).tolist() == [True, False, False, False]


@pytest.mark.parametrize("verify", [True, False])
def test_labels_of_the_training_slices(verify):
    data = toy_data()
    labels = pseudo_labels(data, Filler(), blobs, params(verify=verify))
    images = slices()
    assert torch.equal(labels.lesion, images > 0.5) and not labels.ignored.any() and labels.teaches.all()
    change = torch.where(images > 0.5, (images + 0.3) * 0.9, 0.0)[:, None]
    torch.testing.assert_close(labels.change.float(), change, atol=2e-3, rtol=0)
    assert "16 of 16 abnormal training slices" in describe(labels, data)


def test_slices_without_a_mask_that_holds_do_not_teach_and_healthy_ones_are_empty():
    data = toy_data()
    below = torch.zeros(1, 1, 16, 16)
    below[..., 12:, :] = 0.9
    wrong = pseudo_labels(data, Filler(), below.expand_as, params())
    assert wrong.teaches.tolist() == (~data.labels).tolist() and not wrong.lesion[~data.labels].any()
    empty = pseudo_labels(data, Filler(), torch.zeros_like, params(verify=False))
    assert empty.teaches.tolist() == (~data.labels).tolist()
    assert "WARNING: none of the 16" in describe(empty, data)


@pytest.mark.parametrize("cuts", [[0.6, 0.3], [0.0, 0.5], [0.5, 1.0]])
def test_cuts_that_cut_nothing_are_refused(cuts):
    with pytest.raises(pydantic.ValidationError, match="expected two thresholds between 0 and 1"):
        params(cuts=cuts)
