"""What size costs: sampling, training steps and memory from a million triples up, one process and two."""

import csv
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import LinkLoader
from torch_geometric.sampler import BaseSampler, NodeSamplerInput
from torch_geometric.sampler import NeighborSampler as PyGNeighborSampler

from benchmarks.harness import Report, Settings, child_process, figure, not_run, proc_bytes
from mgwa_pyg.sampler import KHopSampler, NeighborSampler

_EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "distributed.py"
_FANOUT = 8
_BATCH_SIZE = 4096
# Nodes and triples of the graph that samplers draw from.
_SAMPLED = (100_000, 10**6)


def memory_model(
    num_users: int, num_entities: int, num_triples: int, num_rows: int, dim: int
) -> dict[str, int]:
    """The bytes that training takes in one process beside Python and torch: see docs/scaling.md."""
    return {
        "tables": (num_users + num_entities) * dim * 4 * 2,
        "graph": num_entities * 8 + num_triples * 2 * (4 + 4),
        "rows": num_rows * (3 + 16 + 4) + num_rows * (8 + 8 + 4 + 8),
    }


def run(settings: Settings) -> Report:
    """Measure the sampler by itself and the rest by the example that users run."""
    rows, statuses = _sampler(settings)
    try:
        import lightning  # noqa: F401
    except ModuleNotFoundError as error:
        reason = f"it needs {error.name}, which is not installed"
        return Report(rows, statuses=[*statuses, not_run("training", "examples/distributed.py", reason)])
    sizes = [10**5, 10**6] if settings.quick else [10**6, 10**7, 10**8]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = _base_memory()
        for num_triples in sizes:
            rows += _train(root, num_triples, base, settings)
            settings.record.keep("scale", rows)
        rows += _processes(root, sizes[0], settings)
    return Report(rows, statuses=statuses)


