"""The benchmark of the layer in small: same results are measured, failures are seen, the floor is right."""

import re
import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from benchmarks import layer, layer_worker
from benchmarks.harness import Settings, read_results
from benchmarks.layer import Case, block, figures, floor, floor_of
from benchmarks.layer_worker import (
    AGGREGATIONS,
    IMPLEMENTATIONS,
    LAYERS,
    MANY_QUERIES,
    QUERIES,
    Job,
    attempt,
    attempt_in_child,
    build,
)

TINY = Job("aggregation", "ours, torch", 300, 40, 8, repeats=2, seconds=0.1, timeout=30.0)


@pytest.fixture
def _tiny(monkeypatch):
    """Tiny graphs, a few implementations, a stream that takes no time."""
    monkeypatch.setattr(layer, "SIZES", {"Last.FM's size": (300, 40), "200k edges": (400, 40)})
    monkeypatch.setitem(layer_worker._STREAM_BYTES, "cpu", 2**16)
    monkeypatch.setattr(layer_worker, "_GATHER_ROWS", 2**8)


def aggregate(name, grads):
    forward, leaves = build(replace(TINY, implementation=name))
    out = forward()
    out.backward(torch.arange(float(out.numel())).view_as(out) / out.numel())
    return [out, *(leaf.grad for leaf in leaves)] if grads else [out]


def runnable(names):
    """Those that this machine can run; tests/ops/test_triton.py interprets the kernels for CUDA."""
    return [name for name in names if "triton" not in name or torch.cuda.is_available()]


def test_graph():
    edge_index, edge_type = layer_worker.make_graph(20_000, 2_000)
    assert edge_index.shape == (2, 20_000)
    assert edge_index.max() < 2_000
    assert edge_type.max() < layer_worker.RELATIONS
    for ends in edge_index:  # The first rank has 1 of 1 + 2 ** -.75 + ... + 2000 ** -.75 in weight.
        share = 1 / (torch.arange(1, 2001) ** -0.75).sum()
        assert ends.bincount().max() / 20_000 == pytest.approx(float(share), rel=0.15)
    pairs = (edge_index[1] * layer_worker.RELATIONS + edge_type).unique()
    assert 2 < 20_000 / len(pairs) < 5  # Edges for each target and relation, as in knowledge graphs.
    assert torch.equal(edge_index, layer_worker.make_graph(20_000, 2_000)[0])


@pytest.mark.parametrize("name", runnable(AGGREGATIONS))
def test_aggregations_agree(name, monkeypatch):
    if "compile" in name:  # The compiler behind it, torch's own, takes half a minute.
        peer = torch.compile(layer_worker._backend("reference"), fullgraph=True, backend="aot_eager")
        monkeypatch.setitem(AGGREGATIONS, name, peer)
    try:
        got = aggregate(name, grads=True)
    except ImportError as error:
        pytest.skip(str(error))
    assert_close(got, aggregate("PyG softmax + scatter", grads=True), rtol=1e-4, atol=1e-5)


