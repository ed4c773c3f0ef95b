"""A run beside the heuristics: figures against loops over users, files that others read, clear errors."""

import math
import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import KGRecDataset, KGRecTables, SyntheticKG
from mgwa_pyg.evaluation import HEURISTICS, full_ranking, holm, paired_test
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import restore
from mgwa_pyg.train import CollaborativeConfig, LightGCNConfig, RippleNetConfig, evaluate, fit, plots
from tests.graphs import SIZES

K = 4
NAMES = ["popularity", "item-knn", "ease", "shared-tails"]
CONFIG = CollaborativeConfig(epochs=2, channels=4, loss="ranking")


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """A run, and its evaluation."""
    folder = tmp_path_factory.mktemp("run")
    fit(small, CONFIG, folder, device="cpu")
    return folder, evaluate(folder, k=K)


def by_hand(dataset, score_all):
    """Each user's first items, and the metrics by loops over them."""
    data = dataset[0]
    links = data["user", "listens", "entity"]
    positive = links.edge_label == 1
    parts = {
        name: links.edge_label_index[:, links[f"{name}_mask"] & positive].T.tolist()
        for name in ("train", "val", "test")
    }
    count = [sum(item == other for _, other in parts["train"]) for item in range(dataset.num_items)]
    rows, lists, recalls = [], {}, []
    for user in sorted({user for user, _ in parts["test"]}):
        known = {item for part in ("train", "val") for other, item in parts[part] if other == user}
        wanted = {item for other, item in parts["test"] if other == user}
        score = score_all(torch.tensor([user]))[0].tolist()
        left = [item for item in range(dataset.num_items) if item not in known]
        lists[user] = first = sorted(left, key=lambda item: (-score[item], item))[:K]
        hits = [item in wanted for item in first]
        places = [place for place, hit in enumerate(hits, start=1) if hit]
        best = sum(1 / math.log2(place + 1) for place in range(1, min(K, len(wanted)) + 1))
        recalls.append(len(places) / len(wanted))
        rows.append(
            {
                "recall": recalls[-1],
                "ndcg": sum(1 / math.log2(place + 1) for place in places) / best,
                "mrr": 1 / places[0] if places else 0,
                "hit_rate": bool(places),
                "precision": len(places) / K,
                "map": sum(sum(hits[:place]) / place for place in places) / min(K, len(wanted)),
                "popularity": np.mean([count[item] for item in first]),
                "novelty": np.mean([-math.log2(max(count[item], 1) / dataset.num_users) for item in first]),
            }
        )
    figures = pd.DataFrame(rows).astype(float).mean().to_dict()
    figures["coverage"] = len(set().union(*lists.values())) / dataset.num_items
    users = list(lists)
    pairs = [(a, b) for number, a in enumerate(users) for b in users[:number]]
    figures["personalization"] = np.mean([1 - len({*lists[a]} & {*lists[b]}) / K for a, b in pairs])
    return {f"{name}@{K}": value for name, value in figures.items()}, np.array(recalls), lists


def test_the_figures_are_those_of_loops_over_users(small, run):
    folder, table = run
    assert list(table["model"]) == ["collaborative", *NAMES]
    scorers = [restore(folder / "best.ckpt").score_all]
    scorers += [HEURISTICS[name](small[0], small.num_items).score_all for name in NAMES]
    with torch.no_grad():
        wanted = [by_hand(small, score_all) for score_all in scorers]
    for row, (figures, _, _) in zip(table.to_dict("records"), wanted, strict=True):
        assert {name: row[name] for name in figures} == pytest.approx(figures, rel=1e-4)
    recalls = [recall for _, recall, _ in wanted]
    tests = [paired_test(recalls[0] - other) for other in recalls[1:]]
    for column, key in (("difference", "mean"), ("low", "low"), ("high", "high")):
        assert list(table[column][1:]) == pytest.approx([test[key] for test in tests])
    assert list(table["p"][1:]) == pytest.approx(holm([test["p"] for test in tests]))
    assert table.loc[0, ["difference", "low", "high", "p"]].isna().all()


