"""The benchmarks of ranking and of size, in small."""

from pathlib import Path

import pytest
import torch

from benchmarks import rank, scale
from benchmarks.harness import NoDataError, Settings
from mgwa_pyg.datasets import SyntheticKG


def figures(report, metric):
    """The values of a metric by case and implementation."""
    return {
        (row["case"], row["implementation"]): row["value"]
        for row in report.rows
        if row["metric"] == metric and row["n"] > 0
    }


def test_rank_measures_all_pairs_and_checks_them(monkeypatch):
    def small(settings, negatives, seed):
        sizes = {"num_users": 40, "num_items": 60, "num_entities": 120, "num_triples": 400}
        return SyntheticKG(**sizes, num_relations=4, num_interactions=600)

    monkeypatch.setattr(rank, "load", small)
    report = rank.run(Settings(quick=True, data="synthetic"))
    case = "SyntheticKG 40x60 layers=1 d=16"
    seconds, speed = figures(report, "time"), figures(report, "pairs scored")
    assert speed[case, "MGWA.rank"] == pytest.approx(40 * 60 / seconds[case, "MGWA.rank"])
    for number in (1, 512, 8192):
        assert (case, f"8 neighbours drawn for each pair, {number} at a time") in speed
    assert {implementation for _, implementation in seconds} == {"MGWA.rank", "KGCN.rank"}
    assert all(value < 1e-5 for value in figures(report, "largest difference to 512 pairs").values())


def test_rank_says_which_data_are_missing(monkeypatch):
    def load(settings, negatives, seed):
        raise NoDataError(f"no {settings.data}")

    monkeypatch.setattr(rank, "load", load)
    with pytest.raises(NoDataError, match=r"no lastfm.*no bookcrossing"):
        rank.run(Settings(quick=True))


def test_the_memory_model_counts_what_is_kept():
    model = scale.memory_model(num_users=10, num_entities=100, num_triples=1000, num_rows=50, dim=4)
    tables = sum(table.numel() for table in (torch.empty(10, 4), torch.empty(100, 4)))
    assert model["tables"] == 4 * tables * 2  # The embeddings and Adagrad's sums.
    assert model["graph"] == 8 * 100 + 2 * 1000 * (4 + 4)


def test_scale_runs_the_example(tmp_path):
    options = ["--triples", 20_000, "--steps", 1, "--epochs", 2, "--batch-size", 500]
    logged, peak = scale._run(tmp_path, Settings(quick=True), options)
    assert len(logged["step_loss"]) == len(logged["rows_per_second"]) == 2
    assert peak > 2**27  # Python and torch alone take more.


def test_scale_compares_two_processes_with_one(tmp_path, monkeypatch):
    """That they take the same steps is tested with the example."""

    def run(arguments):
        launched = arguments[:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        folder = Path(arguments[arguments.index("--out") + 1], "logs", "version_0")
        folder.mkdir(parents=True)
        rows = ["step_loss,rows_per_second", "0.5,1", f"{0.25 + launched / 64},{10 + launched}", ",30"]
        (folder / "metrics.csv").write_text("\n".join(rows))
        return 0

    monkeypatch.setattr(scale, "_peak_memory", run)
    rows = scale._processes(tmp_path, 20_000, Settings(quick=True))
    assert [(row["implementation"], row["value"]) for row in rows] == [
        ("1 processes", 20),
        ("2 processes", 20.5),
        ("2 processes against 1", 1 / 64),
    ]


def test_scale_says_why_a_process_failed():
    with pytest.raises(RuntimeError, match=r"(?s)-c .* failed:.*the reason"):
        scale._peak_memory(["-c", "raise SystemExit('the reason')"])
