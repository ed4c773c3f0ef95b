"""The search of CollaborativeMGWA: what is tried, what is kept, and that validation alone counts."""

import json
import sys

import pytest

from benchmarks import experiments, search_collaborative
from benchmarks.experiments import Job
from benchmarks.harness import Settings
from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation import click_metrics
from mgwa_pyg.train import CollaborativeConfig, fit


@pytest.mark.parametrize("loss", ["click", "ranking"])
def test_settings_are_tried_and_kept_best_first(loss, tmp_path, monkeypatch):
    jobs = []

    def value(job):
        jobs.append(job)
        config = job.config
        return search_collaborative.Found(config.dropout + 0.01 * job.seed, config.channels, 2.0)

    def serial(function, jobs, name):
        return [value(job) for job in jobs]

    monkeypatch.setattr(search_collaborative, "parallel", serial)
    file = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["search", loss, "--trials", "8", "--seeds", "3", "--json", str(file)])
    search_collaborative.main()
    content = json.loads(file.read_text())
    rows = content["validation AUC" if loss == "click" else "validation Recall@10"]
    assert len(rows) == 8
    assert len(jobs) == 24
    assert {(job.config.loss, job.negatives) for job in jobs} == {
        (loss, "items" if loss == "click" else "ranking")
    }
    values = [row["value"] for row in rows]
    assert values == sorted(values, reverse=True)
    for row in rows:  # The mean over the seeds 0, 1 and 2.
        assert row["value"] == pytest.approx(row["dropout"] + 0.01, abs=1e-5)
        for name, (low, high, _) in search_collaborative.RANGES[loss].items():
            assert low <= row[name] <= high
        for name, choices in search_collaborative.CHOICES.items():
            assert row[name] in choices
    defaults = search_collaborative.CHOSEN[loss]
    assert jobs[0].config.lr == jobs[3].config.lr == defaults.lr
    assert {jobs[0].config.fusion, jobs[3].config.fusion} == {"highway", "identity"}


def test_a_setting_is_judged_by_its_validation_rows(tmp_path, monkeypatch):
    data = SyntheticKG(num_users=40, num_items=60, num_entities=90, num_triples=300, num_interactions=500)
    monkeypatch.setattr(experiments, "load", lambda settings, negatives, seed: data)
    config = CollaborativeConfig(epochs=3, passes=1, channels=4)
    found = search_collaborative.best_of_fit(Job("collaborative", config, "items", 1, Settings()))
    result = fit(data, config, tmp_path, seed=1)
    listens = data[0]["user", "listens", "entity"]
    val = listens.edge_label[listens.val_mask]
    assert found.best_epoch == result.best_epoch
    assert found.value == pytest.approx(click_metrics(val, result.val_score)["auc"], abs=1e-6)
