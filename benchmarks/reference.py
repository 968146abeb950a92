"""The pipeline's own steps against those of the publications' codes, rebuilt from their descriptions: ratios of times.

`make reference` or `python -m benchmarks.reference`, in the folder that holds params.yaml; several minutes of one core.
Both sides of a row do the same work (networks, batch, masks or steps) in the same process, in turns; the least of each
side's turns counts. What the references do, and the pipeline doesn't, is written beside each of them. They are in
single precision and in torch's own memory format, ours as `--precision` says, which alone makes a part of the ratio.
Batches and numbers of masks are the arguments', not the publications'; weights and images are random.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rise import clock
from benchmarks.speed import LESION_FRACTION, coin_setting, full_training, report
from flipside.classifiers.networks.backbones import Classifier, build_classifier
from flipside.classifiers.networks.perceptual import Observer
from flipside.core.params import load_section, read_params
from flipside.core.paths import CLASSIFIER
from flipside.core.runtime import Runtime, RuntimeParams, seed_everything
from flipside.generators.base.data import TrainingSlices
from flipside.generators.blobgan import BlobGAN, BlobGANParams
from flipside.generators.codes.reconstruction import observer_of
from flipside.generators.coin import Coin, CoinParams
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.generators.nn.losses import discriminator_loss, generator_loss, kl_to_target, total_variation
from flipside.methods.base.maps import min_max_scale, upsample
from flipside.methods.base.method import Context
from flipside.methods.latent.inversion import InversionParams, equation_3, invert
from flipside.methods.rise import Rise, RiseParams
from flipside.methods.score_cam import ScoreCAM, ScoreCAMParams

PUBLISHED_EVERY = 5  # COIN's code updates the generator at every fifth step
WIDE = {"generators.coin.channels": [64, 128, 256, 512, 1024],
        "generators.coin.discriminator_channels": [64, 128, 256, 512, 1024], "generators.coin.skips": 4}


def ratio(runtime: Runtime, repeats: int, reference: Callable[[], object], ours: Callable[[], object],
          building: Callable[[], object] = bool) -> float:
    """Least seconds of the reference over the least of ours, of so many turns after one that warms up; `building`: what
    both begin with, whose seconds are taken off."""
    least = [float("inf")] * 3
    for turn in range(repeats + 1):
        for side, work in enumerate((reference, ours, building)):
            began = clock(runtime)
            work()
            if turn:
                least[side] = min(least[side], clock(runtime) - began)
    return (least[0] - least[2]) / (least[1] - least[2])


def reference_coin(params: CoinParams, data: TrainingSlices) -> None:
    """COIN's training: a graph of the generator at every step, though most steps only train the discriminator; real and
    generated slices in two passes; f(x) asked at every step; each slice read and converted by itself; Adam unfused."""
    coin = Coin(params, data.classifier, LESION_FRACTION)
    generator, discriminator = coin.network.train(), coin.discriminator.train()
    optimizers = [torch.optim.Adam(network.parameters(), params.learning_rate, params.betas)
                  for network in (generator, discriminator)]
    healthy = torch.zeros(params.batch_size, dtype=torch.long)
    for step in range(params.steps):
        rows = torch.randint(len(data.images), (params.batch_size,))
        images = torch.stack([data.images[row].float()[None] for row in rows])  # (B,1,H,W)
        with torch.no_grad():
            probabilities = torch.sigmoid(data.classifier(images))
        made = generator(images)
        real, fake = discriminator(images, (probabilities >= 0.5).long()), discriminator(made.detach(), healthy)
        optimizers[1].zero_grad()
        discriminator_loss(real, fake, params.adversarial_loss).backward()
        optimizers[1].step()
        if step % params.generator_every == params.generator_every - 1:
            target = torch.where(probabilities >= 0.5, torch.zeros_like(probabilities), probabilities)
            loss = (generator_loss(discriminator(made, healthy), params.adversarial_loss)
                    + params.lambda_classifier * kl_to_target(data.classifier(made), target, params.kl)
                    + (images - made).abs().mean() + (images - generator(made)).abs().mean()
                    + 0.05 * total_variation((images - made).abs(), params.total_variation_scale))
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()


def coin_training(runtime: Runtime, repeats: int, changes: dict[str, Any], batch: int) -> float:
    params, data = coin_setting(runtime, PUBLISHED_EVERY, changes | {
        "generators.coin.generator_every": PUBLISHED_EVERY, "generators.coin.batch_size": batch})
    plain = TrainingSlices(data.images, data.organ, data.labels, data.heights, plain_copy(data.classifier),
                           data.runtime)
    return ratio(runtime, repeats, lambda: reference_coin(params, plain), lambda: full_training(params, data),
                 lambda: Coin(params, data.classifier, LESION_FRACTION))


@torch.no_grad()
def coin_inference(runtime: Runtime, repeats: int, images: int) -> float:
    """Counterfactuals and the classifier's answers. The reference: slice by slice, as its evaluation's loader gives
    them; ours: batches of `explain.batch_size`."""
    params, data = coin_setting(runtime, 1, {})
    ours, classifier = runtime.place(Coin(params, data.classifier, LESION_FRACTION).network).eval(), data.classifier
    plain = Coin(params, data.classifier, LESION_FRACTION).network.eval()
    plain_classifier, scans = plain_copy(classifier), data.images_at(torch.arange(images))

    def reference() -> None:
        for scan in scans.split(1):
            made = plain(scan)
            torch.sigmoid(plain_classifier(scan)), torch.sigmoid(plain_classifier(made)), (scan - made).abs()

    def own() -> None:
        for part in scans.split(16):
            with runtime.autocast():
                made = ours(part).float()
            torch.sigmoid(classifier(part)), torch.sigmoid(classifier(made)), (part - made).abs()

    return ratio(runtime, repeats, reference, own)


def plain_copy(classifier: Classifier) -> Classifier:
    """The same network in torch's own memory format."""
    block = read_params()["classifiers"]["classifier"]
    copied = build_classifier(block["architecture"], block["width"], pretrained=False)
    copied.load_state_dict(classifier.state_dict())
    return copied.eval().requires_grad_(False)


