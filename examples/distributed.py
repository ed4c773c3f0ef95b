"""MGWA on graphs of millions of triples, with any number of processes or GPUs.

    python examples/distributed.py --data lastfm
    torchrun --nproc-per-node 2 examples/distributed.py --triples 10000000  # synthetic data of that size
    torchrun --nproc-per-node 2 examples/distributed.py --resume runs/NAME  # go on where it was interrupted

Each batch is shared out among the processes. What is drawn for a row follows from its number and the epoch:
any number of processes takes the same steps. One process of each machine prepares the data and leaves two
files that all of them map into memory, so that there is one copy of the graph. How much memory is needed is
said in docs/scaling.md.
"""

import argparse
import os
import pickle
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

# Rows of large tables are read at random: with pages of 2 MiB that takes half the time. Torch reads it now.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset
from torchmetrics.classification import BinaryAUROC

from mgwa_pyg.datasets import BookCrossingKG, KGRecDataset, LastFMKG, SyntheticKG
from mgwa_pyg.nn import MGWA
from mgwa_pyg.sampler import NeighborSampler
from mgwa_pyg.train.fit import chosen_device
from mgwa_pyg.train.quiet import quiet_lightning
from mgwa_pyg.utils.files import save_tensors

REPOSITORY = Path(__file__).resolve().parent.parent
Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # User, item, label and number of each row.


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    # fmt: off
    add("--data", choices=["lastfm", "bookcrossing", "synthetic"], default="synthetic")
    add("--triples", type=int, default=100_000, metavar="N",
        help="of the synthetic graph, whose entities, items and users grow with them (default: 100000)")
    add("--layers", type=int, default=1, metavar="N", help="hops looked at (default: 1)")
    add("--dim", type=int, default=16, metavar="D", help="size of the embeddings (default: 16)")
    add("--fanout", type=int, default=8, metavar="K", help="neighbours kept per hop (default: 8)")
    add("--batch-size", type=int, default=1024, metavar="N",
        help="rows per step, of all processes together (default: 1024)")
    add("--epochs", type=int, metavar="N", help="default: 5")
    add("--steps", type=int, metavar="N", help="steps at most of an epoch, and of an evaluation")
    add("--lr", type=float, default=0.03, help="learning rate (default: 0.03)")
    add("--clip", type=float, default=1.0, metavar="NORM", help="longest gradient (default: 1)")
    add("--dense", action="store_true", help="dense gradients: quicker where a batch touches most rows")
    add("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    add("--seed", type=int, default=0)
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--root", default=str(REPOSITORY / "data"), metavar="DIR", help="where data sets are kept")
    add("--out", type=Path, metavar="RUN", help="the folder to write (default: runs/distributed-TIME)")
    add("--resume", type=Path, metavar="RUN",
        help="the folder of a run to go on with, all of whose settings but --epochs are kept")
    # fmt: on
    return parser.parse_args()


def load(args: argparse.Namespace) -> KGRecDataset:
    if args.data == "lastfm":
        return LastFMKG(Path(args.root, "LastFMKG"), seed=args.seed)
    if args.data == "bookcrossing":
        return BookCrossingKG(Path(args.root, "BookCrossingKG"), seed=args.seed)
    return SyntheticKG(
        Path(args.root, "SyntheticKG"),
        num_users=args.triples // 200,
        num_items=args.triples // 50,
        num_entities=args.triples // 10,
        num_relations=60,
        num_triples=args.triples,
        num_interactions=args.triples // 5,
        seed=args.seed,
    )


def graph_file(dataset: KGRecDataset) -> Path:
    return Path(dataset.processed_paths[0]).with_suffix(".graph.pt")


class Batches(Sampler[Tensor]):
    """This process's share of each batch of row numbers, in another order each epoch if there is a seed."""

    def __init__(self, num_rows: int, batch_size: int, rank: int, world_size: int, seed: int | None) -> None:
        self.num_rows, self.batch_size, self.rank, self.world_size = num_rows, batch_size, rank, world_size
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:  # Lightning calls it.
        self.epoch = epoch

    def __len__(self) -> int:
        # In training whole batches only: with shares of one size, the mean of their means is the mean.
        rest = 0 if self.seed is not None else self.batch_size - 1
        return (self.num_rows + rest) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.arange(self.num_rows)
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.num_rows, generator=generator)
        for batch in order.split(self.batch_size)[: len(self)]:
            yield batch[self.rank :: self.world_size]


