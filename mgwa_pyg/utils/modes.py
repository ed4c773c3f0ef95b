"""Torch's modes and devices: what a call finds is left outside, and what a user asked for is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_modes() -> Iterator[None]:
    """Run a block as if none of torch's modes was on: with gradients, each number in its own precision, and
    what is made on the CPU.
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            modes.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        yield


def chosen_device(device: str) -> str:
    """Return ``"cpu"`` or ``"cuda"`` for what a user asked for.

    Raises:
        ValueError: If the device is unknown or not there.
    """
    if not isinstance(device, str) or device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r:.60} is unknown: choose 'auto', 'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda', but torch finds no CUDA device here: choose 'cpu' or 'auto'")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
