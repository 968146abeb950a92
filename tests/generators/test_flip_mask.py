"""flip_mask: each loss term by hand, weights that mean the same at every size, and a blob that the mask finds."""

import pytest
import torch
import torch.nn.functional as F

from flipside.core.runtime import generator_for
from flipside.generators import flip_mask
from flipside.generators.nn.unet import UNet
from tests.generators.toys import FLIP_MASK, LESION, BlobClassifier, batch_of, in_eval, slices, toy_data, train


def params(**changes):
    return flip_mask.FlipMaskParams(**{**FLIP_MASK, **changes})


@pytest.fixture
def setting():
    """A batch of two pairs at step 0, and masks and contents that are no network's."""
    def make(**changes):
        gan = in_eval(flip_mask.FlipMask, params(**changes))
        images, healthy = slices()[0:4:2, None], slices()[1:5:2, None]
        batch = batch_of(images, kind=flip_mask.PairedBatch, healthy=healthy)
        made = torch.rand(4, 2, 16, 16, generator=generator_for(5))
        made[:, 1] = made[:, 1] - 0.5
        return gan, batch, made.requires_grad_()

    return make


def at_step(batch, step):
    object.__setattr__(batch, "step", step)
    return batch


def test_terms_by_hand_and_only_the_shapes_grow(setting):
    gan, batch, made = setting(steps=80, ramp=0.25, lambda_classifier=2.0, lambda_paste=3.0, lambda_identity=4.0)
    mask, content = made[:2, :1], made[:2, 1:]
    result = batch.images + mask * (content - batch.images)
    pasted = batch.healthy + mask * (batch.images - batch.healthy)
    classifier, pixels = BlobClassifier(), 2 * 16 * 16
    real, fake = gan.discriminator(batch.healthy), gan.discriminator(result)
    side = (LESION * 256) ** 0.5
    rows, columns = (made[:, :1].diff(dim=axis).abs().sum() / 4 for axis in (2, 3))
    fixed = {
        "classifier": 2 * torch.log1p(torch.exp(classifier(result) + 2)).mean(),
        "paste": 3 * torch.log1p(torch.exp(2 - classifier(pasted))).mean(),
        "adversarial": 0.5 * F.softplus(real - fake).mean(),
        "identity": 4 * (made[2:, 1:] - batch.healthy).abs().mean(),
    }
    shapes = {
        "area": 0.0027 * mask.sum() / pixels / LESION,
        "healthy_area": 0.0027 * 2 * made[2:, :1].sum() / pixels / LESION,
        "undecided": 0.00027 * (4 * made[:, :1] * (1 - made[:, :1])).mean() / LESION,
        "total_variation": 0.00073 * (rows + columns) / side,
    }
    for step, grown in ((0, 1 / 20), (9, 0.5), (19, 1.0), (79, 1.0)):
        terms = gan.generator_losses(at_step(batch, step), made)
        assert set(terms) == {*fixed, *shapes}
        for name, value in {**fixed, **{name: grown * value for name, value in shapes.items()}}.items():
            assert float(terms[name].detach()) == pytest.approx(float(value.detach()), rel=1e-4), (name, step)


def test_a_weight_of_zero_leaves_its_term_out(setting):
    gan, batch, made = setting(lambda_paste=0, lambda_adversarial=0, lambda_area=0, lambda_undecided=0)
    assert set(gan.generator_losses(batch, made)) == {"classifier", "total_variation", "identity"}
    assert gan.discriminator_loss(batch, made) is None


@pytest.mark.parametrize("side", [16, 32, 64])
def test_area_and_outline_of_a_square_lesion_are_1_and_4_at_every_size(side):
    mask = torch.zeros(1, 1, side, side)
    mask[..., side // 4: side // 2, side // 4: side // 2] = 1
    assert float(flip_mask.relative_area(mask, 1 / 16)) == pytest.approx(1)
    assert float(flip_mask.relative_outline(mask, 1 / 16)) == pytest.approx(4)


def test_the_discriminator_learns_from_partners_with_a_lazy_penalty(setting):
    gan, batch, made = setting(r1_every=3, r1_gamma=2.0)
    losses = [float(gan.discriminator_loss(at_step(batch, step), made).detach()) for step in range(4)]
    assert losses[1] == losses[2] and losses[0] == losses[3]
    penalty = 0.0
    for image in batch.healthy:
        image = image[None].clone().requires_grad_(True)
        logits = gan.discriminator(image)
        (gradient,) = torch.autograd.grad(logits.sum(), image)
        penalty += float(gradient.square().sum()) / logits.numel() / 2
    assert losses[0] - losses[1] == pytest.approx(3 * 2.0 / 2 * penalty, rel=1e-3)
    mask, content = made[:2, :1].detach(), made[:2, 1:].detach()
    filled = batch.images + mask * (content - batch.images)
    expected = F.softplus(gan.discriminator(filled) - gan.discriminator(batch.healthy)).mean()
    assert losses[1] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_pairs_are_abnormal_and_healthy_and_augmented_each_on_its_own():
    plain, flipped = (in_eval(flip_mask.FlipMask, params(batch_size=50, augmentation=augmentation)).draw(
        toy_data(), generator_for(1)) for augmentation in ([], [{"name": "horizontal_flip", "probability": 0.5}]))
    assert (BlobClassifier()(plain.images) > 0).all() and (BlobClassifier()(plain.healthy) < 0).all()
    turned = [(getattr(flipped, key) != getattr(plain, key)).flatten(1).any(dim=1) for key in ("images", "healthy")]
    assert all(0 < each.sum() < 50 for each in turned) and not torch.equal(*turned)


def test_an_untrained_network_leaves_images_alone():
    images = slices()[:2, None]
    network = flip_mask.MaskNetwork([8, 16])
    assert torch.equal(network(images), images)
    mask, content = network.parts(images)
    assert torch.equal(content, images) and (mask < 0.2).all()


def test_sizes_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match=r"\(18, 16\) can't be halved 2 times: make image_size a multiple of 4"):
        UNet(1, [8, 8, 8], 1)(torch.zeros(1, 1, 18, 16))


def test_the_mask_is_the_blob_and_healthy_slices_have_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, _ = train(flip_mask.FlipMask, params(steps=250, schedule="cosine", learning_rate=3e-3))
    images = slices()[:, None]
    with torch.no_grad():
        mask, _ = network.parts(images)
        flipped = BlobClassifier()(network(images[::2]))
    found, blob = mask[::2] >= 0.5, images[::2] > 0.5
    iou = (found & blob).sum().item() / (found | blob).sum().item()
    assert iou > 0.5 and (mask[1::2] >= 0.5).float().mean() < 0.01
    assert (flipped < 0).float().mean() > 0.9
