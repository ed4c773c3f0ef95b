"""`SortedEdges`: what classes that hold the edges of a graph in order share, the sort and the moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from mgwa_pyg.utils.checks import has_values

_INT32_MAX = torch.iinfo(torch.int32).max
_Edges = TypeVar("_Edges", bound="SortedEdges")


class SortedEdges:
    """Tensors that tell the edges of a graph: they move between devices together, as one tensor does."""

    def to(self: _Edges, device: torch.device | str | int, non_blocking: bool = False) -> _Edges:
        """The same on ``device``."""
        return self._map(lambda index: index.to(device=device, non_blocking=non_blocking))

    def cpu(self: _Edges) -> _Edges:
        """The same on the CPU."""
        return self._map(Tensor.cpu)

    def cuda(
        self: _Edges, device: torch.device | str | int | None = None, non_blocking: bool = False
    ) -> _Edges:
        """The same on a GPU, the current one by default."""
        return self._map(lambda index: index.cuda(device, non_blocking=non_blocking))

    def pin_memory(self: _Edges) -> _Edges:
        """The same in pinned memory, from where GPUs copy without waiting."""
        return self._map(Tensor.pin_memory)

    def share_memory_(self: _Edges) -> _Edges:
        """Move the tensors to memory that processes share."""
        self._map(Tensor.share_memory_)
        return self

    def _map(self: _Edges, function: Callable[[Tensor], Tensor]) -> _Edges:
        """The same with each tensor in another place."""
        same = object.__new__(type(self))
        for name, value in vars(self).items():
            vars(same)[name] = function(value) if isinstance(value, Tensor) else value
        return same


def index_type(*stops: int) -> torch.dtype:
    """The type for whole numbers up to these: :obj:`torch.int32` where they fit."""
    return torch.int32 if max(stops) < _INT32_MAX else torch.long


def sort(key: Tensor, stop: int) -> tuple[Tensor, Tensor]:
    """Whole numbers from 0 to ``stop`` in order, and the position of each before; equal ones keep theirs."""
    if not has_values(key):
        return key.sort(stable=True)  # While a program is traced, nothing may depend on sizes.
    bits = key.numel().bit_length()
    if key.device.type != "cpu" or stop.bit_length() + bits > 63:
        values, order = key.to(index_type(stop)).sort(stable=True)
        return values.to(key.dtype), order
    # Number and position in one: numpy sorts them in place, in half the time and memory that torch takes.
    packed = key.to(torch.long, copy=True).bitwise_left_shift_(bits)
    packed |= torch.arange(key.numel(), device=key.device)
    packed.numpy().sort()
    order = packed & (2**bits - 1)
    return packed.bitwise_right_shift_(bits).to(key.dtype), order
