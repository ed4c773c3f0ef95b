"""The README's Python blocks run as they stand and print what it shows, the pages' commands exist, figures
are the measured ones.
"""

import argparse
import os
import runpy
import shlex
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from shutil import which

import pytest
from markdown_it import MarkdownIt

from benchmarks import table2, topk
from benchmarks.harness import read_results
from benchmarks.layer import short
from tests.pages import assert_runs, blocks_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES]


def tokens_of(page):
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


README = ROOT / "README.md"
LAYER = ROOT / "docs" / "gated_aggregation_conv.md"
RECOMMEND = ROOT / "docs" / "modules" / "recommend.md"
BLOCKS = blocks_of(README)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_runs(BLOCKS[number], README, {})


def test_the_tour_shows_what_it_prints():
    assert BLOCKS[0].shown is not None
    assert BLOCKS[0].shown.splitlines()[0].split() == ["rank", "item", "name", "score"]


def commands_of(page):
    """The words of the commands in the blocks of a page, and of those for make in its text."""
    for token in tokens_of(page):
        spans = [child.content for child in token.children or [] if child.type == "code_inline"]
        lines = [span for span in spans if span.startswith("make ")]
        if token.type == "fence" and token.info in ("", "bash"):
            lines = [
                line
                for line in token.content.replace("\\\n", " ").splitlines()
                if line.startswith(("make ", "python ", "torchrun ", "mgwa-pyg "))
            ]
        yield from (shlex.split(line, comments=True) for line in lines)


class Parsed(Exception):  # noqa: N818
    """The program knows all of its options."""


