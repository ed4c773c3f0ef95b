"""Full ranking on the fixed splits: figures, tests over users, and recommendations that give both again."""

import gzip
import json
import statistics
import sys
import types

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as command
from benchmarks import experiments, topk, tuned
from benchmarks.data import RANKED, load
from benchmarks.harness import NoDataError, Settings, read_results
from benchmarks.rankings import Ranking, recommendations_file
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import Popularity, fit_heuristics, full_ranking, paired_test
from mgwa_pyg.train import CollaborativeConfig, LightGCNConfig, MGWAConfig
from tests.benchmarks.test_experiments import small

COLUMNS = ["model", "seed", "user", "item", "rank"]


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    """Small models, one process, and no folder with what a search has chosen."""
    options = {"epochs": 1, "batch_size": 128, "loss": "ranking"}
    models = {
        "MGWA": MGWAConfig(**options),
        "LightGCN": LightGCNConfig(**options),
        "CollaborativeMGWA": CollaborativeConfig(epochs=1, passes=1, channels=4, loss="ranking"),
    }
    monkeypatch.setattr(topk, "MODELS", models)
    monkeypatch.setattr(topk, "CLICKS", CollaborativeConfig(epochs=1, passes=1, channels=4))
    monkeypatch.setattr(tuned, "TUNED", tmp_path / "tuned")
    monkeypatch.setattr(experiments, "parallel", lambda function, jobs, name: [function(job) for job in jobs])


@pytest.fixture
def synthetic(monkeypatch):
    """Small data in place of the large ones."""
    monkeypatch.setattr(experiments, "load", small)


def figures_of(recommendations, test):
    """Recall@10 and MRR@10 of each model with pandas alone; `test` has columns user and item."""
    found = recommendations.merge(test.assign(hit=1), on=["user", "item"], how="left").fillna({"hit": 0})
    found["reciprocal"] = found["hit"] / found["rank"]
    each = found.groupby(["model", "seed", "user"]).agg(hits=("hit", "sum"), mrr=("reciprocal", "max"))
    counts = test.groupby("user").size()
    each["recall"] = each["hits"] / each.index.get_level_values("user").map(counts)
    sums = each.groupby(["model", "seed"])[["recall", "mrr"]].sum() / len(
        counts
    )  # Some users may have no line.
    return sums.groupby("model").mean()


def check(report, file, test):
    recommendations = pd.read_csv(file, dtype={"user": str, "item": str})
    assert list(recommendations) == COLUMNS
    place = recommendations.groupby(["model", "seed", "user"])["rank"]
    assert (place.cumcount() + 1 == recommendations["rank"]).all()
    assert recommendations["rank"].max() == 10
    want = figures_of(recommendations, test)
    table = {(row["implementation"], row["metric"]): row["value"] for row in report.rows}
    assert set(want.index) == {model for model, _ in table}
    for model, (recall, mrr) in want.iterrows():
        assert table[model, "recall@10"] == pytest.approx(recall, abs=1e-6)
        assert table[model, "mrr@10"] == pytest.approx(mrr, abs=1e-6)
    return recommendations


@pytest.mark.usefixtures("synthetic")
def test_figures_are_those_of_a_full_ranking(tmp_path):
    settings = Settings(out=tmp_path, quick=True)
    report = topk.run(settings)
    got = {(row["implementation"], row["metric"]): row["value"] for row in report.rows}
    dataset = small(settings, RANKED, 0)
    for name, heuristic in fit_heuristics(dataset[0], dataset.num_items).items():
        want = full_ranking(heuristic.score_all, dataset[0], dataset.num_items)
        assert {key: got[name, key] for key in want} == pytest.approx(want)
    assert all(0 < got["MGWA", metric] <= 1 for metric in ("recall@10", "ndcg@20", "mrr@10"))
    assert "| AdaKG, published | .3053 | .1398 |" in report.page
    assert report.page.startswith("# Full ranking on the fixed split: Last.FM\n")
    assert "AdaKG" not in topk.run(Settings(out=tmp_path, quick=True, data="ml-100k")).page
    assert (
        "| AdaKG, published | .1112 | .0552 |"
        in topk.run(Settings(out=tmp_path, quick=True, data="bookcrossing")).page
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        f"topk{data}.{kind}" for data in ("", "_ml-100k", "_bookcrossing") for kind in ("md", "json.gz")
    }


