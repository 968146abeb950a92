"""What the pipeline adds to the work that no pipeline could spare, each figure with its target beside it.

`make bench` or `python -m benchmarks.speed`, in the folder that holds params.yaml; about three minutes on a CPU. Speed
is given as a ratio of two pieces of work done in turns, so the machine's own speed cancels out. Images, scans and
weights are random.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from benchmarks.rise import median_seconds, rise_rates
from flipside.classifiers.networks.backbones import build_classifier
from flipside.cli.profile import read_profile
from flipside.cohort.extraction import ExtractParams, extract
from flipside.core.checkpoint import Scratch
from flipside.core.params import load_section, read_params
from flipside.core.runtime import Runtime, RuntimeParams, generator_for, seed_everything
from flipside.generators.base.data import TrainingSlices
from flipside.generators.coin import Coin, CoinParams
from flipside.published.ablations import edited
from flipside.scans.layouts.nifti_cases import NiftiCases

SLICES = 1500  # random slices that COIN draws from
LESION_FRACTION = 0.005  # scales a weight: no speed depends on it


def report(what: str, value: float, unit: str, target: float, at_least: bool) -> None:
    met = value >= target if at_least else value <= target
    print(f"{what:<66} {value:6.2f} {unit:<3} (target {'>=' if at_least else '<='} {target:g}{unit and ' '}{unit})"
          f"{'' if met else '  MISSED'}", flush=True)


@contextlib.contextmanager
def quiet_folder() -> Iterator[None]:
    """A temporary working folder for scratch files, and no output."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)


# COIN's training.


def coin_setting(runtime: Runtime, steps: int, changes: dict[str, Any]) -> tuple[CoinParams, TrainingSlices]:
    """Parameters of params.yaml with dotted `changes`, and random slices (N,H,W) float16 with a random classifier."""
    values = edited(read_params(), changes)
    params = CoinParams(**values["generators"]["coin"] | {"steps": steps})
    explained = values["classifiers"]["classifier"]
    classifier = runtime.place(build_classifier(explained["architecture"], explained["width"], pretrained=False))
    images = torch.rand(SLICES, values["image_size"], values["image_size"]).mul(2).sub(1).half().to(runtime.device)
    data = TrainingSlices(images, torch.ones_like(images, dtype=torch.uint8), torch.arange(SLICES) % 2 == 1,
                          torch.rand(SLICES), classifier.eval().requires_grad_(False), runtime)
    assert len(data.logits) == SLICES  # computed here once and kept: no part of the training that is measured
    return params, data


def full_training(params: CoinParams, data: TrainingSlices) -> None:
    with quiet_folder():
        Coin(params, data.classifier, LESION_FRACTION).train(data, 0, Scratch("speed", 0))


def bare_training(params: CoinParams, data: TrainingSlices) -> None:
    """The same networks, losses and updates on one batch over and over; nothing is drawn, checked or recorded."""
    runtime = data.runtime
    coin = Coin(params, data.classifier, LESION_FRACTION)
    optimizers = [torch.optim.Adam(runtime.place(network).train().parameters(), params.learning_rate, params.betas,
                                   fused=True)
                  for network in (coin.network, coin.discriminator)]
    batch = coin.draw(data, generator_for(0))
    for step in range(params.steps):
        updates_generator = step % params.generator_every == params.generator_every - 1
        with torch.set_grad_enabled(updates_generator), runtime.autocast():
            made = coin.generate(batch)
        coin.discriminator.requires_grad_(True)
        with runtime.autocast():
            loss = coin.discriminator_loss(batch, made.float())
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        if updates_generator:
            coin.discriminator.requires_grad_(False)
            with runtime.autocast():
                terms = coin.generator_losses(batch, made.float())
            optimizers[0].zero_grad()
            sum(terms.values()).backward()
            optimizers[0].step()


def coin_peak_gb(steps: int) -> float:
    """Peak memory of a process that trains COIN as the cpu profile says, on a CPU."""
    runtime = Runtime(RuntimeParams(device="cpu"))
    full_training(*coin_setting(runtime, steps, read_profile("cpu")))
    return runtime.peak_memory_gb()


# Extraction of one scan.


