"""The search: what is tried and chosen, that validation alone counts, and that it goes on where it ended."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.recommenders import RECOMMENDERS, FitConfig
from mgwa_pyg.train import CollaborativeConfig, DivergedError, fit, tune
from mgwa_pyg.train import tune as tune_module
from tests.graphs import SIZES

module = sys.modules["mgwa_pyg.train.tune"]
BASE = CollaborativeConfig(
    epochs=2, passes=1, channels=4, num_layers=1, lr=2.6e-2, degree_power=0.5, attention=True
)
OPTIONS = {"processes": 1, "device": "cpu", "progress": False}


def suggested(self, trial):
    """A space with a hyper-parameter that only some trials have, and words of its own."""
    lr = trial.suggest_float("lr", 5e-3, 5e-2, log=True)
    layers = trial.suggest_int("num_layers", 0, 2)
    channels = trial.suggest_categorical("channels", [4, 8])
    power = trial.suggest_float("degree_power", 0.2, 0.7) if layers else self.degree_power
    attention = trial.suggest_categorical("attention", ["plain", "by relation"]) == "by relation"
    chosen = {"lr": lr, "num_layers": layers, "channels": channels, "attention": attention}
    return replace(self, degree_power=power, **chosen)


REAL = CollaborativeConfig.suggested


@pytest.fixture(autouse=True)
def _space(monkeypatch):
    monkeypatch.setattr(CollaborativeConfig, "suggested", suggested)


@pytest.fixture
def judged(monkeypatch):
    """Trials that cost nothing: what they are worth is known, and what was judged is kept."""
    jobs = []

    def judge(dataset, job):
        jobs.append(job)
        power = getattr(job.config, "degree_power", 0.0)
        value = None if job.config.num_layers == 2 else power + job.config.lr + job.seed
        return module._Found(value, 1, 0.5)

    monkeypatch.setattr(module, "_judged", judge)
    return SimpleNamespace(jobs=jobs)


def content(folder):
    return json.loads((folder / "search.json").read_text())


def test_a_trial_is_judged_by_the_validation_rows_of_its_fits(small, tmp_path):
    base = replace(BASE, loss="ranking")
    config = tune(small, base, tmp_path / "search", trials=2, seeds=2, **OPTIONS)
    kept = content(tmp_path / "search")
    assert [trial["trial"] for trial in kept["trials"]] == [1, 2]
    assert kept["trials"][0]["config"] == base.to_dict()
    assert kept["monitor"] == "val_recall"
    for trial in kept["trials"]:
        config_of, number = FitConfig.from_dict(trial["config"]), trial["trial"]
        fits = [
            fit(small, config_of, tmp_path / f"{number}-{seed}", seed=seed, device="cpu") for seed in range(2)
        ]
        values = [max(epoch["val_recall"] for epoch in one.history) for one in fits]
        assert trial["values"] == values
        assert trial["value"] == pytest.approx(sum(values) / 2)
        assert trial["best_epochs"] == [one.best_epoch for one in fits]
    assert config == FitConfig.from_dict(max(kept["trials"], key=lambda one: one["value"])["config"])
    assert kept["chosen"]["config"] == config.to_dict()
    assert (config.epochs, config.loss) == (2, "ranking")


def test_test_rows_are_never_looked_at(small, tmp_path):
    def flipped(data):
        links = data["user", "listens", "entity"]
        links.edge_label = torch.where(links.test_mask, 1 - links.edge_label, links.edge_label)
        items = torch.randint(0, small.num_items, (int(links.test_mask.sum()),))
        links.edge_label_index = links.edge_label_index.clone()
        links.edge_label_index[1, links.test_mask] = items
        return data

    other = SyntheticKG(**SIZES, transform=flipped)
    # A pair may now be two things, which only a check of the data minds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["mgwa_pyg.train.fit"], "check_data", lambda dataset, data: None)
        for dataset, name in ((small, "one"), (other, "other")):
            tune(dataset, BASE, tmp_path / name, trials=4, **OPTIONS)
    one, two = (content(tmp_path / name) for name in ("one", "other"))
    assert one["dataset"] != two["dataset"]
    for first, second in zip(one["trials"], two["trials"], strict=True):
        assert first["config"] == second["config"]
        assert first["values"] == second["values"]


def test_the_space_is_searched_and_the_best_is_chosen(small, tmp_path, judged):
    config = tune(small, BASE, tmp_path, trials=25, seeds=2, seed=3, **OPTIONS)
    assert [job.seed for job in judged.jobs] == 25 * [3, 4]
    assert judged.jobs[0].config == BASE
    trials = content(tmp_path)["trials"]
    known = {"lr": BASE.lr, "num_layers": 1, "channels": 4, "degree_power": 0.5, "attention": "by relation"}
    assert trials[0]["params"] == known
    for trial in trials:
        assert 5e-3 <= trial["config"]["lr"] <= 5e-2
        assert trial["config"]["channels"] in (4, 8)
        assert ("degree_power" in trial["params"]) == (trial["config"]["num_layers"] > 0)
        assert (trial["value"] is None) == (trial["config"]["num_layers"] == 2)
        if trial["value"] is not None:
            known = trial["config"]["degree_power"] + trial["config"]["lr"] + 3.5
            assert trial["value"] == pytest.approx(known)
    best = max((one for one in trials if one["value"] is not None), key=lambda one: one["value"])
    assert config.to_dict() == best["config"]
    # The estimator has learned where values are high, where random ones have a mean of .45.
    power = [one["params"]["degree_power"] for one in trials[12:] if one["config"]["num_layers"] == 1]
    assert sum(power) / len(power) > 0.55


def test_switches_are_turned_one_by_one_before_anything_else(small, tmp_path, judged, monkeypatch):
    monkeypatch.setattr(CollaborativeConfig, "suggested", REAL)
    base = CollaborativeConfig()
    tune(small, base, tmp_path / "one", trials=6, **OPTIONS)
    found = [job.config for job in judged.jobs]
    switches = ("knowledge_graph", "attention", "item_item")
    assert found[:4] == [base, *(replace(base, **{name: not getattr(base, name)}) for name in switches)]
    assert all(one not in found[:4] for one in found[4:])
    tune(small, base, tmp_path / "two", trials=2, **OPTIONS)
    tune(small, base, tmp_path / "two", trials=6, **OPTIONS)
    assert [job.config for job in judged.jobs[6:]] == found


@pytest.mark.parametrize("model", RECOMMENDERS)
@pytest.mark.parametrize("loss", ["click", "ranking"])
def test_every_model_has_a_space(small, tmp_path, model, loss, judged):
    kind = RECOMMENDERS[model].config_class
    base = replace(kind.for_ranking() if loss == "ranking" else kind(), epochs=7)
    tune(small, base, tmp_path, trials=4, **OPTIONS)
    configs = [job.config for job in judged.jobs]
    assert configs[0] == base
    assert len({config.lr for config in configs}) == 4
    assert {(type(config), config.loss, config.epochs) for config in configs} == {(kind, loss, 7)}


def test_a_search_goes_on_as_if_it_had_not_ended(small, tmp_path, judged):
    for count in (2, 5, 9):
        config = tune(small, BASE, tmp_path / "parts", trials=count, **OPTIONS)
    assert len(judged.jobs) == 9
    assert tune(small, BASE, tmp_path / "whole", trials=9, **OPTIONS) == config
    parts, whole = content(tmp_path / "parts"), content(tmp_path / "whole")
    assert parts["trials"] == whole["trials"]
    assert tune(small, BASE, tmp_path / "parts", trials=4, **OPTIONS) == config  # There is nothing to do.
    assert len(judged.jobs) == 18


def test_what_is_interrupted_keeps_the_rounds_that_are_done(small, tmp_path, judged, monkeypatch):
    judge = module._judged

    def interrupt(dataset, job):
        if len(judged.jobs) == 3:
            raise KeyboardInterrupt
        return judge(dataset, job)

    monkeypatch.setattr(module, "_judged", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune(small, BASE, tmp_path, trials=5, **OPTIONS)
    assert len(content(tmp_path)["trials"]) == 3
    monkeypatch.setattr(module, "_judged", judge)
    tune(small, BASE, tmp_path, trials=5, **OPTIONS)
    assert len(content(tmp_path)["trials"]) == len(judged.jobs) == 5


def test_no_round_begins_that_might_end_too_late(small, tmp_path, judged, monkeypatch):
    seconds = iter(range(0, 10_000, 60))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    tune(small, BASE, tmp_path, minutes=3.5, **OPTIONS)  # A minute each.
    assert len(judged.jobs) == 3
    assert content(tmp_path)["minutes"] == 3
    tune(small, BASE, tmp_path, minutes=5, **OPTIONS)  # In all.
    assert len(judged.jobs) == 5
    tune(small, BASE, tmp_path / "short", minutes=0.1, **OPTIONS)  # One is always tried.
    assert len(judged.jobs) == 6


def test_one_may_start_outside_the_space(small, tmp_path, judged):
    base = replace(BASE, lr=0.2, channels=5, degree_power=0.9)
    assert tune(small, base, tmp_path, trials=4, **OPTIONS) == base
    assert judged.jobs[0].config == base
    assert content(tmp_path)["trials"][0]["params"] is None
    assert all(job.config.lr <= 5e-2 for job in judged.jobs[1:])


def test_a_search_of_something_else_is_not_gone_on_with(small, tmp_path, judged):
    tune(small, BASE, tmp_path, trials=2, **OPTIONS)
    with pytest.raises(ValueError, match="a search with other hyper-parameters: go on with those"):
        tune(small, replace(BASE, epochs=3), tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="other seeds"):
        tune(small, BASE, tmp_path, seeds=2, **OPTIONS)
    with pytest.raises(ValueError, match="other data"):
        tune(SyntheticKG(**SIZES, seed=1), BASE, tmp_path, **OPTIONS)
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(ValueError, match=r"damaged .*: delete it, and search again"):
        tune(small, BASE, tmp_path, **OPTIONS)


def test_fits_that_diverge_do_not_end_a_search(small, tmp_path):
    base = replace(BASE, lr=1e30)
    tune(small, base, tmp_path / "some", trials=2, **OPTIONS)
    values = [trial["value"] for trial in content(tmp_path / "some")["trials"]]
    assert values[0] is None
    assert 0 < values[1] < 1
    with pytest.raises(DivergedError, match=r"all 1 trials .* lower learning rate than lr=1e\+30"):
        tune(small, base, tmp_path / "all", trials=1, **OPTIONS)
    assert content(tmp_path / "all")["chosen"] is None


def test_each_trial_has_a_line(small, tmp_path, judged, capsys):
    tune(small, BASE, tmp_path, trials=2, **{**OPTIONS, "progress": True})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "trial 1 of 2: val AUC 0.5260, best 0.5260 of trial 1, 30.0 minutes left"
    assert len(lines) == 2
    tune(small, BASE, tmp_path / "quiet", trials=2, **OPTIONS)
    assert capsys.readouterr().err == ""


def test_mistakes_are_named(small, tmp_path, monkeypatch):
    def without(data):
        links = data["user", "listens", "entity"]
        links.val_mask = torch.zeros_like(links.val_mask)
        return data

    with pytest.raises(ValueError, match="no validation rows"):
        tune(SyntheticKG(**SIZES, transform=without), BASE, tmp_path, **OPTIONS)
    for option in ({"trials": 0}, {"minutes": 0}, {"minutes": "long"}, {"processes": 0}, {"seeds": 0}):
        with pytest.raises(ValueError, match=next(iter(option))):
            tune_module(small, BASE, tmp_path, **{**OPTIONS, **option})
    with pytest.raises(TypeError, match="folder"):
        tune(small, BASE, None, **OPTIONS)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mgwa_pyg\[search\]'"):
        tune(small, BASE, tmp_path, **OPTIONS)
