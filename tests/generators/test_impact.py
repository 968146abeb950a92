"""The inpainter: its holes, its losses by hand, two phases on healthy slices alone, resumed as if never killed."""

import pytest
import torch

from flipside.core.checkpoint import Scratch
from flipside.core.runtime import generator_for
from flipside.generators import impact
from flipside.generators.base import state
from flipside.generators.nn.partial_convolution import InpaintingUNet
from flipside.generators.nn.vgg import gram
from tests.generators.toys import IMPACT, LESION, BlobClassifier, slices, toy_data
from tests.killed import dies_at


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def params(**changes):
    return impact.ImpactParams(**IMPACT | changes)


def train(chosen, scratch="s", data=None):
    torch.manual_seed(0)
    data = data or toy_data()
    return impact.Impact(chosen, data.classifier, LESION).train(data, 3, Scratch(scratch, chosen.model_dump()))


def test_holes_are_squares_up_to_their_number_and_differ_between_images():
    chosen = params(hole_size=3, max_holes=10)
    holes = impact.draw_holes(200, (20, 24), chosen, generator_for(1))
    assert holes.shape == (200, 1, 20, 24) and set(holes.unique().tolist()) == {0.0, 1.0}
    areas = holes.sum(dim=(1, 2, 3))
    assert areas.min() == 9 and 45 < areas.max() <= 90  # one square; as good as ten apart
    assert holes.amax(dim=(0, 1)).eq(1).all()  # every pixel is in some hole
    squares = torch.nn.functional.max_pool2d(-holes, 3, stride=1)  # -1 where a whole square is a hole
    opened = torch.nn.functional.max_pool2d(torch.nn.functional.pad(-squares, (2, 2, 2, 2)), 3, stride=1)
    assert torch.equal(opened, holes)  # nothing but squares


def test_some_holes_are_alone_and_some_grow_together():
    holes = impact.draw_holes(300, (32, 32), params(hole_size=2, max_holes=12), generator_for(2))
    outlines = (torch.nn.functional.max_pool2d(holes, 3, 1, 1) - holes).sum(dim=(1, 2, 3)) / holes.sum(dim=(1, 2, 3))
    several = holes.sum(dim=(1, 2, 3)) >= 40  # ten squares: 3 px of outline per px where they lie alone
    assert outlines[several].max() > 2 and outlines[several].min() < 1.5


def test_the_same_draw_gives_the_same_holes():
    one, other = (impact.draw_holes(4, (16, 16), params(), generator_for(5, step)) for step in (1, 1))
    assert torch.equal(one, other)


def test_pixel_losses_by_hand():
    chosen = params(lambda_valid=2.0, lambda_hole=3.0, lambda_total_variation=5.0)

    class Constant(torch.nn.Module):
        def forward(self, images, validity):
            return torch.full_like(images, 0.5)

    images, holes = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    holes[0, 0, 0, 0] = 1
    terms = impact.loss_terms(chosen, Constant(), None, images, holes)
    assert terms["valid"].item() == pytest.approx(2.0 * 0.5 * 15 / 16)
    assert terms["hole"].item() == pytest.approx(3.0 * 0.5 / 16)
    # The composite is 0.5 in the corner, else 0: one edge to the right and one down lie in the widened hole.
    assert terms["total_variation"].item() == pytest.approx(5.0 * (0.5 + 0.5) / 16)


def test_perceptual_and_style_losses_see_output_and_composite():
    chosen = params(lambda_perceptual=2.0, lambda_style=3.0)

    class Brightened(torch.nn.Module):
        def forward(self, images, validity):
            return torch.full_like(images, 0.5)

    images, holes = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    holes[..., :2, :] = 1
    terms = impact.loss_terms(chosen, Brightened(), lambda given: [given, 2 * given], images, holes)
    assert terms["perceptual"].item() == pytest.approx(2.0 * (0.5 + 1.0 + 0.25 + 0.5))  # of output, of composite
    # Gram matrices over C h w: 0.25 and 1 of the output, half of that of the composite.
    assert terms["style"].item() == pytest.approx(3.0 * (0.25 + 1.0 + 0.125 + 0.5))


def test_gram_matrix_by_hand():
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1,2,1,2)
    torch.testing.assert_close(gram(maps), torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4)


def test_missing_vgg_weights_are_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="vgg16.*generators.impact.perceptual_features: none"):
        train(params(perceptual_features="vgg16", steps=1))


def test_only_healthy_slices_are_seen(monkeypatch):
    seen = []
    terms = impact.loss_terms
    monkeypatch.setattr(impact, "loss_terms", lambda *given: seen.append(given[3]) or terms(*given))
    train(params(steps=10, fine_tuning_steps=0))
    assert torch.cat(seen).max() < 0.5  # the abnormal ones have a blob of 0.9


def test_without_a_healthy_slice_it_is_refused():
    data = toy_data()
    data.labels.fill_(True)
    with pytest.raises(ValueError, match="training split has none"):
        train(params(), data=data)


def test_the_second_phase_freezes_the_encoders_norms_and_lowers_the_rate(monkeypatch):
    calls, rates = [], []
    freeze, optimise = InpaintingUNet.freeze_encoder_norms, torch.optim.Adam.step
    monkeypatch.setattr(InpaintingUNet, "freeze_encoder_norms", lambda self: calls.append(1) or freeze(self))
    monkeypatch.setattr(torch.optim.Adam, "step",
                        lambda self, *given: rates.append(self.param_groups[0]["lr"]) or optimise(self, *given))
    train(params(steps=3, fine_tuning_steps=2, learning_rate=0.01, fine_tuning_learning_rate=0.001))
    assert len(calls) == 2 and rates == [0.01] * 3 + [0.001] * 2


def test_interrupted_training_ends_with_the_same_weights(monkeypatch):
    monkeypatch.setattr(state, "RECORD_EVERY", 3)
    monkeypatch.setattr(state, "SAVE_EVERY_SECONDS", 0.0)
    chosen = params(steps=7, fine_tuning_steps=5)
    straight, straight_history, _ = train(chosen, "straight")
    with dies_at(10, impact, "draw_holes"):
        train(chosen, "killed")
    torch.manual_seed(99)
    scratch = Scratch("killed", chosen.model_dump())
    resumed, resumed_history, _ = impact.Impact(chosen, BlobClassifier(), LESION).train(toy_data(), 3, scratch)
    assert resumed_history == straight_history
    for key, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


def test_a_blob_is_filled_with_healthy_tissue():
    network, _, _ = train(params(steps=150, fine_tuning_steps=50))
    images = slices()[:, None]
    holes = torch.nn.functional.max_pool2d((images > 0.5).float(), 3, stride=1, padding=1)
    with torch.no_grad():
        filled = network.inpaint(images, holes)
    abnormal = torch.arange(len(images)) % 2 == 0
    assert (filled[abnormal][holes[abnormal] > 0] + 0.2).abs().mean() < 0.15  # healthy tissue is about -0.2