def assert_exists(command, monkeypatch):
    """If this is a target of make or a program of ours, it is there, and its parser takes these options."""
    match command:
        case ["make", *words]:
            # Not as a part of the make that may run the tests.
            outer = ("MAKEFLAGS", "MFLAGS", "ARGS")
            environment = {name: value for name, value in os.environ.items() if name not in outer}
            made = subprocess.run(
                ["make", "-n", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stderr
            for line in made.stdout.splitlines():
                if "/python examples/" in line:
                    assert_exists(["python", *shlex.split(line)[1:]], monkeypatch)
            return
        case ["torchrun", "--nproc-per-node", _, file, *words] | ["python", file, *words] if file.endswith(
            ".py"
        ):
            run = partial(runpy.run_path, str(ROOT / file))
        case ["python", "-m", ("benchmarks" | "mgwa_pyg") as module, *words]:
            run = partial(runpy.run_module, module)
        case ["mgwa-pyg", *words]:
            run = partial(runpy.run_module, "mgwa_pyg.cli")
        case _:
            return
    monkeypatch.setattr(sys, "argv", ["program", *words])
    with pytest.raises(Parsed):
        run(run_name="__main__")


@pytest.mark.skipif(which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist(page, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, *args):
        parse(self, *args)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.syspath_prepend(ROOT / "examples")  # Where an example finds its neighbours.
    for command in commands_of(page):
        assert_exists(command, monkeypatch)


def measured_in(file):
    rows = read_results(ROOT / "benchmarks" / "results" / file)["rows"]
    return {(row["case"], row["implementation"], row["metric"]): row["value"] for row in rows}


def rows_below(page, heading):
    """The cells of all rows of the tables in a section."""
    rows, here = [], False
    for token, inside in pairwise(tokens_of(page)):
        if token.type == "heading_open":
            here = inside.content == heading
        elif here and token.type == "tr_open":
            rows.append([])
        elif here and token.type == "td_open":
            rows[-1].append(inside.content.replace("`", ""))
    return [row for row in rows if row]  # A header has no such cells.


def test_figures_are_those_of_the_results():
    measured = measured_in("table2.json.gz")
    names = {
        "CollaborativeMGWA, ours": "CollaborativeMGWA",
        "the same and the heuristics, weighed on validation rows": "CollaborativeMGWA + heuristics",
        "item-kNN": "item-knn",
        "a logistic stack of heuristics": "stack",
    }
    lines = [cells for cells in rows_below(README, "What comes out") if len(cells) == 4]
    assert len(lines) == 10
    for name, entities, paper, items in lines:
        model = names.get(name.strip(), name.strip())
        published = [float(figure) for figure in paper.split("/") if figure.strip()]
        assert published == list(table2.PUBLISHED["entities"].get(model, ())), name
        for negatives, cell in (("entities", entities), ("items", items)):
            shown = [float(figure) for figure in cell.split("/")]
            want = [measured[negatives, model, metric] for metric in ("auc", "acc", "f1")]
            assert shown == pytest.approx(want, abs=6e-5), (name, negatives)


def test_rankings_are_those_of_the_results():
    names = {
        "CollaborativeMGWA, trained for ranking": "CollaborativeMGWA",
        "the same without the knowledge graph": "CollaborativeMGWA, no knowledge graph",
        "shared tails, item-kNN and popularity, mixed": "tails+knn+pop",
        "item-kNN": "item-knn",
        "EASE": "ease",
    }
    lines = {name.strip(): cells for name, *cells in rows_below(README, "What comes out") if len(cells) == 2}
    assert lines.keys() == {*names, "AdaKG, published", "LightKG, published"}
    for column, (data, file) in enumerate(
        {"lastfm": "topk.json.gz", "bookcrossing": "topk_bookcrossing.json.gz"}.items()
    ):
        measured = measured_in(file)
        for name, cells in lines.items():
            shown = tuple(float(figure) for figure in cells[column].split("/"))
            if name.endswith(", published"):
                assert shown == topk.PUBLISHED[data][name.removesuffix(", published")]
            else:
                want = [measured["ranking", names[name], metric] for metric in ("recall@10", "mrr@10")]
                assert shown == pytest.approx(want, abs=6e-5), (name, data)


def test_highlights_are_those_of_the_results():
    layer, topk_rows = measured_in("layer_cpu.json.gz"), measured_in("topk.json.gz")
    use, scale = measured_in("recommend_cpu.json.gz"), measured_in("scale_cpu.json")
    times = [
        layer["aggregation E=200000 d=64 float32", name, "total"]
        for name in ("ours, torch", "PyG softmax + scatter")
    ]
    recalls = [topk_rows["ranking", name, "recall@10"] for name in ("CollaborativeMGWA", "item-knn")]
    of_books = measured_in("topk_bookcrossing.json.gz")
    recalls += [of_books["ranking", name, "recall@10"] for name in ("CollaborativeMGWA", "tails+knn+pop")]
    recalls += [max(recall for recall, _ in rows.values()) for rows in topk.PUBLISHED.values()]
    share = use["new against the same, trained with them", "CollaborativeMGWA", "recall@10"]
    error = max(value for (_, _, metric), value in use.items() if metric == "largest error of the sum")
    small, large = (
        scale[f"{size} triples, batch=4096, fanout=8, 1 layer", "MGWA d=16, sparse gradients", "train step"]
        for size in ("1,000,000", "100,000,000")
    )
    want = [
        [f"{time:.0f}" for time in times],
        [f"{recall:.3f}".lstrip("0") for recall in recalls],
        [f"{share:.0f} %"],
        [f"{error:.0e}"],
        [f"{large / small:.1f} times"],
    ]
    text = README.read_text(encoding="utf-8")
    section = text[text.index("## Why you may want it") : text.index("## Install")]
    highlights = section.split("\n- ")[1:]
    for highlight, figures in zip(highlights, want, strict=True):
        for shown in figures:
            assert shown in highlight, (shown, highlight)


def test_badges_are_those_of_the_metadata():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {"Python": project["requires-python"].removeprefix(">=")}
    for requirement in project["dependencies"]:
        name, _, bound = requirement.partition(">=")
        bounds[name] = bound
    text = README.read_text(encoding="utf-8")
    for name, package in (("Python", "Python"), ("PyTorch", "torch"), ("PyG", "torch_geometric")):
        assert f"![{name} {bounds[package]} or newer]" in text
        assert f"{bounds[package]}%2B" in text


def test_figures_of_a_checkpoint_are_those_of_the_results():
    measured = measured_in("recommend_cpu.json.gz")
    questions = {"recommend": "recommend, median", "recommend_for": "recommend_for, 10 items, median"}
    want = [
        [name, *(f"{measured['times', model, question]:.0f} ms" for model in ("CollaborativeMGWA", "MGWA"))]
        for name, question in questions.items()
    ]
    share = measured["new against the same, trained with them", "CollaborativeMGWA", "recall@10"]
    want.append(["Recall@10 of newcomers", f"{share:.0f} %", ""])
    assert rows_below(RECOMMEND, "How fast, how good") == want


def test_times_are_those_of_the_results():
    measured, cuda = measured_in("layer_cpu.json.gz"), measured_in("layer_cuda.json.gz")
    aggregations = {"our aggregation": "ours, torch", "torch.compile of it": "torch.compile of PyG's"}
    cases = [f"aggregation E={edges} d=64 float32" for edges in (200_000, 2_000_000)]
    lines = [line for line in rows_below(LAYER, "Speed") if "(" in line[1]]  # Without the headers.
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