def _sampler(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Sampled edges per second: one thread, two hops, a graph of a million triples."""
    (num_nodes, num_triples), num_seeds = _SAMPLED, 1024
    device = torch.device(settings.device)
    torch.manual_seed(0)
    head, tail = torch.randint(num_nodes, (2, num_triples), device=device)
    edge_index = torch.stack([torch.cat([head, tail]), torch.cat([tail, head])])
    edge_type = torch.randint(60, (2 * num_triples,), device=device)
    data = Data(edge_index=edge_index, edge_type=edge_type, num_nodes=num_nodes)
    trees = NeighborSampler(edge_index, edge_type, num_nodes, _FANOUT)
    hops = [_FANOUT, _FANOUT]

    def seeds() -> Tensor:
        return torch.randint(num_nodes, (num_seeds,), device=device)

    def by_trees() -> int:
        return trees.sample(seeds(), 2).edge_type.numel()

    def by_keys() -> int:
        return trees.sample(seeds(), 2, key=torch.arange(num_seeds, device=device)).edge_type.numel()

    def by(sampler: BaseSampler) -> Callable[[], int]:
        return lambda: sampler.sample_from_nodes(NodeSamplerInput(None, seeds())).row.numel()

    def through_loader(sampler: BaseSampler) -> Callable[[], int]:
        def links() -> Iterator[Data]:
            while True:
                # One batch is as many seeds as above.
                links = edge_index[:, torch.randperm(2 * num_triples)[: 200 * num_seeds // 2]]
                yield from LinkLoader(
                    data, sampler, edge_label_index=links, batch_size=num_seeds // 2, shuffle=True
                )

        batches = links()
        return lambda: next(batches).edge_index.size(1)

    cases = {
        "NeighborSampler (trees)": by_trees,
        "NeighborSampler (trees), keys": by_keys,
        "KHopSampler": by(KHopSampler(data, hops)),
        "KHopSampler, not disjoint": by(KHopSampler(data, hops, disjoint=False)),
        "KHopSampler in LinkLoader": through_loader(KHopSampler(data, hops)),
        "KHopSampler in LinkLoader, exclude_supervision": through_loader(
            KHopSampler(data, hops, exclude_supervision=True)
        ),
    }
    statuses: list[dict[str, str]] = []
    if torch_geometric.typing.WITH_PYG_LIB and device.type == "cpu":
        cases["PyG's NeighborSampler"] = by(PyGNeighborSampler(data, hops, disjoint=True))
    else:
        reason = "it needs pyg-lib, which is not installed, and a graph on the CPU"
        statuses.append(not_run("sampler", "PyG's NeighborSampler", reason))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for name, draw in cases.items():
        speeds = []
        for trial in range(5 if settings.quick else 50):
            started = time.perf_counter()
            num_edges = draw()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if trial > 0:
                speeds.append(num_edges / (time.perf_counter() - started))
        rows.append(
            figure("scale", "sampler 1M triples, 2 hops, fanout 8", name, "sampled edges", "1/s", speeds)
        )
        settings.record.keep("scale", rows)
    torch.set_num_threads(num_threads)
    return rows, statuses


def _train(root: Path, num_triples: int, base: int, settings: Settings) -> list[dict[str, Any]]:
    """Steps at a fixed batch and fanout, and the memory that they take beside the model's with ``base``."""
    case = f"{num_triples:,} triples, batch={_BATCH_SIZE}, fanout={_FANOUT}, 1 layer"
    rows = []
    # What prepares the data takes more memory than training on them; it is to be another process.
    _run(root, settings, ["--triples", num_triples, "--steps", 1, "--epochs", 1, "--batch-size", 128])
    for dim in (16, 64):
        for dense in [False, True] if num_triples <= 10**6 and dim == 16 else [False]:
            options: list[Any] = ["--triples", num_triples, "--dim", dim, "--batch-size", _BATCH_SIZE]
            options += ["--steps", 5 if settings.quick else 50, "--epochs", 3 if settings.quick else 6]
            measured, peak = _run(root, settings, [*options, *(["--dense"] if dense else [])])
            name = f"MGWA d={dim}, {'dense' if dense else 'sparse'} gradients"
            # The first epoch touches most rows for the first time.
            milliseconds = [1000 * _BATCH_SIZE / float(value) for value in measured["rows_per_second"][1:]]
            rows.append(figure("scale", case, name, "train step", "ms", milliseconds))
            if not dense:
                model = memory_model(
                    num_triples // 200, num_triples // 10, num_triples, 2 * (num_triples // 5), dim
                )
                rows.append(figure("scale", case, name, "resident memory", "MiB", [peak / 2**20]))
                expected = (base + sum(model.values())) / 2**20
                rows.append(figure("scale", case, name, "memory model", "MiB", [expected]))
    return rows


def _processes(root: Path, num_triples: int, settings: Settings) -> list[dict[str, Any]]:
    """One process and two with the same batches."""
    case = f"{num_triples:,} triples, d=16, batch=8192, fanout={_FANOUT}, 2 layers, dense gradients"
    # Such a batch touches most rows of tables of this size.
    options = ["--triples", num_triples, "--layers", 2, "--batch-size", 8192, "--dense"]
    options += ["--steps", 3 if settings.quick else 20, "--epochs", 3 if settings.quick else 6]
    rows, losses = [], []
    for number in (1, 2):
        measured, _ = _run(root, settings, options, number)
        speeds = [float(value) for value in measured["rows_per_second"][1:]]
        rows.append(figure("scale", case, f"{number} processes", "training throughput", "rows/s", speeds))
        losses.append([float(value) for value in measured["step_loss"]])
    difference = max(abs(one - two) for one, two in zip(*losses, strict=True))
    name = "2 processes against 1"
    rows.append(
        figure("scale", case, name, f"largest difference of {len(losses[0])} losses", "1", [difference])
    )
    return rows


def _run(
    root: Path, settings: Settings, options: list[Any], num_processes: int = 1
) -> tuple[dict[str, list[str]], int]:
    """Run the example; return what it logged, by name, and the peak memory of its first process in bytes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", num_processes]
    with tempfile.TemporaryDirectory() as run:
        arguments = [*(launcher if num_processes > 1 else []), _EXAMPLE, *options]
        arguments += ["--root", root, "--out", run, "--device", settings.device]
        peak = _peak_memory([str(argument) for argument in arguments])
        logged: dict[str, list[str]] = {}
        with Path(run, "logs", "version_0", "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value:
                        logged.setdefault(name, []).append(value)
    return logged, peak


def _peak_memory(arguments: list[str]) -> int:
    """Run Python; return the largest resident memory seen, in bytes."""
    peak = 0
    with (
        tempfile.TemporaryFile("w+") as errors,
        child_process(arguments, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        while process.poll() is None:
            # What getrusage says may be the peak of the process that started this one.
            peak = max(peak, proc_bytes(f"{process.pid}/status", "VmHWM"))
            time.sleep(0.02)
        if process.returncode != 0:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{errors.read()}")
    return peak


def _base_memory() -> int:
    """What Python takes with all that the example imports."""
    return _peak_memory(["-c", f"import runpy; runpy.run_path({str(_EXAMPLE)!r}, run_name='imported')"])