class SharedData(L.LightningDataModule):
    """The labelled rows and the graph, in files that all processes of a machine map into memory."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        self.dataset: KGRecDataset | None = None

    def prepare_data(self) -> None:  # In one process of each machine, before training and before the test.
        if self.dataset is not None:
            return
        dataset = load(self.args)
        graph, processed = graph_file(dataset), Path(dataset.processed_paths[0])
        if not graph.exists() or graph.stat().st_mtime < processed.stat().st_mtime:
            kg = dataset[0]["entity", "kg", "entity"]
            relation = kg.rel_type % dataset.num_relations  # To the paper, both directions are one relation.
            NeighborSampler(kg.edge_index, relation, dataset.num_entities).save(graph)

    def setup(self, stage: str) -> None:  # In all processes.
        if self.dataset is not None:
            return
        self.dataset = load(self.args)
        self.sampler = NeighborSampler.load(graph_file(self.dataset))
        self.sampler.fanout = self.args.fanout

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", self.args.seed)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", None)

    def test_dataloader(self) -> DataLoader:
        return self._loader("test", None)

    def _loader(self, split: str, seed: int | None) -> DataLoader:
        listens = self.dataset[0]["user", "listens", "entity"]
        row = listens[f"{split}_mask"].nonzero().squeeze(1)
        user, item = listens.edge_label_index[:, row]
        batch_size, world_size = self.args.batch_size, self.trainer.world_size
        if batch_size % world_size or (split == "train" and batch_size > len(row)):
            raise ValueError(
                f"--batch-size {batch_size} must be a multiple of the number of processes, {world_size}, and "
                f"at most that of the {split} rows, {len(row)}"
            )
        batches = Batches(len(row), batch_size, self.trainer.global_rank, world_size, seed)
        rows = TensorDataset(user, item, listens.edge_label[row], row)
        return DataLoader(rows, batch_size=None, sampler=batches)


class MappedCheckpoints(TorchCheckpointIO):
    """Checkpoints without another copy of the tables in memory, neither to write nor to read them."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None
    ) -> None:
        save_tensors(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


class ClickModule(L.LightningModule):
    """Learns clicks by binary cross-entropy."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        kept = {name: value for name, value in vars(args).items() if name not in ("epochs", "out", "resume")}
        self.save_hyperparameters(kept)
        self.auc = torch.nn.ModuleDict({"val": BinaryAUROC(), "test": BinaryAUROC()})

    def configure_model(self) -> None:
        args, dataset = self.args, self.trainer.datamodule.dataset
        torch.manual_seed(args.seed)
        self.model = MGWA(
            dataset.num_users,
            dataset.num_entities,
            dataset.num_relations,
            channels=args.dim,
            num_layers=args.layers,
            sparse=not args.dense,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Of torch's optimizers for sparse and dense gradients, the one that keeps least for each row.
        return torch.optim.Adagrad(self.model.parameters(), lr=self.args.lr)

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float, gradient_clip_algorithm: str
    ) -> None:
        # What torch.nn.utils.clip_grad_norm_ does, which knows no sparse gradients.
        for parameter in self.model.parameters():
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
        gradients = [p.grad.values() if p.grad.is_sparse else p.grad for p in self.model.parameters()]
        norm = torch.nn.utils.get_total_norm(gradients)
        for gradient in gradients:
            gradient.mul_((gradient_clip_val / (norm + 1e-6)).clamp(max=1.0))

    def on_fit_start(self) -> None:
        self.sampler = self.trainer.datamodule.sampler.to(self.device)

    def forward(self, user: Tensor, item: Tensor, key: Tensor) -> Tensor:
        return self.model(user, *self.sampler.sample(item, self.args.layers, key=key))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        user, item, label, row = batch
        # Unlike that of any other row, epoch and seed.
        key = row + (self.current_epoch << 40) + (self.args.seed << 50)
        loss = F.binary_cross_entropy_with_logits(self(user, item, key), label)
        self.log("train_loss", loss, sync_dist=True)
        return loss

    def on_validation_start(self) -> None:
        self.seconds = time.perf_counter() - self.started

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate("val", *batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate("test", *batch)

    def evaluate(self, split: str, user: Tensor, item: Tensor, label: Tensor, row: Tensor) -> None:
        self.auc[split].update(self(user, item, row), label.int())
        self.log(f"{split}_auc", self.auc[split])

    def on_train_epoch_end(self) -> None:
        rows_per_second = self.trainer.num_training_batches * self.args.batch_size / self.seconds
        self.log("rows_per_second", rows_per_second, sync_dist=True)
        self.print(
            f"epoch {self.current_epoch + 1}: validation AUC {self.trainer.callback_metrics['val_auc']:.4f}, "
            f"{rows_per_second:,.0f} rows/s in training"
        )


def main() -> None:
    args = parse_args()
    run = args.resume or args.out or REPOSITORY / "runs" / f"distributed-{datetime.now():%Y%m%d-%H%M%S}"
    run = run.expanduser()
    last = run / "last.ckpt"
    if args.resume:
        if not last.exists():
            raise ValueError(f"{last} is missing: there is nothing to go on from")
        try:
            kept = torch.load(last, map_location="cpu", mmap=True, weights_only=True)["hyper_parameters"]
        except (KeyError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{last} is damaged, or no checkpoint of this script ({error})") from error
        args = argparse.Namespace(**kept, epochs=args.epochs, resume=run)
    elif last.exists():
        raise ValueError(f"{run} holds a run: go on with it (--resume {run}), or choose another folder")
    chosen_device(args.device)  # Or an error, before anything is written.
    try:
        train(args, run)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print(f"interrupted; --resume {run} goes on after the last whole epoch", file=sys.stderr)
        sys.exit(130)


def train(args: argparse.Namespace, run: Path) -> None:
    torch.set_num_threads(1)  # Another process makes better use of another core.
    torch.sparse.check_sparse_tensor_invariants.disable()  # Torch remarks on it if nobody has decided.

    # Torchrun says how many processes it has started.
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    at_epoch_end = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    with quiet_lightning(".*Checkpoint directory .* exists and is not empty.*"):
        trainer = L.Trainer(
            accelerator="gpu" if args.device == "cuda" else args.device,
            devices=local,
            num_nodes=world_size // local,
            # NCCL cannot add sparse gradients up.
            strategy=DDPStrategy(process_group_backend=None if args.dense else "gloo")
            if world_size > 1
            else "auto",
            plugins=[MappedCheckpoints()],
            precision=args.precision,
            gradient_clip_val=args.clip,
            max_epochs=args.epochs or 5,
            limit_train_batches=args.steps,
            limit_val_batches=args.steps,
            limit_test_batches=args.steps,
            logger=CSVLogger(run, name="logs"),
            log_every_n_steps=1,
            callbacks=[
                ModelCheckpoint(run, "best", monitor="val_auc", mode="max", **at_epoch_end),
                ModelCheckpoint(run, "last", **at_epoch_end),
            ],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # The rows are shared out already.
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )
        module, data = ClickModule(args), SharedData(args)
        trainer.fit(module, data, ckpt_path=run / "last.ckpt" if args.resume else None)
        [result] = trainer.test(module, data, ckpt_path=run / "best.ckpt", verbose=False)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # Lightning leaves it, and its threads may outlive Python.
    if trainer.is_global_zero:
        print(
            f"test AUC {result['test_auc']:.4f} after the epoch of the best validation AUC; all is in {run}"
        )


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