@pytest.mark.usefixtures("synthetic")
def test_differences_are_tested_over_users(tmp_path):
    file = tmp_path / "first.csv"
    report = topk.run(Settings(out=tmp_path, data="synthetic", recommendations=file))
    content = read_results(tmp_path / "topk.json.gz")
    assert report.tests == content["tests"]
    names = dict.fromkeys(row["implementation"] for row in report.rows)
    others = [name for name in names if name != "CollaborativeMGWA"]
    for metric in ("recall@10", "mrr@10"):
        tests = [test for test in content["tests"] if test["metric"] == metric]
        assert [test["other"] for test in tests] == others
        assert {(test["negatives"], test["model"]) for test in tests} == {(RANKED, "CollaborativeMGWA")}
        assert all(test["p_holm"] >= test["p"] for test in tests)

    # By hand, from the recommendations: the mean of the seeds of each user.
    data = small(None, RANKED, 0)[0]
    links = interactions(data)
    user, item = links.edge_label_index[:, links.test_mask & (links.edge_label == 1)].numpy()
    count = np.bincount(user)
    pairs = set(zip(user.tolist(), item.tolist(), strict=True))
    recall = {}
    for (model, _), lines in pd.read_csv(file).groupby(["model", "seed"]):
        hits = np.zeros(len(count))
        for pair in set(zip(lines["user"].tolist(), lines["item"].tolist(), strict=True)) & pairs:
            hits[pair[0]] += 1
        recall.setdefault(model, []).append(hits[count > 0] / count[count > 0])
    assert {model: len(seeds) for model, seeds in recall.items()} == {
        name: 5 if name.removesuffix(" + heuristics") in topk.models("synthetic") else 1 for name in names
    }
    for test in content["tests"]:
        if test["metric"] != "recall@10":
            continue
        ours, theirs = (np.mean(recall[test[key]], axis=0) for key in ("model", "other"))
        want = paired_test(ours - theirs, 10_000, seed=0)
        assert {key: test[key] for key in want} == pytest.approx(want, abs=1e-9)
        values = [row["recall@10"] for row in content["seeds"] if row["model"] == test["other"]]
        cell = f"{statistics.mean(values):.4f}"[1:]
        assert f"| {test['other']} | {cell}" in report.page
        assert f" | {test['mean']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}] | " in report.page


TRIPLES = "head_id:token\trelation_id:token\ttail_id:token\n" + "".join(
    f"e{item}\tr{item % 3}\tt{item % 7}\n" for item in range(30)
)
LINKS = "item_id:token\tentity_id:token\n" + "".join(f"b{item}\te{item}\n" for item in range(30))


