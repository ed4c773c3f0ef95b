"""What `benchmarks.layer` measures and how; as a program, does one job after another in forked children."""

import ctypes
import functools
import gc
import json
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import (
    FastRGCNConv,
    FiLMConv,
    GATConv,
    GATv2Conv,
    HGTConv,
    ResGatedGraphConv,
    RGATConv,
    RGCNConv,
    SAGEConv,
    TransformerConv,
)

from benchmarks.harness import proc_bytes
from mgwa_pyg.nn import GatedAggregationConv
from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate

RELATIONS = 60
QUERIES = 32
# The streaming copy reads this many bytes, more than any cache holds, and the gather as many rows.
_STREAM_BYTES, _GATHER_ROWS = {"cpu": 2**28, "cuda": 2**31}, 2**20


@dataclass(frozen=True)
class Job:
    """One implementation on one graph. ``part`` is "base" for the plan's build time and the bandwidths."""

    part: str
    implementation: str
    edges: int
    nodes: int
    channels: int
    dtype: str = "float32"
    device: str = "cpu"
    repeats: int = 10
    seconds: float = 5.0
    """After this time nothing is repeated any more."""
    timeout: float = 60.0
    """When a process is ended."""
    memory: int = 2**33
    """How many bytes a process may ask for."""


# --- Graphs ---


@functools.lru_cache(maxsize=1)
def make_plan(edges: int, nodes: int, device: str) -> RelationCSR:
    """The edges of a graph, in order."""
    edge_index, edge_type = make_graph(edges, nodes, device)
    return RelationCSR.from_edge_index(edge_index, edge_type, RELATIONS, (nodes, nodes))


def make_graph(edges: int, nodes: int, device: str = "cpu", seed: int = 0) -> tuple[Tensor, Tensor]:
    """A multigraph like a knowledge graph, in no order: edges and their types.

    Both ends are drawn with weight ``rank ** -0.75``; each target has ``1 + Poisson(3.5)`` relations.
    """
    generator = torch.Generator().manual_seed(seed)
    cumulated = torch.arange(1, nodes + 1, dtype=torch.float64).pow(-0.75).cumsum(0)

    def ends() -> Tensor:
        drawn = torch.rand(edges, dtype=torch.float64, generator=generator) * cumulated[-1]
        rank = torch.searchsorted(cumulated, drawn).clamp_(max=nodes - 1)
        return torch.randperm(nodes, generator=generator)[rank]

    edge_index = torch.stack([ends(), ends()])
    kinds = 1 + torch.poisson(torch.full((nodes,), 3.5), generator=generator)
    choices = torch.randint(RELATIONS, (nodes, int(kinds.max())), generator=generator)
    target = edge_index[1]
    choice = (torch.rand(edges, generator=generator) * kinds[target]).long()
    return edge_index.to(device), choices[target, choice].to(device)


# --- Part 1: the aggregation ---


def _backend(name: str) -> Callable[[Tensor, Tensor, RelationCSR], Tensor]:
    return lambda x, table, plan: relation_softmax_aggregate(x, table, plan, backend=name)


AGGREGATIONS: dict[str, Callable[[Tensor, Tensor, RelationCSR], Tensor]] = {
    "ours, torch": _backend("torch"),
    "ours, triton": _backend("triton"),
    "PyG softmax + scatter": _backend("reference"),
    "torch_scatter": _backend("scatter"),
    "torch.compile of PyG's": torch.compile(_backend("reference"), dynamic=False, fullgraph=True),
}


# --- Part 2: many queries over one graph ---

#: What computes the outputs from features and tables (QUERIES, 1, RELATIONS).
_Answer = Callable[[Tensor, Tensor], Tensor]


def _together(backend: str) -> Callable[[RelationCSR], _Answer]:
    return lambda plan: lambda x, tables: relation_softmax_aggregate(x, tables, plan, backend=backend)


def _one_by_one(plan: RelationCSR) -> _Answer:
    return lambda x, tables: torch.stack([relation_softmax_aggregate(x, t, plan) for t in tables], dim=1)


