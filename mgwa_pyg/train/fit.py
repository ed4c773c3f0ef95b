"""One fit: a data set and hyper-parameters in, the best checkpoint and its test predictions out."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch_geometric.data import HeteroData
from tqdm import tqdm

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.datasets.ids import Rows
from mgwa_pyg.datasets.schema import check_data
from mgwa_pyg.recommenders import RECOMMENDERS, FitConfig, KGRecommender, make_recommender
from mgwa_pyg.recommenders.checkpoint import (
    CheckpointError,
    check_fit,
    check_state,
    describe,
    in_words_of,
    read_checkpoint,
)
from mgwa_pyg.recommenders.growth import Start, held_out_but_learned
from mgwa_pyg.train.click import ClickData, ClickModule, check_rows
from mgwa_pyg.train.trainer import KeptCheckpoint, lightning_as_guest, make_trainer
from mgwa_pyg.train.transe import fit_transe
from mgwa_pyg.utils.checks import check_count
from mgwa_pyg.utils.files import locked_folder, read_json, write_json
from mgwa_pyg.utils.modes import chosen_device, plain_modes

# Torch takes no larger numbers, and each epoch has a seed a million times as large.
_MAX_SEED = 2**43 - 1
# Torch's generator and Python's warnings belong to all threads.
_TURN = threading.RLock()
_HELD_OUT = {"val": "validation", "test": "test"}
#: What fits are judged by, and what progress calls it.
MEASURES = {"val_auc": "val AUC", "val_recall": "val Recall@10"}


@dataclass(frozen=True, repr=False)
class FitResult:
    """What a fit leaves behind."""

    checkpoint: Path
    """The checkpoint that did best on the validation rows; without any, that of the last epoch."""
    data: HeteroData
    """The data that were learned from, as a transform, which may draw at random, left them."""
    score: Tensor
    """The predicted probabilities of the test rows, in their order."""
    val_score: Tensor
    """Those of the validation rows."""
    history: list[dict[str, float]]
    """The figures of each epoch, ``train_loss``, ``train_auc`` and ``train_seconds``; where there are
    validation rows ``val_loss``, and ``val_auc`` if they have both labels; and ``val_recall`` if that is
    what the fit is judged by."""
    best_epoch: int
    """The number of epochs after which the checkpoint was taken."""
    train_seconds: float
    """Wall time in seconds since the fit was begun or resumed, validation and checkpoints included."""
    rows_per_second: float
    """Training rows per second, without validation and checkpoints."""
    transe: dict[str, float | None] | None
    """How well TransE, if the fit started from it, tells held-out triples; see :func:`fit_transe`."""
    judged_by: str | None
    """The figure of :attr:`history` that chose the checkpoint, ``"val_auc"`` or ``"val_recall"``; :obj:`None`
    where there were no validation rows, and all epochs were trained."""
    model: str
    """The name of the model."""
    dataset: str
    """The data set, as it is printed."""

    def sentence(self) -> str:
        """Say in words how good the best epoch was, and which it is, of how many."""
        total = len(self.history)
        if self.judged_by is None:
            epochs = f"All {total} epochs were" if total > 1 else "The only epoch was"
            return f"{epochs} trained, with no validation rows to judge by."
        best = self.history[self.best_epoch - 1][self.judged_by]
        which = f"the best of {total}" if total > 1 else "the only one"
        return f"{MEASURES[self.judged_by]} {best:.4f} at epoch {self.best_epoch}, {which}."

    def __repr__(self) -> str:
        return (
            f"FitResult of {self.model} on {self.dataset}\n"
            f"  {self.sentence()}\n"
            f"  checkpoint: {self.checkpoint}"
        )


class _ProgressBar(Callback):
    """One bar a fit, a step for each epoch; nothing where the output is not a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None
        #: Whether training has begun: what a checkpoint holds has been taken.
        self.has_begun = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.has_begun = True
        done, total = len(pl_module.history), trainer.max_epochs
        self._bar = tqdm(total=total, initial=done, desc=self._name, leave=False, disable=None)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None and pl_module.history:
            last, monitor = pl_module.history[-1], pl_module.config.monitor
            judged = f", {MEASURES[monitor]} {last[monitor]:.4f}" if monitor in last else ""
            self._bar.set_postfix_str(f"loss {last['train_loss']:.4f}{judged}")
            self._bar.update(len(pl_module.history) - self._bar.n)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()


