"""The README's Python blocks run as they stand, its commands exist, its figures are the measured ones."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import topk
from benchmarks.layer import short

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)|^make (\w+)", README, flags=re.MULTILINE))
    for target in {name for pair in targets for name in pair if name}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def measured_in(file):
    rows = json.loads((ROOT / "benchmarks" / "results" / file).read_text())["rows"]
    return {(row["case"], row["implementation"], row["metric"]): row["value"] for row in rows}


def lines_of(heading):
    """The cells of all lines of the tables below a heading."""
    section = README.split(heading)[1].split("\n## ")[0]
    return [line.split("|")[1:-1] for line in section.splitlines() if re.match(r"\| [\w`]", line)]


def test_figures_are_those_of_the_results():
    measured = measured_in("table2.json")
    names = {
        "`CollaborativeMGWA`, ours": "CollaborativeMGWA",
        "counting plays": "popularity",
        "item-kNN": "item-knn",
        "a logistic stack of heuristics": "stack",
    }
    lines = [cells for cells in lines_of("## What comes out") if len(cells) == 4]
    assert len(lines) == 9
    for name, entities, _, items in lines:
        model = names.get(name.strip(), name.strip())
        for negatives, cell in (("entities", entities), ("items", items)):
            shown = [float(figure) for figure in cell.split("/")]
            want = [measured[negatives, model, metric] for metric in ("auc", "acc", "f1")]
            assert shown == pytest.approx(want, abs=6e-5), (name, negatives)


def test_rankings_are_those_of_the_results():
    measured = measured_in("topk.json")
    names = {
        "`CollaborativeMGWA`, trained for ranking": "CollaborativeMGWA, ranking loss",
        "item-kNN": "item-knn",
    }
    lines = {name.strip(): cells for name, *cells in lines_of("## What comes out") if len(cells) == 2}
    shown = {name: [float(cell) for cell in cells] for name, cells in lines.items()}
    assert shown.pop("AdaKG, published") == list(topk.PUBLISHED["AdaKG"])
    assert shown.keys() == names.keys()
    for name, model in names.items():
        want = [measured["lightkg", model, metric] for metric in ("recall@10", "mrr@10")]
        assert shown[name] == pytest.approx(want, abs=6e-5), name


def test_what_is_said_of_recommendations_is_measured():
    measured = measured_in("recommend_cpu.json")
    said = re.search(
        r"`recommend` takes (\d+) ms on one CPU core and `recommend_for` (\d+), or (\d+) and (\d+) for MGWA "
        r"\(medians\); newcomers get (\d+) %",
        " ".join(README.split()),
    )
    times = [
        measured["times", model, f"{question}, median"]
        for model in ("CollaborativeMGWA", "MGWA")
        for question in ("recommend", "recommend_for, 10 items")
    ]
    share = measured["new against the same, trained with them", "CollaborativeMGWA", "recall@10"]
    assert [int(number) for number in said.groups()] == [round(value) for value in [*times, share]]


def test_times_are_those_of_the_results():
    measured, cuda = measured_in("layer_cpu.json"), measured_in("layer_cuda.json")
    aggregations = {"our aggregation": "ours, torch", "torch.compile of it": "torch.compile of PyG's"}
    cases = [f"aggregation E={edges} d=64 float32" for edges in (200_000, 2_000_000)]
    lines = [line for line in lines_of("## Speed") if "(" in line[1]]  # Without the headers.
    assert len(lines) == 15
    for number, (name, *cells) in enumerate(lines):
        name = aggregations.get(name.strip(), name.strip())
        if number >= 8:
            measured, part = cuda, "layer" if "Conv" in name else "aggregation"
            keys = [f"{part} E={edges} d=64 float32" for edges in (2_000_000, 20_000_000)]
        elif (cases[0], name, "total") in measured:
            keys = [case + malloc for case in cases for malloc in ("", " malloc=tuned")]
        else:
            keys = [f"layer E=200000 d=64 float32{malloc}" for malloc in ("", " malloc=tuned")]
        for key, cell in zip(keys, cells, strict=True):
            total, peak = (measured.get((key, name, metric)) for metric in ("total", "peak memory"))
            assert cell.strip() == ("–" if total is None else f"{short(total)} ({short(peak)})"), (
                key,
                name,
            )
