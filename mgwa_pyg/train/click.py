"""Click prediction in Lightning: the labelled rows of a data set, and the module that learns them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from torch_geometric.data import HeteroData
from torchmetrics.utilities.distributed import gather_all_tensors

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.ids import DataIds
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import full_ranking
from mgwa_pyg.recommenders import FitConfig, KGRecommender, restore
from mgwa_pyg.recommenders.checkpoint import FORMAT, FORMAT_KEY, describe
from mgwa_pyg.recommenders.growth import learned_by
from mgwa_pyg.train.trainer import KeptCheckpoint
from mgwa_pyg.utils.checks import NaNError

#: User, item and label of each row, and the key if rows have one; see :class:`KGRecommender`.
Batch = tuple[Tensor, ...]


class DivergedError(RuntimeError):
    """Training has left the finite numbers; the message says where, and names the last good checkpoint."""


class ClickData(L.LightningDataModule):
    """The labelled user-item rows of a data set, in batches of ``(user, item, label)``.

    Training rows come in an order that depends on the seed and the epoch alone, so that a resumed fit
    sees the same batches as one that was never interrupted. Where the recommender draws the negatives,
    as it does for a ranking loss, they are the training positives only.

    Args:
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        config (FitConfig): The hyper-parameters, for the size of batches and epochs.
        seed (int): The seed of the order.
        eval_batch_size (int, optional): Rows scored at once outside training. (default: :obj:`2048`)
    """

    def __init__(self, data: HeteroData, config: FitConfig, seed: int, eval_batch_size: int = 2048) -> None:
        super().__init__()
        self.seed = seed
        self.eval_batch_size = eval_batch_size
        self._links = interactions(data)
        if config.draws_negatives:
            user, item = self._links.edge_index
            self._train: TensorDataset = _Rows(user, item, torch.ones(user.numel()))
        else:
            self._train = self.rows("train")
        self.batch_size, self._passes = config.deal(len(self._train))

    @property
    def rows_per_epoch(self) -> int:
        """The number of training rows in an epoch."""
        return self._passes * len(self._train)

    def rows(self, split: str) -> TensorDataset:
        """Return the rows of ``split``, one of ``"train"``, ``"val"`` and ``"test"``."""
        mask = self._links[f"{split}_mask"]
        user, item = self._links.edge_label_index[:, mask]
        return _Rows(user, item, self._links.edge_label[mask])

    def train_dataloader(self) -> DataLoader:
        order = _Passes(self._train, self._passes, self.seed)
        return self._loader(self._train, order, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        rows = self.rows("val")
        return self._loader(rows, SequentialSampler(rows), self.eval_batch_size)

    def predict_dataloader(self) -> list[DataLoader]:
        """The validation rows, then the test rows."""
        parts = [self.rows(split) for split in ("val", "test")]
        return [self._loader(rows, SequentialSampler(rows), self.eval_batch_size) for rows in parts]

    @staticmethod
    def _loader(rows: TensorDataset, order: Any, batch_size: int) -> DataLoader:
        return DataLoader(rows, batch_size=batch_size, sampler=order, collate_fn=lambda batch: batch)


class _Rows(TensorDataset):
    """Rows that are taken a batch at a time: one index into the tensors, nothing to put together."""

    def __getitems__(self, index: list[int]) -> tuple[Tensor, ...]:
        return self[torch.tensor(index)]


class _Passes(DistributedSampler):
    """All rows so many times over, in another order each time."""

    def __init__(self, rows: TensorDataset, passes: int, seed: int) -> None:
        super().__init__(rows, num_replicas=1, rank=0, shuffle=True, seed=seed)
        self._passes = passes

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch
        for number in range(self._passes):
            self.epoch = epoch * self._passes + number
            yield from super().__iter__()
        self.epoch = epoch

    def __len__(self) -> int:
        return self._passes * super().__len__()


def check_rows(data: HeteroData, config: FitConfig) -> None:
    """Refuse rows that cannot be learned from, or that cannot tell which epoch was best.

    Raises:
        ValueError: If they cannot.
    """
    links = interactions(data)
    label = links.edge_label[links.train_mask]
    if config.draws_negatives:
        if links.edge_index.size(1) == 0:
            raise ValueError("there are no training positives: nothing can be learned")
        most = int(links.edge_index[0].bincount().max())
        if most < config.least_seen:
            raise ValueError(
                f"each user has {most} training positive at most, but model={config.model!r} with "
                f"loss={config.loss!r} learns how to rank an item from what else its user has seen: take "
                f"loss='click', another model, or data in which somebody has seen more"
            )
    elif label.unique().numel() < 2:
        raise ValueError(
            f"the training rows are {kinds(label)}: rows of both labels are needed, unless negatives are "
            f"drawn in training, as they are with loss='ranking'"
        )
    label = links.edge_label[links.val_mask]
    if label.numel() == 0:
        return
    if config.monitor == "val_auc" and label.unique().numel() < 2:
        problem = "but both labels are needed for the AUC that epochs are judged by"
    elif config.monitor == "val_recall" and not (label == 1).any():
        problem = "but positives are needed for the recall that epochs are judged by"
    else:
        return
    raise ValueError(
        f"the validation rows are {kinds(label)}, {problem}: split the data otherwise, or leave val_mask "
        f"empty to train for all of the {config.epochs} epochs"
    )


def kinds(label: Tensor) -> str:
    """What labels a message says there are."""
    positives = int((label == 1).sum())
    return f"{positives} positives and {label.numel() - positives} negatives"


class ClickModule(L.LightningModule):
    """Learns clicks by the loss of a recommender.

    What is random in validation and prediction has a fixed seed.

    Args:
        recommender (KGRecommender): The recommender, whose model is trained.
        kept_steps (int, optional): The steps, the last of each epoch, whose rows ``train_loss`` and
            ``train_auc`` are of; :obj:`None` keeps those of all steps. (default: :obj:`None`)
    """

    def __init__(self, recommender: KGRecommender, kept_steps: int | None = None) -> None:
        super().__init__()
        self.recommender = recommender
        self.config, self.seed, self.dataset = recommender.config, recommender.seed, recommender.dataset
        self.save_hyperparameters(describe(self.dataset, self.config, self.seed, recommender.started_from))
        self.model = recommender.model
        #: Whether there are validation rows, to judge epochs by.
        self.validates = bool(interactions(self.dataset[0]).val_mask.any())
        #: One entry an epoch, of losses, AUCs and seconds of training.
        self.history: list[dict[str, float]] = []
        # What rows of parameters are of, for those who start from them on other data.
        self._ids: dict[str, str] | None = None
        self._outputs: dict[str, deque[tuple[Tensor, ...]]] = {
            "train": deque(maxlen=kept_steps),
            "val": deque(),
        }
        self._started = self._train_seconds = 0.0

    @classmethod
    def restore(cls, checkpoint: Path | str, dataset: KGRecDataset | None = None) -> ClickModule:
        """Return the module that a fit left in a checkpoint, on the CPU and not training.

        Arguments and errors are those of :func:`mgwa_pyg.recommenders.restore`.
        """
        return cls(restore(checkpoint, dataset)).eval()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        decayed = self.recommender.decayed()
        others = [p for p in self.parameters() if all(p is not d for d in decayed)]
        groups = [
            {"params": parameters, "weight_decay": weight_decay}
            for parameters, weight_decay in ((decayed, self.config.weight_decay), (others, 0.0))
            if parameters
        ]
        return torch.optim.Adam(groups, lr=self.config.lr, fused=True)

    def setup(self, stage: str) -> None:
        self.recommender.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            # All randomness of an epoch follows from the seed and the epoch's number, so that nothing
            # else is needed to resume. Before the first batch loaders draw numbers, too.
            seed = self.seed * 1_000_003 + self.current_epoch
            torch.default_generator.manual_seed(seed)
            if self.device.type == "cuda":  # Other devices' generators are none of our business.
                torch.cuda.manual_seed(seed)
            self._started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        try:
            loss, logit, label = self.recommender.loss(*batch)
        except NaNError as error:
            raise self._diverged(self._place(batch, batch_idx)) from error
        if not loss.isfinite():
            raise self._diverged(f"a loss of {loss.item()} in {self._place(batch, batch_idx)}")
        self._outputs["train"].append((logit.detach(), label))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._train_seconds = time.perf_counter() - self._started
        self._generator = torch.Generator(self.device).manual_seed(self.seed)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        user, item, label, *key = batch
        try:
            logit = self.recommender.score(user, item, self._generator, *key)
        except NaNError as error:
            raise self._diverged("the val predictions") from error
        self._outputs["val"].append((logit, label, user, item))

    def on_validation_epoch_end(self) -> None:
        self._end_epoch()

    def on_train_epoch_end(self) -> None:
        if not self.validates:
            self._train_seconds = time.perf_counter() - self._started
            self._end_epoch()

    def _end_epoch(self) -> None:
        # Torch's isfinite would take several times the memory of a table.
        ends = [end for parameter in self.parameters() if parameter.numel() for end in parameter.aminmax()]
        if not all(end.isfinite() for end in ends):
            raise self._diverged("the parameters after the last step")
        entry: dict[str, float] = {"epoch": float(len(self.history))}
        for split in ("train", "val") if self.validates else ("train",):
            entry |= self._figures(split)
        if self.validates and self.config.monitor == "val_recall":
            entry["val_recall"] = self._val_recall()
        entry["train_seconds"] = self._train_seconds
        self.history.append(entry)
        # Lightning counts epochs itself. A monitor is there, even if it has no value.
        logged = {self.config.monitor: math.nan} if self.validates else {}
        self.log_dict({**logged, **{key: entry[key] for key in entry if key != "epoch"}}, sync_dist=True)

    def _figures(self, split: str) -> dict[str, float]:
        """The loss and the AUC of the rows of a split, those of all processes."""
        parts = [torch.cat(part) for part in zip(*self._outputs[split], strict=True)]
        self._outputs[split].clear()
        if self.trainer.world_size > 1:
            parts = [torch.cat(gather_all_tensors(part)) for part in parts]
        logit, label, *pair = parts
        if not logit.isfinite().all():
            raise self._diverged(f"the {split} predictions")
        if pair:
            user, item = pair
            logit = self.recommender.calibrate(user, item, logit, label)
        logit, label = logit.double().cpu(), label.double().cpu()
        figures = {f"{split}_loss": F.binary_cross_entropy_with_logits(logit, label).item()}
        if label.unique().numel() == 2:  # There is no AUC of one kind of rows.
            figures[f"{split}_auc"] = float(roc_auc_score(label, logit))
        return figures

    def _val_recall(self) -> float:
        score_all = self.recommender.scorer(self._generator)
        ranked = full_ranking(
            lambda user: score_all(user.to(self.device)),
            self.dataset[0],
            self.dataset.num_items,
            ks=(10,),
            split="val",
            users_per_step=self.recommender.users_per_step,
        )
        return ranked["recall@10"]

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int) -> Tensor:
        if batch_idx == 0:
            self._generator = torch.Generator(self.device).manual_seed(self.seed)
        user, item, _, *key = batch
        logit = self.recommender.score(user, item, self._generator, *key)
        return self.recommender.calibrated(item, logit).sigmoid()

    def _place(self, batch: Batch, batch_idx: int) -> str:
        user, item = ("{} to {}".format(*(end.item() for end in index.aminmax())) for index in batch[:2])
        return f"step {self.global_step + 1}, batch {batch_idx + 1}, users {user} and items {item},"

    def _diverged(self, where: str) -> DivergedError:
        kept = "There is no checkpoint yet."
        if self.history:
            ours = [one for one in self.trainer.checkpoint_callbacks if isinstance(one, KeptCheckpoint)]
            path = ours[-1].format_checkpoint_name({})
            kept = f"The last good checkpoint, of epoch {len(self.history)}, is {path}."
        return DivergedError(
            f"training has left the finite numbers: {where} of epoch {self.current_epoch + 1}, with "
            f"lr={self.config.lr} and weight_decay={self.config.weight_decay}. Lower the learning rate. "
            f"{kept}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[FORMAT_KEY] = FORMAT
        checkpoint["history"] = self.history
        if self._ids is None:
            self._ids = DataIds.of(self.dataset).packed()
        checkpoint["ids"] = self._ids
        checkpoint["learned"] = learned_by(self.recommender)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