@torch.no_grad()
def rise(context: Context, classifier: Classifier, repeats: int, images: Tensor, masks: int) -> float:
    """The reference: masks made once and kept, batches of masked images at full precision, batch norms as they are.
    Ours asks the folded classifier; folding, once for each classifier, isn't counted."""
    params = RiseParams(needs=CLASSIFIER, masks=masks, grid=8, keep=0.1, normalisation="expectation", batch_size=64,
                        baseline="mid_grey")
    ours = Rise(params, context)
    kept = ours.masks(slice(0, masks), *images.shape[-2:])  # (N,H,W)

    def reference() -> None:
        for image in images:
            weights = torch.cat([torch.sigmoid(classifier(image * part[:, None])) for part in kept.split(64)])
            (weights @ kept.flatten(1)) / (masks * params.keep)

    return ratio(context.runtime, repeats, reference, lambda: ours.maps(images, torch.arange(len(images))))


@torch.no_grad()
def score_cam(context: Context, classifier: Classifier, repeats: int, images: Tensor) -> float:
    """The reference: every channel of the last maps, upsampled and asked about by itself."""
    ours = ScoreCAM(ScoreCAMParams(needs=CLASSIFIER, strides="last", batch_size=64, baseline="mid_grey"), context)

    def reference() -> None:
        for image in images:
            maps = classifier.features(image[None])[0]  # (F,h,w)
            total = torch.zeros_like(image[0])
            for single in maps:
                mask = upsample(single[None], image[None])  # (1,H,W)
                total += torch.sigmoid(classifier((image * min_max_scale(mask))[None])) * mask[0]
            F.relu(total)

    return ratio(context.runtime, repeats, reference, lambda: ours.maps(images, torch.arange(len(images))))


def inversion(runtime: Runtime, classifier: Classifier, repeats: int, images: Tensor, steps: int) -> float:
    """The reference: one slice after the other; the query's features and the distances anew at every step."""
    architecture = BlobGAN.architecture_of(load_section("generators.blobgan", BlobGANParams), classifier)
    generator, encoder = (runtime.place(network).eval().requires_grad_(False)
                          for network in (BlobGAN.build(architecture), build_encoder(architecture)))
    params = load_section("inversions.blobgan", InversionParams).model_copy(update={"steps": steps, "noise_side": 0})
    observer = observer_of(classifier)

    def reference() -> None:
        for image in images.split(1):
            with torch.no_grad():
                start = generator.decode(encoder(image))
            variables = start.map(lambda value: value.clone().requires_grad_(True))
            optimizer = torch.optim.Adam([*variables.groups().values()], params.learning_rate)
            for _ in range(steps):
                invert_step(generator, observer, variables, start, image, params, optimizer)

    return ratio(runtime, repeats, reference, lambda: invert(generator, encoder, observer, images, params))


def invert_step(generator: nn.Module, observer: Observer, variables: Any, start: Any, image: Tensor,
                params: InversionParams, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        view = observer(image)
    terms = equation_3(generator, observer, variables, start, image, view)  # type: ignore[arg-type]
    optimizer.zero_grad()
    sum(getattr(params, f"lambda_{name}") * term for name, term in terms.items()).sum().backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="turns of which the least counts")
    parser.add_argument("--threads", type=int, default=1, help="0: one per core")
    parser.add_argument("--images", type=int, default=32, help="slices that are inverted; an eighth of them for RISE")
    parser.add_argument("--batch", type=int, default=16, help="of COIN's training")
    parser.add_argument("--masks", type=int, default=512)
    parser.add_argument("--rows", nargs="+", help="of coin, coin_wide, counterfactuals, rise, score_cam and inversion; "
                        "without: all")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto", help="of our side")
    arguments = parser.parse_args()

    seed_everything(0)
    runtime = Runtime(RuntimeParams(device="cpu", threads=arguments.threads, precision=arguments.precision))
    block, side = read_params()["classifiers"]["classifier"], read_params()["image_size"]
    classifier = runtime.place(build_classifier(block["architecture"], block["width"], pretrained=False))
    classifier.eval().requires_grad_(False)
    context, plain = Context(classifier, runtime, 0), plain_copy(classifier)
    scans, repeats = torch.rand(arguments.images, 1, side, side) * 2 - 1, arguments.repeats
    few = scans[: max(1, arguments.images // 8)]
    rows: dict[str, tuple[str, Callable[[], float], float]] = {
        "coin": ("COIN's training, 16..128 channels",
                 lambda: coin_training(runtime, repeats, {}, arguments.batch), 1.8),
        "coin_wide": ("COIN's training, 64..1024 channels",
                      lambda: coin_training(runtime, repeats, WIDE, arguments.batch), 1.4),
        "counterfactuals": ("COIN's counterfactuals", lambda: coin_inference(runtime, repeats, len(scans)), 1.4),
        "rise": ("RISE", lambda: rise(context, plain, repeats, few, arguments.masks), 2.5),
        "score_cam": ("Score-CAM", lambda: score_cam(context, plain, repeats, few), 2),
        "inversion": ("inversion", lambda: inversion(runtime, classifier, repeats, scans, 5), 5),
    }
    for name in arguments.rows or rows:
        what, measure, target = rows[name]
        report(f"{what}, reference / ours", measure(), "x", target, at_least=True)
    print(f"on {runtime.describe()}; the references in single precision")


if __name__ == "__main__":
    main()
