"""Checks of the values in tensors: each costs a pass over them, and on an accelerator a wait for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric import is_debug_enabled


class NaNError(ValueError):
    """A tensor holds values that are not a number."""


def values_are_checked(device: torch.device) -> bool:
    """Whether values are looked at: on the CPU, and elsewhere under :class:`torch_geometric.debug`."""
    return not torch.compiler.is_compiling() and (device.type == "cpu" or is_debug_enabled())


def is_integer(value: Tensor) -> bool:
    """Whether the elements of a tensor are whole numbers by their type."""
    return not (value.is_floating_point() or value.is_complex() or value.dtype is torch.bool)


def check_range(name: str, value: Tensor | None, stop: int, stop_name: str) -> None:
    """Raise an :class:`IndexError` if an element of ``value`` is not in ``[0, stop)``."""
    if value is None or value.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(value))
    if low < 0 or high >= stop:
        raise IndexError(
            f"{name} holds {low if low < 0 else high}, but whole numbers from 0 to {stop - 1} are needed "
            f"({stop_name} is {stop})"
        )


def check_no_nan(name: str, value: Tensor | None) -> None:
    """Raise a :class:`NaNError` if an element of ``value`` is NaN."""
    # The sum finds a suspicion in one pass; opposite infinities raise one, too.
    if value is None or not value.detach().sum().isnan():
        return
    count = int(value.isnan().sum())
    if count > 0:
        raise NaNError(f"{name} of shape {tuple(value.shape)} holds {count} values that are NaN")