@pytest.fixture
def atomic_files(tmp_path, monkeypatch):
    """Atomic files of both data sets that have some, read in place; returns the rows."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"b{item}")
        for user in range(25)
        for item in generator.choice(30, size=12, replace=False).tolist()
    ]
    generator.shuffle(rows)
    rows = [tuple(row) for row in rows]

    def write(name, kinds):
        folder = tmp_path / "raw" / "recbole" / name
        folder.mkdir(parents=True)
        for kind, text in {"kg": TRIPLES, "link": LINKS, **kinds}.items():
            (folder / f"{name}.{kind}").write_text(text)

    def table(rows):
        return "user_id:token\titem_id:token\n" + "".join(f"{user}\t{item}\n" for user, item in rows)

    parts = {"train": rows[:200], "valid": rows[200:240], "test": rows[240:]}
    write("book-crossing", {f"{part}.inter": table(some) for part, some in parts.items()})
    ratings = "".join(f"{user}\t{item}\t{row % 5 + 1}\n" for row, (user, item) in enumerate(rows))
    write("ml-100k", {"inter": f"user_id:token\titem_id:token\trating:float\n{ratings}"})
    for path in (tmp_path / "raw").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setenv("MGWA_PYG_RAW", str(tmp_path / "raw"))
    return rows


@pytest.mark.parametrize("name", ["first.csv", "first.csv.gz"])
def test_recommendations_give_the_figures_again(atomic_files, tmp_path, name):
    file, root = tmp_path / "new" / name, tmp_path / "data"
    settings = Settings(out=tmp_path, root=root, quick=True, data="bookcrossing", recommendations=file)
    report = topk.run(settings)
    test = pd.DataFrame(atomic_files[240:], columns=["user", "item"])
    recommendations = check(report, file, test)
    assert set(recommendations["user"]) == set(test["user"])
    seen = pd.DataFrame(atomic_files[:240], columns=["user", "item"])
    assert len(recommendations.merge(seen, on=["user", "item"])) == 0
    assert (file.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert {path.relative_to(root).parts[0] for path in root.rglob("*.pt")} == {"RecBoleKG"}
    assert [path.name for path in file.parent.iterdir()] == [name]


def test_movies_are_those_with_good_ratings_split_once(atomic_files, tmp_path):
    file = tmp_path / "first.csv"
    settings = Settings(
        out=tmp_path, root=tmp_path / "data", quick=True, data="ml-100k", recommendations=file
    )
    report = topk.run(settings)
    dataset = load(settings, RANKED, 3)
    assert dataset.seed == 0
    assert dataset.split == "per_user"
    assert dataset.interaction.edge == "watches"
    liked = {pair for row, pair in enumerate(atomic_files) if row % 5 + 1 >= 4}
    links = interactions(dataset[0])
    positive = links.edge_label == 1

    def pairs(mask):
        user, item = links.edge_label_index[:, mask & positive].tolist()
        return [(dataset.user_ids[u], dataset.item_ids[i]) for u, i in zip(user, item, strict=True)]

    assert set(pairs(positive)) == liked
    check(report, file, pd.DataFrame(pairs(links.test_mask), columns=["user", "item"]))

    clicks = load(settings, "items", 3)
    assert (clicks.seed, clicks.split, clicks.negatives) == (3, "random", "items")
    assert clicks.num_interactions == len(liked)


def test_places_that_no_item_is_left_for_are_left_out(tmp_path):
    ids = types.SimpleNamespace(user_ids=[7, 9], item_ids=["a", "b, c"])
    ranking = Ranking("a model, so", 3, np.array([0, 1]), np.array([[1, -1], [0, 1]]), {})
    with recommendations_file(tmp_path / "first.csv") as write:
        write(ids, [ranking])
    assert (tmp_path / "first.csv").read_text() == (
        'model,seed,user,item,rank\n"a model, so",3,7,"b, c",1\n"a model, so",3,9,a,1\n'
        '"a model, so",3,9,"b, c",2\n'
    )


@pytest.mark.usefixtures("synthetic")
def test_recommendations_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "new" / "first.csv"

    def fails(function, jobs, name):
        function(jobs[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "parallel", fails)
    with pytest.raises(KeyboardInterrupt):
        topk.run(Settings(out=tmp_path, quick=True, recommendations=file))
    assert not file.parent.exists()
    (tmp_path / "file").touch()
    monkeypatch.setattr(experiments, "parallel", lambda *_: pytest.fail("something was fitted"))
    with pytest.raises(FileExistsError):
        topk.run(Settings(out=tmp_path, quick=True, recommendations=tmp_path / "file" / "first.csv"))


@pytest.mark.usefixtures("synthetic")
def test_the_command_runs_on_synthetic_data(tmp_path, monkeypatch):
    rows, file, out = tmp_path / "rows.json", tmp_path / "first.csv.gz", tmp_path / "out"
    arguments = ["--data", "synthetic", "--quick", "--out", str(out)]
    more = ["--json", str(rows), "--recommendations", str(file)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", "topk", *arguments, *more])
    command.main()
    content = json.loads(rows.read_text())
    assert {row["n"] for row in content["rows"]} == {1}
    assert content["tests"] == read_results(out / "topk.json.gz")["tests"]
    with gzip.open(file, "rt") as lines:
        assert next(lines) == "model,seed,user,item,rank\n"


def test_what_a_search_has_chosen_is_taken(tmp_path):
    before, lastfm = topk.models("ml-100k"), topk.models("lastfm")
    assert {name: config.to_dict() for name, config in before.items() if "," not in name} == {
        name: config.to_dict() for name, config in topk.MODELS.items()
    }
    chosen = CollaborativeConfig(channels=8, dropout=0.3, loss="ranking")
    tuned.TUNED.mkdir()
    (tuned.TUNED / "tuned_ml-100k_collaborative_ranking.json").write_text(
        json.dumps({"chosen": {"config": chosen.to_dict()}})
    )
    after = topk.models("ml-100k")
    assert after["CollaborativeMGWA"] == chosen
    for name, change in (
        ("no item-item part", {"item_item": False}),
        ("as SVD++", {"num_layers": 0, "item_item": False, "knowledge_graph": False}),
        ("no knowledge graph", {"knowledge_graph": False}),
    ):
        assert after[f"CollaborativeMGWA, {name}"].to_dict() == {**chosen.to_dict(), **change}
    assert after["MGWA"] == before["MGWA"]
    assert topk.models("lastfm") == lastfm
    clicks = [models["CollaborativeMGWA, clicks"] for models in (lastfm, before, after)]
    assert [config.passes for config in clicks] == [topk.CLICKS.passes, 2, 2]


@pytest.mark.parametrize(
    ("data", "folder", "address"),
    [("bookcrossing", "book-crossing", "1371149/LightKG"), ("ml-100k", "ml-100k", "RUCAIBox/RecBole")],
)
@pytest.mark.parametrize("shared", [True, False])
def test_missing_files_are_named_with_where_they_are_public(
    data, folder, address, shared, tmp_path, monkeypatch
):
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    if shared:
        monkeypatch.setenv("MGWA_PYG_RAW", str(tmp_path / "raw"))
    place = tmp_path / ("raw" if shared else "data") / "recbole" / folder
    with pytest.raises(NoDataError, match=rf"{folder}\.kg, {folder}\.link.*https://.*{address}") as error:
        load(Settings(data=data, root=tmp_path / "data"), RANKED, 0)
    assert str(place) in str(error.value)
    assert not place.exists()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("data", "file", "num_users"),
    [
        ("lastfm", "lastfm/lightkg_split/lastfm.test.inter", 1_867),
        ("bookcrossing", "recbole/book-crossing/book-crossing.test.inter", 3_433),
    ],
)
def test_real_recommendations_give_the_figures_again(
    data, file, num_users, lastfm_raw, tmp_path, monkeypatch
):
    def popularity(data, num_items):
        return {"popularity": Popularity(data, num_items)}

    monkeypatch.setattr(topk, "models", lambda data: {})
    monkeypatch.setattr(experiments, "fit_heuristics", popularity)
    first = tmp_path / "first.csv"
    report = topk.run(Settings(out=tmp_path, root=tmp_path / "data", data=data, recommendations=first))
    test = pd.read_csv(lastfm_raw / file, sep="\t", dtype=str)
    test = test.rename(columns={"user_id:token": "user", "item_id:token": "item"})[["user", "item"]]
    recommendations = check(report, first, test)
    assert recommendations["user"].nunique() == num_users
