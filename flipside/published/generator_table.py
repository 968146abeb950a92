"""TACE's table 1 with our numbers beside the published ones, as Markdown.

The data sets differ, so the published numbers are no target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import Classifier, load_classifier, predict_logits
from flipside.classifiers.networks.pretrained import (
    ALEXNET,
    INCEPTION,
    inception_features,
    load_inception,
    load_lpips,
    lpips_distances,
)
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import load_weights, read_description
from flipside.core.params import load_section, load_value, read_params, value_at
from flipside.core.runtime import Runtime, generator_for
from flipside.core.store import SliceStore, as_channels
from flipside.generators.base.loading import load_generator
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.methods.checks.perceptual import classifier_features
from flipside.methods.checks.realism import RealismParams, frechet_distance
from flipside.published.markdown import markdown_rows

GENERATORS = {"stylegan": "StyleGAN", "blobgan": "BlobGAN"}
# Steps, FID, LPIPS. The text says 105k steps for the brain and 108k for mammograms.
PUBLISHED = {
    "brain MRI": {"stylegan": "108k / 81.96 / 0.46", "blobgan": "108k / 81.70 / 0.37"},
    "mammograms": {"stylegan": "105k / 55.80 / 0.57", "blobgan": "105k / 55.02 / 0.44"},
}
FRECHET = {"inception_2048": "FID, dims 2048", "inception_64": "FID, dims 64", "classifier": "FD, classifier"}
PERCEPTUAL = {"lpips": "LPIPS", "perceptual_clf": "perceptual, classifier"}


class StyleImages(Protocol):
    """What is asked of a StyleGAN: images by style codes, which depend on the classifier's answers (B,)."""

    latent: int

    def sampled(self, z: Tensor, answers: Tensor) -> Any: ...
    def encoded(self, images: Tensor, answers: Tensor) -> Any: ...
    def render(self, codes: Any) -> Tensor: ...


class BlobImages(Protocol):
    """What is asked of a BlobGAN: layout codes of z or of its encoder, decoded to blobs, of which it makes images."""

    latent: int

    def layout(self, z: Tensor) -> Tensor: ...
    def decode(self, layout: Tensor) -> Any: ...
    def render(self, codes: Any) -> Tensor: ...


@dataclass(frozen=True)
class Meter:
    """Networks that measure distances, and the test slices (N,H,W) in [-1,1] as the reference."""

    scans: np.ndarray
    classifier: Classifier
    inception: nn.Module | None
    lpips: nn.Module | None
    runtime: Runtime
    batch_size: int

    def measure(self, drawn: np.ndarray, reconstructed: np.ndarray) -> dict[str, float]:
        """Distances by name of images drawn from z and of the scans' reconstructions, both (N,H,W) in [-1,1].

        Fréchet distances are between the drawn images and the scans; perceptual ones between each scan and its
        reconstruction, in the mean. What needs weights that are not at hand is absent.
        """
        own, made, _ = classifier_features(self.classifier, self.scans, drawn, self.runtime, self.batch_size)
        found = {"classifier": frechet_distance(own, made)}
        if self.inception is not None:
            scans, images = (inception_features(self.inception, each, self.runtime, self.batch_size)
                             for each in (self.scans, drawn))
            found |= {f"inception_{dims}": frechet_distance(scans[dims], images[dims]) for dims in (64, 2048)}
        _, _, distances = classifier_features(self.classifier, self.scans, reconstructed, self.runtime,
                                              self.batch_size)
        found["perceptual_clf"] = float(distances.mean())
        if self.lpips is not None:
            found["lpips"] = float(lpips_distances(self.lpips, self.scans, reconstructed, self.runtime,
                                                   self.batch_size).mean())
        return found