def _block_diagonal(plan: RelationCSR) -> _Answer:
    """PyG's softmax and scatter on a copy of the graph for each query, one after the other in the output."""
    copies = torch.arange(QUERIES, device=plan.col.device)
    shift = (copies * plan.size[0]).repeat_interleave(plan.num_edges)
    edge_index = torch.stack([plan.col, plan.dst]).repeat(1, QUERIES) + shift
    size = (plan.size[0] * QUERIES, plan.size[1] * QUERIES)
    plans = RelationCSR.from_edge_index(edge_index, plan.rel.repeat(QUERIES), RELATIONS, size)
    query = copies.repeat_interleave(plan.size[1])
    return lambda x, tables: relation_softmax_aggregate(
        x.repeat(QUERIES, 1), tables.flatten(1), plans, query, backend="reference"
    )


MANY_QUERIES: dict[str, Callable[[RelationCSR], _Answer]] = {
    "ours, torch": _together("torch"),
    "ours, triton": _together("triton"),
    "one call a query": _one_by_one,
    "PyG, block-diagonal": _block_diagonal,
    "PyG, heads": _together("reference"),
}


# --- Part 3: whole layers ---


class _Untyped(nn.Module):
    """A layer that knows no types of edges."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.conv(x, edge_index)


class _Typed(_Untyped):
    """A layer that takes them."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.conv(x, edge_index, edge_type)


class _Planned(_Untyped):
    """Our layer on edges in order already; with ``query``, one for all targets, as a user's in MGWA."""

    def __init__(self, conv: nn.Module, query: Tensor | None = None) -> None:
        super().__init__(conv)
        self.query = None if query is None else nn.Parameter(query)
        self.plan: RelationCSR | None = None

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        if self.plan is None:  # Made while warming up: the layer's users have it.
            size = (x.size(0), x.size(0))
            self.plan = RelationCSR.from_edge_index(edge_index, edge_type, RELATIONS, size)
        return self.conv(x, self.plan, query=self.query)


