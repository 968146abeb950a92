"""Everything that the report reads, in one place: artifacts of the earlier stages and params.yaml, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import Explanations
from flipside.artifacts.truth import open_truth
from flipside.core import paths
from flipside.core.files import read_json
from flipside.core.index_tables import read_index
from flipside.core.packed_masks import Stack
from flipside.core.params import SECTIONS, read_datasets, read_params, value_at
from flipside.core.store import SliceStore
from flipside.masks.extraction.thresholds import Cut, read_cuts
from flipside.masks.method_masks import open_masks
from flipside.metrics import populations, subgroups
from flipside.metrics.families.bounded_flips import SWEEP_COLUMNS
from flipside.metrics.families.time import trainings
from flipside.metrics.registry import recorded_reasons
from flipside.report.badges import is_from_files, is_upper_bound
from flipside.report.channels import shown_channels
from flipside.report.params import ReportParams
from flipside.report.tables import Metrics, ranking
from flipside.report.trainings import Trainings, counting, read_trainings

MANIFESTS = ("data/extracted", "data/filtered", "data/slices")
ROLES = ("classifier", "judge")
# Sections that the page doesn't take from params.yaml: `runtime` changes no result; of `datasets` only the block in use
# is shown; what was trained and explained brings the parameters it was made with.
NOT_SHOWN = ("runtime", "datasets", "classifiers", "generators", "encoders", "attributes", "methods")


@dataclass(frozen=True)
class FoundAttributes:
    """Attributes that a search found in a generator's style space."""

    table: pd.DataFrame  # attribute, layer, channel, toward, mean_effect, lowers, example, logit_before, logit_after,
    # n_images, n_called, n_stable
    # (K,3,H,W) or (K,3,C,H,W) float16: the example as encoded, with the attribute, and all images' mean change
    strip: np.ndarray


@dataclass(frozen=True)
class Result:
    """One method's artifacts. `row_of` maps a slice to its row in `explanations` and `masks`."""

    name: str
    metrics: dict[str, float]
    is_control: bool
    explanations: Explanations
    masks: Stack | None  # (N,H,W) uint8 0/1 under the shown threshold policy; None: the data set has no lesion masks
    thresholds: dict[str, Cut]  # by policy
    row_of: dict[str, int]
    cases: pd.DataFrame  # this method's rows of reports/cases.csv
    missing: dict[str, str]  # metric -> why the stage that measures it did not
    cautions: dict[str, str]  # metric -> what limits it
    attributes: FoundAttributes | None = None  # of a method that explains with found attributes

    @property
    def is_upper_bound(self) -> bool:
        """Whether it learned from lesion masks."""
        return is_upper_bound(self.metrics)

    @property
    def is_from_files(self) -> bool:
        """Whether its maps were made elsewhere."""
        return is_from_files(self.metrics)

    @property
    def has_counterfactual(self) -> bool:
        return self.explanations.counterfactual is not None


@dataclass(frozen=True)
class CaseCounts:
    """On how many test slices and patients the numbers rest."""

    lesion: int
    lesion_patients: int
    healthy: int
    patients: int


