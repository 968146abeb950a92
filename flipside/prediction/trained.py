"""A finished run or an exported bundle: what new scans are read, windowed, explained and marked with.

A bundle (see bundle.py) has its files where a run has them, so both are opened here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pydantic
import torch
from torch import Tensor

from flipside.classifiers.networks.backbones import load_classifier, predict_probabilities
from flipside.cohort.extraction import ExtractParams
from flipside.cohort.selection import FilterParams
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.files import file_digest, read_json
from flipside.core.image_size import ImageSize
from flipside.core.params import PARAMS_FILE, ParamsError, load_section, load_value, read_params, value_at
from flipside.masks.extraction.thresholds import Cut, MaskError, MaskParams, describe, read_cuts
from flipside.masks.placing import SegmentScansParams
from flipside.methods.base.method import Context, find_method
from flipside.methods.base.parameters import ExplainParams
from flipside.report.params import ReportParams
from flipside.report.tables import ranking
from flipside.scans.layout import Layout
from flipside.scans.layouts import DatasetParams

WINDOW = f"{paths.FILTERED}/manifest.json"  # with the window and the channels' names
LATENTS = paths.latents("")  # what methods read that search among inverted slices

Model = TypeVar("Model", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class TrainedRun:
    """Parameters and artifacts of a finished run, relative to its folder."""

    folder: Path
    dataset: str
    block: Layout  # how its data set's files lie
    image_size: ImageSize
    seed: int
    extract: ExtractParams
    filter: FilterParams
    masks: MaskParams
    segmentation: SegmentScansParams
    batch_size: int
    window: str | list  # as the manifest describes it
    channels: list[str]  # names of a slice's channels
    methods: dict[str, dict[str, Any]]  # blocks under `methods`

    @classmethod
    def open(cls, folder: Path | str) -> TrainedRun:
        """Raises ParamsError and FileNotFoundError, with the file, for a folder that holds no finished run."""
        folder = Path(folder)
        params = folder / PARAMS_FILE
        if not params.is_file() or not (folder / WINDOW).is_file():
            missing = params if not params.is_file() else folder / WINDOW
            raise FileNotFoundError(f"{missing} not found: {folder.resolve()} is neither a finished run (`dvc repro`) "
                                    "nor a bundle (`flipside export`); name one with --run")
        dataset, manifest = load_value("dataset", str, params), read_json(folder / WINDOW)
        if dataset != manifest["dataset"]:
            raise ParamsError(f"{params}: `dataset` is {dataset!r}, but the models in {folder} are of "
                              f"{manifest['dataset']!r}: run `dvc repro` first")

        def section(key: str, model: type[Model]) -> Model:
            return load_section(key, model, params)

        return cls(
            folder, dataset, section(f"datasets.{dataset}", DatasetParams).root,
            load_value("image_size", ImageSize, params), load_value("seed", int, params),
            section("extract", ExtractParams), section("filter", FilterParams), section("masks", MaskParams),
            section("segment_scans", SegmentScansParams), section("explain", ExplainParams).batch_size,
            manifest["window"], manifest["channels"], value_at(read_params(params), "methods"))

    @property
    def volumes(self) -> int:
        """Registered volumes (or colours) of a scan, without the neighbouring slices that are channels too."""
        return len(self.channels) // (2 * self.block.context + 1)

    @property
    def organ_rule(self) -> Literal["nonzero"] | None:
        """`nonzero` where all but the organ is 0 in the scans themselves; None where files hold its labels, if any."""
        return "nonzero" if getattr(self.block, "organ", None) == "nonzero" else None

    @property
    def organ_expected(self) -> bool:
        """Whether the slices that the models learnt from were chosen by labels of an organ."""
        return getattr(self.block, "organ", None) is not None and self.organ_rule is None

    def models(self, method: str) -> list[str]:
        """Folders of the models that explaining with a method reads, the explained classifier's first."""
        return list(dict.fromkeys([paths.CLASSIFIER, self.methods[method]["needs"]]))

    def threshold(self, method: str) -> Cut:
        """The method's threshold under the policy `segment_scans.policy`."""
        file, policy = self.folder / paths.masks(method) / "thresholds.json", self.segmentation.policy
        if not file.is_file():
            raise FileNotFoundError(f"{file} not found: finish the run (`dvc repro extract_masks@{method}`)")
        thresholds = read_cuts(file)
        if policy not in thresholds:
            there = ", ".join(name for name in thresholds if not name.endswith("_raw"))
            raise MaskError(f"{file} has no threshold for segment_scans.policy {policy!r}; it has: {there}. Set it to "
                            f"one of them in {self.folder / PARAMS_FILE}")
        return thresholds[policy]

    def settings(self, method: str) -> dict[str, Any]:
        """What every prediction depends on, to tell whether two of them were made alike."""
        models = {f"{model}/{file.name}": file_digest(file) for model in self.models(method)
                  for file in sorted((self.folder / model).iterdir()) if file.is_file()}
        return {
            "method": method, "parameters of the method": self.methods[method],
            "threshold": describe(self.threshold(method)),
            "policy": self.segmentation.policy, "morphology": list(self.masks.morphology),
            "gate": self.masks.gate, "inside organ": self.masks.inside_organ,
            "volumes": self.segmentation.volumes.model_dump(), "image size": self.image_size, "window": self.window,
            "plane": self.block.plane, "context": self.block.context, "models": models,
        }


