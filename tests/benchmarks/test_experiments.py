"""The experiments in small: pages and rows say what the single fits say."""

import importlib
import multiprocessing
import operator
import shutil
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import __main__ as command
from benchmarks import ablations, clicks, collaborative, experiments, table2
from benchmarks.data import RANKED
from benchmarks.experiments import Results, parallel, short
from benchmarks.harness import DATA, Settings, read_results
from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation import HEURISTICS, corrected_t_test, paired_test
from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.train import CollaborativeConfig, KGCNConfig, MGWAConfig, RippleNetConfig

ROOT = Path(__file__).resolve().parent.parent.parent


def small(settings, negatives, seed):
    sizes = {"num_users": 40, "num_items": 60, "num_entities": 120, "num_relations": 4, "num_triples": 400}
    seed = 0 if negatives == RANKED else seed
    negatives = "entities" if negatives == "entities" else "items"  # Nobody has published any for these.
    return SyntheticKG(**sizes, num_interactions=600, negatives=negatives, seed=seed)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Small data, small models, three seeds, one process."""
    options = {"epochs": 1, "batch_size": 256}
    models = {
        "RippleNet": RippleNetConfig(memory_size=4, num_layers=2, **options),
        "KGCN, sum": KGCNConfig(**options),
        "MGWA": MGWAConfig(**options),
        "MGWA from TransE": MGWAConfig(transe=True, **options),
    }
    monkeypatch.setattr(experiments, "load", small)
    monkeypatch.setattr(experiments, "SEEDS", 3)
    monkeypatch.setattr(table2, "MODELS", models)
    monkeypatch.setattr(experiments, "parallel", lambda function, jobs, name: [function(job) for job in jobs])


@pytest.mark.parametrize(("data", "file"), [("bookcrossing", "clicks"), ("ml-100k", "clicks_ml-100k")])
def test_clicks(data, file, tmp_path, monkeypatch):
    chosen = {"CollaborativeMGWA": CollaborativeConfig(epochs=1, passes=1, channels=4)}
    chosen["MGWA"] = MGWAConfig(epochs=1, batch_size=128)
    monkeypatch.setattr(clicks, "models", lambda data: chosen)
    report = clicks.run(Settings(out=tmp_path, data=data))
    content = read_results(tmp_path / f"{file}.json.gz")
    assert content["rows"] == report.rows
    others = ["CollaborativeMGWA + heuristics", "MGWA", *HEURISTICS]
    assert len(content["seeds"]) == 3 * (1 + len(others))
    assert {row["case"] for row in report.rows} == {"items"}
    assert {(test["metric"], test["other"]) for test in content["tests"]} == {
        (metric, other) for metric in ("auc", "acc", "auc_user") for other in others
    }
    auc = [row["auc"] for row in content["seeds"] if row["model"] == "MGWA"]
    page = (tmp_path / f"{file}.md").read_text()
    assert page.startswith(f"# Models and heuristics under the item protocol: {DATA[data]}\n")
    assert f"\n{DATA[data]}: `" in page
    assert f"| MGWA | {short(statistics.mean(auc))} ± {short(statistics.stdev(auc))} |" in page


def test_models_of_clicks_change_one_thing_each(monkeypatch):
    for item_item, other in ((True, "no item-item part"), (False, "with the item-item part")):
        ours = CollaborativeConfig(channels=8, item_item=item_item)
        monkeypatch.setattr(clicks, "chosen", lambda data, config, ours=ours: ours)
        models = clicks.models("bookcrossing")
        assert models["CollaborativeMGWA"] == ours
        assert models[f"CollaborativeMGWA, {other}"] == replace(ours, item_item=not item_item)
        assert models["CollaborativeMGWA, no knowledge graph"] == replace(ours, knowledge_graph=False)


def test_clicks_are_tested_over_users(monkeypatch):
    rng = np.random.default_rng(0)
    user, label, seed = rng.integers(12, size=400), rng.integers(2, size=400), rng.integers(2, size=400)
    noise = {"ours": 0.5, "theirs": 3.0}
    frames = [
        pd.DataFrame({"user": user, "label": label, "seed": seed, "score": label + rng.normal(0, sd, 400)})
        for sd in noise.values()
    ]
    frames = [f.assign(model=name, negatives="items") for f, name in zip(frames, noise, strict=True)]
    (test,) = experiments.click_differences_of_users(pd.concat(frames), "ours")
    want = []
    for number in range(12):
        of_seeds = []
        for one in range(2):
            here = (user == number) & (seed == one)
            of_model = [roc_auc_score(label[here], frame["score"][here]) for frame in frames]
            of_seeds.append(of_model[0] - of_model[1])
        want.append(np.mean(of_seeds))
    assert {name: test.pop(name) for name in ("negatives", "metric", "model", "other")} == {
        "negatives": "items",
        "metric": "auc_user",
        "model": "ours",
        "other": "theirs",
    }
    assert test == pytest.approx({**paired_test(want, seed=0), "p_holm": test["p"]})


def test_table2(tmp_path):
    report = table2.run(Settings(out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "table2.json.gz",
        "table2.md",
        "table2_roc.png",
        "table2_metrics.png",
        "table2_curves.png",
    }
    content = read_results(tmp_path / "table2.json.gz")
    assert content["rows"] == report.rows
    per_seed = content["seeds"]
    assert len(per_seed) == 2 * 3 * (4 + len(HEURISTICS))  # Protocols, seeds, models and heuristics.

    def values(negatives, model, metric):
        return [row[metric] for row in per_seed if (row["negatives"], row["model"]) == (negatives, model)]

    for row in report.rows:
        want = [v for v in values(row["case"], row["implementation"], row["metric"]) if v is not None]
        assert row["n"] == len(want)
        assert row["value"] == pytest.approx(statistics.mean(want))
        assert row["sd"] == pytest.approx(statistics.stdev(want))
    page = (tmp_path / "table2.md").read_text()
    for negatives in ("entities", "items"):
        for model in ("MGWA", "KGCN, sum", "stack"):
            auc = values(negatives, model, "auc")
            cell = f"| {model} | {short(statistics.mean(auc))} ± {short(statistics.stdev(auc))} |"
            assert cell in page
    assert ".899 / .808 / .803" in page

    test = next(
        test
        for test in content["tests"]
        if (test["negatives"], test["metric"], test["other"]) == ("items", "auc", "KGCN, sum")
    )
    pairs = zip(values("items", "MGWA", "auc"), values("items", "KGCN, sum", "auc"), strict=True)
    want = corrected_t_test([mgwa - kgcn for mgwa, kgcn in pairs], 1 / 3)
    assert {key: test[key] for key in want} == pytest.approx(want)
    assert test["p_holm"] >= test["p"]
    assert len(content["transe"]) == 3

    # What stays draws page and plots again, to the byte.
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("table2.md", "table2_roc.png", "table2_metrics.png", "table2_curves.png"):
        (tmp_path / name).unlink()
    assert table2.redraw(Settings(out=tmp_path)).page == report.page
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made
    assert max(map(len, (table2._ROC, table2._CURVES))) <= 8


def test_figures_are_of_five_seeds(monkeypatch):
    monkeypatch.undo()
    jobs = experiments.make_jobs(Settings(), {"a model": None}, ["items"])
    assert [job.seed for job in jobs] == [0, 1, 2, 3, 4]


def test_quick_and_synthetic_say_so(tmp_path):
    report = table2.run(Settings(out=tmp_path, quick=True, data="synthetic"))
    assert {row["n"] for row in report.rows} == {1}
    assert "\nSYNTHETIC data, not Last.FM, one seed: `" in report.page
    assert ".899" not in report.page  # The paper says nothing about made-up data.
    assert report.page.count("One seed: no test.") == 2


def test_ablations(tmp_path, monkeypatch):
    base = MGWAConfig(epochs=2, batch_size=128)
    chosen = {
        "Fusion": {"gated": base, "sum": MGWAConfig(epochs=2, fusion="sum")},
        "Layers": {"1": base, "2": MGWAConfig(epochs=2, num_layers=2)},
    }
    monkeypatch.setattr(ablations, "ABLATIONS", chosen)
    monkeypatch.setattr(ablations, "_BASE", base)
    report = ablations.run(Settings(out=tmp_path))
    per_seed = read_results(tmp_path / "ablations.json.gz")["seeds"]
    assert len(per_seed) == 2 * 3 * 3  # The default stands in both tables and is fitted once.
    cell = Results({"rows": report.rows}, Settings()).cell("items", "default", "auc")
    assert report.page.count(cell) >= 2
    assert "gated (default)" in report.page


@pytest.fixture
def variants():
    """The variants, which nobody else is to find among the recommenders."""
    known = dict(RECOMMENDERS)
    from benchmarks import variants

    yield variants
    RECOMMENDERS.clear()
    RECOMMENDERS.update(known)


def test_collaborative(tmp_path, monkeypatch, variants):
    short_fit = {"epochs": 1, "passes": 1, "channels": 4}
    small_variants = {name: replace(one, epochs=1, channels=4) for name, one in variants.VARIANTS.items()}
    monkeypatch.setattr(variants, "VARIANTS", small_variants)
    monkeypatch.setattr(collaborative, "CLICK", CollaborativeConfig(**short_fit))
    monkeypatch.setattr(collaborative, "RANKING", CollaborativeConfig(**short_fit, loss="ranking"))
    monkeypatch.setattr(collaborative, "CHANGES", [{"attention": False}, {"hold_out": 0.0}])
    monkeypatch.setattr(collaborative, "RANKING_CHANGES", [{"loss": "click"}])
    report = collaborative.run(Settings(out=tmp_path))
    content = read_results(tmp_path / "collaborative.json.gz")
    assert content["rows"] == report.rows
    # Clicks: as chosen, alone and with the heuristics, two changes and four variants, and the published
    # negatives; rankings: one change.
    assert len(content["seeds"]) == 3 * (1 + 1 + 2 + 4) + 3 + 3 * 2
    auc = [row["auc"] for row in content["seeds"] if row["model"] == "attention=False"]
    assert (
        f"| attention=False | {short(statistics.mean(auc))} ± {short(statistics.stdev(auc))} |" in report.page
    )
    recall = [row["recall@10"] for row in content["seeds"] if row["model"] == "loss=click"]
    assert f"| loss=click | {short(statistics.mean(recall))} ± " in report.page
    assert {(test["negatives"], test["metric"], test["other"]) for test in content["tests"]} == {
        *(
            ("items", metric, other)
            for metric in ("auc", "acc", "auc_user")
            for other in ("as chosen + heuristics", "attention=False", "hold_out=0.0", *small_variants)
        ),
        *(("ranking", metric, "loss=click") for metric in ("recall@10", "mrr@10")),
    }
    assert "frozen negatives" in report.page


def test_every_part_is_changed_by_itself():
    for base, changes in (
        (collaborative.CLICK, collaborative.CHANGES),
        (collaborative.RANKING, collaborative.RANKING_CHANGES),
    ):
        made = list(collaborative.parts(base, changes).values())
        assert len(set(made)) == len(made)
        assert all(len(change) == 1 for change in changes)


def test_every_ablation_changes_one_choice():
    for name, variants in ablations.ABLATIONS.items():
        labels = [ablations.label(config) for config in variants.values()]
        assert labels.count("default") == 1, name
        assert all(label.count("=") == 1 for label in labels if label != "default")
        assert len(set(labels)) == len(labels)


RESULTS = ROOT / "benchmarks" / "results"


# The file, the benchmark and the data of each page that is kept.
KEPT = [
    *((name, name, "lastfm") for name in ("table2", "topk", "ablations", "collaborative", "layer")),
    ("clicks", "clicks", "bookcrossing"),
    *(
        (f"{name}_{data}", name, data)
        for name in ("clicks", "topk")
        for data in DATA
        if (RESULTS / f"{name}_{data}.md").exists()
    ),
]


@pytest.mark.parametrize(("file", "name", "data"), KEPT)
def test_the_kept_page_is_what_the_kept_figures_give(file, name, data, tmp_path, monkeypatch):
    monkeypatch.undo()  # The real models.
    for kept in (RESULTS / f"{file}.md", *RESULTS.glob(f"{file}*.json.gz")):
        shutil.copy(kept, tmp_path)
    report = importlib.import_module(f"benchmarks.{name}").redraw(Settings(out=tmp_path, data=data))
    assert report.page == (RESULTS / f"{file}.md").read_text()


def test_jobs_run_in_processes_and_keep_their_order(monkeypatch):
    # Such import nothing again. Those of a real run are interrupted in test_interrupts.py.
    forked = multiprocessing.get_context("fork")
    monkeypatch.setattr(
        experiments, "multiprocessing", Mock(wraps=multiprocessing, get_context=lambda _: forked)
    )
    jobs = [experiments.Job("a model", None, "items", seed, Settings()) for seed in (2, 0, 1)]
    assert parallel(operator.attrgetter("seed"), jobs, "seeds") == [2, 0, 1]


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, ".5000"), (-0.5, "-.5000"), (10.25, "10.2500"), (1.0, "1.0000"), (0.0, ".0000")]
)
def test_short_numbers(value, text):
    assert short(value) == text


def test_missing_data_end_in_one_line(tmp_path, monkeypatch):
    monkeypatch.undo()
    for name in ("MGWA_PYG_RAW", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "topk", "--quick", "--root", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: .*--data synthetic"):
        command.main()
