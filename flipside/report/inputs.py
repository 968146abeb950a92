"""Everything that the report reads, in one place: artifacts of the earlier stages and params.yaml, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import Explanations
from flipside.artifacts.truth import open_truth
from flipside.core.files import read_json
from flipside.core.params import read_datasets, read_params, value_at
from flipside.core.store import SliceStore

MANIFESTS = ("data/extracted", "data/filtered", "data/slices")
ROLES = ("classifier", "judge")
SUBGROUP_COLUMNS = ("method", "size_group", "low_mm2", "high_mm2", "n_cases", "n_patients", "iou_val",
                    "iou_val_ci_low", "iou_val_ci_high", "pixel_ap")
POPULATION_COLUMNS = ("population", "meaning", "n_slices", "n_patients", "dropped", "reason")
RANDOMISATION = ("sanity_randomisation_passed", "randomisation_similarity", "randomisation_ssim",
                 "randomisation_similarity_head")
# What the report prints of params.yaml; `runtime` is left out, no result's meaning hangs on it.
PARAMETERS = ("profile", "dataset", "seed", "image_size", "phantom", "synthetic_effect", "extract", "filter",
              "anomalies", "offline_augmentation", "strong_supervision", "mass_patches", "classifiers", "generators",
              "encoders", "inversions", "attributes", "explain", "methods", "realism", "sanity", "probe", "masks",
              "segment_scans", "evaluate", "report")


@dataclass(frozen=True)
class FoundAttributes:
    """What StylEx' search found: a row for each attribute, and its pictures."""

    table: pd.DataFrame  # attribute, layer, channel, toward, mean_effect, lowers, example, logit_before, logit_after,
    # n_images, n_called, n_stable
    strip: np.ndarray  # (K,3,H,W) float16: the example as encoded, with the attribute, and all images' mean change


@dataclass(frozen=True)
class Result:
    """One method's artifacts. `row_of` leads from a slice to its row in `explanations` and `masks`."""

    name: str
    metrics: dict[str, float]
    is_control: bool
    explanations: Explanations
    masks: np.ndarray | None  # (N,H,W) uint8 under the shown threshold policy; None: the data set has no lesion masks
    thresholds: dict[str, float]
    row_of: dict[str, int]
    cases: pd.DataFrame  # this method's rows of reports/cases.csv
    missing: dict[str, str]  # metric -> why the stage that measures it did not
    cautions: dict[str, str]  # the same -> what limits it
    attributes: FoundAttributes | None = None  # of a method that moves found attributes

    @property
    def has_counterfactual(self) -> bool:
        return self.explanations.counterfactual is not None


@dataclass(frozen=True)
class ReportInputs:
    metrics: dict[str, dict[str, float]]
    cases: pd.DataFrame  # reports/cases.csv
    curves: pd.DataFrame  # method, threshold, iou
    subgroups: pd.DataFrame  # SUBGROUP_COLUMNS, by lesion size; no row without lesion masks
    populations: pd.DataFrame  # POPULATION_COLUMNS: what each kind of number rests on, what was dropped and why
    results: dict[str, Result]  # in the order of reports/metrics.json
    store: SliceStore
    lesion: np.ndarray  # (N,H,W) uint8, aligned with the store
    row_of: dict[str, int]  # slice_id -> row of store and lesion
    quality: dict[str, dict[str, float]]  # classifier and judge
    confusion: dict[str, pd.DataFrame]  # classifier and judge: actual, predicted of each test slice
    manifests: dict[str, Any]
    training: dict[str, dict[str, pd.DataFrame]]  # trained model -> curve -> table with the step in the first column
    parameters: dict[str, Any]
    # What check_inpainter wrote: its metrics, and the curves (arm, draw, fpr, tpr). None where there are no curves.
    inpainter: tuple[dict[str, float], pd.DataFrame] | None

    @property
    def has_lesion_masks(self) -> bool:
        return bool((self.cases["lesion_px"] > 0).any())