def choose_method(run: TrainedRun, wanted: str | None = None) -> str:
    """The wanted method, or the run's best by `report.rank_by` that is no control and can explain any slice.

    Raises ParamsError for one that needs the latent codes of inverted slices, which new scans don't have.
    """
    usable = [name for name, block in run.methods.items() if not block["needs"].startswith(LATENTS)]
    if wanted is not None:
        if wanted not in run.methods:
            raise ParamsError(f"the run has no method {wanted!r}; choose one of: {', '.join(usable)}")
        if wanted not in usable:
            raise ParamsError(f"{wanted} searches among the latent codes of slices that a stage has inverted one by "
                              f"one ({run.methods[wanted]['needs']}), and new scans have none: choose one of "
                              f"{', '.join(usable)}")
        return wanted
    file = run.folder / paths.METRICS
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found, so no method is known to be the best: finish the run "
                                "(`dvc repro`), or choose one with --method")
    metrics = read_json(file)
    report = load_section("report", ReportParams, run.folder / PARAMS_FILE)
    masked = any(report.rank_by in values for values in metrics.values())
    best = [name for name in ranking(metrics, report.rank_by if masked else report.rank_by_without_masks)
            if name in usable and name not in report.controls]
    if not best:
        raise ParamsError(f"{file} ranks no method but controls and those that need inverted slices: choose one of "
                          f"{', '.join(usable)} with --method")
    return best[0]


@dataclass(frozen=True)
class Explained:
    """A method's answers for B slices."""

    probability: np.ndarray  # (B,) of abnormal
    attribution: np.ndarray  # (B,H,W) float16 in [0,1]
    counterfactual: np.ndarray | None  # (B,C,H,W) float16 in [-1,1]


class Explainer:
    """A run's classifier and one of its methods, loaded once."""

    def __init__(self, run: TrainedRun, method: str, runtime: runtimes.RuntimeParams | None = None):
        """runtime: in place of the run's own section."""
        missing = [f"{model}/model.safetensors" for model in run.models(method)
                   if not (run.folder / model / "model.safetensors").is_file()]
        if missing:
            raise FileNotFoundError(f"{run.folder / missing[0]} not found: finish the run (`dvc repro`)")
        kind = find_method(method)
        with contextlib.chdir(run.folder):  # methods name their models from the project's folder
            self.runtime = runtimes.start(run.seed, runtime)
            self.classifier = load_classifier(paths.CLASSIFIER, self.runtime, len(run.channels))
            params = load_section(f"methods.{method}", kind.Params)
            self.method = kind(params, Context(self.classifier, self.runtime, run.seed))
        self.batch_size = run.batch_size

    def __call__(self, images: np.ndarray, organ: np.ndarray, z: np.ndarray) -> Explained:
        """Explain at most `batch_size` slices (B,C,H,W) float16 in [-1,1] with organ masks (B,H,W) uint8.

        z (B,): their numbers in their scans. The batch is filled up with copies of its last slice, so that a slice's
        answer doesn't depend on how many others are left.
        """
        count = len(images)
        filled = np.minimum(np.arange(self.batch_size), count - 1)
        device = self.runtime.device
        batch: Tensor = torch.as_tensor(images[filled], device=device).float()
        answer = self.method(batch, torch.as_tensor(z[filled]), torch.as_tensor(organ[filled], device=device))
        counterfactual = None if answer.counterfactual is None else _stored(answer.counterfactual[:count])
        probability = predict_probabilities(self.classifier, images[filled], self.runtime)[:count]
        return Explained(probability, _stored(answer.attribution[:count]), counterfactual)


def _stored(values: Tensor) -> np.ndarray:
    """In the precision in which a run stores its explanations."""
    return values.detach().float().cpu().numpy().astype(np.float16)
