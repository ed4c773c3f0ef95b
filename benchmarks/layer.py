"""`python -m benchmarks layer`: the fused operation and the layer beside their peers, in time and memory.

On the CPU each implementation runs in a process of its own, and once more with a malloc that keeps freed
memory: otherwise much of what peers need is page faults. On CUDA everything runs in this process. Torch and
PyG are enough; what needs another package has a status in place of figures.
"""

import functools
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import (
    Report,
    Settings,
    child_process,
    environment,
    figure,
    proc_bytes,
    read_results,
    table,
    write_page,
    write_results,
)
from benchmarks.layer_worker import IMPLEMENTATIONS, QUERIES, Job, attempt
from mgwa_pyg.utils.files import whole_file
from mgwa_pyg.utils.looks import label_lines, look, new_figure

ROOT = Path(__file__).resolve().parents[1]

#: Edges and nodes of the graphs. The first has the size of Last.FM's knowledge graph.
SIZES: dict[str, tuple[int, int]] = {
    "Last.FM's size": (31_036, 9_366),
    "200k edges": (200_000, 20_000),
    "2M edges": (2_000_000, 200_000),
    "20M edges": (20_000_000, 2_000_000),
}

#: Variables that make glibc keep freed memory, by what pages call the setting.
_KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
MALLOCS: dict[str, dict[str, str]] = {"default": {}, "tuned": _KEEP}

#: What the others of a part are compared with, by device, and what a part is called.
OURS = {
    device: {"aggregation": name, "queries": name, "layer": "GatedAggregationConv, plan"}
    for device, name in (("cpu", "ours, torch"), ("cuda", "ours, triton"))
}
TITLES = {
    "aggregation": "The aggregation",
    "queries": f"{QUERIES} queries over one shared graph",
    "layer": "The whole layer",
}

#: What is measured: 64 channels at every size, other numbers at small ones; of a cell so many steps, or
#: seconds of them where that is less; on a CPU, its process is ended after so many seconds.
CHANNELS, SMALL, LARGEST = (64, 16, 128), ("Last.FM's size", "200k edges"), "20M edges"
REPEATS, SECONDS, TIMEOUT = 15, {"cpu": 5.0, "cuda": 1.0}, 60.0

_SLOW = "HGTConv"  # 30 s a step at Last.FM's size on a CPU, most of it backward through 60 types of edges.


@dataclass(frozen=True)
class Case:
    """What implementations are compared on."""

    part: str
    size: str
    channels: int
    dtype: str = "float32"
    malloc: str = "default"

    def __str__(self) -> str:
        malloc = "" if self.malloc == "default" else f" malloc={self.malloc}"
        return f"{self.part} E={SIZES[self.size][0]} d={self.channels} {self.dtype}{malloc}"


def cases(settings: Settings) -> list[Case]:
    """All cases, with the settings of malloc next to each other."""
    cuda = settings.device == "cuda"
    return [
        Case(part, size, channels, dtype, malloc)
        for channels in (CHANNELS[:1] if settings.quick else CHANNELS)
        for dtype in (["float32", "bfloat16"] if cuda else ["float32"])
        for size in (SMALL if settings.quick or channels != 64 else SIZES)
        for part in ("base", *IMPLEMENTATIONS)
        if part != "queries" or (size, channels, dtype) == ("Last.FM's size", 64, "float32")
        if part != "layer" or cuda or size != LARGEST
        for malloc in (["default"] if cuda or part == "base" or size == LARGEST else MALLOCS)
    ]


def make_job(case: Case, implementation: str, settings: Settings) -> Job:
    """The work of a cell."""
    edges, nodes = SIZES[case.size]
    repeats, seconds, memory = REPEATS, SECONDS[settings.device], _free_memory() // 4 * 3
    if settings.quick:
        repeats, seconds, memory = 5, 0.5, min(memory, 5 * 2**29)
    timeout = TIMEOUT * (2 if implementation == _SLOW else 4 if case.size == LARGEST else 1)
    key = (case.part, implementation, edges, nodes, case.channels, case.dtype, settings.device)
    return Job(*key, repeats, seconds, timeout, memory)


