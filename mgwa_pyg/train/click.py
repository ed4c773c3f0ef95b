"""Click prediction in Lightning: the labelled rows of a data set, and the module that learns them."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from torch_geometric.data import HeteroData

from mgwa_pyg.nn import MGWA
from mgwa_pyg.nn.checks import NaNError
from mgwa_pyg.sampler import NeighborSampler
from mgwa_pyg.train.config import FitConfig

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

    def predict_dataloader(self) -> DataLoader:
        rows = self.rows("test")
        return self._loader(rows, SequentialSampler(rows), _EVAL_BATCH_SIZE)

    @staticmethod
    def _loader(rows: TensorDataset, order: Any, batch_size: int) -> DataLoader:
        return DataLoader(rows, batch_size=batch_size, sampler=order, collate_fn=lambda batch: batch)


class _Rows(TensorDataset):
    """Rows that are taken a batch at a time: one index into the tensors, nothing to put together."""

    def __getitems__(self, index: list[int]) -> tuple[Tensor, ...]:
        return self[torch.tensor(index)]


class ClickModule(L.LightningModule):
    """Learns clicks by binary cross-entropy, with L2 regularisation of the embeddings.

    Validation and prediction see whole neighbourhoods where there is one layer; deeper neighbourhoods
    grow too large for that and are sampled, with a fixed seed.

    Args:
        data (HeteroData): The data set, for its knowledge graph and sizes.
        num_relations (int): The number of relations; the inverse of relation ``r``, numbered
            ``r + num_relations``, is taken to be the same relation, as the paper does.
        config (FitConfig): The hyper-parameters.
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
        self.save_hyperparameters({"config": asdict(config), "seed": seed, "sizes": sizes, "origin": origin})
        self.config = config
        self.seed = seed
        self.model = MGWA(
            **sizes,
            channels=config.channels,
            num_layers=config.num_layers,
            fusion=config.fusion,
        )
        kg = data["entity", "kg", "entity"]
        graph = (kg.edge_index, kg.rel_type % num_relations, sizes["num_entities"])
        self.train_sampler = NeighborSampler(*graph, fanout=config.fanout)
        whole = config.num_layers == 1
        self.eval_sampler = NeighborSampler(*graph, fanout=None if whole else config.fanout)
        #: One entry an epoch: losses, AUCs and seconds of training.
        self.history: list[dict[str, float]] = []
        self._outputs: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": []}
        self._started = self._train_seconds = 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        embeddings = [m.weight for m in self.modules() if isinstance(m, torch.nn.Embedding)]
        others = [p for p in self.parameters() if all(p is not e for e in embeddings)]
        groups = [
            {"params": embeddings, "weight_decay": self.config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.Adam(groups, lr=self.config.lr, fused=True)

    def setup(self, stage: str) -> None:
        self.train_sampler.to(self.device)
        self.eval_sampler.to(self.device)

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
            logit = self.model(user, *self.train_sampler.sample(item, self.config.num_layers))
        except NaNError as error:
            raise self._diverged(f"batch {batch_idx + 1}") from error
        self._outputs["train"].append((logit.detach(), label))
        return F.binary_cross_entropy_with_logits(logit, label)

    def on_validation_epoch_start(self) -> None:
        self._train_seconds = time.perf_counter() - self._started
        self._generator = torch.Generator(self.device).manual_seed(self.seed)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        user, item, label = batch
        self._outputs["val"].append((self._eval_logit(user, item), label))

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

    def on_predict_start(self) -> None:
        self._generator = torch.Generator(self.device).manual_seed(self.seed)

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        user, item, _ = batch
        return self._eval_logit(user, item).sigmoid()

    def _eval_logit(self, user: Tensor, item: Tensor) -> Tensor:
        depth = self.config.num_layers
        return self.model(user, *self.eval_sampler.sample(item, depth, self._generator))

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
