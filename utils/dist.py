"""Communication between the processes of a torchrun launch; without a launch, every function returns its input.

Only this file and utils/launch.py, which starts processes, import torch.distributed.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as td
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.labels import ignore_of
from utils.ranks import is_main, launched, local_rank, rank, world_size

T = TypeVar("T")

__all__ = ["is_main", "launched", "local_rank", "rank", "world_size"]  # re-exported, so that callers import one module


def init(device: torch.device) -> None:
    """Join the process group: NCCL for CUDA tensors, gloo for CPU tensors."""
    if launched() and not td.is_initialized():
        td.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def shutdown() -> None:
    if td.is_initialized():
        td.destroy_process_group()


def barrier() -> None:
    if td.is_initialized():
        td.barrier()


def sum_(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over ranks, in place."""
    if td.is_initialized():
        td.all_reduce(tensor)
    return tensor


def mean(tensor: torch.Tensor) -> torch.Tensor:
    """Mean over ranks, as float, without gradient."""
    return sum_(tensor.detach().float().clone()) / world_size()


def labelled_pixels(label: torch.Tensor) -> torch.Tensor:
    """Number of labelled pixels in label [B, H, W], averaged over ranks.

    If each rank divides its summed loss by this number, the mean of the gradients over ranks is the gradient of the
    mean loss over all labelled pixels of the global batch.
    """
    return mean((label != ignore_of(label)).sum())


def any_rank(*flags: bool) -> list[bool]:
    """For each flag, whether it is set on any rank. Uses CPU tensors, so the host does not wait for the GPU."""
    return [bool(count) for count in sum_(torch.tensor(flags, dtype=torch.int32)).tolist()]


def share(items: Sequence[Any]) -> Sequence[Any]:
    """Every world_size-th item, starting at this rank."""
    return items[rank() :: world_size()]


def broadcast(value: Any) -> Any:
    """The picklable value of the main process, on every rank."""
    if not td.is_initialized():
        return value
    box = [value]
    td.broadcast_object_list(box)
    return box[0]


def gather(value: Any) -> list[Any]:
    """The picklable values of all ranks, in rank order, on every rank."""
    if not td.is_initialized():
        return [value]
    boxes: list[Any] = [None] * world_size()
    td.all_gather_object(boxes, value)
    return boxes


def broadcast_(tensor: torch.Tensor) -> torch.Tensor:
    """Overwrite the tensor with the values of the main process."""
    if td.is_initialized():
        td.broadcast(tensor, 0)
    return tensor


def gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate the tensors [B, ...] of all ranks in rank order, without gradient; shapes must be equal."""
    if not td.is_initialized():
        return tensor
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    td.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Copy the buffers of the main process, which are the saved ones, to all ranks.

    Without SyncBatchNorm, running statistics differ between ranks.
    """
    if td.is_initialized():
        for buffer in module.buffers():
            broadcast_(buffer)


class _Step(nn.Module):
    """A function as a module with the given parameters, for DistributedDataParallel."""

    def __init__(self, step: Callable[..., Any], parameters: Sequence[nn.Parameter]):
        super().__init__()
        self.step, self.trained = step, nn.ParameterList(parameters)

    def forward(self, *inputs: Any) -> Any:
        return self.step(*inputs)


def data_parallel(
    step: Callable[..., T], parameters: Sequence[nn.Parameter], *, find_unused: bool = False
) -> Callable[..., T]:
    """Wrap a function that returns losses: the backward pass then averages gradients over ranks.

    Uses DistributedDataParallel (Li et al., VLDB 2020), which communicates during the backward pass. One call must
    precede each backward pass, and each rank needs a gradient, possibly zero, for every parameter. `find_unused` lifts
    the second condition; each call then searches the graph of the losses. In one process, returns `step` unchanged.
    """
    if not td.is_initialized():
        return step
    module = _Step(step, parameters)
    return DistributedDataParallel(module, find_unused_parameters=find_unused, gradient_as_bucket_view=True)


def no_sync(step: Callable[..., Any]) -> contextlib.AbstractContextManager:
    """Context in which a `data_parallel` function accumulates gradients without communication."""
    return step.no_sync() if isinstance(step, DistributedDataParallel) else contextlib.nullcontext()
