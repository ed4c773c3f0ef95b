"""The searches of the benchmarks: what is kept of one, and what an experiment takes."""

import json
import sys

from benchmarks import tuned
from mgwa_pyg.train import CollaborativeConfig, MGWAConfig


def test_a_search_is_kept_without_folders_and_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "TUNED", tmp_path / "results")
    tried = []

    def tune(dataset, config, folder, **options):
        tried.append((dataset.negatives, config, options))
        content = {"dataset": {"root": str(tmp_path), **dataset.spec, "fingerprint": dataset.fingerprint}}
        folder.mkdir(parents=True)
        chosen = MGWAConfig(channels=4).to_dict()
        (folder / "search.json").write_text(json.dumps({**content, "chosen": {"config": chosen}}))

    monkeypatch.setattr(tuned, "tune", tune)
    arguments = ["mgwa", "--data", "synthetic", "--loss", "click", "--minutes", "2"]
    monkeypatch.setattr(sys, "argv", ["tuned", *arguments, "--folder", str(tmp_path / "runs")])
    tuned.main()
    assert tried == [("items", MGWAConfig(), {"trials": 30, "minutes": 2.0, "seed": 0})]
    (kept,) = (tmp_path / "results").iterdir()
    assert kept.name == "tuned_synthetic_mgwa_click.json"
    assert str(tmp_path) not in kept.read_text()
    assert tuned.chosen("synthetic", MGWAConfig()) == MGWAConfig(channels=4)
    assert tuned.chosen("synthetic", MGWAConfig.for_ranking()) == MGWAConfig.for_ranking()


def test_clicks_begin_with_fewer_passes_where_there_is_more(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "TUNED", tmp_path)
    for data, passes in (("lastfm", 8), ("synthetic", 8), ("bookcrossing", 2), ("ml-100k", 2)):
        assert tuned.chosen(data, CollaborativeConfig()) == CollaborativeConfig(passes=passes)
    ranking = CollaborativeConfig.for_ranking()
    assert tuned.chosen("ml-100k", ranking) == ranking
