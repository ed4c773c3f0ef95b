"""One fit: a data set and hyper-parameters in, the best checkpoint and its test predictions out."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor
from tqdm import tqdm

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.train.click import ClickData, ClickModule
from mgwa_pyg.train.config import FitConfig


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves behind."""

    checkpoint: Path
    """The checkpoint with the best AUC on the validation rows."""
    score: Tensor
    """The predicted probabilities of the test rows, in their order."""
    history: list[dict[str, float]]
    """Losses, AUCs and training seconds of each epoch."""
    best_epoch: int
    """The number of epochs after which the checkpoint was taken."""
    train_seconds: float
    """Wall time of the fit in seconds, validation and checkpoints included."""
    rows_per_second: float
    """Training rows per second, without validation and checkpoints."""


class _ProgressBar(Callback):
    """One bar a fit, a step for each epoch; nothing where the output is not a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._bar = tqdm(total=trainer.max_epochs, desc=self._name, leave=False, disable=None)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        last = pl_module.history[-1]
        self._bar.set_postfix_str(f"loss {last['train_loss']:.4f}, val AUC {last['val_auc']:.4f}")
        self._bar.update()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._bar.close()


def fit(
    dataset: KGRecDataset,
    config: FitConfig,
    folder: Path | str,
    seed: int = 0,
    device: str = "auto",
    name: str = "fit",
    origin: dict[str, Any] | None = None,
) -> FitResult:
    """Train until the AUC on the validation rows no longer rises, then predict the test rows.

    On the CPU the same seed gives the same result bit for bit. If ``folder`` holds the last checkpoint of
    an interrupted fit, that fit goes on from there.

    Args:
        dataset (KGRecDataset): The data set.
        config (FitConfig): The hyper-parameters.
        folder (path): Where ``best.ckpt`` and, until the fit is done, ``last.ckpt`` are written.
        seed (int, optional): The seed of initialisation, order and sampling. (default: :obj:`0`)
        device (str, optional): ``"auto"``, ``"cpu"`` or ``"cuda"``. (default: :obj:`"auto"`)
        name (str, optional): What the progress bar is called. (default: :obj:`"fit"`)
        origin (dict, optional): What the data is, kept in the checkpoints. (default: :obj:`None`)

    Raises:
        RuntimeError: If training leaves the finite numbers.
    """
    folder = Path(folder)
    data = dataset[0]
    rows = ClickData(data, config.batch_size, seed)
    torch.manual_seed(seed)
    module = ClickModule(data, dataset.num_relations, config, seed, origin)
    at_epoch_end = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(folder, "best", monitor="val_auc", mode="max", **at_epoch_end)
    last = ModelCheckpoint(folder, "last", **at_epoch_end)
    stop = EarlyStopping(
        "val_auc",
        mode="max",
        patience=config.patience,
        check_on_train_epoch_end=True,
        check_finite=True,
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The tensors are in memory already: workers would only copy them.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own.
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        trainer = L.Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            devices=1,
            max_epochs=config.epochs,
            callbacks=[stop, best, last, _ProgressBar(name)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            deterministic=True,
        )
        interrupted = str(folder / "last.ckpt")
        started = time.perf_counter()
        trainer.fit(module, rows, ckpt_path=interrupted if Path(interrupted).exists() else None)
        seconds = time.perf_counter() - started
        history = module.history  # Prediction goes back to the best checkpoint, and its history.
        score = torch.cat(trainer.predict(module, rows, ckpt_path=best.best_model_path))
    Path(interrupted).unlink(missing_ok=True)

    train_rows = len(rows.rows("train"))
    return FitResult(
        checkpoint=Path(best.best_model_path),
        score=score.cpu(),
        history=history,
        best_epoch=1 + int(np.argmax([entry["val_auc"] for entry in history])),
        train_seconds=seconds,
        rows_per_second=len(history) * train_rows / sum(e["train_seconds"] for e in history),
    )