@plain_modes()
def fit(
    dataset: KGRecDataset,
    config: FitConfig,
    folder: Path | str,
    seed: int = 0,
    device: str = "auto",
    name: str = "fit",
    logger: Logger | Sequence[Logger] | bool = False,
    callbacks: Sequence[Callback] = (),
    warm_start: Path | str | None = None,
) -> FitResult:
    """Train until what the validation rows are judged by no longer rises (the AUC, or what the model's
    hyper-parameters say), then predict the test rows.

    Without validation rows (``val_mask`` selects none) a fit trains for all of ``config.epochs`` and keeps
    the last of them: so a model for use learns from all rows, for as many epochs as did best when some were
    held out.

    On the CPU the same seed gives the same result bit for bit. If ``folder`` holds the last checkpoint of
    an interrupted fit (by Ctrl-C, which is :class:`KeyboardInterrupt`, or killed), that fit goes on from
    there, and says so. A finished fit of other data, hyper-parameters or seed is not overwritten: its
    ``best.ckpt`` is kept as ``best-1.ckpt``, or the next number that is free, with a warning. Torch's
    generators, Lightning's log, warnings and signals are left as they were, so that fits in threads of one
    process take turns; train in several processes to have them side by side. Modes such as
    :func:`torch.no_grad` and :func:`torch.autocast` change nothing.

    Args:
        dataset (KGRecDataset): The data set. Its data are read once.
        config (FitConfig): The hyper-parameters.
        folder (path): Where ``best.ckpt`` and, until the fit is done, ``last.ckpt`` are written; it is made
            if need be, and ``~`` is the home folder.
        seed (int, optional): The seed of initialisation, order and sampling. (default: :obj:`0`)
        device (str, optional): ``"auto"``, ``"cpu"`` or ``"cuda"``. (default: :obj:`"auto"`)
        name (str, optional): What the progress bar is called. (default: :obj:`"fit"`)
        logger (Logger, sequence of them or bool, optional): What of :mod:`lightning.pytorch.loggers` keeps
            the figures of each epoch, by their names in :attr:`FitResult.history`, and the hyper-parameters;
            :obj:`True` is Lightning's own choice, in ``folder``. (default: :obj:`False`)
        callbacks (sequence of Callback, optional): Lightning's callbacks, beside those of the fit. What they
            want kept in checkpoints must be plain data. (default: none)
        warm_start (path, optional): The folder of a run of the same model on data that have grown or changed
            since; its data set needs not be there any more. Users, items, entities and relations that were
            there have the parameters of that run, by their ids; entities that are new start from the mean of
            their neighbours, and what else is new is drawn as ever. Few epochs are enough then: set
            ``config.epochs``. A split that is drawn anew holds out what that run has learned from, and
            figures on it mean nothing: there is a warning then, and where no id is the same.
            (default: :obj:`None`)

    Raises:
        TypeError: If the data set, the hyper-parameters, the folder, a logger or a callback are of another
            type, or a callback keeps more than plain data in checkpoints.
        ValueError: If the device is unknown or not there, the seed is out of range, the data are not what
            the data set promises, or cannot be learned from, or validation rows cannot tell which epoch was
            best.
        IndexError: If a user, an entity, an item or a relation of the data is out of range.
        FileNotFoundError: If there is no checkpoint to start from.
        BlockingIOError: If another fit works in ``folder``.
        CheckpointError: If ``folder`` holds an interrupted fit of other data, hyper-parameters or seed, or
            its checkpoint or that of ``warm_start`` is damaged, or of another model.
        DivergedError: If the predictions leave the finite numbers.
    """
    if not isinstance(dataset, KGRecDataset):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}, but a KGRecDataset is needed: pass the data set itself, "
            f"not dataset[0]"
        )
    config_classes = [kind.config_class for kind in RECOMMENDERS.values()]
    if type(config) not in config_classes:  # A subclass has what a checkpoint would not keep.
        kinds = ", ".join(kind.__name__ for kind in config_classes)
        raise TypeError(
            f"config={config!r:.60} is of no class that RECOMMENDERS knows: pass one of {kinds} "
            f"(FitConfig.from_dict makes one of a dict), or register the recommender first"
        )
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder={folder!r:.60}: a path is needed")
    if warm_start is not None and not isinstance(warm_start, str | os.PathLike):
        raise TypeError(f"warm_start={warm_start!r:.60}: the path of a run folder is needed")
    callbacks = _all_of("callbacks", callbacks, Callback)
    if not isinstance(logger, bool | Logger):
        logger = _all_of("logger", logger, Logger)
    seed, device = check_count("seed", seed, minimum=0), chosen_device(device)
    if seed > _MAX_SEED:
        raise ValueError(f"seed={seed}: a whole number of at most {_MAX_SEED} is needed")
    start = None if warm_start is None else Start.of(warm_start, config)
    dataset = fixed(dataset)
    check_data(dataset, dataset[0])
    check_rows(dataset[0], config)
    if dataset.num_relations == 0 and config.needs_relations:
        others = " or ".join(repr(kind.model) for kind in config_classes if not kind.needs_relations)
        raise ValueError(
            f"the data have no relation, which model={config.model!r} learns from: take model "
            f"{others}, which learns from interactions, too"
        )
    folder = Path(folder).expanduser().absolute()
    with (
        locked_folder(folder) as died,
        _TURN,
        lightning_as_guest("(?s).*Checkpoint directory .* exists and is not empty.*"),
        # Lightning takes the first GPU, and makes it the current one.
        torch.random.fork_rng(devices=[0] if device == "cuda" else []),
        torch.cuda.device(torch.cuda.current_device()) if device == "cuda" else nullcontext(),
    ):
        best, last = folder / "best.ckpt", folder / "last.ckpt"
        # Who died before the first `last.ckpt` had no finished fit there any more.
        finished = best.exists() and not (died or last.exists())
        described = describe(dataset, config, seed, None if start is None else start.digest)
        other = finished and not _is_of(best, described)
        with _kept(best, folder / "transe.json", folder / "dataset.pt") if other else nullcontext():
            return _fit(dataset, config, folder, seed, device, name, start, logger, callbacks)