def generator_table() -> str:
    """The table as Markdown, of the generators that the run in this folder trained, and what couldn't be measured.

    Draws as many images from each generator as there are test slices, and gives every test slice to its encoder. Raises
    ValueError where the test split is too small for a distance between populations.
    """
    batch_size, seed = load_section("realism", RealismParams).batch_size, load_value("seed", int)
    trained = [name for name in GENERATORS if name in value_at(read_params(), "generators")]
    runtime = runtimes.start(seed)
    store = SliceStore.open(paths.SLICES)
    rows = store.rows("test")
    if len(rows) < 2:
        raise ValueError(f"{paths.SLICES} has {len(rows)} slices of the test split, too few for a distance between "
                         "populations: give the data set more patients")
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    absent = {weights: weights.absence() for weights in (INCEPTION, ALEXNET)}
    doubts = [doubt for weights in absent if not absent[weights] and (doubt := weights.doubt())]
    meter = Meter(np.array(store.images[rows]), classifier, None if absent[INCEPTION] else load_inception(runtime),
                  None if absent[ALEXNET] else load_lpips(runtime), runtime, batch_size)
    results = {}
    for name in trained:
        images = generated(name, meter.scans, classifier, seed, runtime, batch_size)
        steps = read_description(paths.generator(name))["parameters"]["steps"]
        results[name] = meter.measure(*images), steps
    unmeasured = [f"No {names}: its weights are not in torch hub's cache, {weights.file.name} comes from "
                  f"{weights.url}, and nothing is downloaded."
                  for names, weights in (("FID", INCEPTION), ("LPIPS", ALEXNET)) if absent[weights]]
    return "\n\n".join([table(results, len(rows), classifier.feature_count), *unmeasured, *doubts])


@torch.no_grad()
def generated(name: str, scans: np.ndarray, classifier: Classifier, seed: int, runtime: Runtime,
              batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """As many images from z as there are scans (N,H,W), and the scans as encoded and made again; both (N,H,W).

    StyleGAN makes its images under the classifier's answers to these scans, which it takes besides z.
    """
    network = load_generator(paths.generator(name), runtime)
    style, blobs = cast(StyleImages, network), cast(BlobImages, network)  # it is one of them, as `name` says
    probabilities = torch.sigmoid(predict_logits(classifier, scans, runtime)).to(runtime.device)
    encoder = None if name == "stylegan" else blob_encoder(name, runtime)
    drawn, reconstructed = [], []
    for start in range(0, len(scans), batch_size):
        images = as_channels(torch.as_tensor(scans[start : start + batch_size], device=runtime.device).float())
        answers = probabilities[start : start + batch_size]  # (B,)
        z = torch.randn(len(images), style.latent, generator=generator_for(seed, 1, start)).to(runtime.device)
        if encoder is None:
            made, again = style.sampled(z, answers), style.encoded(images, answers)
        else:
            made, again = blobs.decode(blobs.layout(z)), blobs.decode(encoder(images))
        drawn.append(on_cpu(style.render(made)))
        reconstructed.append(on_cpu(style.render(again)))
    return np.concatenate(drawn), np.concatenate(reconstructed)


def blob_encoder(name: str, runtime: Runtime) -> nn.Module:
    """The trained encoder of a BlobGAN."""
    path = paths.encoder(name)
    return runtime.place(load_weights(path, build_encoder(read_description(path)["architecture"])))


def on_cpu(images: Tensor) -> np.ndarray:
    """Images (B,1,H,W) as slices (B,H,W) in [-1,1], several channels as they are."""
    return images.clamp(-1, 1).squeeze(1).float().cpu().numpy()


def table(results: dict[str, tuple[dict[str, float], int]], count: int, features: int) -> str:
    """Markdown of {generator: (its distances, its steps of training)}, each of `count` images; `features`: of the
    classifier."""
    found = [key for key in (*FRECHET, *PERCEPTUAL) if any(key in distances for distances, _ in results.values())]
    names = FRECHET | PERCEPTUAL
    lines = [["generator", "steps", "N", *(names[key] for key in found),
              *(f"published steps / FID / LPIPS, {data}" for data in PUBLISHED)]]
    for name, title in GENERATORS.items():
        published = [rows[name] for rows in PUBLISHED.values()]
        if name not in results:
            lines.append([title, "not trained", "–", *("–" for _ in found), *published])
            continue
        distances, steps = results[name]
        lines.append([title, str(steps), str(count), *(f"{distances[key]:.4g}" for key in found), *published])
    notes = ["N: test slices of both kinds, and as many images drawn from z, StyleGAN's under the classifier's answers "
             "to these slices. FID and FD are between the two. LPIPS and the perceptual distance are between a slice "
             "and what the generator makes of its encoder's answer; the paper doesn't say what its LPIPS is of, nor "
             "its N. FD and perceptual distance are taken in the explained classifier's own features: neither FID nor "
             "LPIPS."]
    sizes = {"classifier": features, "inception_64": 64, "inception_2048": 2048}
    if few := [names[key] for key, size in sizes.items() if key in found and count <= size]:
        notes.append(f"{', '.join(few)}: {count} images on either side are too few for a covariance of full rank, such "
                     "a distance depends on the counts.")
    return "\n\n".join([markdown_rows(lines), *notes])