def run(settings: Settings) -> Report:
    """Measure everything; write `layer.md`, `layer_cpu.json.gz` or `layer_cuda.json.gz`, and the plot."""
    stamp = environment(settings.device)
    rows: list[dict[str, Any]] = []
    statuses: list[dict[str, str]] = []
    content = {"environment": stamp, "rows": rows, "statuses": statuses}
    failed: dict[tuple[Any, ...], str] = {}
    with _workers(settings) as work:
        for case in cases(settings):
            for implementation in IMPLEMENTATIONS.get(case.part, ["base"]):
                key = (case.part, implementation, case.channels, case.dtype, case.malloc)
                reason = _left_out(case, implementation, settings) or failed.get(key)
                if reason is None:
                    _progress(f"{case}, {implementation}")
                    result = work(case, make_job(case, implementation, settings))
                else:
                    result = {"status": "not run", "reason": reason}
                if result.get("status") in ("OOM", "timeout"):
                    failed[key] = f"{result['status']} at {case.size}"
                if "status" in result:
                    statuses.append({"case": str(case), "implementation": implementation, **result})
                else:
                    rows += figures(case, implementation, result, rows)
            # After each case, so that an interrupted run leaves what it has.
            settings.record.keep("layer", rows)
            _write(content, settings)
    _draw(content, settings)
    return Report(rows, _write(content, settings), statuses)


def redraw(settings: Settings) -> Report:
    """Write `layer.md` and the plot from what a run has left."""
    content = read_results(settings.out / f"layer_{settings.device}.json.gz")
    _draw(content, settings)
    return Report(content["rows"], _write(content, settings), content["statuses"])


def _draw(content: Mapping[str, Any], settings: Settings) -> None:
    if find_spec("matplotlib") is not None:
        with whole_file(settings.out / f"layer_{settings.device}.png") as file:
            plot(content, settings.device, file)


