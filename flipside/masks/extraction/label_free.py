"""Thresholds that no lesion mask has a say in: the rules among which the policy `label_free` chooses.

A map is smoothed (`smooth_px`) and its background taken away; what is left are its heights. Marked is what is higher
than the rule's threshold. A constant map says nothing, so nothing of it is marked, whatever the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import ndimage
from skimage import filters

from flipside.core.params import Params

Background = Literal["zero", "minimum", "median"]
BACKGROUNDS: dict[Background, Callable[[np.ndarray], np.ndarray]] = {  # of maps (N,H,W): (N,1,1)
    "zero": lambda maps: np.zeros((len(maps), 1, 1), maps.dtype),
    "minimum": lambda maps: maps.min(axis=(1, 2), keepdims=True),
    "median": lambda maps: np.median(maps, axis=(1, 2), keepdims=True),
}


@dataclass(frozen=True)
class Rule:
    """A rule: `find` gives each map's threshold, or `fit` one threshold for all of a method's maps.

    find(heights (N,H,W), parameters) -> (N,), of maps that aren't constant. fit(heights (M,H,W) of the validation
    slices labelled healthy, quantile) -> threshold.
    """

    meaning: str
    parameters: tuple[str, ...] = ()  # those of its own, besides background and smooth_px
    find: Callable[[np.ndarray, FittedRule], np.ndarray] | None = None
    fit: Callable[[np.ndarray, float], float] | None = None


def _per_image(threshold: Callable[[np.ndarray], float]) -> Callable[[np.ndarray, FittedRule], np.ndarray]:
    """`find` of a rule that scikit-image knows for one image."""
    return lambda heights, _: np.array([threshold(one) for one in heights], float)


def _share(heights: np.ndarray, rule: FittedRule) -> np.ndarray:
    """`find` of a rule that takes a share of what `BASES` names."""
    assert rule.share is not None
    return rule.share * BASES[rule.rule](heights, rule)


def _maximum(heights: np.ndarray, rule: LabelFreeParams | FittedRule) -> np.ndarray:
    """Each map's greatest height: (N,H,W) -> (N,)."""
    return heights.max(axis=(1, 2))


def _greatest_mean(heights: np.ndarray, rule: LabelFreeParams | FittedRule) -> np.ndarray:
    """Each map's greatest mean height over a square window: (N,H,W) -> (N,).

    A single high pixel doesn't raise it, nor does it sink with how far the map's low parts reach. The window's side is
    the odd number of pixels nearest to `window` of the longer side.
    """
    assert rule.window is not None
    side = 2 * round((rule.window * max(heights.shape[1:]) - 1) / 2) + 1
    return ndimage.uniform_filter(heights, size=(1, side, side), mode="nearest").max(axis=(1, 2))


def _weighted_mean(heights: np.ndarray, rule: LabelFreeParams | FittedRule) -> np.ndarray:
    """Each map's mean height where every pixel weighs as the square of its height: (N,H,W) -> (N,).

    Of a plateau it is the plateau's height, of a Gaussian peak 2/3 of the peak's, so that half of it is near the border
    of either; a maximum says nothing of the form below it. What is low weighs next to nothing.
    """
    heights = np.maximum(heights, 0).astype(np.float64)
    squares = (heights**2).sum(axis=(1, 2))
    return np.divide((heights**3).sum(axis=(1, 2)), squares, out=np.zeros(len(heights)), where=squares > 0)


# Rules whose threshold is a share of something: what it is a share of.
BASES: dict[str, Callable[[np.ndarray, LabelFreeParams | FittedRule], np.ndarray]] = {
    "share_of_maximum": _maximum, "share_of_greatest_mean": _greatest_mean, "share_of_weighted_mean": _weighted_mean}


# From simple to less simple: of rules that are equally good the first is taken.
RULES: dict[str, Rule] = {
    "share_of_maximum": Rule("a share of the map's own maximum", ("share",), find=_share),
    "share_of_greatest_mean": Rule("a share of the map's greatest mean over a square window", ("share", "window"),
                                   find=_share),
    "share_of_weighted_mean": Rule("a share of the map's own mean, where pixels weigh as the squares of their heights",
                                   ("share",), find=_share),
    "otsu_per_image": Rule("Otsu's threshold of each map (Otsu, 1979)", find=_per_image(filters.threshold_otsu)),
    "triangle_per_image": Rule("the triangle threshold of each map (Zack et al., 1977)",
                               find=_per_image(filters.threshold_triangle)),
    "li_per_image": Rule("the threshold of least cross entropy of each map (Li and Lee, 1993)",
                         find=_per_image(filters.threshold_li)),
    "yen_per_image": Rule("the threshold of greatest correlation of each map (Yen et al., 1995)",
                          find=_per_image(filters.threshold_yen)),
    "healthy_quantile": Rule("a quantile of the pixels of the method's maps of validation slices labelled healthy",
                             ("quantile",), fit=lambda heights, quantile: float(np.quantile(heights, quantile))),
    "healthy_maxima": Rule("a quantile of the maxima of the method's maps of validation slices labelled healthy",
                           ("quantile",),
                           fit=lambda heights, quantile: float(np.quantile(heights.max(axis=(1, 2)), quantile))),
}


