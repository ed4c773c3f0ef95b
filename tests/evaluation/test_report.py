"""Summaries and the table that people read."""

import pytest
from rich.console import Console

from mgwa_pyg.evaluation import results_table, summarize

ROWS = [
    {"model": "mgwa", "negatives": "entities", "seed": 0, "auc": 0.9, "acc": 0.8, "f1": 0.7},
    {"model": "mgwa", "negatives": "entities", "seed": 1, "auc": 0.8, "acc": 0.8, "f1": 0.9},
    {"model": "popularity", "negatives": "items", "seed": 0, "auc": 0.75, "acc": 0.7, "f1": 0.6},
]


def text(summary, **options):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(results_table(summary, "A title", **options))
    return console.export_text()


def test_mean_and_standard_deviation():
    first, second = summarize(ROWS)
    assert (first["model"], first["negatives"], first["seeds"]) == ("mgwa", "entities", 2)
    assert first["auc"] == pytest.approx(0.85)
    assert first["auc_sd"] == pytest.approx(0.1 / 2**0.5)
    assert first["acc_sd"] == pytest.approx(0)
    assert second["auc_sd"] is None


def test_the_paper_stands_beside_its_own_protocol_only():
    lines = text(summarize(ROWS)).splitlines()
    published = [line for line in lines if "mgwa, published" in line]
    assert len(published) == 1
    assert all(figure in published[0] for figure in ("0.899", "0.808", "0.803"))
    ours = next(line for line in lines if "0.8500 ± 0.0707" in line)
    assert "Paper protocol" in lines[lines.index(ours) - 1]
    assert any("Item protocol" in line for line in lines)


def test_the_paper_is_left_out_for_other_data():
    assert "published" not in text(summarize(ROWS), paper=False)


def test_names_are_text():
    name = "[/b] [red]:smile:"
    lines = text(summarize([{**ROWS[0], "model": name, "negatives": name}])).splitlines()
    assert sum(name in line for line in lines) == 3  # The protocol, the model, and what it means.
