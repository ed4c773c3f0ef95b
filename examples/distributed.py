"""MGWA on graphs of millions of triples, with any number of processes or GPUs.

    python examples/distributed.py --data lastfm
    torchrun --nproc-per-node 2 examples/distributed.py --triples 10000000  # synthetic data of that size
    torchrun --nproc-per-node 2 examples/distributed.py --resume runs/NAME  # go on where it was interrupted

Each batch is shared out among the processes. What is drawn for a row follows from its number and the epoch:
any number of processes takes the same steps. One process of each machine prepares the data and leaves files
that all of them map into memory, so that there is one copy of the graph. How much memory is needed is said in
docs/scaling.md. The run folder is one that `mgwa_pyg.recommend.Recommender.load` opens.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

# Rows of large tables are read at random: with pages of 2 MiB that takes half the time. Torch reads it now.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from mgwa_pyg.datasets import BookCrossingKG, KGRecDataset, LastFMKG, SyntheticKG
from mgwa_pyg.recommenders import MGWAConfig, MGWARecommender, read_checkpoint
from mgwa_pyg.recommenders.neighborhood import typed_edges
from mgwa_pyg.sampler import NeighborSampler
from mgwa_pyg.train import ClickData, ClickModule, DivergedError
from mgwa_pyg.train.trainer import KeptCheckpoint, lightning_as_guest, make_trainer
from mgwa_pyg.utils.files import read_json, write_json
from mgwa_pyg.utils.modes import chosen_device

REPOSITORY = Path(__file__).resolve().parent.parent


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
    add("--fanout", type=int, default=8, metavar="K", help="neighbors kept per hop (default: 8)")
    add("--batch-size", type=int, default=1024, metavar="N",
        help="rows per step, of all processes together (default: 1024)")
    add("--epochs", type=int, default=5, metavar="N", help="default: 5")
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


def shared_files(dataset: KGRecDataset) -> tuple[Path, Path]:
    """What all processes of a machine read beside the data: the graph, and the data's fingerprint."""
    processed = Path(dataset.processed_paths[0])
    return processed.with_suffix(".graph.pt"), processed.with_suffix(".fingerprint.json")


def prepare(dataset: KGRecDataset) -> None:
    """Write the files that are missing or older than the data."""
    graph, fingerprint = shared_files(dataset)
    made = Path(dataset.processed_paths[0]).stat().st_mtime
    if not all(file.exists() and file.stat().st_mtime >= made for file in (graph, fingerprint)):
        write_json(fingerprint, {"fingerprint": dataset.fingerprint})
        NeighborSampler(*typed_edges(dataset), dataset.num_entities).save(graph)


class SharedMGWA(MGWARecommender):
    """MGWA on a graph in a file that all processes of a machine map into memory."""

    def __init__(self, dataset: KGRecDataset, config: MGWAConfig, seed: int, sparse: bool) -> None:
        self.sparse = sparse
        graph, fingerprint = shared_files(dataset)
        self.graph = NeighborSampler.load(graph)
        self.graph.fanout = config.fanout
        # To take it from the data would bring all of them into the memory of each process.
        dataset.fingerprint = read_json(fingerprint, ["fingerprint"], "delete it")["fingerprint"]
        super().__init__(dataset, config, seed)

    def model_options(self) -> dict[str, Any]:
        return {**super().model_options(), "sparse": self.sparse}

    def samplers(self) -> tuple[NeighborSampler, NeighborSampler]:
        return self.graph, self.graph


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
        # In evaluation always the same, in which the first batches have rows of both labels, too.
        seed = 0 if self.seed is None else self.seed * 1_000_003 + self.epoch
        order = torch.randperm(self.num_rows, generator=torch.Generator().manual_seed(seed))
        for batch in order.split(self.batch_size)[: len(self)]:
            yield batch[self.rank :: self.world_size]


class SharedRows(ClickData):
    """The labelled rows with their numbers as keys, each batch shared out among the processes."""

    def rows(self, split: str) -> TensorDataset:
        [number] = self._links[f"{split}_mask"].nonzero(as_tuple=True)
        return TensorDataset(*super().rows(split).tensors, number)

    def train_dataloader(self) -> DataLoader:
        return self._batches(self._train, self.seed)

    def val_dataloader(self) -> DataLoader:
        return self._batches(self.rows("val"))

    def test_dataloader(self) -> DataLoader:
        return self._batches(self.rows("test"))

    def _batches(self, rows: TensorDataset, seed: int | None = None) -> DataLoader:
        batch_size, world_size = self.batch_size, self.trainer.world_size
        if batch_size % world_size or batch_size > len(self._train):
            raise ValueError(
                f"--batch-size {batch_size} must be a multiple of the number of processes, {world_size}, and "
                f"at most that of the train rows, {len(self._train)}"
            )
        batches = Batches(len(rows), batch_size, self.trainer.global_rank, world_size, seed)
        return DataLoader(rows, batch_size=None, sampler=batches)


