"""Device, seed, precision, threads, peak memory. No DVC stage declares section `runtime`: no result depends on it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
import time
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from flipside.core import ranks
from flipside.core.params import Params, load_section

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

Network = TypeVar("Network", bound=torch.nn.Module)
# glibc's M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD (malloc.h), in bytes.
MALLOC_OPTIONS = {-1: 1 << 30, -2: 1 << 26, -3: 1 << 30}


class RuntimeParams(Params):
    """Section `runtime`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where tensors are computed. auto: on a GPU where torch finds one, else on the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of forward passes. auto: bfloat16 autocast on a GPU and on a CPU with matrix units for it (AMX), else float32."""
    threads: int = 0
    """Threads of a CPU, for each process of a training; 0: one per core. Of each of a cluster's workers: one, whatever
    this says."""
    devices: PositiveInt = 1
    """GPUs of this machine, or on a CPU processes, that a training is spread over, see
    [Train on several GPUs](../how-to/several-gpus.md)."""
    cluster: Annotated[str, Field(pattern=r"^(none|local|slurm|kubernetes|(tcp|tls)://.+:\d+)$")] = "none"
    """Where scans are read and slices inverted and explained: [Spread the work](../how-to/cluster.md). none: in the
    stage's process; local: on Dask workers on this machine; slurm, kubernetes: on workers that are started there;
    tcp://...: on those of this Dask scheduler."""
    workers: NonNegativeInt = 0
    """Workers of a cluster; 0: as many as this machine has cores."""
    worker_memory: str = "4GiB"
    """Memory of each worker: one that needs more is ended, and its part done again."""

    def of_worker(self) -> RuntimeParams:
        """The same for who takes part in the work: with a cluster one thread each."""
        return self if self.cluster == "none" else self.model_copy(update={"threads": 1})


class Runtime:
    """Where and how tensors are computed, from the `runtime` section."""

    def __init__(self, params: RuntimeParams):
        if params.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("runtime.device is 'cuda' but torch sees no GPU; use 'auto' or 'cpu'")
        name = "cuda" if params.device != "cpu" and torch.cuda.is_available() else "cpu"
        self.device = torch.device(name)
        wants_bfloat16 = params.precision == "bfloat16" or (
            params.precision == "auto" and (name == "cuda" or torch.cpu.get_capabilities().get("amx_bf16", False)))
        self.autocast_dtype = torch.bfloat16 if wants_bfloat16 else None
        self.ranks = ranks.count()
        self.memory_format = torch.channels_last  # up to twice as fast on a CPU too
        if name == "cpu":
            # A saturated discriminator makes denormal gradients, which slow a CPU down up to twenty times.
            torch.set_flush_denormal(True)
            torch.set_num_threads(params.threads or max(1, available_cores() // ranks.on_this_machine()))
            keep_freed_memory()
        else:
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which forward passes run: torch's autocast, or nothing at full precision."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype)

    def place(self, module: Network) -> Network:
        """The module itself, moved to the device."""
        return module.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]  # not in stubs

    def describe(self) -> str:
        """The device and the precision of forward passes, in words."""
        precision = "float32" if self.autocast_dtype is None else "bfloat16"
        shared = f", {self.ranks} ranks" if self.ranks > 1 else ""
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name()}, {precision}{shared}"
        return f"CPU, {torch.get_num_threads()} threads, {precision}{shared}"

    def peak_memory_gb(self) -> float | None:
        """Peak of this process so far in GB: resident memory, and on a GPU its allocator's peak instead.

        None where the platform doesn't tell (Windows).
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 1e9
        if resource is None:
            return None
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

    def describe_peak_memory(self) -> str:
        """The same in words."""
        peak = self.peak_memory_gb()
        return "peak memory unknown on this platform" if peak is None else f"peak memory {peak:.2f} GB"


def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed tensors for the next ones, up to a GiB; no result depends on it.

    By default glibc gives every block of more than 32 MiB back to the kernel at once, and of 256 x 256 pixels most
    maps are larger: then more time goes into clearing new pages than into arithmetic. Other C libraries are left alone.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):  # musl has none
        for option, value in MALLOC_OPTIONS.items():
            library.mallopt(option, value)


def available_cores() -> int:
    """Cores that this process may use; all of the machine's where the system has no affinity (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start(seed: int, params: RuntimeParams | None = None) -> Runtime:
    """Seed all global random numbers and set the device up as `runtime` in params.yaml says, or as these parameters."""
    seed_everything(seed)
    return Runtime(params or load_section("runtime", RuntimeParams))


def start_training(seed: int, *batch_sizes: int) -> Runtime:
    """As `start`, but as one of as many ranks as torchrun, `fabric run` or `runtime.devices` says; `ranks.end` ends
    the others. Refuses batch sizes that they can't share equally."""
    params = load_section("runtime", RuntimeParams)
    on_gpu = params.device != "cpu" and torch.cuda.is_available()
    ranks.launch("cuda" if on_gpu else "cpu", params.devices, batch_sizes)
    return start(seed)


def now(runtime: Runtime) -> float:
    """Seconds on a monotonic clock, after the device has finished its pending work."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seed_everything(seed: int) -> None:
    """Seed the global random numbers of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_for(*parts: int) -> torch.Generator:
    """A CPU generator that depends on the given integers alone (seed, step, ...), so that a step draws the same numbers
    whether or not the run was interrupted before it."""
    state = np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


def draw_rows(labels: torch.Tensor, batch_size: int, balance: Literal["sampler", "none"],
              generator: torch.Generator) -> torch.Tensor:
    """Rows (batch_size,) of a random batch, drawn with replacement from labels (N,), 0/1 or bool.

    sampler: both classes equally often (where only one occurs, that one); none: every row equally often.
    """
    if balance == "none":
        return torch.randint(len(labels), (batch_size,), generator=generator)
    positive = labels.float()
    weights = torch.where(positive > 0, 1 / positive.sum().clamp(min=1), 1 / (1 - positive).sum().clamp(min=1))
    return torch.multinomial(weights, batch_size, replacement=True, generator=generator)
