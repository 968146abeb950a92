"""Distances between the populations of scans and counterfactuals, in the features of a network.

All populations are of the test split. The main distance is between the counterfactuals of the slices that the
classifier calls abnormal and the real slices labelled healthy, which they should look like. `*_unchanged`: between
these called slices themselves and the same healthy ones, what a method that changes nothing gets. `*_coin`: between the
counterfactuals of all slices and all slices, as COIN's code measures its FID (Shvetsov et al., 2024); near-copies make
it small. `*_both_directions`, of methods that also make images abnormal: between the slices that the classifier is sure
of and the counterfactual of each on the other side of the decision, as the same code measures the FID of Singla*.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from pydantic import Field, PositiveInt
from pytorch_fid.fid_score import calculate_frechet_distance
from torchmetrics.image.kid import poly_mmd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.params import Params

# Space of features -> its Fréchet distance, and its kernel distance where it has one.
FRECHET = {"classifier": "fd_clf", "inception_64": "fid_64", "inception_768": "fid_768", "inception_2048": "fid_2048"}
KERNEL = {"classifier": "kid_clf", "inception_2048": "kid"}
INCEPTION_METRICS = [name for space, name in FRECHET.items() if space != "classifier"]
CLASSIFIER_METRICS = [name + suffix for name in ("fd_clf", "kid_clf") for suffix in ("", "_unchanged")] + [
    "kid_clf_std", "perceptual_clf"]
BOTH_DIRECTIONS = [f"{name}_both_directions" for name in INCEPTION_METRICS]
INCEPTION_METRICS += [f"{name}_coin" for name in INCEPTION_METRICS] + ["kid"]


class RealismParams(Params):
    """Section `realism`: distances between populations of scans and counterfactuals."""

    batch_size: PositiveInt
    """Images that a network gets at once."""
    kid_subset_size: int = Field(ge=2)
    """Images of either population in one draw; at most half of the smaller population are drawn."""
    kid_subsets: PositiveInt
    """Draws over which the kernel distance is averaged."""


@dataclass
class Realism:
    """One method's distances: what was measured, why the rest was not, and what to bear in mind."""

    metrics: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # metric -> reason
    cautions: dict[str, str] = field(default_factory=dict)  # metric -> what limits it

    def caution(self, names: Iterable[str], text: str) -> None:
        """Say of these metrics what a reader must bear in mind, besides what is said already."""
        for name in names:
            self.cautions[name] = f"{self.cautions[name]}; {text}" if name in self.cautions else text


def measure_populations(scans: dict[str, np.ndarray], counterfactuals: dict[str, np.ndarray], called: np.ndarray,
                        healthy: np.ndarray, params: RealismParams, seed: int) -> Realism:
    """All distances of one method. scans, counterfactuals: {space: (N,D)} of the same test slices in the same order;
    called, healthy: (N,) bool, what the classifier calls abnormal and what is labelled healthy."""
    result = Realism({"n_realism": int(called.sum()), "n_realism_real": int(healthy.sum()),
                      "n_realism_coin": len(called)})
    unchanged = f"{called.sum()} slices called abnormal and {healthy.sum()} healthy slices"
    sides = f"{called.sum()} counterfactuals of slices called abnormal and {healthy.sum()} healthy slices"
    for space, name in FRECHET.items():
        if space not in scans:
            continue
        real, fake = scans[space][healthy], counterfactuals[space][called]
        _add_frechet(result, name, real, fake, sides)
        _add_frechet(result, f"{name}_unchanged", real, scans[space][called], unchanged)
        if space != "classifier":
            _add_frechet(result, f"{name}_coin", scans[space], counterfactuals[space],
                         f"{len(called)} counterfactuals and as many scans")
        if space in KERNEL:
            name = KERNEL[space]
            if min(len(real), len(fake)) < 4:
                result.missing[name] = f"needs at least 4 images on either side; there are {sides}"
                continue
            result.metrics[name], result.metrics[f"{name}_std"] = kernel_distance(real, fake, params, seed)
            result.metrics[f"{name}_unchanged"], _ = kernel_distance(real, scans[space][called], params, seed)
    return result


