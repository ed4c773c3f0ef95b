"""One trainer for all: Lightning as a guest, with whole checkpoints, and what it changes given back."""

from __future__ import annotations

import io
import logging
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mgwa_pyg.recommenders import read_checkpoint
from mgwa_pyg.utils.files import save_tensors

# Warnings of Lightning that nobody needs to hear.
_REMARKS = (
    ".*does not have many workers.*",  # The tensors are in memory already: workers would only copy them.
    ".*isinstance.treespec, LeafSpec.*",  # Its own.
    ".*Total length of `DataLoader` .* is zero.*",  # No rows: so it is.
)


class OwnSigterm(Callback):
    """Leaves what SIGTERM does to whoever trains: Lightning would end the process as if all was done, or not
    at all while it predicts.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def _give_back(self, *args: Any) -> None:
        if threading.current_thread() is threading.main_thread() and self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)

    on_train_start = on_test_start = on_predict_start = _give_back


class KeptCheckpoint(ModelCheckpoint):
    """A checkpoint, replaced at the end of epochs, in a folder that may be moved or copied before training
    goes on: it names no other file. Arguments are those of :class:`ModelCheckpoint`.
    """

    __qualname__ = "_Keep"  # Under this name checkpoints have its state.

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, save_on_train_epoch_end=True, enable_version_counter=False, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = str(Path(str(self.dirpath), f"{self.filename}.ckpt"))
        scores = list(state_dict["best_k_models"].values())
        paths = {"dirpath": self.dirpath, "best_k_models": {own: scores[0]} if scores else {}}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            paths[name] = own if state_dict[name] else ""
        super().load_state_dict({**state_dict, **paths})


class WholeCheckpoints(CheckpointIO):
    """How Lightning writes and reads checkpoints here: whole or not at all, and as plain data."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            save_tensors(Path(path), checkpoint, try_to_load=True)
        except (pickle.PickleError, AttributeError, TypeError) as error:
            states = checkpoint.get("callbacks", {})
            wrong = next((name for name, state in states.items() if not _is_plain(state)), None)
            what = "a callback's on_save_checkpoint()" if wrong is None else f"the state_dict() of {wrong}"
            raise TypeError(
                f"{what} holds more than plain data, of which no checkpoint can be made: have it return "
                f"tensors, numbers, strings, lists and dicts"
            ) from error

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _is_plain(state: Any) -> bool:
    """Whether a checkpoint may hold it."""
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError):
        return False
    return True


def make_trainer(
    device: str, max_epochs: int, callbacks: Sequence[Callback] = (), **options: Any
) -> L.Trainer:
    """Return a trainer that shows nothing, logs nothing and keeps only what its callbacks do.

    Args:
        device (str): ``"cpu"``, ``"cuda"`` or ``"auto"``.
        max_epochs (int): The number of epochs at most.
        callbacks (sequence of Callback, optional): What follows the fit. (default: none)
        **options: What else :class:`lightning.Trainer` takes, or takes otherwise.
    """
    chosen: dict[str, Any] = {
        "accelerator": "gpu" if device == "cuda" else device,
        "devices": 1,
        "plugins": [WholeCheckpoints()],
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(max_epochs=max_epochs, callbacks=[*callbacks, OwnSigterm()], **(chosen | options))


@contextmanager
def lightning_as_guest(*remarks: str) -> Iterator[None]:
    """Keep Lightning's log and warnings from the user, among them those that match one of ``remarks``.

    The level of the log, the filters of warnings and what Ctrl-C does are given back, and Ctrl-C ends the
    block with :class:`KeyboardInterrupt`, of which Lightning makes an exit of the process.
    """
    log, on_ctrl_c = logging.getLogger("lightning.pytorch"), signal.getsignal(signal.SIGINT)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for remark in (*_REMARKS, *remarks):
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
