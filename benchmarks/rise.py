"""RISE's masks per second against the bare forward pass of the same classifier at the same batch size.

`python -m benchmarks.rise [--architecture small_resnet --size 64 --masks 500 ...]`. A ratio of 1 would mean that
making, applying and summing up the masks costs nothing. Random weights: speed doesn't depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from flipside.classifiers.networks.backbones import build_classifier
from flipside.core.paths import CLASSIFIER
from flipside.core.runtime import Runtime, RuntimeParams, now, seed_everything
from flipside.methods.base.method import Context
from flipside.methods.rise import Rise, RiseParams


def clock(runtime: Runtime) -> float:
    """Wall time on a GPU; on a CPU the processor's seconds, which other work on the machine doesn't change."""
    return now(runtime) if runtime.device.type == "cuda" else time.process_time()


def median_seconds(runtime: Runtime, repeats: int, **works: Callable[[], object]) -> dict[str, float]:
    """{name: median seconds} of several pieces of work.

    In turns, so that all meet the same machine; the first turn warms up and isn't counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            began = clock(runtime)
            work()
            seconds[name].append(clock(runtime) - began)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def rise_rates(runtime: Runtime, architecture: str, width: int, size: int, images: int, masks: int, batch_size: int,
               repeats: int) -> dict[str, float]:
    """Masked images per second: `bare` forward passes, and `rise` with all that it does beside them."""
    classifier = runtime.place(build_classifier(architecture, width, pretrained=False))
    classifier.eval().requires_grad_(False)
    params = RiseParams(needs=CLASSIFIER, masks=masks, grid=16, keep=0.5, normalisation="coverage",
                        batch_size=batch_size, baseline="mid_grey")
    method = Rise(params, Context(classifier, runtime, 0))
    explained = torch.rand(images, 1, size, size, device=runtime.device) * 2 - 1
    forwards = explained[:1].expand(batch_size, -1, -1, -1).contiguous()
    sizes = [len(part) for part in torch.arange(masks).split(batch_size)] * images

    def bare() -> None:
        """The same number of images in the same batch sizes through the same (folded) classifier, and nothing else."""
        with torch.no_grad(), runtime.autocast():
            for count in sizes:
                method.classifier(forwards[:count])

    seconds = median_seconds(runtime, repeats, bare=bare, rise=lambda: method.maps(explained, torch.arange(images)))
    return {name: sum(sizes) / time for name, time in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--architecture", default="small_resnet")
    parser.add_argument("--width", type=int, default=32, help="of small_resnet")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--images", type=int, default=4, help="images per call of the method")
    parser.add_argument("--masks", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=128, help="masked images per forward pass")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="0: one per core")
    arguments = parser.parse_args()

    seed_everything(0)
    runtime = Runtime(RuntimeParams(threads=arguments.threads))
    rate = rise_rates(runtime, arguments.architecture, arguments.width, arguments.size, arguments.images,
                      arguments.masks, arguments.batch_size, arguments.repeats)
    print(f"{runtime.describe()}; {arguments.architecture}, {arguments.size} x {arguments.size}, "
          f"batch {arguments.batch_size}, {arguments.masks} masks, {arguments.images} images")
    print(f"bare forward {rate['bare']:.0f} images/s, RISE {rate['rise']:.0f} masks/s, "
          f"ratio {rate['rise'] / rate['bare']:.3f}")


if __name__ == "__main__":
    main()