@dataclass(frozen=True)
class ReportInputs:
    """All that the figures and the page are made of."""

    params: ReportParams
    metrics: Metrics
    rank_by: str  # the metric that orders the methods of this data set
    cases: pd.DataFrame  # reports/cases.csv
    curves: pd.DataFrame  # method, threshold, iou
    flips: pd.DataFrame  # reports/flips_by_bound.csv: flips that count, by the greatest change allowed
    subgroups: pd.DataFrame  # reports/subgroups.csv, by lesion size; no row without lesion masks
    populations: pd.DataFrame  # reports/populations.csv: what each kind of number rests on, what was dropped and why
    results: dict[str, Result]  # best method first
    store: SliceStore
    lesion: Stack  # (N,H,W) uint8 0/1, aligned with the store
    row_of: dict[str, int]  # slice_id -> row of store and lesion
    quality: dict[str, dict[str, float]]  # classifier and judge
    confusion: dict[str, pd.DataFrame]  # classifier and judge: actual, predicted of each test slice
    manifests: dict[str, Any]
    training: dict[str, dict[str, pd.DataFrame]]  # trained model -> curve -> table with the step in the first column
    parameters: dict[str, Any]  # what the page prints of params.yaml
    made_with: dict[str, dict[str, Any]]  # `models` and `methods` -> name -> the parameters that it was made with
    # What check_inpainter wrote: its metrics, and the curves (arm, draw, fpr, tpr). None where there are no curves.
    inpainter: tuple[dict[str, float], pd.DataFrame] | None
    trainings: Trainings  # the repetitions of this run
    ignored_trainings: str  # why those that were found don't count; empty where they do, and where there are none

    @property
    def channel_names(self) -> list[str]:
        """What the channels of a slice are called, as the preparation names them; by their numbers where it doesn't."""
        numbers = [str(number) for number in range(1, self.store.channels + 1)]
        return list(self.manifests["data/slices"].get("channels", numbers))

    def shown_channels(self, images: np.ndarray) -> np.ndarray:
        """Of slices (...,H,W) or (...,C,H,W) what a picture shows: (...,H,W), or (...,3,H,W) of red, green and blue."""
        return shown_channels(images, self.channel_names)

    @property
    def has_lesion_masks(self) -> bool:
        return bool((self.cases["lesion_px"] > 0).any())

    @property
    def iou_column(self) -> str:
        """The column of reports/cases.csv with the IoU under the shown threshold policy."""
        return f"iou_{self.params.policy}"

    def with_counterfactual(self) -> list[Result]:
        """The methods that make counterfactual images, best first."""
        return [result for result in self.results.values() if result.has_counterfactual]

    def count_cases(self) -> CaseCounts:
        """On how many test cases everything rests."""
        cases = self.cases.drop_duplicates("slice_id")
        lesion = cases[(cases["label"] == 1) & ((cases["lesion_px"] > 0) | (not self.has_lesion_masks))]
        return CaseCounts(len(lesion), lesion["patient_id"].nunique(), int((cases["label"] == 0).sum()),
                          cases["patient_id"].nunique())


def read_inputs(params: ReportParams) -> ReportInputs:
    """Read all artifacts, relative to the working folder, with the masks of one threshold policy.

    Raises FileNotFoundError with the file and the stage that writes it, ValueError where tables don't fit together or
    no method has the metric that ranks.
    """
    parameters = read_params() | read_datasets()
    metrics: Metrics = read_json(needed("reports/metrics.json", "evaluate"))
    cases = read_index(needed("reports/cases.csv", "evaluate"))
    store = SliceStore.open("data/slices")
    masked = bool((cases["lesion_px"] > 0).any())
    rank_by = params.rank_by if masked else params.rank_by_without_masks
    curves = pd.DataFrame(columns=["method", "threshold", "iou"])
    if masked:
        curves = read_index(needed("reports/curves/thresholds.csv", "evaluate"))
    methods = {name: read_json(needed(f"{paths.explanations(name)}/parameters.json", f"explain@{name}"))
               for name in metrics}
    results = {name: _read_result(name, metrics[name], params, store, cases, masked, methods[name]["needs"])
               for name in ranking(metrics, rank_by)}
    models = {name: read_json(file) for name, file in _models(methods).items()}
    recorded = read_trainings()
    data = store.fingerprint if recorded.series else None
    trainings, ignored = counting(recorded, parameters, metrics, rank_by, data)
    return ReportInputs(
        params=params, metrics=metrics, rank_by=rank_by, cases=cases, results=results, store=store,
        lesion=open_truth("data/truth", store.organ.shape), curves=curves,
        flips=_read_table("reports/flips_by_bound.csv", list(SWEEP_COLUMNS), "evaluate"),
        subgroups=_read_table("reports/subgroups.csv", subgroups.COLUMNS, "evaluate"),
        populations=_read_table("reports/populations.csv", populations.COLUMNS, "evaluate"),
        row_of={slice_id: row for row, slice_id in enumerate(store.index["slice_id"])},
        quality={role: read_json(needed(f"reports/{role}.json", f"train_classifier@{role}")) for role in ROLES},
        confusion={role: _read_table(f"reports/training/{role}/confusion.csv", ["actual", "predicted"],
                                     f"train_classifier@{role}") for role in ROLES},
        manifests={folder: read_json(needed(f"{folder}/manifest.json", "the prepare stages")) for folder in MANIFESTS},
        training={name: _read_training(Path(paths.training_report(name))) for name in models},
        parameters=shown_parameters(parameters), made_with={"models": models, "methods": methods},
        inpainter=_read_inpainter(), trainings=trainings, ignored_trainings=ignored,
    )