def figures(
    case: Case, implementation: str, result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of a result. ``rows`` has the bandwidths that the floor follows from."""

    def row(metric: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
        return figure("layer", str(case), implementation, metric, unit, values)

    if case.part == "base":
        names = {
            "plan": ("plan build", "ms"),
            "stream": ("streaming copy", "GB/s"),
            "gather": ("random rows", "GB/s"),
        }
        return [row(*names[name], values) for name, values in result.items()]
    total = [sum(pair) for pair in zip(result["forward"], result["backward"], strict=True)]
    times = {"forward": result["forward"], "backward": result["backward"], "total": total}
    made = [row(metric, "ms", values) for metric, values in times.items()]
    if result["peak"] is not None:
        made.append(row("peak memory", "MiB", [result["peak"]]))
    least = floor_of(case, rows) if case.part == "aggregation" else None
    if least is not None and "kernels" not in result:
        made.append(row("multiple of the floor", "1", [time / sum(least) for time in total]))
    for way, kernels, time in zip(
        ("forward", "backward"), result.get("kernels", ()), least or (), strict=False
    ):
        made.append(row(f"kernels {way}", "ms", kernels))
        made.append(row(f"kernels {way}, multiple of the floor", "1", [kernel / time for kernel in kernels]))
    return made


def floor_of(case: Case, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The floors of a case's forward and backward pass in ms, if its bandwidths were measured."""
    base = str(Case("base", case.size, case.channels, case.dtype))
    stream, gather = (_value(rows, base, "base", metric) for metric in ("streaming copy", "random rows"))
    if stream is None:
        return None
    itemsize = getattr(torch, case.dtype).itemsize
    return floor(*SIZES[case.size], case.channels, itemsize, stream, gather or stream)


def floor(
    edges: int, nodes: int, channels: int, itemsize: int, stream: float, gather: float
) -> tuple[float, float]:
    """The least ms of a forward and a backward pass that read one row for each edge, at these GB/s.

    One row an edge comes at the speed of random rows, all else at that of a streaming copy: forward the
    output, and of each edge its source (4 bytes) and relation (2), of each node where its edges begin (8) and
    the logarithm of their sum (4); backward the output, its gradient, the features and theirs, of each edge
    its target, its relation and two numbers of that target, of each node where its edges begin.
    """
    by_edge, by_node = edges * channels * itemsize, nodes * channels * itemsize
    forward = by_edge / gather + (by_node + 6 * edges + 12 * nodes) / stream
    backward = by_edge / gather + (4 * by_node + 14 * edges + 8 * nodes) / stream
    return forward / 1e6, backward / 1e6


def _left_out(case: Case, implementation: str, settings: Settings) -> str | None:
    """Why a cell is not even tried, if it is not."""
    if settings.device == "cuda":
        return None
    if "triton" in implementation:
        return "its kernels are for CUDA"
    if case.size == LARGEST and implementation not in ("base", OURS["cpu"]["aggregation"]):
        return "on a CPU, 20M edges are for the growth of our time alone"
    if implementation != _SLOW:
        return None
    if settings.quick:
        return "more than a minute of --quick's three"
    if (case.size, case.channels, case.malloc) != ("Last.FM's size", 64, "default"):
        return "tens of seconds a step: measured at Last.FM's size with d = 64 and the default malloc only"
    return None


# --- Processes ---


@contextmanager
def _workers(settings: Settings) -> Iterator[Callable[[Case, Job], dict[str, Any]]]:
    """What does a job: this process on CUDA, else one that forks a child, for each setting of malloc."""
    if settings.device == "cuda":
        yield lambda case, job: _on_cuda(job)
        return
    with ExitStack() as stack:
        processes = {name: stack.enter_context(worker(variables)) for name, variables in MALLOCS.items()}
        yield lambda case, job: ask(processes[case.malloc], job)


@contextmanager
def worker(variables: Mapping[str, str], checkout: Path = ROOT) -> Iterator["subprocess.Popen[str]"]:
    """A process that does jobs with the code of a checkout, and with more variables in its environment."""
    with child_process(
        ["-m", "benchmarks.layer_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Inductor's own processes would count, and outlive a child that was ended.
        env={**os.environ, **variables, "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        cwd=checkout,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # Nothing is measured while another process still imports.
        yield process


def ask(process: "subprocess.Popen[str]", job: Job) -> dict[str, Any]:
    """What a process of :func:`worker` says of a job."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(job)) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"benchmarks.layer_worker ended with {process.wait()}")
    return json.loads(answer)


def _on_cuda(job: Job) -> dict[str, Any]:
    result = attempt(job)
    gc.collect()
    torch.cuda.empty_cache()
    return result


@functools.cache
def _free_memory() -> int:
    """Bytes that processes could have at the start; plenty where the system does not tell."""
    return proc_bytes("meminfo", "MemAvailable") or 2**36


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


# --- The page ---


def _write(content: Mapping[str, Any], settings: Settings) -> str:
    """Write the rows, and the page of what is known of both devices."""
    files = {device: settings.out / f"layer_{device}.json.gz" for device in ("cpu", "cuda")}
    write_results(files[settings.device], content)
    blocks = {
        device.upper(): block(read_results(file), device) for device, file in files.items() if file.exists()
    }
    return write_page(settings.out / "layer.md", "The layer and its peers", blocks)


def block(content: Mapping[str, Any], device: str) -> str:
    """The tables of what was measured on a device."""
    stamp = content["environment"]
    parts = [
        f"`{stamp['command']}`, {stamp['date']}: {stamp.get('gpu', stamp['cpu'])}, torch's threads: "
        f"{stamp['threads']}, torch {stamp['torch']}, torch_geometric {stamp['torch_geometric']}."
    ]
    for part, title in TITLES.items():
        parts += _sections(part, title, content, device)
    return "\n\n".join(parts)


def _sections(part: str, title: str, content: Mapping[str, Any], device: str) -> list[str]:
    rows, statuses = content["rows"], content["statuses"]
    ran = {entry["case"] for entry in [*rows, *statuses]}
    shown = [
        Case(part, size, channels, dtype)
        for channels in CHANNELS
        for dtype in ("float32", "bfloat16")
        for size in SIZES
    ]
    parts: list[str] = []
    reasons: list[str] = []
    for case in (case for case in shown if str(case) in ran):
        parts.append(f"### {title}: {case.size}, d = {case.channels}, {case.dtype}")
        if part == "aggregation":
            parts.append(_base_line(case, rows, device))
        parts.append(_case_table(case, rows, statuses, device, reasons))
    if reasons:
        notes = "\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
        parts += [f"Why cells of {title.lower()} have no figures:", notes]
    return parts


def _base_line(case: Case, rows: Sequence[Mapping[str, Any]], device: str) -> str:
    base = str(Case("base", case.size, case.channels, case.dtype))
    plan, stream, gather = (
        _value(rows, base, "base", metric) for metric in ("plan build", "streaming copy", "random rows")
    )
    least = floor_of(case, rows)
    if plan is None or least is None:
        return "The bandwidths were not measured, hence there is no floor."
    line = f"Building the plan, once per graph: {short(plan)} ms. Streaming copy {short(stream)} GB/s"
    line += "" if gather is None else f", random rows {short(gather)} GB/s"
    line += f": the floor is {short(sum(least))} ms, {short(least[0])} of them forward."
    total = _value(rows, str(case), OURS[device]["aggregation"], "total")
    if total is not None:
        line += f" Ours takes {short(total / SIZES[case.size][0] * 1e6)} ns an edge."
    return line


def _case_table(
    case: Case,
    rows: Sequence[Mapping[str, Any]],
    statuses: Sequence[Mapping[str, str]],
    device: str,
    reasons: list[str],
) -> str:
    """A line an implementation; ``reasons`` collects why cells have no figures."""
    tuned = Case(case.part, case.size, case.channels, case.dtype, "tuned")
    header = ["", "forward", "backward", "total", "×", "MiB", "×"]
    header += ["total, tuned", "×", "MiB, tuned", "×"] if device == "cpu" else []
    floors = {
        "cpu": {
            "× floor": (case, "multiple of the floor"),
            "× floor, tuned": (tuned, "multiple of the floor"),
        },
        "cuda": {
            f"× floor, {way}": (case, f"kernels {way}, multiple of the floor")
            for way in ("forward", "backward")
        },
    }[device]
    header += floors if case.part == "aggregation" else []
    found = {(row["case"], row["implementation"], row["metric"]): row for row in rows}
    failed = {(entry["case"], entry["implementation"]): entry for entry in statuses}

    def cell(which: Case, name: str, metric: str) -> str:
        row = found.get((str(which), name, metric))
        return "–" if row is None else short(row["value"])

    def total(which: Case, name: str) -> str:
        entry, row = failed.get((str(which), name)), found.get((str(which), name, "total"))
        if row is not None:
            spread = f" ± {short(row['sd'])}" if row["n"] > 1 else ""
            return f"{short(row['value'])}{spread} ({row['n']})"
        if entry is None:
            return "not measured"
        if entry["reason"] not in reasons:
            reasons.append(entry["reason"])
        return f"{entry['status']} [{reasons.index(entry['reason']) + 1}]"

    def ratio(which: Case, name: str, metric: str) -> str:
        row, ours = (found.get((str(which), who, metric)) for who in (name, OURS[device][case.part]))
        return "–" if not row or not ours or ours["value"] <= 0 else short(row["value"] / ours["value"])

    settings = [case, tuned] if device == "cpu" else [case]
    lines = []
    for name in IMPLEMENTATIONS[case.part]:
        line = [name, cell(case, name, "forward"), cell(case, name, "backward")]
        for which in settings:
            line += [total(which, name), ratio(which, name, "total")]
            line += [cell(which, name, "peak memory"), ratio(which, name, "peak memory")]
        if case.part == "aggregation":
            line += [cell(which, name, metric) for which, metric in floors.values()]
        lines.append(line)
    return table(header, lines)


def _value(rows: Sequence[Mapping[str, Any]], case: str, implementation: str, metric: str) -> float | None:
    for row in rows:
        if (row["case"], row["implementation"], row["metric"]) == (case, implementation, metric):
            return float(row["value"])
    return None


def short(value: float | None) -> str:
    """Three digits, or all that stand before the point."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# --- The plot ---

# At most eight lines; the table has the others.
_PLOTTED = {
    "aggregation": IMPLEMENTATIONS["aggregation"],
    "layer": [
        "GatedAggregationConv, plan",
        "SAGEConv",
        "GATConv, edge_dim",
        "GATv2Conv, edge_dim",
        "TransformerConv",
        "RGCNConv",
        "RGATConv",
        "FiLMConv",
    ],
}


def plot(content: Mapping[str, Any], device: str, file: Path) -> None:
    """Plot time and memory against edges, a row of axes a part that has several sizes; single precision, 64
    channels.
    """
    rows = content["rows"]
    title = f"One step of forward and backward on {device.upper()}, d = 64, float32"
    picture, grid = new_figure(12, 8.5, title, 2, 2)
    malloc = ", default malloc" if device == "cpu" else ""
    for axes, part in zip(grid, ("aggregation", "layer"), strict=True):
        measures = [("total", f"time{malloc} [ms]"), ("peak memory", f"peak memory{malloc} [MiB]")]
        for ax, (metric, label) in zip(axes, measures, strict=True):
            lines = {
                name: [
                    (SIZES[size][0], value)
                    for size in SIZES
                    if (value := _value(rows, str(Case(part, size, 64)), name, metric))
                ]
                for name in _PLOTTED[part]
            }
            if part == "aggregation" and metric == "total":
                lines["floor"] = [
                    (SIZES[size][0], sum(least))
                    for size in SIZES
                    if (least := floor_of(Case(part, size, 64), rows))
                ]
            for name, points in lines.items():
                if points:
                    marker = "" if name == "floor" else "o"
                    ax.plot(*zip(*points, strict=True), label=name, marker=marker, ms=4, **look(name))
            ax.set(xscale="log", yscale="log", xlabel="edges", ylabel=label, title=TITLES[part])
            ax.grid(color="0.9")
            label_lines(ax)
    picture.savefig(file, dpi=130, format="png")