def test_what_is_left_in_the_run_folder(small, run):
    folder, table = run
    files = {path.name for path in folder.iterdir()}
    assert files == {"best.ckpt", "evaluation.csv", "evaluation.png", "recommendations.csv"}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "evaluation.csv"), table)
    assert (folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    recommendations = pd.read_csv(folder / "recommendations.csv")
    assert list(recommendations.columns) == ["user", "item", "rank", "score"]
    links = small[0]["user", "listens", "entity"]
    seen = {
        (user, item)
        for user, item in links.edge_label_index[:, (links.edge_label == 1) & ~links.test_mask].T.tolist()
    }
    recommender = Recommender.load(folder)
    for user, rows in recommendations.groupby("user"):
        known = recommender.recommend(user, k=small.num_items, include_held_out=True)
        known = known[[(user, item) not in seen for item in known["item"]]][:K]
        assert list(rows["item"]) == list(known["item"])
        assert list(rows["rank"]) == [1, 2, 3, 4]
        np.testing.assert_allclose(rows["score"], known["score"], rtol=1e-4, atol=1e-4)


def test_the_plot_has_the_values_of_the_table_and_intervals_over_users(small, run, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, file: figures.append(figure))
    names = ["collaborative", "ease", "popularity"]
    table = evaluate(run[0], k=K, beside=names[1:])
    axes, generator = figures[0].axes, np.random.default_rng(1)
    assert [ax.get_title() for ax in axes] == ["Recall@4", "NDCG@4", "MRR@4", "coverage@4"]
    for ax in axes:
        assert ax.yaxis_inverted()  # The first one stands on top.
        values = list(table[ax.get_title().lower()])
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(values)
        assert [text.get_text() for text in ax.texts] == [f"{value:.4f}" for value in values]
    for ax in axes[::2]:  # The names stand on the left alone.
        assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert [len(ax.collections) for ax in axes] == [1, 1, 1, 0]  # Coverage is of all users together.
    with torch.no_grad():
        _, recall, _ = by_hand(small, restore(run[0] / "best.ckpt").score_all)
    means = generator.choice(recall, (4000, len(recall))).mean(axis=1)
    line = axes[0].collections[0].get_segments()[0]
    assert line[:, 0] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    assert f"bootstrap over users (n = {len(recall)})" in figures[0].get_supxlabel()


@pytest.mark.parametrize(
    "config",
    [LightGCNConfig(loss="ranking", epochs=1), RippleNetConfig(epochs=1)],
    ids=["lightgcn", "ripplenet"],
)
def test_any_recommender_beside_any_heuristics(small, tmp_path, config):
    fit(small, config, tmp_path, device="cpu")
    table = evaluate(tmp_path, k=10, beside=["stack"])
    assert list(table["model"]) == [config.model, "stack"]
    stack = full_ranking(
        HEURISTICS["stack"](small[0], small.num_items).score_all, small[0], small.num_items, (10,)
    )
    assert table.loc[1, list(stack)].to_dict() == pytest.approx(stack, rel=1e-4)


class Shop(KGRecDataset):
    """A few purchases without any triple; one user has something to be found."""

    def build(self):
        pairs = np.stack([np.arange(60) % 12, np.arange(60) % 10], axis=1)
        return KGRecTables(pairs, [], 12, 10, [f"item {number}" for number in range(10)], [])


def test_without_triples_and_with_few_users(tmp_path, monkeypatch):
    def one_user(data):
        links = data["user", "listens", "entity"]
        links.test_mask &= (
            links.edge_label_index[0]
            == links.edge_label_index[0, links.test_mask & (links.edge_label == 1)][0]
        )
        return data

    dataset = Shop(None, transform=one_user)
    fit(dataset, CollaborativeConfig(epochs=1, channels=4, loss="ranking"), tmp_path, device="cpu")
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, file: figures.append(figure))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = evaluate(tmp_path, dataset, k=2)
    assert figures[0].get_supxlabel() == "one user alone has test rows: there are no intervals"
    assert not any(ax.collections for ax in figures[0].axes)
    assert list(table["model"]) == ["collaborative", "popularity", "item-knn", "ease"]
    assert list(table["p"][1:]) == [1.0] * 3
    message = r"k=10: for user .* only (\d) items are left .*; take k=\1"
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path, dataset, k=10)


def test_what_cannot_be_evaluated(small, run, tmp_path):
    def nothing_held_out(data):
        links = data["user", "listens", "entity"]
        links.test_mask = torch.zeros_like(links.test_mask)
        return data

    dataset = SyntheticKG(**SIZES, transform=nothing_held_out)
    fit(dataset, CONFIG, tmp_path, device="cpu")
    with pytest.raises(ValueError, match=r"have no test rows to judge by: fit, .* such as split='per_user'"):
        evaluate(tmp_path, dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
    folder, _ = run
    with pytest.raises(ValueError, match="beside='other' is unknown: choose"):
        evaluate(folder, beside=["other"])
    with pytest.raises(ValueError, match="k=0: a whole number of at least 1"):
        evaluate(folder, k=0)
    with pytest.raises(TypeError, match="folder=3: a path is needed"):
        evaluate(3)
    with pytest.raises(TypeError, match=r"beside='ease': a list of heuristics is needed"):
        evaluate(folder, beside="ease")
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt is missing: pass the folder of a run"):
        evaluate(tmp_path / "nothing")


def test_an_evaluation_of_another_length_is_replaced_with_a_warning(small, tmp_path):
    fit(small, replace(CONFIG, epochs=1), tmp_path, device="cpu")
    (tmp_path / "evaluation.csv").write_text("a table of somebody's own")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            evaluate(tmp_path, k=2, beside=["popularity"])
    with pytest.warns(UserWarning, match=r"evaluation\.csv, .* were those of k=2, and are those of k=3 now"):
        table = evaluate(tmp_path, k=3, beside=["popularity"])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "evaluation.csv"), table)


def test_ease_is_left_out_where_its_table_would_be_too_large(small, run, monkeypatch):
    folder, _ = run
    monkeypatch.setattr(sys.modules["mgwa_pyg.train.evaluate"], "_LARGEST", 9)
    with pytest.warns(UserWarning, match=r"ease is left out, as there are more than 9 users and items"):
        table = evaluate(folder, k=K)
    assert list(table["model"]) == ["collaborative", "popularity", "item-knn", "shared-tails"]
