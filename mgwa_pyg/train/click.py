"""Click prediction in Lightning: the labelled rows of a data set, and the module that learns them."""

from __future__ import annotations

import time
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

from mgwa_pyg.checks import NaNError
from mgwa_pyg.train.config import FitConfig
from mgwa_pyg.train.scorer import make_scorer

# Rows scored at once outside training, where the neighbourhoods are whole.
_EVAL_BATCH_SIZE = 2048


class ClickData(L.LightningDataModule):
    """The labelled user-item rows of a data set, in batches of ``(user, item, label)``.

    Training rows come in an order that depends on the seed and the epoch alone, so that a resumed fit
    sees the same batches as one that was never interrupted.

    Args:
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        batch_size (int): Rows per training step.
        seed (int): The seed of the order.
    """

    def __init__(self, data: HeteroData, batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self._listens = data["user", "listens", "entity"]

    def rows(self, split: str) -> TensorDataset:
        """Return the rows of ``split``, one of ``"train"``, ``"val"`` and ``"test"``."""
        mask = self._listens[f"{split}_mask"]
        user, item = self._listens.edge_label_index[:, mask]
        return _Rows(user, item, self._listens.edge_label[mask])

    def train_dataloader(self) -> DataLoader:
        rows = self.rows("train")
        order: DistributedSampler = DistributedSampler(
            rows, num_replicas=1, rank=0, shuffle=True, seed=self.seed
        )
        return self._loader(rows, order, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        rows = self.rows("val")
        return self._loader(rows, SequentialSampler(rows), _EVAL_BATCH_SIZE)

    def predict_dataloader(self) -> list[DataLoader]:
        """The validation rows, then the test rows."""
        parts = [self.rows(split) for split in ("val", "test")]
        return [self._loader(rows, SequentialSampler(rows), _EVAL_BATCH_SIZE) for rows in parts]

    @staticmethod
    def _loader(rows: TensorDataset, order: Any, batch_size: int) -> DataLoader:
        return DataLoader(rows, batch_size=batch_size, sampler=order, collate_fn=lambda batch: batch)


class _Rows(TensorDataset):
    """Rows that are taken a batch at a time: one index into the tensors, nothing to put together."""

    def __getitems__(self, index: list[int]) -> tuple[Tensor, ...]:
        return self[torch.tensor(index)]


class ClickModule(L.LightningModule):
    """Learns clicks by binary cross-entropy and what the model adds to it.

    What is random in validation and prediction has a fixed seed.

    Args:
        data (HeteroData): The data set, for its knowledge graph, training positives and sizes.
        num_relations (int): The number of relations, inverses not counted.
        config (FitConfig): The hyper-parameters, and with them the model.
        seed (int): The seed of everything random in training.
        origin (dict, optional): What the data is, kept in checkpoints. (default: :obj:`None`)
    """

    def __init__(
        self,
        data: HeteroData,
        num_relations: int,
        config: FitConfig,
        seed: int,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "num_users": data["user"].num_nodes,
            "num_entities": data["entity"].num_nodes,
            "num_relations": num_relations,
        }
        self.save_hyperparameters(
            {"config": config.to_dict(), "seed": seed, "sizes": sizes, "origin": origin}
        )
        self.config = config
        self.seed = seed
        self.scorer = make_scorer(data, num_relations, config, seed)
        self.model = self.scorer.model
        #: One entry an epoch: losses, AUCs and seconds of training.
        self.history: list[dict[str, float]] = []
        self._outputs: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": []}
        self._started = self._train_seconds = 0.0

    @classmethod
    def restore(cls, checkpoint: Path | str, data: HeteroData) -> ClickModule:
        """Return the module that a fit on ``data`` left in ``checkpoint``, on the CPU and not training.

        Raises:
            ValueError: If the checkpoint's model has another size than the data.
        """
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        kept = content["hyper_parameters"]
        sizes = {"num_users": data["user"].num_nodes, "num_entities": data["entity"].num_nodes}
        for name, size in sizes.items():
            if kept["sizes"][name] != size:
                raise ValueError(
                    f"{checkpoint} was made with {name}={kept['sizes'][name]}, but the data have {size}: "
                    f"pass the data set of that fit"
                )
        config = FitConfig.from_dict(kept["config"])
        module = cls(data, kept["sizes"]["num_relations"], config, kept["seed"], kept["origin"])
        module.load_state_dict(content["state_dict"])
        return module.eval()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        decayed = self.scorer.decayed()
        others = [p for p in self.parameters() if all(p is not d for d in decayed)]
        groups = [
            {"params": parameters, "weight_decay": weight_decay}
            for parameters, weight_decay in ((decayed, self.config.weight_decay), (others, 0.0))
            if parameters
        ]
        return torch.optim.Adam(groups, lr=self.config.lr, fused=True)

    def setup(self, stage: str) -> None:
        self.scorer.to(self.device)

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            # All randomness of an epoch follows from the seed and the epoch's number, so that nothing
            # else is needed to resume. Before the first batch loaders draw numbers, too.
            torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        user, item, label = batch
        try:
            logit, penalty = self.scorer.train_step(user, item)
        except NaNError as error:
            raise self._diverged(f"batch {batch_idx + 1}") from error
        self._outputs["train"].append((logit.detach(), label))
        return F.binary_cross_entropy_with_logits(logit, label) + penalty

    def on_validation_epoch_start(self) -> None:
        self._train_seconds = time.perf_counter() - self._started
        self._generator = torch.Generator(self.device).manual_seed(self.seed)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        user, item, label = batch
        self._outputs["val"].append((self.scorer.score(user, item, self._generator), label))

    def on_validation_epoch_end(self) -> None:
        entry: dict[str, float] = {"epoch": float(self.current_epoch)}
        for split, outputs in self._outputs.items():
            logit, label = (torch.cat(part).cpu() for part in zip(*outputs, strict=True))
            outputs.clear()
            if not logit.isfinite().all():
                raise self._diverged(f"the {split} predictions")
            entry[f"{split}_loss"] = F.binary_cross_entropy_with_logits(logit, label).item()
            entry[f"{split}_auc"] = float(roc_auc_score(label, logit))
        entry["train_seconds"] = self._train_seconds
        self.history.append(entry)
        self.log("val_auc", entry["val_auc"])

    def predict_step(
        self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int, dataloader_idx: int
    ) -> Tensor:
        if batch_idx == 0:
            self._generator = torch.Generator(self.device).manual_seed(self.seed)
        user, item, _ = batch
        return self.scorer.score(user, item, self._generator).sigmoid()

    def _diverged(self, where: str) -> RuntimeError:
        return RuntimeError(
            f"training has left the finite numbers: {where} of epoch {self.current_epoch + 1}, with "
            f"lr={self.config.lr} and weight_decay={self.config.weight_decay}. Lower the learning rate. The "
            f"best checkpoint of the {self.current_epoch} epochs before is kept."
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
