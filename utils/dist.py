"""The only importer of torch.distributed, but for utils/launch.py, which starts processes.

Outside a torchrun launch every function gives the one-process answer.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as td

from utils.labels import ignore_of
from utils.ranks import is_main, launched, local_rank, rank, world_size

__all__ = ["is_main", "launched", "local_rank", "rank", "world_size"]  # known under this name, too


def init(device: torch.device) -> None:
    """Join the process group: tensors travel by NCCL on CUDA and by gloo on the CPU, flags always by gloo."""
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
    """Mean over ranks, as float; no gradient passes."""
    return sum_(tensor.detach().float().clone()) / world_size()


def labelled_pixels(label: torch.Tensor) -> torch.Tensor:
    """Labelled pixels of a batch [B, H, W], averaged over ranks.

    A rank that divides its summed loss by it has gradients whose mean over ranks is that of the whole batch.
    """
    return mean((label != ignore_of(label)).sum())


def any_rank(*flags: bool) -> list[bool]:
    """Each flag true on every rank when it is set on one of them. CPU tensors, so no wait for the GPU."""
    return [bool(count) for count in sum_(torch.tensor(flags, dtype=torch.int32)).tolist()]


def share(items: Sequence[Any]) -> Sequence[Any]:
    """This rank's part of a list."""
    return items[rank() :: world_size()]


def broadcast(value: Any) -> Any:
    """The main process's picklable value, on every rank."""
    if not td.is_initialized():
        return value
    box = [value]
    td.broadcast_object_list(box)
    return box[0]


def gather(value: Any) -> list[Any]:
    """Every rank's picklable value, in rank order, on every rank."""
    if not td.is_initialized():
        return [value]
    boxes: list[Any] = [None] * world_size()
    td.all_gather_object(boxes, value)
    return boxes


def broadcast_(tensor: torch.Tensor) -> torch.Tensor:
    """The main process's values, in place."""
    if td.is_initialized():
        td.broadcast(tensor, 0)
    return tensor


def gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Every rank's [B, ...] of equal shape, one behind the other in rank order; no gradient passes."""
    if not td.is_initialized():
        return tensor
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    td.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


def broadcast_buffers(module: torch.nn.Module) -> None:
    """The main process's buffers on every rank, as saved: BatchNorm statistics differ without SyncBatchNorm."""
    if td.is_initialized():
        for buffer in module.buffers():
            broadcast_(buffer)


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Mean of the gradients over ranks, in one collective.

    DistributedDataParallel is not used because a step runs several forwards before its one backward.
    """
    if not td.is_initialized():
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    td.all_reduce(flat)
    flat /= world_size()
    for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = part.view_as(parameter)
