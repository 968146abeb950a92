"""Slices inverted together against the same ones inverted one after the other, in slices per second.

`python -m benchmarks.inversion`, in the folder that holds params.yaml. Random weights and images.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.rise import median_seconds
from flipside.classifiers.networks.backbones import build_classifier
from flipside.core.params import load_section, read_params
from flipside.core.runtime import Runtime, RuntimeParams, seed_everything
from flipside.generators.blobgan import BlobGAN, BlobGANParams
from flipside.generators.codes.reconstruction import observer_of
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.methods.latent.inversion import InversionParams, invert


def inversion_rates(runtime: Runtime, images: int, steps: int, repeats: int) -> dict[str, float]:
    """Slices per second: `together` in one batch, `alone` one by one; networks and weights as params.yaml says."""
    explained, side = read_params()["classifiers"]["classifier"], read_params()["image_size"]
    classifier = runtime.place(build_classifier(explained["architecture"], explained["width"], pretrained=False))
    classifier.eval().requires_grad_(False)
    architecture = BlobGAN.architecture_of(load_section("generators.blobgan", BlobGANParams), classifier)
    generator, encoder = (runtime.place(network).eval().requires_grad_(False)
                          for network in (BlobGAN.build(architecture), build_encoder(architecture)))
    params = load_section("inversions.blobgan", InversionParams).model_copy(update={"steps": steps})
    observer, scans = observer_of(classifier), torch.rand(images, 1, side, side, device=runtime.device) * 2 - 1

    def at_once(count: int) -> None:
        for part in scans.split(count):
            invert(generator, encoder, observer, part, params)

    seconds = median_seconds(runtime, repeats, together=lambda: at_once(images), alone=lambda: at_once(1))
    return {name: images / time for name, time in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="of Adam")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="0: one per core")
    arguments = parser.parse_args()

    seed_everything(0)
    runtime = Runtime(RuntimeParams(threads=arguments.threads))
    rate = inversion_rates(runtime, arguments.images, arguments.steps, arguments.repeats)
    print(f"{runtime.describe()}; {arguments.images} slices, {arguments.steps} steps: together {rate['together']:.2f} "
          f"slices/s, alone {rate['alone']:.2f}, ratio {rate['together'] / rate['alone']:.2f}")


if __name__ == "__main__":
    main()