class LabelFreeParams(Params):
    """The policy `label_free`: a rule that takes no lesion mask, the same for every method."""

    rule: str = Field(pattern=f"^({'|'.join(RULES)})$")
    """How the threshold is found; flipside/masks/extraction/label_free.py holds and explains the rules."""
    background: Background
    """What of a map counts as nothing and is taken away first: no value, its minimum or its median."""
    share: float = Field(gt=0, lt=1)
    """share_of_…: the threshold as a share of the maximum or mean, all above the background."""
    window: float = Field(gt=0, lt=1)
    """share_of_greatest_mean: the window's side as a fraction of the slice's longer side, so that it means the same at
    every size."""
    quantile: float = Field(gt=0, lt=1)
    """healthy_quantile and healthy_maxima: which quantile is the threshold."""
    smooth_px: Literal[1, 3]
    """Side of the square over whose mean maps are smoothed first; 1: not at all."""


class FittedRule(Params):
    """A rule with all that it needs to mark maps: its own parameters, and the threshold where it has one for all maps.

    It stands in thresholds.json, and is carried with it to other data sets.
    """

    rule: str
    background: Background
    smooth_px: Literal[1, 3]
    share: float | None = None
    window: float | None = None
    quantile: float | None = None
    threshold: float | None = None

    def __str__(self) -> str:
        details = [f"{name} {getattr(self, name):g}" for name in ("share", "window", "quantile") if getattr(self, name)]
        details += [f"background {self.background}", *(["3 x 3 mean"] if self.smooth_px == 3 else [])]
        fitted = "" if self.threshold is None else f" = {self.threshold:.3g}"
        return f"{self.rule.replace('_', ' ')}{fitted} ({', '.join(details)})"


def needs_healthy_maps(params: LabelFreeParams) -> bool:
    """Whether the rule is fitted to maps of slices that are labelled healthy."""
    return RULES[params.rule].fit is not None


def fit_rule(params: LabelFreeParams, healthy: np.ndarray | None = None) -> FittedRule:
    """The rule ready to mark; healthy (M,H,W) in [0,1]: maps of slices labelled healthy, where it needs them."""
    rule = RULES[params.rule]
    own = {name: getattr(params, name) for name in ("rule", "background", "smooth_px", *rule.parameters)}
    if rule.fit is None:
        return FittedRule(**own)
    assert healthy is not None and len(healthy), "a fitted rule needs maps of healthy slices"
    return FittedRule(**own, threshold=rule.fit(heights(healthy, params), params.quantile))


def mark(maps: np.ndarray, rule: FittedRule) -> np.ndarray:
    """Masks (N,H,W) bool, not cleaned, of maps (N,H,W) in [0,1]; of constant maps empty."""
    high = heights(maps, rule)
    return high > find_thresholds(high, rule).reshape(-1, 1, 1)


def find_thresholds(high: np.ndarray, rule: FittedRule) -> np.ndarray:
    """Above which of its heights (N,H,W) each map is marked, (N,) float32; infinite for constant maps, of which nothing
    is."""
    found = np.full(len(high), np.inf, np.float32)
    varied = high.max(axis=(1, 2)) > high.min(axis=(1, 2))  # (N,)
    if varied.any():
        find = RULES[rule.rule].find
        found[varied] = rule.threshold if find is None else find(high[varied], rule)
    return found


def heights(maps: np.ndarray, rule: LabelFreeParams | FittedRule) -> np.ndarray:
    """Maps (N,H,W) in [0,1], smoothed as the rule says, above their background: (N,H,W) float32."""
    maps = np.asarray(maps, np.float32)
    if rule.smooth_px > 1:
        maps = ndimage.uniform_filter(maps, size=(1, rule.smooth_px, rule.smooth_px), mode="nearest")
    return maps - BACKGROUNDS[rule.background](maps)


def shares(maps: np.ndarray, rule: LabelFreeParams | FittedRule) -> np.ndarray:
    """Heights as shares of what the rule takes a share of (of the maximum where it takes none), (N,H,W) float32 in
    [0,1], of constant maps 0: at a share s < 1 it marks what is above s."""
    high = heights(maps, rule)
    base = BASES.get(rule.rule, _maximum)(high, rule).reshape(-1, 1, 1).astype(np.float32)
    varied = high.max(axis=(1, 2), keepdims=True) > high.min(axis=(1, 2), keepdims=True)
    return np.divide(high, base, out=np.zeros_like(high), where=varied & (base > 0)).clip(0, 1)