def read_inputs(policy: str, controls: list[str]) -> ReportInputs:
    """Read all artifacts, relative to the working folder, with the masks of one threshold policy.

    Raises FileNotFoundError with the file and the stage that writes it, ValueError where tables don't fit together.
    """
    parameters = read_params() | read_datasets()
    metrics = read_json(needed("reports/metrics.json", "evaluate"))
    cases = pd.read_csv(needed("reports/cases.csv", "evaluate"),
                        dtype={"method": str, "slice_id": str, "scan_id": str, "patient_id": str})
    store = SliceStore.open("data/slices")
    lesion = open_truth("data/truth", store.images.shape)
    masked = bool((cases["lesion_px"] > 0).any())
    results = {name: _read_result(name, values, policy if masked else None, name in controls, cases,
                                  parameters["methods"].get(name, {}).get("needs", ""))
               for name, values in metrics.items()}
    training = {name: _read_training(Path("reports/training") / name)
                for name in (*ROLES, *value_at(parameters, "generators"),
                             *(f"{name}_encoder" for name in value_at(parameters, "encoders")))}
    curves = pd.DataFrame(columns=["method", "threshold", "iou"])
    if masked:
        curves = pd.read_csv(needed("reports/curves/thresholds.csv", "evaluate"), dtype={"method": str})
    return ReportInputs(
        metrics=metrics, cases=cases, results=results, store=store, lesion=lesion,
        curves=curves, subgroups=_read_table("reports/subgroups.csv", SUBGROUP_COLUMNS),
        populations=_read_table("reports/populations.csv", POPULATION_COLUMNS),
        row_of={slice_id: row for row, slice_id in enumerate(store.index["slice_id"])},
        quality={role: read_json(needed(f"reports/{role}.json", f"train_classifier@{role}")) for role in ROLES},
        confusion={role: _read_table(f"reports/training/{role}/confusion.csv", ("actual", "predicted"),
                                     f"train_classifier@{role}") for role in ROLES},
        manifests={folder: read_json(needed(f"{folder}/manifest.json", "the prepare stages")) for folder in MANIFESTS},
        training=training, parameters=shown_parameters(parameters), inpainter=_read_inpainter(),
    )


def needed(path: str, stage: str) -> Path:
    """The path, if the file is there; else an error that names the stage which writes it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} not found: it comes from {stage}; run `dvc repro`")
    return Path(path)


def shown_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """The sections that shape the results; of `datasets` only the block in use."""
    shown = {name: value_at(parameters, name) for name in PARAMETERS}
    shown["datasets"] = {shown["dataset"]: value_at(parameters, f"datasets.{shown['dataset']}")}
    return shown


def _read_result(name: str, metrics: dict, policy: str | None, is_control: bool, cases: pd.DataFrame,
                 needs: str) -> Result:
    explanations = Explanations.open(f"data/explanations/{name}")
    masks, thresholds = None, {}
    if policy is not None:
        masks = np.load(needed(f"data/masks/{name}/{policy}.npy", f"extract_masks@{name}"), mmap_mode="r")
        thresholds = read_json(needed(f"data/masks/{name}/thresholds.json", f"extract_masks@{name}"))
        if len(masks) != len(explanations.index):
            raise ValueError(f"data/masks/{name}/{policy}.npy has {len(masks)} masks for {len(explanations.index)} "
                             f"explained slices: run `dvc repro extract_masks@{name}`")
    row_of = {slice_id: row for row, slice_id in enumerate(explanations.index["slice_id"])}
    own = cases[cases["method"] == name].reset_index(drop=True)
    strangers = own.loc[~own["slice_id"].isin(row_of), "slice_id"]
    if len(strangers):
        raise ValueError(f"reports/cases.csv scores {len(strangers)} slices that data/explanations/{name} lacks "
                         f"(first: {strangers.iloc[0]}): run `dvc repro evaluate`")
    realism = {"missing": {}, "cautions": {}}
    if explanations.counterfactual is not None:
        realism = read_json(needed(f"data/realism/{name}.json", "measure_realism"))
    sanity = read_json(needed(f"data/sanity/{name}.json", f"explain@{name}"))
    unchecked = dict.fromkeys(RANDOMISATION, sanity["reason"]) if "reason" in sanity else {}
    attributes = _read_attributes(Path(needs).name) if needs.startswith("models/attributes/") else None
    return Result(name, metrics, is_control, explanations, masks, thresholds, row_of, own,
                  realism["missing"] | unchecked, realism["cautions"], attributes)


def _read_attributes(generator: str) -> FoundAttributes:
    folder, stage = f"reports/training/{generator}_attributes", f"find_attributes@{generator}"
    table = pd.read_csv(needed(f"{folder}/attributes.csv", stage), dtype={"example": str})
    return FoundAttributes(table, np.load(needed(f"{folder}/strip.npy", stage)))


def _read_inpainter() -> tuple[dict[str, float], pd.DataFrame] | None:
    """Absent without lesion masks, and where trained models are applied to another data set."""
    curves = Path("reports/inpainter/roc.csv")
    if not curves.is_file():
        return None
    return read_json(needed("reports/inpainter.json", "check_inpainter")), pd.read_csv(curves)


def _read_table(path: str, columns: tuple[str, ...], stage: str = "evaluate") -> pd.DataFrame:
    table = pd.read_csv(needed(path, stage), dtype={"method": str})
    if absent := [name for name in columns if name not in table]:
        raise ValueError(f"{path} has no column {', '.join(absent)}; found {', '.join(table)}: run `dvc repro {stage}`")
    return table


def _read_training(folder: Path) -> dict[str, pd.DataFrame]:
    """DVCLive's TSVs below a folder and the ROC curve, by name; empty where a model left no curves."""
    tables = {file.relative_to(folder).with_suffix("").as_posix().removeprefix("plots/metrics/"):
              pd.read_csv(file, sep="\t") for file in sorted(folder.rglob("*.tsv"))}
    if (folder / "roc.csv").is_file():
        tables["roc"] = pd.read_csv(folder / "roc.csv")
    return tables
