"""The README's Python blocks run as they stand, its commands exist, its figures are the measured ones."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)|^make (\w+)", README, flags=re.MULTILINE))
    for target in {name for pair in targets for name in pair if name}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_figures_are_those_of_the_results():
    rows = json.loads((ROOT / "benchmarks" / "results" / "table2.json").read_text())["rows"]
    measured = {(row["case"], row["implementation"], row["metric"]): row["value"] for row in rows}
    names = {
        "counting plays": "popularity",
        "item-kNN": "item-knn",
        "a logistic stack of heuristics": "stack",
    }
    section = README.split("## What comes out")[1].split("\n## ")[0]
    lines = [line.split("|")[1:-1] for line in section.splitlines() if re.match(r"\| \w", line)]
    assert len(lines) == 8
    for name, entities, _, items in lines:
        model = names.get(name.strip(), name.strip())
        for negatives, cell in (("entities", entities), ("items", items)):
            shown = [float(figure) for figure in cell.split("/")]
            want = [measured[negatives, model, metric] for metric in ("auc", "acc", "f1")]
            assert shown == pytest.approx(want, abs=6e-5), (name, negatives)