class _EdgeFeatures(_Untyped):
    """A layer that takes a learned vector of each edge's type as the edge's features."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__(conv)
        self.relation = nn.Embedding(RELATIONS, channels)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.conv(x, edge_index, self.relation(edge_type))


class _Hetero(_Untyped):
    """A layer for heterogeneous graphs, on one type of nodes and a type of edges for each relation."""

    def __init__(self, channels: int) -> None:
        names = [("node", str(relation), "node") for relation in range(RELATIONS)]
        super().__init__(HGTConv(channels, channels, (["node"], names)))
        self.names, self.edges = names, dict[Any, Tensor]()

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        if not self.edges:  # Split while warming up: the layer's users have them split.
            self.edges = {name: edge_index[:, edge_type == int(name[1])] for name in self.names}
        return self.conv({"node": x}, self.edges)["node"]


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "GatedAggregationConv, plan": lambda d: _Planned(GatedAggregationConv(d, d, RELATIONS)),
    "GatedAggregationConv, plan, one query": lambda d: _Planned(
        GatedAggregationConv(d, d, RELATIONS), torch.randn(d)
    ),
    "GatedAggregationConv, plan, triton": lambda d: _Planned(
        GatedAggregationConv(d, d, RELATIONS, backend="triton")
    ),
    "GatedAggregationConv": lambda d: _Typed(GatedAggregationConv(d, d, RELATIONS)),
    "SAGEConv": lambda d: _Untyped(SAGEConv(d, d)),
    "GATConv": lambda d: _Untyped(GATConv(d, d, add_self_loops=False)),
    "GATConv, edge_dim": lambda d: _EdgeFeatures(GATConv(d, d, add_self_loops=False, edge_dim=d), d),
    "GATv2Conv": lambda d: _Untyped(GATv2Conv(d, d, add_self_loops=False)),
    "GATv2Conv, edge_dim": lambda d: _EdgeFeatures(GATv2Conv(d, d, add_self_loops=False, edge_dim=d), d),
    "TransformerConv": lambda d: _Untyped(TransformerConv(d, d)),
    "RGCNConv": lambda d: _Typed(RGCNConv(d, d, RELATIONS)),
    "FastRGCNConv": lambda d: _Typed(FastRGCNConv(d, d, RELATIONS)),
    "RGATConv": lambda d: _Typed(RGATConv(d, d, RELATIONS)),
    "FiLMConv": lambda d: _Typed(FiLMConv(d, d, RELATIONS)),
    "ResGatedGraphConv": lambda d: _Untyped(ResGatedGraphConv(d, d)),
    "HGTConv": _Hetero,
}

IMPLEMENTATIONS = {"aggregation": list(AGGREGATIONS), "queries": list(MANY_QUERIES), "layer": list(LAYERS)}


# --- Measuring ---


def build(job: Job) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """What computes the output of a job, and the tensors whose gradients count."""
    torch.manual_seed(0)
    torch.compiler.reset()  # In one process, torch.compile would give up after a few shapes.
    dtype = getattr(torch, job.dtype)
    plan = make_plan(job.edges, job.nodes, job.device)
    x = torch.randn(job.nodes, job.channels).to(job.device, dtype).requires_grad_()
    if job.part == "aggregation":
        table = torch.randn(1, RELATIONS).to(job.device).requires_grad_()
        aggregate = AGGREGATIONS[job.implementation]
        return lambda: aggregate(x, table, plan), [x, table]
    if job.part == "queries":
        tables = torch.randn(QUERIES, 1, RELATIONS).to(job.device).requires_grad_()
        answer = MANY_QUERIES[job.implementation](plan)
        return lambda: answer(x, tables), [x, tables]
    layer = LAYERS[job.implementation](job.channels).to(job.device, dtype)
    # By target, as no layer is slower then than on edges in no order.
    edge_index, edge_type = torch.stack([plan.col, plan.dst]).long(), plan.rel.long()
    return lambda: layer(x, edge_index, edge_type), [x, *layer.parameters()]


def measure(job: Job) -> dict[str, Any]:
    """Milliseconds of each forward and backward pass, and the MiB that one of both needs at most."""
    if job.part == "base":
        return _measure_base(job)
    forward, leaves = build(job)
    warm = forward()
    gradient = torch.randn_like(warm)
    warm.backward(gradient)
    del warm

    def step() -> tuple[float, float]:
        for leaf in leaves:
            leaf.grad = None
        start = _now(job.device)
        out = forward()
        middle = _now(job.device)
        out.backward(gradient)
        return (middle - start) * 1e3, (_now(job.device) - middle) * 1e3

    times = _repeat(step, job)
    for leaf in leaves:
        leaf.grad = None
    peak = _peak(step, job.device)  # At last, as it gives back what memory malloc keeps.
    result = {"forward": [time[0] for time in times], "backward": [time[1] for time in times], "peak": peak}
    if job.device == "cuda" and job.part == "aggregation":
        result["kernels"] = _kernels(forward, gradient)
    return result


def _kernels(forward: Callable[[], Tensor], gradient: Tensor, repeats: int = 5) -> list[list[float]]:
    """Milliseconds that a GPU's kernels take in forward and in backward passes, launching left out."""
    times: list[list[float]] = [[], []]
    for _ in range(repeats):
        with _profiled() as ahead:
            out = forward()
        with _profiled() as back:
            out.backward(gradient)
        for found, profiler in zip(times, (ahead, back), strict=True):
            found.append(sum(event.device_time_total for event in profiler.key_averages()) / 1e3)
    return times


@contextmanager
def _profiled() -> Iterator[torch.profiler.profile]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        yield profiler
        torch.cuda.synchronize()