def answers(name):
    """The output (nodes, queries, channels), and the gradients of features and tables."""
    forward, leaves = build(replace(TINY, part="queries", implementation=name))
    out = forward()
    if name == "PyG, block-diagonal":
        out = out.view(QUERIES, TINY.nodes, TINY.channels).transpose(0, 1)
    out.backward(torch.arange(float(out.numel())).view_as(out) / out.numel())
    return [out, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("name", runnable(MANY_QUERIES))
def test_many_queries_agree(name):
    assert_close(answers(name), answers("one call a query"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", runnable(LAYERS))
def test_layers_run(name):
    result = attempt(replace(TINY, part="layer", implementation=name))
    assert len(result["forward"]) == len(result["backward"]) >= 1, result
    assert min(result["forward"]) > 0
    forward, leaves = build(replace(TINY, part="layer", implementation=name))
    forward().sum().backward()
    assert leaves[0].grad.abs().sum() > 0


@pytest.mark.usefixtures("_tiny")
def test_the_base_is_measured():
    result = attempt(replace(TINY, part="base", implementation="base"))
    assert set(result) == {"plan", "stream", "gather"}
    assert all(min(values) > 0 for values in result.values())


def test_memory_is_the_rise_of_its_high_water_mark():
    held = []
    rise = layer_worker._peak(lambda: held.append(torch.ones(2**23)), "cpu")
    if rise is None:
        pytest.skip("this system does not tell")
    assert rise == pytest.approx(32, abs=2)


def test_floor_by_hand():
    # 1000 edges, 100 nodes, 64 channels, 4 bytes; 10 GB/s streaming, 20 GB/s random rows.
    rows_us = 1000 * 64 * 4 / 20e9 * 1e6
    forward_us = rows_us + (100 * 64 * 4 + 6 * 1000 + 12 * 100) / 10e9 * 1e6
    backward_us = rows_us + (4 * 100 * 64 * 4 + 14 * 1000 + 8 * 100) / 10e9 * 1e6
    got = floor(1000, 100, 64, 4, 10, 20)
    assert got == pytest.approx((forward_us / 1e3, backward_us / 1e3))
    # The figures of the notes it comes from: 2M edges, where 578 and 746 MB are moved.
    assert [ms * 10 for ms in floor(2_000_000, 200_000, 64, 4, 10, 10)] == pytest.approx([578, 746], abs=1)


def test_multiples_of_the_floor():
    base = {"plan": [5.0], "stream": [10.0], "gather": [20.0]}
    rows = figures(Case("base", "200k edges", 64), "base", base, [])
    case = Case("aggregation", "200k edges", 64, malloc="tuned")
    result = {"forward": [10.0, 20.0], "backward": [30.0, 40.0], "peak": None}
    made = {row["metric"]: row["value"] for row in figures(case, "ours, torch", result, rows)}
    assert made["total"] == 50
    assert "peak memory" not in made
    assert made["multiple of the floor"] == pytest.approx(50 / sum(floor_of(case, rows)))


def test_on_cuda_kernels_are_set_beside_the_streamed_floor():
    rows = figures(Case("base", "200k edges", 64), "base", {"plan": [5.0], "stream": [10.0]}, [])
    case = Case("aggregation", "200k edges", 64)
    assert floor_of(case, rows) == floor(*layer.SIZES["200k edges"], 64, 4, 10, 10)
    forward, backward = floor_of(case, rows)
    result = {"forward": [9.0], "backward": [9.0], "peak": 1.0, "kernels": [[2 * forward], [3 * backward]]}
    rows += figures(case, "ours, triton", result, rows)
    content = {"environment": {}, "rows": rows, "statuses": []}
    text = "\n".join(layer._sections("aggregation", "The aggregation", content, "cuda"))
    lines = [re.split(r" *\| *", line) for line in text.splitlines() if line.startswith("| ")]
    cells = dict(zip(lines[0], next(line for line in lines if "ours, triton" in line), strict=True))
    assert (cells["× floor, forward"], cells["× floor, backward"]) == ("2", "3")
    assert "random rows" not in text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ImportError("no such package"), "not installed"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "OOM"),
        (MemoryError(), "OOM"),
        (TypeError("unsupported\nsecond line"), "fails"),
    ],
)
def test_what_fails_has_a_reason(monkeypatch, error, status):
    def fail(*args):
        raise error

    monkeypatch.setitem(AGGREGATIONS, "ours, torch", fail)
    result = attempt(TINY)
    assert result["status"] == status
    assert "second line" not in result["reason"]