class SharedClicks(ClickModule):
    """Learns from sparse gradients, too, and says how it goes."""

    def __init__(self, recommender: SharedMGWA, options: dict[str, Any]) -> None:
        super().__init__(recommender, kept_steps=100)  # Those of all steps would take memory for each row.
        self.save_hyperparameters({"options": options})  # With these --resume goes on.

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Of torch's optimizers for sparse and dense gradients, the one that keeps least for each row.
        return torch.optim.Adagrad(self.model.parameters(), lr=self.config.lr)

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

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        *rows, number = batch
        # Unlike that of any other row, epoch and seed.
        key = number + (self.current_epoch << 40) + (self.seed << 50)
        loss = super().training_step((*rows, key), batch_idx)
        self.log("step_loss", loss, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        figures, num_batches = self.history[-1], self.trainer.num_training_batches
        rows_per_second = num_batches * self.config.batch_size / figures["train_seconds"]
        self.log("rows_per_second", rows_per_second, sync_dist=True)
        self.print(
            f"epoch {len(self.history)}: validation AUC {figures.get('val_auc', math.nan):.4f}, "
            f"{rows_per_second:,.0f} rows/s in training"
        )

    # The test rows are evaluated as those for validation are.
    on_test_epoch_start = ClickModule.on_validation_epoch_start
    test_step = ClickModule.validation_step

    def on_test_epoch_end(self) -> None:
        self.log("test_auc", self._figures("val").get("val_auc", math.nan), sync_dist=True)


def main() -> None:
    options = vars(parse_args())
    epochs, out, resume = (options.pop(name) for name in ("epochs", "out", "resume"))
    run = resume or out or REPOSITORY / "runs" / f"distributed-{datetime.now():%Y%m%d-%H%M%S}"
    run = run.expanduser()
    last = run / "last.ckpt"
    if resume:
        if not last.exists():
            raise ValueError(f"{last} is missing: there is nothing to go on from")
        options = read_checkpoint(last)["hyper_parameters"].get("options")
        if options is None:
            raise ValueError(f"{last} is no checkpoint of this script: pass a folder that it wrote")
    elif last.exists():
        raise ValueError(f"{run} holds a run: go on with it (--resume {run}), or choose another folder")
    chosen_device(options["device"])  # Or an error, before anything is written.
    try:
        train(argparse.Namespace(**options), epochs, run, last if resume else None)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print(f"interrupted; --resume {run} goes on after the last whole epoch", file=sys.stderr)
        sys.exit(130)


def train(args: argparse.Namespace, epochs: int, run: Path, resumed: Path | None) -> None:
    torch.set_num_threads(1)  # Another process makes better use of another core.
    torch.sparse.check_sparse_tensor_invariants.disable()  # Torch remarks on it if nobody has decided.

    # Torchrun says how many processes it has started.
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    with lightning_as_guest(".*Checkpoint directory .* exists and is not empty.*"):
        trainer = make_trainer(
            args.device,
            epochs,
            [KeptCheckpoint(run, "best", monitor="val_auc", mode="max"), KeptCheckpoint(run, "last")],
            devices=local,
            num_nodes=world_size // local,
            # NCCL cannot add sparse gradients up.
            strategy=DDPStrategy(process_group_backend=None if args.dense else "gloo")
            if world_size > 1
            else "auto",
            precision=args.precision,
            gradient_clip_val=args.clip,
            limit_train_batches=args.steps,
            limit_val_batches=args.steps,
            limit_test_batches=args.steps,
            logger=CSVLogger(run, name="logs"),
            log_every_n_steps=1,
            use_distributed_sampler=False,  # The rows are shared out already.
            enable_progress_bar=sys.stderr.isatty(),
        )
        trainer.strategy.setup_environment()  # The processes meet.
        if trainer.local_rank == 0:
            prepare(load(args))
        trainer.strategy.barrier()
        config = MGWAConfig(
            num_layers=args.layers,
            channels=args.dim,
            fanout=args.fanout,
            lr=args.lr,
            weight_decay=0.0,
            batch_size=args.batch_size,
            epochs=epochs,
        )
        dataset = load(args)
        torch.manual_seed(args.seed)
        recommender = SharedMGWA(dataset, config, args.seed, sparse=not args.dense)
        module, rows = SharedClicks(recommender, vars(args)), SharedRows(dataset[0], config, args.seed)
        trainer.fit(module, rows, ckpt_path=resumed)
        [result] = trainer.test(module, rows, ckpt_path=run / "best.ckpt", verbose=False)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # Lightning leaves it, and its threads may outlive Python.
    if trainer.is_global_zero:
        print(
            f"test AUC {result['test_auc']:.4f} after the epoch of the best validation AUC; all is in {run}"
        )


if __name__ == "__main__":
    try:
        main()
    except (DivergedError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