def _fit(
    dataset: KGRecDataset,
    config: FitConfig,
    folder: Path,
    seed: int,
    device: str,
    name: str,
    start: Start | None,
    logger: Logger | Sequence[Logger] | bool,
    more: Sequence[Callback],
) -> FitResult:
    best, last, transe = folder / "best.ckpt", folder / "last.ckpt", folder / "transe.json"
    data = dataset[0]
    torch.default_generator.manual_seed(seed)
    recommender = make_recommender(dataset, config, seed)
    from_transe = config.from_transe and start is None
    if start is not None:
        _warn_of_start(recommender, start.give(recommender))
    module = ClickModule(recommender)
    rows = ClickData(data, config, seed, recommender.eval_batch_size)
    # Two callbacks need two keys: without a metric, the mode tells them apart.
    monitor = config.monitor if module.validates else None
    stopping = EarlyStopping(
        config.monitor, mode="max", patience=config.patience, check_on_train_epoch_end=True
    )
    bar = _ProgressBar(name)
    callbacks = [
        *([stopping] if module.validates else []),
        KeptCheckpoint(folder, best.stem, monitor=monitor, mode="max"),
        KeptCheckpoint(folder, last.stem),
        bar,
        *more,
    ]
    trainer = make_trainer(
        device,
        config.epochs,
        callbacks,
        limit_val_batches=None if module.validates else 0,
        logger=logger,
        default_root_dir=folder,
        log_every_n_steps=1,  # Steps log nothing: Lightning would warn of epochs that have fewer than 50.
    )
    started = time.perf_counter()
    if last.exists():
        kept = read_checkpoint(last)
        check_fit(last, kept["hyper_parameters"], module.hparams)
        check_state(last, kept)
        with in_words_of(last):
            module.load_state_dict(kept["state_dict"])
        module.history = kept["history"]
        print(f"{name}: resumed after epoch {len(module.history)} of {last}", file=sys.stderr)
    elif from_transe:
        drawn = fit_transe(data, dataset.num_relations, config.channels, seed)
        recommender.start_from(drawn.entity, drawn.relation)
        write_json(transe, drawn.metrics)
    dataset.keep(folder)
    if not _has_stopped(module.history, config):
        resumed = last if last.exists() else None
        try:
            trainer.fit(module, rows, ckpt_path=resumed)
        except Exception as error:
            if resumed is None or bar.has_begun:
                raise
            raise CheckpointError(
                f"{last} does not hold the state of a fit ({type(error).__name__}: {error}): take another "
                f"copy, or delete it and train again"
            ) from error
    seconds = time.perf_counter() - started
    history = module.history  # Prediction goes back to the best checkpoint, and to its history.
    predicted: list[list[Tensor]] = trainer.predict(module, rows, ckpt_path=best) or [[], []]
    val_score, score = (torch.cat([torch.empty(0), *batches]) for batches in predicted)
    last.unlink(missing_ok=True)

    return FitResult(
        checkpoint=best,
        data=data,
        score=score,
        val_score=val_score,
        history=history,
        best_epoch=_best_epoch(history, config),
        train_seconds=seconds,
        rows_per_second=len(history) * rows.rows_per_epoch / sum(e["train_seconds"] for e in history),
        transe=read_json(transe, (), "delete the folder") if from_transe else None,
        judged_by=monitor,
        model=config.model,
        dataset=repr(dataset),
    )


