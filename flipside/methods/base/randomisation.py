"""Model randomisation check (Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv:1810.03292).

A map that stays the same when the classifier's weights are shuffled cannot explain the classifier. Two stages of their
cascade, from the output down: the linear head alone, and all layers. Pairs of maps that are both blank, as of a slice
that both classifiers call healthy, show neither sameness nor change: they are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field, PositiveInt
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import Classifier
from flipside.core.params import Params
from flipside.core.runtime import generator_for
from flipside.core.store import SliceStore, as_channels
from flipside.methods.base.method import Context, Method
from flipside.methods.base.parameters import MethodParams

LAYERS = ("head", "all")


class SanityParams(Params):
    """Section `sanity`: the model randomisation check."""

    slices: PositiveInt
    """Test slices labelled abnormal whose maps are compared, at most."""
    draws: PositiveInt
    """Times that the weights are shuffled; similarities are means over draws and slices."""
    threshold: float = Field(gt=0, le=1)
    """A map counts as unchanged where mean |Spearman's rho| and SSIM under shuffled layers are both this high."""


def choose_slices(store: SliceStore, count: int, seed: int) -> np.ndarray:
    """Up to `count` rows of the test slices labelled abnormal, the same ones for every method, in the store's order."""
    rows = store.rows("test", label=1)
    return np.sort(np.random.default_rng(seed % 2**32).permutation(rows)[:count])


def shuffle_weights(classifier: Classifier, layers: str, images: Tensor, draw: tuple[int, ...]) -> Classifier:
    """A copy whose weights are permuted within each tensor of the linear `head` or of `all` layers; frozen, eval mode.

    draw: integers that the permutations follow from. Batch normalisation doesn't fit shuffled layers: the network would
    give nearly one answer to every image, whose map is trivially another one. So its running statistics are then
    measured anew on images (B,C,H,W) in [-1,1]; the network answers as a freshly made one does.
    """
    network = copy.deepcopy(classifier)
    generator = generator_for(*draw)
    head = network.last_layer()
    assert head is not None, "asked for only where there is one"
    for parameter in (network if layers == "all" else head).parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.data.copy_(parameter.data.flatten()[order].view_as(parameter))
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if layers == "all" and norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over what it sees, not a decaying one
            norm.train()  # this module alone: dropout and stochastic depth stay off
        with torch.no_grad():
            network(images)
    return network.eval()


def draw_maps(method: Method, images: Tensor, rows: np.ndarray, organ: Tensor, batch_size: int) -> np.ndarray:
    """Attribution maps (B,H,W) float32 in [0,1] of images (B,C,H,W) at the store's positions `rows` (B,)."""
    parts = [slice(start, start + batch_size) for start in range(0, len(rows), batch_size)]
    maps = [method(images[part], torch.as_tensor(rows[part]), organ[part]).attribution for part in parts]
    return torch.cat(maps).float().cpu().numpy()


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """|Spearman's rho| (B,) in [0,1] over the pixels of each pair of maps (B,H,W).

    Absolute, as Adebayo et al. do: a map turned upside down has not forgotten its form. A constant map ranks nothing:
    against itself it is unchanged (1), against any other map it has nothing in common (0).
    """
    ranks = [pd.DataFrame(each.reshape(len(each), -1)).rank(axis=1).to_numpy()  # (B,H*W), ties share a rank
             for each in (maps, others)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    rho = np.divide((first * second).sum(axis=1), spread, out=np.zeros(len(maps)), where=spread > 0)
    return np.where((maps == others).all(axis=(1, 2)), 1.0, np.abs(rho))


def structural_similarities(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """SSIM (B,) of each pair of maps (B,H,W) in [0,1], with the Gaussian window of Wang et al. (2004)."""
    return np.array([structural_similarity(*pair, data_range=1.0, gaussian_weights=True, sigma=1.5,
                                           use_sample_covariance=False) for pair in zip(maps, others, strict=True)])


def compare_maps(maps_of: Callable[[Classifier], np.ndarray], classifier: Classifier, images: Tensor, draws: int,
                 seed: int) -> tuple[dict[str, float], np.ndarray]:
    """`spearman_<layers>` and `ssim_<layers>` of the maps under the trained and under shuffled weights, and of which
    images: (B,) bool, True where there was something to compare with all layers shuffled.

    maps_of: a classifier -> its maps (B,H,W) of images (B,C,H,W). Means over draws and slices, without the pairs of two
    constant maps; layers where nothing is left have no value.
    """
    original = maps_of(classifier)
    found: dict[str, float] = {}
    for number, layers in enumerate(LAYERS):
        redrawn = np.stack([maps_of(shuffle_weights(classifier, layers, images, (seed, number, draw)))
                            for draw in range(draws)])  # (D,B,H,W)
        compared = (np.ptp(original, axis=(1, 2)) > 0) | (np.ptp(redrawn, axis=(2, 3)) > 0)  # (D,B)
        if compared.any():
            pairs = np.broadcast_to(original, redrawn.shape)[compared], redrawn[compared]  # (pairs,H,W) each
            found |= {f"spearman_{layers}": float(rank_correlation(*pairs).mean()),
                      f"ssim_{layers}": float(structural_similarities(*pairs).mean())}
    return found, compared.any(axis=0)


def check_randomisation(method_class: type[Method], method_params: MethodParams, context: Context, store: SliceStore,
                        params: SanityParams, batch_size: int) -> dict[str, Any]:
    """What a method's `randomisation.json` holds: the similarities and whether the map changed, or the reason
    why there is no such check. `context`: with the trained classifier."""
    rows = choose_slices(store, params.slices, context.seed)
    if not method_class.explains_any_classifier:
        return {"reason": f"it explains with {method_params.needs}, which was trained against the classifier and "
                          "would have to be trained again against a shuffled one"}
    if context.classifier.last_layer() is None:
        return {"reason": "the classifier doesn't tell which of its layers is the last linear one (a TorchScript file "
                          "lets nobody look at its layers), so its weights can't be shuffled stage by stage"}
    if len(rows) == 0:
        return {"reason": "the test split has no slice labelled abnormal"}
    runtime = context.runtime
    images = as_channels(torch.as_tensor(np.array(store.images[rows]), device=runtime.device).float())  # (B,C,H,W)
    organ = torch.as_tensor(np.array(store.organ[rows]), device=runtime.device)  # (B,H,W)

    def maps_of(classifier: Classifier) -> np.ndarray:
        method = method_class(method_params, Context(classifier, runtime, context.seed))
        return draw_maps(method, images, rows, organ, batch_size)

    found, compared = compare_maps(maps_of, context.classifier, images, params.draws, context.seed)
    if not compared.any():
        return {"reason": f"its maps of {len(rows)} slices are all blank, under trained and under shuffled weights"}
    rows = rows[compared]
    return found | {"changed": min(found["spearman_all"], found["ssim_all"]) < params.threshold,
                    "threshold": params.threshold, "draws": params.draws, "n_slices": len(rows),
                    "n_patients": int(store.index["patient_id"].iloc[rows].nunique())}


def summarise_check(name: str, found: dict[str, Any]) -> str:
    """The result of a method's check in one line."""
    if "reason" in found:
        return f"{name}: maps not checked: {found['reason']}"
    return (f"{name}: maps under shuffled weights {'differ' if found['changed'] else 'DO NOT DIFFER'}: |rho| "
            f"{found['spearman_all']:.3f}, SSIM {found['ssim_all']:.3f} ({found['n_slices']} slices, "
            f"{found['draws']} draws)")
