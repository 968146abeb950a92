"""Pseudo-masks: their outline, and the check that filling one lowers the logit more than filling elsewhere does."""

import pydantic
import pytest
import torch

from flipside.generators.flip_mask import MaskNetwork
from flipside.segmenters.labels import PseudoMaskParams, describe, outline, pseudo_labels, verified
from tests.generators.toys import BlobClassifier, slices, toy_data

TRANSPLANTS = {"share": 0.0, "contrast": [1.0, 1.0], "dark": 0.0, "shift": 0.0, "scale": 0.0, "rotate_degrees": 0.0}
PSEUDO = {"cut": 0.5, "grow": 0.0, "change": [0.3, 0.3], "morphology": [], "verify": True,
          "transplants": TRANSPLANTS, "rounds": 1}


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


def step(height=0.9):
    """A mask of 6 x 6 pixels around a lesion of 4 x 4 that fades over one pixel: (1,16,16) probability and change."""
    probability, change = torch.zeros(1, 16, 16), torch.zeros(1, 16, 16)
    probability[0, 5:11, 5:11] = height
    change[0, 4:12, 4:12], change[0, 6:10, 6:10] = 0.2, 1.0
    return probability, change


def test_the_lesion_is_what_differs_from_healthy_content_in_and_around_the_cut_mask():
    probability, change = step()
    lesion, unsure = outline(probability, change, params(change=[0.5, 0.5]))
    assert lesion[0, 6:10, 6:10].all() and lesion.sum() == 16 + 4 * 2 and not unsure.any()  # half way at the sides
    probability[0, 5:11, 5:11] = 0
    probability[0, 7:9, 7:9] = 0.9  # a mask too small by a pixel grows to the lesion, not to a second one
    change[0, 12:, 12:] = 1.0
    grown, _ = outline(probability, change, params(change=[0.3, 0.3], grow=1 / 16))
    assert grown.sum() == 12 and grown[0, 6, 7:9].all() and not grown[0, 12:].any()
    none, _ = outline(torch.full_like(probability, 0.4), change, params())
    assert not none.any()


def test_pixels_between_the_two_shares_are_unsure():
    lesion, unsure = outline(*step(), params(change=[0.2, 0.8]))
    assert lesion.any() and unsure.any() and not (lesion & unsure).any()
    both = lesion | unsure
    assert torch.equal(both, outline(*step(), params(change=[0.2, 0.2]))[0])


def test_masks_are_cleaned():
    probability, change = step()
    probability[0, 1, 1] = 0.9
    change[0, 1, 1] = 9.0
    lesion, _ = outline(probability, change, params(morphology=["open", "largest_component"]))
    assert lesion[0, 7, 7] and not lesion[0, 1, 1]


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
    change = torch.where(images > 0.5, images + 0.3, 0.0)[:, None]
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


@pytest.mark.parametrize("change", [[0.6, 0.3], [-0.1, 0.5], [0.5, 1.0]])
def test_shares_of_no_change_are_refused(change):
    with pytest.raises(pydantic.ValidationError, match="expected two shares from 0 to below 1"):
        params(change=change)
