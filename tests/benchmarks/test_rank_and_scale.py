"""The benchmarks of ranking and of size, in small."""

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


@pytest.mark.slow
def test_scale_runs_the_example(tmp_path):
    settings = Settings(quick=True)
    rows = scale._processes(tmp_path, 60_000, settings)
    by_name = {row["implementation"]: row for row in rows}
    assert by_name["2 processes against 1"]["value"] < 1e-5
    assert by_name["2 processes"]["value"] > 0
    logged, peak = scale._run(tmp_path, settings, ["--triples", 60_000, "--steps", 1, "--epochs", 2])
    assert len(logged["train_loss"]) == len(logged["rows_per_second"]) == 2
    assert peak > 2**27  # Python and torch alone take more.
    with pytest.raises(RuntimeError, match="batch-size 1000000 must be"):
        scale._run(tmp_path, settings, ["--triples", 60_000, "--batch-size", 10**6])
