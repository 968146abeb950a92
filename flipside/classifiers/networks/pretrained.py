"""Published networks that FID, KID and LPIPS are defined by, from weights in torch hub's cache. Nothing is downloaded.

Without its file a metric is absent: nothing else is reported under its name.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

import numpy as np
import torch
from torch import nn

from flipside.classifiers.networks.perceptual import Lpips, as_rgb
from flipside.core.files import file_digest
from flipside.core.runtime import Runtime
from flipside.core.store import as_channels

INCEPTION_DIMS = (64, 768, 2048)  # features of InceptionV3 that FID is measured in
Network = TypeVar("Network", bound=nn.Module)
FORCE_SAFE_LOADING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True)
class Weights:
    """A file that torch hub would keep in its cache."""

    url: str

    @property
    def file(self) -> Path:
        """Where torch hub looks for it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.url).path).name

    def absence(self) -> str | None:
        """Why what needs this file can't be computed, or None where the file is there."""
        if self.file.is_file():
            return None
        return (f"its weights are not in torch hub's cache, {shown(self.file)} not found, and nothing is downloaded: "
                "put the file there or set TORCH_HOME to the folder that has hub/checkpoints, then run "
                "`dvc repro -f -s measure_realism` and `dvc repro`")

    def doubt(self) -> str | None:
        """A caution for readers where the file's SHA-256 isn't the one in its name: these are other weights."""
        published = re.search(r"-([0-9a-f]{8,})\.", self.file.name)
        found = file_digest(self.file)
        if published is None or found.startswith(published[1]):
            return None
        return (f"made with weights that are not the published ones: {shown(self.file)} has the SHA-256 "
                f"{found[:8]}..., its name says {published[1]}")

    def load(self, build: Callable[[], Network]) -> Network:
        """`build()`, which must read the file through torch hub: frozen, in eval mode.

        Raises FileNotFoundError where the file is absent, ValueError where it is damaged or of another network.
        """
        if reason := self.absence():
            raise FileNotFoundError(f"{reason} (the file comes from {self.url})")
        try:
            with _only_tensors():
                return build().eval().requires_grad_(False)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{shown(self.file)} is damaged or not the file that {self.url} gives: {error}. "
                             "Replace it, or delete it to do without") from None


# The addresses that pytorch-fid and torchvision have; both are slow to import, and mostly there are no weights.
INCEPTION = Weights("https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                    "pt_inception-2015-12-05-6726825d.pth")
ALEXNET = Weights("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")


def load_inception(runtime: Runtime) -> nn.Module:
    """pytorch-fid's InceptionV3: (B,3,H,W) in [0,1], which it resizes to 299 x 299 -> maps of each INCEPTION_DIMS."""
    from pytorch_fid.inception import InceptionV3  # slow to import

    blocks = [InceptionV3.BLOCK_INDEX_BY_DIM[dim] for dim in INCEPTION_DIMS]
    return runtime.place(INCEPTION.load(lambda: InceptionV3(blocks)))


def load_lpips(runtime: Runtime) -> nn.Module:
    """LPIPS (Zhang et al., 2018) on AlexNet, version 0.1: two images (B,3,H,W) in [-1,1] -> distances (B,1,1,1).

    The package brings the weights of the linear layers; those of AlexNet are torchvision's.
    """
    import lpips  # slow to import

    return runtime.place(ALEXNET.load(lambda: lpips.LPIPS(net="alex", version="0.1", verbose=False)))


def find_lpips(device: torch.device) -> Lpips | None:
    """LPIPS as `load_lpips` gives it where its weights are in torch hub's cache, else None."""
    if ALEXNET.absence() is not None:
        return None
    import lpips  # slow to import

    return ALEXNET.load(lambda: lpips.LPIPS(net="alex", version="0.1", verbose=False)).to(device)


@torch.no_grad()
def inception_features(network: nn.Module, images: np.ndarray, runtime: Runtime,
                       batch_size: int) -> dict[int, np.ndarray]:
    """pytorch-fid's features {dim: (N,dim) float64} of slices (N,H,W) or (N,C,H,W) in [-1,1], of the channels as
    `as_rgb` has them the mean."""
    batches: dict[int, list[np.ndarray]] = {dim: [] for dim in INCEPTION_DIMS}
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        for dim, maps in zip(INCEPTION_DIMS, network((to_rgb(part, runtime) + 1) / 2), strict=True):
            pooled = maps.mean(dim=(2, 3)).double().cpu().numpy()  # (B*P,dim,h,w) -> (B*P,dim)
            batches[dim].append(pooled.reshape(len(part), -1, dim).mean(axis=1))  # (B,P,dim) -> (B,dim)
    return {dim: np.concatenate(parts) for dim, parts in batches.items()}


@torch.no_grad()
def lpips_distances(network: nn.Module, images: np.ndarray, others: np.ndarray, runtime: Runtime,
                    batch_size: int) -> np.ndarray:
    """LPIPS (N,) between slices and their counterparts, both (N,H,W) or (N,C,H,W) in [-1,1], at their own size; of the
    channels as `as_rgb` has them the mean."""
    distances = [network(to_rgb(images[start : start + batch_size], runtime),
                         to_rgb(others[start : start + batch_size], runtime)).flatten().cpu().numpy()
                 for start in range(0, len(images), batch_size)]  # (B*P,) each
    return np.concatenate(distances).reshape(len(images), -1).mean(axis=1)  # (N,P) -> (N,)


def to_rgb(images: np.ndarray, runtime: Runtime) -> torch.Tensor:
    """Slices (B,H,W) or (B,C,H,W) as a float tensor (B*P,3,H,W) on the device, see `as_rgb`."""
    return as_rgb(as_channels(torch.as_tensor(images, device=runtime.device).float()))


def shown(file: Path) -> str:
    """A path for reports, which others may read: without the name of the home folder."""
    with contextlib.suppress(ValueError, RuntimeError):
        return f"~/{file.relative_to(Path.home())}"
    return str(file)


@contextlib.contextmanager
def _only_tensors() -> Iterator[None]:
    """Make torch.load refuse anything but tensors, though both libraries ask for full pickles; without warnings."""
    before = os.environ.get(FORCE_SAFE_LOADING)
    os.environ[FORCE_SAFE_LOADING] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        del os.environ[FORCE_SAFE_LOADING]
        if before is not None:
            os.environ[FORCE_SAFE_LOADING] = before
