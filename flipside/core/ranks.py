"""Training on several processes ("ranks"), one for each GPU, on one machine or more.

Every rank draws the same batch from the same seed and computes on its share of it. What a loss or a norm takes of the
whole batch is summed over the ranks, and gradients are averaged where an optimizer steps, so that the result is that of
one process but for the order of sums. No wrapper is put around a network: losses with gradients of gradients (R1, path
length, Wasserstein penalties) stay what they are. Without other ranks each function gives back what it was given.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flipside.core import progress


def count() -> int:
    """How many ranks train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """This process among them, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_writer() -> bool:
    """Whether this process is the one that writes files and says how far the training is."""
    return number() == 0


def on_this_machine() -> int:
    """Ranks that share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def launch(accelerator: str, devices: int, batch_sizes: tuple[int, ...] = ()) -> None:
    """Become one of several ranks, where there are to be any; `accelerator` is cpu or cuda.

    Started by torchrun or `fabric run`, as many as that says. Else `devices`: Lightning Fabric starts this script once
    more for each further one. Raises ValueError for a batch size that they can't share equally, RuntimeError where a
    machine has too few GPUs.
    """
    nodes, elastic = 1, dist.is_available() and dist.is_torchelastic_launched()
    if elastic:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices * nodes == 1:
        return
    for size in batch_sizes:
        check_shares(size, devices * nodes, "of a batch", "batch_size")
    if accelerator == "cuda" and torch.cuda.device_count() < devices:
        raise RuntimeError(f"{devices} ranks on this machine need as many GPUs, torch sees {torch.cuda.device_count()}"
                           ": lower `runtime.devices` (or the launcher's number of processes)")
    from lightning_fabric import Fabric  # slow to import, and one process needs none of it
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    os.environ.pop("LT_CLI_USED", None)  # `fabric run` is torchrun here; with this Fabric would refuse to launch
    Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy="ddp",
           plugins=[TorchElasticEnvironment() if elastic else LightningEnvironment()]).launch()
    if is_writer():
        print(f"training on {count()} ranks ({dist.get_backend()}): each takes an equal share of every batch, gradients"
              " are averaged, batch norm takes the statistics of the whole batch", flush=True)
    else:
        sys.stdout = open(os.devnull, "w")  # what all ranks say is said once; errors are not hidden
        progress.hidden = True


def end() -> None:
    """The training is over: the writer goes on alone, all other processes end here."""
    if count() == 1:
        return
    others = not is_writer()
    dist.barrier()
    dist.destroy_process_group()
    if others:
        sys.exit(0)


def _device_of_messages() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def check_shares(rows: int, ranks: int, what: str, key: str) -> None:
    """Refuse a number of slices that so many ranks can't share equally."""
    if rows % ranks:
        raise ValueError(f"the {rows} slices {what} can't be shared equally by {ranks} ranks: change `{key}`, or the "
                         "number of ranks to one that divides them")


def check_alike(*numbers: int) -> None:
    """Refuse ranks that don't begin alike: with other parameters or data, or from another saved state."""
    if count() == 1:
        return
    both = torch.tensor([*numbers, *(-number for number in numbers)], device=_device_of_messages())
    dist.all_reduce(both, dist.ReduceOp.MIN)
    least, most = both[: len(numbers)], -both[len(numbers) :]
    if not torch.equal(least, most):
        raise RuntimeError("the ranks don't begin alike (parameters, data or saved state differ): all machines need "
                           "the same project folder, with its .scratch, on a file system that they share")


def share(rows: Tensor, dim: int = 0) -> Tensor:
    """This rank's share of a whole batch, rows along `dim`: of R ranks number r takes the rows r, r+R, r+2R, ...

    Taken so, the first half of all shares is the first half of the batch, and each has the batch's mix of labels.
    Raises ValueError for a batch that the ranks can't share equally.
    """
    if count() == 1:
        return rows
    check_shares(rows.shape[dim], count(), "of a batch", "batch_size")
    chosen = torch.arange(number(), rows.shape[dim], count(), device=rows.device)
    return rows.index_select(dim, chosen)


def gathered(rows: Tensor) -> Tensor:
    """The whole batch of the ranks' shares (n,...), in its order; gradients flow back to the rank of each row."""
    if count() == 1:
        return rows
    slots = [rows if rank == number() else torch.zeros_like(rows) for rank in range(count())]
    return summed(torch.stack(slots, dim=1)).flatten(0, 1)  # (n,R,...) -> (n*R,...)


class _Sum(torch.autograd.Function):
    """Sum over ranks. Each rank's loss counts, so a gradient is the sum of the ranks' gradients, again a `_Sum`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Sum.apply(gradients[0])


def summed(x: Tensor) -> Tensor:
    """The sum over ranks, with its gradients; also gradients of gradients."""
    return x if count() == 1 else cast(Tensor, _Sum.apply(x))


def mean(x: Tensor) -> Tensor:
    """The mean over ranks, with its gradients."""
    return x if count() == 1 else summed(x) / count()


def from_writer(x: Tensor) -> Tensor:
    """The writer's tensor on every rank. What decides about a draw or an end must not differ between ranks, and two
    GPUs need not agree to the last digit."""
    if count() == 1:
        return x
    sent = x.detach().to(_device_of_messages()).contiguous()
    sent = sent.byte() if x.dtype == torch.bool else sent.clone()
    dist.broadcast(sent, 0)
    return sent.to(device=x.device, dtype=x.dtype)


@torch.no_grad()
def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Replace the gradients of what an optimizer steps by their means over ranks, all in one message."""
    if count() == 1:
        return
    gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]
                 if parameter.grad is not None]
    means = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(means)
    for gradient, part in zip(gradients, (means / count()).split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def over_whole_batches(network: nn.Module) -> None:
    """Let a network's batch norms take the statistics of the whole batch, and its dropouts draw for all of it.

    Works on CPUs too, where torch's own SyncBatchNorm doesn't. Names and values in the state dict stay.
    """
    if count() == 1:
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = WholeBatchNorm
        elif type(module).__name__ in ("Dropout", "StochasticDepth") and not isinstance(  # the latter is torchvision's
                module.forward, WholeBatchDropout):
            module.forward = WholeBatchDropout(module.forward, module)


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch norm of a share (n,C,h,w) with the mean and variance of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        values = x.float()
        middle = mean(values.mean(dim=(0, 2, 3)))  # (C,)
        centred = values - middle[:, None, None]
        variance = mean(centred.square().mean(dim=(0, 2, 3)))
        with torch.no_grad():
            entries = count() * x.numel() / x.shape[1]
            self.running_mean.lerp_(middle, self.momentum)
            self.running_var.lerp_(variance * (entries / (entries - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        result = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            result = result * self.weight[:, None, None] + self.bias[:, None, None]
        return result.to(x.dtype)


class WholeBatchDropout:
    """A dropout's `forward` whose draw, the same on all ranks, is made for the whole batch and then shared."""

    def __init__(self, forward: Any, module: nn.Module):
        self.draw, self.module = forward, module

    def __call__(self, x: Tensor) -> Tensor:
        if not self.module.training:
            return x
        return x * share(self.draw(x.new_ones(len(x) * count(), *x.shape[1:])))
