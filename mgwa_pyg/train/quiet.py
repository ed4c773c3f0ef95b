"""Lightning as a guest: without its remarks, and what it changes is given back."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback


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


class OwnSigterm(Callback):
    """Leaves what SIGTERM does to whoever trains: Lightning would end the process as if all was done, or not
    at all while it predicts.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def _give_back(self, *args: Any) -> None:
        if threading.current_thread() is threading.main_thread() and self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)

    on_train_start = on_predict_start = _give_back


@contextmanager
def quiet_lightning(*remarks: str) -> Iterator[None]:
    """Keep Lightning's log and warnings from the user, among them those that match one of ``remarks``.

    The level of the log, the filters of warnings and what Ctrl-C does are given back, and Ctrl-C ends the
    block with :class:`KeyboardInterrupt`, of which Lightning makes an exit of the process.
    """
    log, on_ctrl_c = logging.getLogger("lightning.pytorch"), signal.getsignal(signal.SIGINT)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The tensors are in memory already: workers would only copy them.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own.
            warnings.filterwarnings(
                "ignore", ".*Total length of `DataLoader` .* is zero.*"
            )  # No rows: so it is.
            for remark in remarks:
                warnings.filterwarnings("ignore", remark)
            yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        log.setLevel(level)
        # Lightning has Ctrl-C ignored from the first on. Handlers are the main thread's alone.
        if threading.current_thread() is threading.main_thread() and on_ctrl_c is not None:
            signal.signal(signal.SIGINT, on_ctrl_c)