def _warn_of_start(recommender: KGRecommender, rows: Rows) -> None:
    """Say what cannot be meant: a start that gives nothing, or rows to judge by that it has learned from."""
    if not ((rows.user >= 0).any() or (rows.entity >= 0).any()):
        warnings.warn(
            "warm_start has no user, item or entity in common with the data, by their ids, and the fit "
            "starts from next to nothing: see whether it is the right run, and ids are written alike",
            stacklevel=5,
        )
    found = {name: held_out_but_learned(recommender, part) for part, name in _HELD_OUT.items()}
    if any(known for known, _ in found.values()):
        counts = " and ".join(f"{known} of the {number} {name}" for name, (known, number) in found.items())
        warnings.warn(
            f"warm_start has learned from {counts} positives of these data: figures on them are better than "
            f"the model is. Keep what was learned from among the training rows: split='time', 'last' or "
            f"'column:NAME', or none to judge by, split='none'; Recommender.update keeps the parts, too",
            stacklevel=5,
        )


def _all_of(name: str, values: Any, kind: type) -> list[Any]:
    """Return the values as a list, or raise a :class:`TypeError` if one is of another kind."""
    wanted = f"a list of objects of lightning.pytorch's {kind.__name__} is needed"
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name}={values!r:.60}: {wanted}")
    for at, value in enumerate(values):
        if not isinstance(value, kind):
            raise TypeError(f"{name}[{at}]={value!r:.60}: {wanted}")
    return [*values]


def _is_of(checkpoint: Path, fit: dict[str, Any]) -> bool:
    """Whether a checkpoint is of a fit: then the fit leaves the same again."""
    try:
        check_fit(checkpoint, read_checkpoint(checkpoint)["hyper_parameters"], fit)
    except (CheckpointError, FileNotFoundError):
        return False
    return True


@contextmanager
def _kept(best: Path, *others: Path) -> Iterator[None]:
    """Give a finished fit's files other names; they have their own back if the block leaves no other."""
    number = 1
    while any(_numbered(path, number).exists() for path in (best, *others)):
        number += 1
    kept = {path: _numbered(path, number) for path in (best, *others) if path.exists()}
    try:
        for path, new in kept.items():
            path.rename(new)
        names = " and ".join(new.name for new in kept.values())
        warnings.warn(f"{best.parent} holds a fit that has finished: it is kept as {names}", stacklevel=5)
        yield
    except BaseException:
        if not best.exists():
            for path, new in kept.items():
                if new.exists():
                    new.replace(path)
        raise


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _best_epoch(history: list[dict[str, float]], config: FitConfig) -> int:
    if config.monitor not in history[0]:  # Nothing was held out to judge by.
        return len(history)
    return 1 + int(np.argmax([entry[config.monitor] for entry in history]))


def _has_stopped(history: list[dict[str, float]], config: FitConfig) -> bool:
    """Whether a fit was interrupted after its last epoch: Lightning would train one more."""
    return bool(history) and len(history) - _best_epoch(history, config) >= config.patience
