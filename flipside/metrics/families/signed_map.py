"""How well a map with its sign agrees with what was really added to the slice."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.core.store import as_channels
from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.families.overlap import Overlap, cross_correlation
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import mean_with_interval


class SignedMap(Family):
    """Over lesion slices, whatever the classifier calls them, as VA-GAN (Baumgartner et al. 2018, section 4.1) and
    CX-GAN (Murtaza 2026) report it; only where anomalies or effects are synthetic, so that the true effect is known.
    """

    place = 12
    theme = Overlap.theme
    needs = ("lesions", "counterfactual")
    absent = "the true effect is known only where anomalies or effects are synthetic"
    metrics = {
        "ncc_signed": Metric("NCC signed", "zero-mean normalised cross-correlation of the true effect, scan minus the "
                             "scan without it, and of what the method takes away, with signs: its own signed map M "
                             "(what to add to the scan) as -M where it draws one, else x - x_cf; 1 where it takes away "
                             "what was added, -1 where it adds it once more, 0 where nothing changes", True,
                             interval=True),
    }
    columns = ("ncc_signed",)

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        chosen, test = is_lesion_case(cases).to_numpy(), artifacts.test
        if test.clean is not None:
            effect = test.images[chosen].astype(np.float32) - test.clean[chosen]
            cases.loc[chosen, "ncc_signed"] = signed_correlation(artifacts.signed_change[chosen], effect)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        known = cases.dropna(subset="ncc_signed")
        return mean_with_interval(known, "ncc_signed", params, seed) if len(known) else {}


def signed_correlation(change: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Correlation (N,) in [-1,1] of -change and effect, both (N,H,W) or (N,C,H,W), of several channels in their mean;
    change: what a method adds to the scan; effect: what the scan has more than it had without its lesion."""
    return cross_correlation(-as_channels(change).mean(axis=1), as_channels(effect).mean(axis=1))