def needed(path: str, stage: str) -> Path:
    """The path, if the file is there; else an error that names the stage which writes it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} not found: it comes from {stage}; run `dvc repro`")
    return Path(path)


def shown_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """The sections of params.yaml that shape the results; of `datasets` only the block in use."""
    shown = {name: value_at(parameters, name) for name in SECTIONS if name not in NOT_SHOWN}
    shown["datasets"] = {shown["dataset"]: value_at(parameters, f"datasets.{shown['dataset']}")}
    return shown


def _models(methods: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """The parameters of the classifiers and of what the methods explain with: training report -> its file."""
    used = dict.fromkeys(ROLES, "train_classifier")
    for method in methods.values():
        if method["needs"] != paths.SLICES:
            used |= trainings(method["needs"])
    return {name: needed(f"{paths.training_report(name)}/parameters.json", stage) for name, stage in used.items()}


def _read_result(name: str, metrics: dict[str, float], params: ReportParams, store: SliceStore, cases: pd.DataFrame,
                 masked: bool, needs: str) -> Result:
    """One method's artifacts; masked: the data set has lesion masks; needs: what the method explains with."""
    explanations = Explanations.open(f"data/explanations/{name}")
    masks: Stack | None = None
    thresholds: dict[str, Cut] = {}
    if masked:
        masks = open_masks(name, params.policy, explanations, store)
        thresholds = read_cuts(Path(paths.masks(name)) / "thresholds.json")
    row_of = {slice_id: row for row, slice_id in enumerate(explanations.index["slice_id"])}
    own = cases[cases["method"] == name].reset_index(drop=True)
    unknown = own.loc[~own["slice_id"].isin(row_of), "slice_id"]
    if len(unknown):
        raise ValueError(f"reports/cases.csv scores {len(unknown)} slices that data/explanations/{name} lacks "
                         f"(first: {unknown.iloc[0]}): run `dvc repro evaluate`")
    cautions: dict[str, str] = {}
    if explanations.counterfactual is not None:
        cautions = read_json(needed(f"data/realism/{name}.json", "measure_realism"))["cautions"]
    return Result(name, metrics, name in params.controls, explanations, masks, thresholds, row_of, own,
                  recorded_reasons(name), cautions, _read_attributes(needs))


def _read_attributes(needs: str) -> FoundAttributes | None:
    """What find_attributes reports of the attributes that a method explains with; None for other methods."""
    if not needs.startswith("models/attributes/"):
        return None
    generator = Path(needs).name
    folder, stage = f"reports/training/{generator}_attributes", f"find_attributes@{generator}"
    table = read_index(needed(f"{folder}/attributes.csv", stage))
    return FoundAttributes(table, np.load(needed(f"{folder}/strip.npy", stage)))


def _read_inpainter() -> tuple[dict[str, float], pd.DataFrame] | None:
    """Absent without lesion masks, and where trained models are applied to another data set."""
    curves = Path("reports/inpainter/roc.csv")
    if not curves.is_file():
        return None
    return read_json(needed("reports/inpainter.json", "check_inpainter")), pd.read_csv(curves)


def _read_table(path: str, columns: list[str], stage: str) -> pd.DataFrame:
    table = read_index(needed(path, stage))
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
