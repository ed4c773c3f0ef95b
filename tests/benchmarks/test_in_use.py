"""The benchmark of a checkpoint in use: its split, its newcomers, and a run in small."""

import math
import subprocess

import pytest
import torch

from benchmarks import recommend
from benchmarks.harness import Settings
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.train import KGCNConfig

SETTINGS = Settings(quick=True, data="synthetic")


def interactions_of(dataset, mask):
    """The items of each user among the positives of a part."""
    rows = dataset[0]["user", "listens", "entity"]
    keep = rows[mask] & (rows.edge_label == 1)
    found = {user: set() for user in range(dataset.num_users)}
    for user, item in rows.edge_label_index[:, keep].t().tolist():
        found[user].add(item)
    return found


def test_halves_of_each_users_interactions():
    whole = recommend._halves(SETTINGS)
    train, val, test = (interactions_of(whole, f"{part}_mask") for part in ("train", "val", "test"))
    for user in range(whole.num_users):
        count = len(train[user]) + len(val[user]) + len(test[user])
        assert abs(len(train[user]) - count / 2) <= 0.5
        assert abs(len(val[user]) - count / 10) <= 1


def test_who_is_left_out_is_in_test_alone():
    whole, new = recommend._halves(SETTINGS), torch.tensor([3, 7])
    without = recommend._halves(SETTINGS, without=new)
    listens = without[0]["user", "listens", "entity"]
    assert not torch.isin(listens.edge_index[0], new).any()
    for part in ("train", "val", "test"):
        got, want = (interactions_of(dataset, f"{part}_mask") for dataset in (without, whole))
        left_out = {user: set() for user in new.tolist()} if part != "test" else {}
        assert got == {**want, **left_out}


def test_recall_of_newcomers_by_hand():
    whole, new = recommend._halves(SETTINGS), torch.tensor([3, 7, 50])
    dataset = recommend._halves(SETTINGS, without=new)
    dataset._names["item_ids"] = [f"i{row}" for row in range(whole.num_items)]  # Ids are no row numbers.
    recommender = Recommender(recommend._fit(dataset, KGCNConfig(epochs=1), SETTINGS))
    train, val, test = (interactions_of(whole, f"{part}_mask") for part in ("train", "val", "test"))
    recalls = []
    for user in new.tolist():
        ranked = recommender.recommend_for([f"i{row}" for row in train[user]], whole.num_items)["item"]
        best = [row for row in (int(item[1:]) for item in ranked) if row not in val[user]][:10]
        recalls.append(len(test[user].intersection(best)) / len(test[user]))
    assert recommend._newcomer_recall(recommender, whole, new) == pytest.approx(math.fsum(recalls) / 3)
    assert any(recalls)


def test_run(monkeypatch):
    imported = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: imported.append(command[-1]))
    monkeypatch.setattr(recommend, "_MODELS", {"KGCN": KGCNConfig()})
    monkeypatch.setattr(recommend, "_CALLS", 5)
    rows = {(row["case"], row["implementation"], row["metric"]): row for row in recommend.run(SETTINGS).rows}
    assert len(imported) == 16
    assert set(imported[:2]) == {"import torch_geometric", "import mgwa_pyg"}
    for question in ("recommend", "recommend_for, 10 items", "similar_items", "explain"):
        median, p95 = (rows["times", "KGCN", f"{question}, {which}"] for which in ("median", "p95"))
        assert 0 < median["value"] <= p95["value"]
    error = rows["explanations", "KGCN", "largest error of the sum"]
    assert 0 <= error["value"] <= 1e-5
    assert error["n"] == 20
    new, trained = (
        rows[f"Recall@10, {who}", "KGCN", "recall@10"]["value"]
        for who in ("new", "the same, trained with them")
    )
    share = rows["new against the same, trained with them", "KGCN", "recall@10"]
    assert (share["value"], share["unit"]) == (pytest.approx(100 * new / trained), "%")


def test_an_explanation_that_does_not_add_up_is_seen(monkeypatch):
    dataset = recommend._halves(SETTINGS)
    recommender = Recommender(recommend._fit(dataset, KGCNConfig(epochs=1), SETTINGS))
    explain = Recommender.explain

    def off(self, who, item):
        why = explain(self, who, item)
        why.parts["score"] += 1.0
        return why

    monkeypatch.setattr(Recommender, "explain", off)
    (row,) = recommend._explanations("KGCN", recommender, 2)
    assert row["value"] >= 1


def test_co_plays_by_hand():
    dataset = recommend.load(SETTINGS, "items", 0)
    similar = torch.rand(dataset.num_items, dataset.num_items, generator=torch.Generator().manual_seed(0))
    row = recommend._co_plays("any", lambda item: similar[item], dataset)
    train, test = (interactions_of(dataset, f"{part}_mask") for part in ("train", "test"))
    count = [sum(item in seen for seen in train.values()) for item in range(dataset.num_items)]
    kept = torch.tensor(count, dtype=torch.float).topk(recommend._BEST_KNOWN).indices.tolist()
    caught = 0
    for item in kept:
        others = sorted(
            set(range(dataset.num_items)) - {item}, key=lambda other: -similar[item, other].item()
        )
        caught += sum(len(test[user].intersection(others[:10])) for user in train if item in train[user])
    assert row["value"] == pytest.approx(caught / len(kept))
    assert caught > 0