def write_scan(root: Path, slices: int) -> None:
    """An abdominal CT of 512 x 512 x `slices`: a noisy body in air (int16 HU), kidneys (1) in two fifths of it."""
    generator = np.random.default_rng(0)
    rows, columns = np.ogrid[-1:1:512j, -1:1:512j]
    body = (rows / 0.9) ** 2 + (columns / 0.7) ** 2 < 1  # (I,J)
    noise = generator.normal(40, 15, (512, 512, 50)).astype(np.int16)
    block = np.where(body[:, :, None], noise, np.int16(-1000))  # (I,J,50); beyond what gzip remembers
    volume = np.tile(block, (1, 1, -(-slices // 50)))[:, :, :slices]
    labels = np.zeros(volume.shape, np.uint8)
    for start in (130, 310):
        labels[start : start + 70, 280:350, slices * 3 // 10 : slices * 7 // 10] = 1
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    (root / "case").mkdir(parents=True)
    for name, array in (("imaging", volume), ("segmentation", labels)):
        image = nibabel.Nifti1Image(array, affine)
        image.set_sform(affine, code=1)
        nibabel.save(image, root / "case" / f"{name}.nii.gz")


def extract_scan(root: Path, image_size: int) -> None:
    block = NiftiCases(
        root=str(root), page="written by this benchmark", modality="ct", anomalies=True, lesion_threshold_px=0,
        layout="nifti_cases", image="{case}/imaging.nii.gz", lesion=None, ignored=[], patient=None,
        organ={"files": ["{case}/segmentation.nii.gz"], "values": [1]})
    with tempfile.TemporaryDirectory() as folder:
        extract("synthetic", block, load_section("extract", ExtractParams), image_size, Path(folder))


def read_scan(root: Path) -> None:
    """The least that any extraction does: nibabel decodes the image and the labels."""
    for name in ("imaging", "segmentation"):
        np.asanyarray(nibabel.load(root / "case" / f"{name}.nii.gz").dataobj)


def extraction_peak_gb(root: Path, image_size: int) -> float:
    """Peak memory of a process that extracts the scan."""
    extract_scan(root, image_size)
    return Runtime(RuntimeParams(device="cpu")).peak_memory_gb()


def in_own_process(work: Callable, *arguments: Any) -> Any:
    """Run a function in a fresh process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of COIN's training in one turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of which the median is taken")
    parser.add_argument("--threads", type=int, default=1, help="0: one per core")
    arguments = parser.parse_args()
    image_size = read_params()["image_size"]

    # Memory first: a child's peak starts at what its parent held when it was started.
    with tempfile.TemporaryDirectory() as folder:
        in_own_process(write_scan, Path(folder), 400)
        report("extraction of 512 x 512 x 400, peak memory", in_own_process(extraction_peak_gb, Path(folder),
               image_size), "GB", 1.5, at_least=False)
    report("COIN's training in the cpu profile, peak memory", in_own_process(coin_peak_gb, 10), "GB", 2.5,
           at_least=False)

    seed_everything(0)
    runtime = Runtime(RuntimeParams(threads=arguments.threads))
    with tempfile.TemporaryDirectory() as folder:
        in_own_process(write_scan, Path(folder), 200)
        seconds = median_seconds(runtime, arguments.repeats, nibabel=lambda: read_scan(Path(folder)),
                                 extraction=lambda: extract_scan(Path(folder), image_size))
    report("extraction of 512 x 512 x 200, time / nibabel reading it", seconds["extraction"] / seconds["nibabel"], "",
           1.5, at_least=False)

    setting = coin_setting(runtime, arguments.steps, {})
    seconds = median_seconds(runtime, arguments.repeats, bare=lambda: bare_training(*setting),
                             coin=lambda: full_training(*setting))
    rate = setting[0].batch_size * arguments.steps / seconds["coin"]
    report(f"COIN's training ({rate:.0f} images/s), images/s / bare loop", seconds["bare"] / seconds["coin"], "", 0.9,
           at_least=True)

    explained = read_params()["classifiers"]["classifier"]
    rates = rise_rates(runtime, explained["architecture"], explained["width"], image_size, images=2, masks=500,
                       batch_size=128, repeats=arguments.repeats)
    report(f"RISE ({rates['rise']:.0f} masks/s), masks/s / classifier's bare forward", rates["rise"] / rates["bare"],
           "", 0.85, at_least=True)
    print(f"on {runtime.describe()}")


if __name__ == "__main__":
    main()
