"""The run folder: what a stranger finds in it holds together."""

import json

import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation import click_metrics
from mgwa_pyg.train import CollaborativeConfig, FitConfig, MGWAConfig, RunFolder, fit

CONFIG = MGWAConfig(epochs=2)
SETTINGS = {
    "dataset": "SyntheticKG",
    "synthetic": True,
    "model": "mgwa",
    "protocols": ["entities", "items"],
    "seeds": [0, 1],
    "fit": CONFIG.to_dict(),
}


def add(run, negatives, seed):
    dataset = SyntheticKG(negatives=negatives, seed=seed)
    folder = run.fit_folder(negatives, seed)
    return run.add(dataset, negatives, seed, fit(dataset, CONFIG, folder, seed=seed))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("runs") / "run", SETTINGS)
    for negatives in SETTINGS["protocols"]:
        for seed in SETTINGS["seeds"]:
            add(run, negatives, seed)
    run.finish()
    return run


def test_everything_is_there(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert names == {
        "config.json",
        "metrics.json",
        "predictions.csv",
        "best.ckpt",
        "curves.png",
        "roc.png",
        "fits",
    }
    for name in ("curves.png", "roc.png"):
        assert (finished.path / name).read_bytes().startswith(b"\x89PNG")


def test_metrics_follow_from_the_predictions(finished):
    predictions = pd.read_csv(finished.path / "predictions.csv")
    assert list(predictions.columns) == [
        "model", "negatives", "seed", "split", "user", "item", "label", "score",
    ]  # fmt: skip
    rows = json.loads((finished.path / "metrics.json").read_text())["rows"]
    assert len(rows) == 28  # A model and six heuristics, two protocols and seeds.
    for row in rows:
        key = ["model", "negatives", "seed", "split"]
        part = predictions[(predictions[key] == [row[name] for name in key]).all(axis=1)]
        again = click_metrics(part["label"], part["score"])
        assert again == pytest.approx({name: row[name] for name in again}, abs=1e-9)
        data = SyntheticKG(negatives=row["negatives"], seed=row["seed"])[0]
        listens = data["user", "listens", "entity"]
        pairs = listens.edge_label_index[:, listens.test_mask]
        assert part[["user", "item"]].to_numpy().T.tolist() == pairs.tolist()
        assert part["label"].tolist() == listens.edge_label[listens.test_mask].tolist()


def test_metrics_have_the_fields_of_the_contract(finished):
    metrics = json.loads((finished.path / "metrics.json").read_text())
    assert metrics["dataset"] == "SyntheticKG"
    assert metrics["synthetic"] is True
    for row in metrics["rows"]:
        assert set(row) == {
            "model", "negatives", "seed", "split", "auc", "acc", "f1", "epochs",
            "train_seconds", "rows_per_second",
            "auc_user", "auc_warm", "auc_cold", "threshold", "acc_calibrated", "f1_calibrated",
        }  # fmt: skip
    assert len(metrics["summary"]) == 14
    config = json.loads((finished.path / "config.json").read_text())
    assert FitConfig.from_dict(config["fit"]) == CONFIG
    assert config["environment"]["torch"] == torch.__version__


def test_the_best_checkpoint_is_that_of_the_item_protocol(finished):
    best = torch.load(finished.path / "best.ckpt", weights_only=True)
    results = {
        seed: json.loads((finished.fit_folder("items", seed) / "result.json").read_text()) for seed in (0, 1)
    }
    seed = max(results, key=lambda seed: results[seed]["val_auc"])
    kept = torch.load(finished.fit_folder("items", seed) / "best.ckpt", weights_only=True)
    for name, tensor in kept["state_dict"].items():
        assert torch.equal(best["state_dict"][name], tensor)


def test_a_run_goes_on_where_it_was_interrupted(finished, tmp_path):
    run = RunFolder(tmp_path / "run", SETTINGS)
    add(run, "entities", 0)
    # The process ends here, and another one takes over.
    run = RunFolder.resume(tmp_path / "run")
    todo = [
        (negatives, seed)
        for negatives in run.settings["protocols"]
        for seed in run.settings["seeds"]
        if not run.has(negatives, seed)
    ]
    assert todo == [("entities", 1), ("items", 0), ("items", 1)]
    for negatives, seed in todo:
        add(run, negatives, seed)
    run.finish()
    figures = [
        [
            {key: row[key] for key in ("model", "negatives", "seed", "auc", "acc", "f1", "epochs")}
            for row in json.loads((folder.path / "metrics.json").read_text())["rows"]
        ]
        for folder in (run, finished)
    ]
    assert figures[0] == figures[1]


def test_a_run_folder_keeps_to_the_data_of_the_fit(tmp_path):
    def drawn(data):
        listens = data["user", "listens", "entity"]
        listens.test_mask &= torch.rand(listens.test_mask.shape) < 0.5
        return data

    dataset = SyntheticKG(transform=drawn)
    run = RunFolder(tmp_path / "run", {**SETTINGS, "protocols": ["items"], "seeds": [0]})
    result = fit(dataset, MGWAConfig(epochs=1, transe=True), run.fit_folder("items", 0))
    run.add(dataset, "items", 0, result)
    run.finish()
    predictions = pd.read_csv(run.path / "predictions.csv")
    listens = result.data["user", "listens", "entity"]
    rows = predictions[predictions["model"] == "mgwa"]
    assert rows[["user", "item"]].to_numpy().T.tolist() == (
        listens.edge_label_index[:, listens.test_mask].tolist()
    )

    def refused(name):
        raise AssertionError(name)

    for path in run.path.rglob("*.json"):  # No NaN, which JSON does not have.
        json.loads(path.read_text(), parse_constant=refused)


def test_folders_are_not_overwritten(finished, tmp_path):
    with pytest.raises(FileExistsError, match="holds a run already"):
        RunFolder(finished.path, SETTINGS)
    with pytest.raises(NotADirectoryError, match=r"config\.json is a file: choose a folder"):
        RunFolder(finished.path / "config.json", SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        RunFolder.resume(tmp_path)


@pytest.mark.parametrize(("part", "name"), [("val", "validation"), ("test", "test")])
@pytest.mark.parametrize("labels", [(1.0,), ()])
def test_rows_that_have_no_figures(tmp_path, part, name, labels):
    def transform(data):
        listens = data["user", "listens", "entity"]
        listens[f"{part}_mask"] &= torch.isin(listens.edge_label, torch.tensor(labels))
        return data

    dataset = SyntheticKG(num_users=20, num_items=30, num_entities=60, transform=transform)
    config = CollaborativeConfig(epochs=1, passes=1, loss="ranking")
    run = RunFolder(tmp_path / "run", {**SETTINGS, "model": "collaborative"})
    result = fit(dataset, config, run.fit_folder("items", 0))
    with pytest.raises(ValueError, match=rf"the {name} rows are \d+ positives and 0 .*best\.ckpt"):
        run.add(dataset, "items", 0, result)
    assert not run.has("items", 0)
