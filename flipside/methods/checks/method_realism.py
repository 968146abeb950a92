"""How far a method's counterfactuals are from their scans and from real healthy slices of the test split.

FID, KID and LPIPS only where their networks' weights lie in torch hub's cache; otherwise the reason is kept. The
distances in the classifier's own features are there unless it is an imported one that shows none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL, Explanations
from flipside.classifiers.networks.backbones import Classifier
from flipside.classifiers.networks.pretrained import (
    ALEXNET,
    INCEPTION,
    Weights,
    inception_features,
    load_inception,
    load_lpips,
    lpips_distances,
)
from flipside.core import paths
from flipside.core.runtime import Runtime
from flipside.methods.checks.perceptual import classifier_features
from flipside.methods.checks.realism import (
    BOTH_DIRECTIONS,
    CLASSIFIER_METRICS,
    INCEPTION_METRICS,
    Realism,
    RealismParams,
    add_both_directions,
    measure_populations,
)

NO_MAPS = "the explained classifier was imported from a file that shows neither feature maps nor features"
Spaces = dict[str, np.ndarray]  # space of features, as in FRECHET -> features (N,D)


class RealismMeter:
    """Measures one method after the other on the same slices, with networks that are loaded once.

    index, scans: the test slices' rows of the store's index, and their images (N,H,W) or (N,C,H,W) in [-1,1].
    cv_tau: probability from which on the classifier is sure.
    """

    def __init__(self, index: pd.DataFrame, scans: np.ndarray, classifier: Classifier, params: RealismParams,
                 runtime: Runtime, seed: int, cv_tau: float):
        self.index, self.scans, self.classifier = index, scans, classifier
        self.params, self.runtime, self.seed, self.cv_tau = params, runtime, seed, cv_tau
        reasons = {weights: weights.absence() for weights in (INCEPTION, ALEXNET)}
        self.absent = {weights: reason for weights, reason in reasons.items() if reason}
        doubts = {weights: weights.doubt() for weights in reasons if weights not in self.absent}
        self.doubtful = {weights: doubt for weights, doubt in doubts.items() if doubt}
        self.inception = None if INCEPTION in self.absent else load_inception(runtime)
        self.lpips = None if ALEXNET in self.absent else load_lpips(runtime)
        self.of_scans: Spaces | None = None  # the same for all methods: computed with the first

    def measure(self, explanations: Explanations, method: str) -> tuple[Realism, pd.DataFrame]:
        """A method's distances between populations, and a table with those of each slice to its counterfactual.

        Raises ValueError where the method makes no counterfactuals or lacks a slice.
        """
        if explanations.counterfactual is None:
            raise ValueError(f"{paths.explanations(method)} has no counterfactual.npy: there is nothing to measure")
        at = find_positions(explanations, self.index["slice_id"], method)
        counterfactuals = np.array(explanations.counterfactual[at])
        own, own_cf, distances = self.in_classifier(counterfactuals)
        if self.of_scans is None:
            self.of_scans = own | self.in_inception(self.scans)
        of_counterfactuals = own_cf | self.in_inception(counterfactuals)
        f_x = explanations.index["f_x"].to_numpy(float)[at]
        result = measure_populations(self.of_scans, of_counterfactuals, f_x >= CALLED_ABNORMAL,
                                     self.index["label"].to_numpy() == 0, self.params, self.seed)
        abnormal = explanations.abnormal
        if abnormal is not None:
            add_both_directions(result, self.of_scans, of_counterfactuals, self.in_inception(np.array(abnormal[at])),
                                f_x, self.cv_tau)
        table = pd.DataFrame({"slice_id": self.index["slice_id"], "perceptual_clf": distances, "lpips": np.nan})
        if self.lpips is not None:
            table["lpips"] = lpips_distances(self.lpips, self.scans, counterfactuals, self.runtime,
                                             self.params.batch_size)
        if not self.classifier.has_maps:
            result.missing |= dict.fromkeys(CLASSIFIER_METRICS, NO_MAPS)
        for weights, names in list_metrics(abnormal is not None).items():
            if weights in self.absent:
                result.missing |= dict.fromkeys(names, self.absent[weights])
            elif weights in self.doubtful:
                result.caution(names, self.doubtful[weights])
        return result, table

    def in_classifier(self, counterfactuals: np.ndarray) -> tuple[Spaces, Spaces, np.ndarray]:
        """The classifier's features of the scans and of counterfactuals, and the distance (N,) of each pair's maps;
        none, and NaN, of a classifier that shows none."""
        if not self.classifier.has_maps:
            return {}, {}, np.full(len(self.scans), np.nan)
        pooled, pooled_cf, distances = classifier_features(self.classifier, self.scans, counterfactuals, self.runtime,
                                                           self.params.batch_size)
        return {"classifier": pooled}, {"classifier": pooled_cf}, distances

    def in_inception(self, images: np.ndarray) -> Spaces:
        """Inception's features of images (N,H,W) or (N,C,H,W) in [-1,1], none where its weights are absent."""
        if self.inception is None:
            return {}
        features = inception_features(self.inception, images, self.runtime, self.params.batch_size)
        return {f"inception_{dim}": values for dim, values in features.items()}

    def warnings(self, both_directions: bool) -> list[str]:
        """What to tell the user of weights that are absent or doubtful, and of a classifier that shows nothing;
        `both_directions`: a method needs these too."""
        unseen = [] if self.classifier.has_maps else [f"no {', '.join(CLASSIFIER_METRICS)}: {NO_MAPS}"]
        return unseen + [f"{word} {', '.join(names)}: {reasons[weights]} (the file comes from {weights.url})"
                for weights, names in list_metrics(both_directions).items()
                for word, reasons in (("no", self.absent), ("doubtful", self.doubtful)) if weights in reasons]


def list_metrics(both_directions: bool) -> dict[Weights, list[str]]:
    """Weights -> the metrics that need them, of a method that makes images abnormal too or of one that doesn't."""
    return {INCEPTION: INCEPTION_METRICS + (BOTH_DIRECTIONS if both_directions else []), ALEXNET: ["lpips"]}


def find_positions(explanations: Explanations, slice_ids: pd.Series, method: str) -> np.ndarray:
    """Where each of the slices stands among a method's explanations; ValueError for explanations that lack one."""
    at = pd.Index(explanations.index["slice_id"]).get_indexer(slice_ids)
    if (at < 0).any():
        raise ValueError(f"{paths.explanations(method)} lacks {(at < 0).sum()} of the {len(at)} test slices (first: "
                         f"{slice_ids[at < 0].iloc[0]}): run `dvc repro explain@{method}`")
    return at