def _measure_base(job: Job) -> dict[str, Any]:
    """Milliseconds that building the plan takes, and bandwidths in GB/s."""
    edge_index, edge_type = make_graph(job.edges, job.nodes, job.device)
    size = (job.nodes, job.nodes)
    source = torch.ones(_STREAM_BYTES[job.device] // 4, device=job.device)
    target = torch.empty_like(source)
    x = torch.ones(job.nodes, job.channels, dtype=getattr(torch, job.dtype), device=job.device)
    index = torch.randint(job.nodes, (_GATHER_ROWS,), device=job.device)
    rows = torch.empty(_GATHER_ROWS, job.channels, dtype=x.dtype, device=job.device)
    offsets = torch.arange(0, _GATHER_ROWS, 16, device=job.device)
    gathered = _GATHER_ROWS * job.channels * x.element_size()

    def seconds(function: Callable[[], Any]) -> list[float]:
        def once() -> float:
            start = _now(job.device)
            function()
            return _now(job.device) - start

        once()
        return _repeat(once, job)

    def rates(num_bytes: float, function: Callable[[], Any]) -> list[float]:
        return [num_bytes / 1e9 / time for time in seconds(function)]

    plan = seconds(lambda: RelationCSR.from_edge_index(edge_index, edge_type, RELATIONS, size))
    result = {
        "plan": [time * 1e3 for time in plan],
        "stream": rates(2 * _STREAM_BYTES[job.device], lambda: target.copy_(source)),
    }
    if job.device != "cuda":  # There, torch's own are no measure of what the device can do.
        # Whichever is faster: sums of 16 rows, or a copy of every row, which is written, too.
        sums = rates(gathered * (1 + 1 / 16), lambda: F.embedding_bag(index, x, offsets, mode="sum"))
        copies = rates(gathered * 2, lambda: torch.index_select(x, 0, index, out=rows))
        result["gather"] = max(sums, copies, key=statistics.median)
    return result


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _repeat(step: Callable[[], Any], job: Job) -> list[Any]:
    end = time.perf_counter() + job.seconds
    results = [step()]
    while len(results) < job.repeats and time.perf_counter() < end:
        results.append(step())
    return results


def _peak(step: Callable[[], Any], device: str) -> float | None:
    """The MiB by which memory rises during ``step``; None where the system does not tell."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # The high-water mark starts anew from here.
    except (OSError, AttributeError):
        step()
        return None
    before = proc_bytes("self/status", "VmRSS")
    step()
    return (proc_bytes("self/status", "VmHWM") - before) / 2**20


# --- What goes wrong ---


def attempt(job: Job) -> dict[str, Any]:
    """What `measure` gives, or the reason why not as "status"."""
    try:
        # Layers and torch.compile warn of what is of no matter here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return measure(job)
    except ImportError as error:
        return {"status": "not installed", "reason": str(error)}
    except Exception as error:
        words = ("out of memory", "allocate memory", "bad_alloc")
        if isinstance(error, MemoryError) or any(word in str(error) for word in words):
            return _out_of_memory(job)
        lines = str(error).strip().splitlines() or [""]
        return {"status": "fails", "reason": f"{type(error).__name__}: {lines[0]}"}


def _out_of_memory(job: Job) -> dict[str, str]:
    limit = "the device has" if job.device == "cuda" else f"{job.memory / 2**30:.3g} GiB"
    return {"status": "OOM", "reason": f"needs more than {limit}"}


def attempt_in_child(job: Job) -> dict[str, Any]:
    """The same in a forked process, which may take the time and the memory that the job names."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(job, sender))
    child.start()
    sender.close()
    try:
        if not receiver.poll(job.timeout):
            return {"status": "timeout", "reason": f"ended after {job.timeout:.0f} s"}
        return receiver.recv()
    except EOFError:
        child.join()
        if child.exitcode == -signal.SIGKILL:  # By the system, which was short of memory.
            return _out_of_memory(job)
        return {"status": "fails", "reason": f"the process ended with {child.exitcode}"}
    finally:
        child.kill()
        child.join()


def _child(job: Job, sender: Connection) -> None:
    limit = proc_bytes("self/status", "VmData") + job.memory
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if job.part == "queries":
        torch.set_num_threads(1)
    sender.send(attempt(job))


def main() -> None:
    """Say that all is ready, then read jobs as lines of JSON and write results likewise.

    Torch and PyG are imported once for all children, but nothing is computed here: a process that has
    started threads must not fork.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever else is printed.
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(attempt_in_child(Job(**json.loads(line)))), file=answers, flush=True)


if __name__ == "__main__":
    main()