def test_a_child_that_takes_too_long_or_too_much(monkeypatch):
    def ours(function, timeout=300.0):
        monkeypatch.setitem(AGGREGATIONS, "ours, torch", function)
        return attempt_in_child(replace(TINY, timeout=timeout, memory=2**28))

    assert ours(lambda *_: torch.ones(2**28).sum())["status"] == "OOM"
    assert ours(lambda *_: threading.Event().wait(), timeout=0.5)["status"] == "timeout"
    assert ours(lambda *_: __import__("os")._exit(3)) == {
        "status": "fails",
        "reason": "the process ended with 3",
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_measured(device):
    cases = layer.cases(Settings(device))
    assert len(set(cases)) == len(cases)
    sizes = {d: {case.size for case in cases if case.channels == d} for d in layer.CHANNELS}
    assert sizes == {64: set(layer.SIZES), 16: set(layer.SMALL), 128: set(layer.SMALL)}
    largest = {case.part for case in cases if case.size == layer.LARGEST}
    assert largest == ({"base", "aggregation"} if device == "cpu" else {"base", "aggregation", "layer"})
    queries = [case for case in cases if case.part == "queries"]
    assert {(case.size, case.channels, case.dtype) for case in queries} == {("Last.FM's size", 64, "float32")}
    quick = layer.cases(Settings(device, quick=True))
    assert set(quick) == {case for case in cases if case.channels == 64 and case.size in layer.SMALL}


@pytest.mark.usefixtures("_tiny")
def test_run(tmp_path, monkeypatch):
    def work(case, job):
        """As a process answers, which is tested by itself; one out of memory, one out of time."""
        if job.implementation == "FiLMConv":
            return {"status": "OOM", "reason": "too large"}
        if "compile" in job.implementation:
            return {"status": "timeout", "reason": "ended after 60 s"}
        if job.part == "base":
            return {"plan": [1.0, 2.0], "stream": [8.0], "gather": [4.0]}
        time = 1.0 + len(job.implementation)
        return {"forward": [time, time + 1], "backward": [2 * time, 3 * time], "peak": job.edges / time}

    monkeypatch.setattr(layer, "_free_memory", lambda: 2**32)
    monkeypatch.setattr(layer, "_workers", lambda settings: nullcontext(work))
    report = layer.run(Settings(out=tmp_path, quick=True))
    assert {path.name for path in tmp_path.iterdir()} == {"layer.md", "layer_cpu.json.gz", "layer_cpu.png"}
    content = read_results(tmp_path / "layer_cpu.json.gz")
    assert content["rows"] == report.rows
    text = (tmp_path / "layer.md").read_text()
    assert text == report.page
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "layer.md").unlink()
    assert layer.redraw(Settings(out=tmp_path, quick=True)).rows == report.rows
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made
    assert all(
        0 < len(set(names) & set(IMPLEMENTATIONS[part])) == len(names) <= 8
        for part, names in layer._PLOTTED.items()
    )
    assert "there is no floor" not in text
    for part, names in IMPLEMENTATIONS.items():
        tables = [section for section in text.split("\n### ") if section.startswith(layer.TITLES[part])]
        assert len(tables) == (1 if part == "queries" else 2)  # One for each size.
        for name in names:
            assert all(f"\n| {name} |" in table for table in tables)
    # With either malloc; where memory did not do, the larger size is not tried.
    assert text.count("| OOM [") == 2
    assert text.count("| timeout [") == 2
    assert "OOM at Last.FM's size" in text
    statuses = {(entry["case"], entry["implementation"]): entry["status"] for entry in content["statuses"]}
    assert statuses["layer E=400 d=64 float32", "FiLMConv"] == "not run"

    measured = {(row["case"], row["implementation"]) for row in report.rows}
    cases = [case for case in layer.cases(Settings(quick=True)) if case.part != "base"]
    wanted = {(str(case), name) for case in cases for name in IMPLEMENTATIONS[case.part]}
    assert measured | set(statuses) >= wanted  # Nothing is dropped.
    assert not measured & set(statuses)


@pytest.mark.usefixtures("_tiny")
def test_a_process_with_another_malloc(monkeypatch):
    monkeypatch.setattr(layer, "MALLOCS", {"tuned": layer.MALLOCS["tuned"]})
    with layer._workers(Settings()) as work:
        for name in ("ours, torch", "PyG softmax + scatter"):
            result = work(
                Case("aggregation", "200k edges", 8, malloc="tuned"), replace(TINY, implementation=name)
            )
            assert len(result["forward"]) >= 1, result


def test_both_devices_on_one_page(tmp_path):
    stamp = {"command": "c", "date": "d", "cpu": "a cpu", "threads": 1, "torch": "2", "torch_geometric": "2"}
    row = {"forward": [1.0], "backward": [2.0], "peak": 3.0}
    rows = figures(Case("layer", "200k edges", 64), "SAGEConv", row, [])
    content = {"environment": stamp, "rows": rows, "statuses": []}
    for device in ("cpu", "cuda"):
        text = layer._write(content, Settings(device, out=tmp_path))
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## CPU", "## CUDA"]
    assert block(content, "cpu") in text
    assert "| SAGEConv | 1 | 2 | 3 (1) | – | 3 | – |\n" in text  # No malloc to be tuned on CUDA.
    assert "| RGCNConv | – | – | not measured | – | – | – |" in text
