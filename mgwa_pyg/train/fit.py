"""One fit: a data set and hyper-parameters in, the best checkpoint and its test predictions out."""

from __future__ import annotations

import time
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
from mgwa_pyg.files import read_json, write_json
from mgwa_pyg.train.checkpoint import WholeCheckpoints, check_fit, read_checkpoint
from mgwa_pyg.train.click import ClickData, ClickModule
from mgwa_pyg.train.config import FitConfig, NeighborhoodConfig
from mgwa_pyg.train.quiet import quiet_lightning
from mgwa_pyg.train.transe import fit_transe


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves behind."""

    checkpoint: Path
    """The checkpoint that did best on the validation rows."""
    score: Tensor
    """The predicted probabilities of the test rows, in their order."""
    val_score: Tensor
    """Those of the validation rows."""
    history: list[dict[str, float]]
    """Losses, AUCs and training seconds of each epoch."""
    best_epoch: int
    """The number of epochs after which the checkpoint was taken."""
    train_seconds: float
    """Wall time in seconds since the fit was begun or resumed, validation and checkpoints included."""
    rows_per_second: float
    """Training rows per second, without validation and checkpoints."""
    transe: dict[str, float] | None
    """How well TransE, if the fit started from it, tells held-out triples; see :func:`fit_transe`."""


class _Keep(ModelCheckpoint):
    """A checkpoint in a folder that may be moved before the fit goes on."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class _ProgressBar(Callback):
    """One bar a fit, a step for each epoch; nothing where the output is not a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._bar = tqdm(total=trainer.max_epochs, desc=self._name, leave=False, disable=None)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None:
            last = pl_module.history[-1]
            self._bar.set_postfix_str(f"loss {last['train_loss']:.4f}, val AUC {last['val_auc']:.4f}")
            self._bar.update()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()


def fit(
    dataset: KGRecDataset,
    config: FitConfig,
    folder: Path | str,
    seed: int = 0,
    device: str = "auto",
    name: str = "fit",
) -> FitResult:
    """Train until what the validation rows are judged by no longer rises (the AUC, or what the model's
    hyper-parameters say), then predict the test rows.

    On the CPU the same seed gives the same result bit for bit. If ``folder`` holds the last checkpoint of
    an interrupted fit, that fit goes on from there.

    Args:
        dataset (KGRecDataset): The data set.
        config (FitConfig): The hyper-parameters.
        folder (path): Where ``best.ckpt`` and, until the fit is done, ``last.ckpt`` are written.
        seed (int, optional): The seed of initialisation, order and sampling. (default: :obj:`0`)
        device (str, optional): ``"auto"``, ``"cpu"`` or ``"cuda"``. (default: :obj:`"auto"`)
        name (str, optional): What the progress bar is called. (default: :obj:`"fit"`)

    Raises:
        ValueError: If the device is unknown or not there.
        CheckpointError: If ``folder`` holds an interrupted fit of other data, hyper-parameters or seed, or
            its checkpoint is damaged.
        DivergedError: If the predictions leave the finite numbers.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r} is unknown: choose 'auto', 'cpu' or 'cuda'")
    elif device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda', but torch finds no CUDA device here: choose 'cpu' or 'auto'")
    folder = Path(folder)
    best, last, transe = folder / "best.ckpt", folder / "last.ckpt", folder / "transe.json"
    from_transe = isinstance(config, NeighborhoodConfig) and config.transe
    data = dataset[0]
    torch.manual_seed(seed)
    module = ClickModule(dataset, config, seed)
    rows = ClickData(data, config, seed, module.scorer.eval_batch_size)
    at_epoch_end = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    callbacks = [
        EarlyStopping(config.monitor, mode="max", patience=config.patience, check_on_train_epoch_end=True),
        _Keep(folder, best.stem, monitor=config.monitor, mode="max", **at_epoch_end),
        _Keep(folder, last.stem, **at_epoch_end),
        _ProgressBar(name),
    ]
    with quiet_lightning(".*Checkpoint directory .* exists and is not empty.*"):
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else device,
            devices=1,
            max_epochs=config.epochs,
            callbacks=callbacks,
            plugins=[WholeCheckpoints()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        started = time.perf_counter()
        if last.exists():
            kept = read_checkpoint(last)
            check_fit(last, kept["hyper_parameters"], module.hparams)
            module.history = kept["history"]
        elif from_transe:
            start = fit_transe(data, dataset.num_relations, config.channels, seed)
            module.scorer.start_from(start.entity, start.relation)
            write_json(transe, start.metrics)
        if not _has_stopped(module.history, config):
            trainer.fit(module, rows, ckpt_path=last if last.exists() else None)
        seconds = time.perf_counter() - started
        history = module.history  # Prediction goes back to the best checkpoint, and to its history.
        val_score, score = map(torch.cat, trainer.predict(module, rows, ckpt_path=best))
    last.unlink(missing_ok=True)

    return FitResult(
        checkpoint=best,
        score=score.cpu(),
        val_score=val_score.cpu(),
        history=history,
        best_epoch=_best_epoch(history, config),
        train_seconds=seconds,
        rows_per_second=len(history) * rows.rows_per_epoch / sum(e["train_seconds"] for e in history),
        transe=read_json(transe, (), "delete the folder") if from_transe else None,
    )


def _best_epoch(history: list[dict[str, float]], config: FitConfig) -> int:
    return 1 + int(np.argmax([entry[config.monitor] for entry in history]))


def _has_stopped(history: list[dict[str, float]], config: FitConfig) -> bool:
    """Whether a fit was interrupted after its last epoch: Lightning would train one more."""
    return bool(history) and len(history) - _best_epoch(history, config) >= config.patience