def add_both_directions(result: Realism, scans: dict[str, np.ndarray], counterfactuals: dict[str, np.ndarray],
                        abnormal: dict[str, np.ndarray], f_x: np.ndarray, cv_tau: float) -> None:
    """Add BOTH_DIRECTIONS of a method that also makes images abnormal, and their count.

    Slices with f(x) above `cv_tau` or below 1 - `cv_tau` against their counterfactuals on the other side: x_cf where
    the classifier calls the slice abnormal, else x_ab. scans, counterfactuals, abnormal: {space: (N,D)} of the same
    test slices in the same order; f_x: (N,) the classifier's probability of abnormal.
    """
    sure, called = (f_x > cv_tau) | (f_x < 1 - cv_tau), f_x >= CALLED_ABNORMAL  # (N,), (N,)
    result.metrics["n_realism_both_directions"] = int(sure.sum())
    for space in abnormal:
        opposite = np.where(called[:, None], counterfactuals[space], abnormal[space])  # (N,D)
        _add_frechet(result, f"{FRECHET[space]}_both_directions", scans[space][sure], opposite[sure],
                     f"{sure.sum()} counterfactuals in both directions and as many scans")


def _add_frechet(result: Realism, name: str, real: np.ndarray, fake: np.ndarray, sides: str) -> None:
    smaller, features = min(len(real), len(fake)), real.shape[1]
    if smaller < 2:
        result.missing[name] = f"needs at least 2 images on either side; there are {sides}"
        return
    try:
        result.metrics[name] = frechet_distance(real, fake)
    except ArithmeticError as error:
        result.missing[name] = str(error)
        return
    if smaller <= features:
        result.caution([name], f"{sides} for {features} features, too few for a covariance of full rank: the number "
                               "depends on the counts, compare it only with others of the same counts")


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Squared Fréchet distance of two Gaussians fitted to features (N,D) and (M,D), by pytorch-fid.

    Where there are fewer images than features, both sets are first written in the coordinates of the space that they
    span: a rotation, so the distance is the same, but the covariances are small and pytorch-fid takes a fraction of
    the time. Raises ArithmeticError where pytorch-fid finds no square root of the covariances' product.
    """
    both = np.concatenate([real, fake]) - real.mean(axis=0)  # (N+M,D)
    if len(both) < both.shape[1]:
        triangle: np.ndarray = np.linalg.qr(both.T, mode="r")  # type: ignore[assignment]  # stubs know no mode
        both = triangle.T  # both.T = QR, Q a rotation: (N+M,N+M)
    first, second = both[: len(real)], both[len(real) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's of a singular product: that is what the cautions say
        try:
            distance = float(calculate_frechet_distance(
                first.mean(axis=0), np.cov(first, rowvar=False), second.mean(axis=0), np.cov(second, rowvar=False)))
        except ValueError as error:  # imaginary part, or not finite
            raise ArithmeticError(f"pytorch-fid finds no square root of the covariances' product: {error}") from None
    if not np.isfinite(distance):
        raise ArithmeticError(f"pytorch-fid finds no square root of the covariances' product: it gives {distance}")
    return max(distance, 0.0)  # of equal sets, rounding gives -1e-6 or so


def kernel_distance(real: np.ndarray, fake: np.ndarray, params: RealismParams, seed: int) -> tuple[float, float]:
    """Mean and standard deviation over draws of the unbiased squared MMD of features (N,D) and (M,D), N and M >= 4.

    KID (Bińkowski et al., 2018): kernel (x.y / D + 1)^3. It may be a little below 0 for equal populations. A draw has
    at most half of the smaller side: of more, the draws would share most images and their spread would say nothing.
    """
    size = min(params.kid_subset_size, min(len(real), len(fake)) // 2)
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(params.kid_subsets):
        first, second = (torch.from_numpy(side[generator.choice(len(side), size, replace=False)])
                         for side in (real, fake))  # (size,D)
        draws.append(float(poly_mmd(first, second)))
    return float(np.mean(draws)), float(np.std(draws))
