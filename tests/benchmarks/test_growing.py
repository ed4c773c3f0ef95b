"""The benchmarks of updates and warm starts: what is left out, what is measured, and a run in small."""

import dataclasses

import pytest
import torch

from benchmarks import update, warm_start
from benchmarks.harness import Settings
from benchmarks.parts import one_of, part_of, plays_of, positives, triples_of
from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.datasets.growth import grow
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import make_recommender
from mgwa_pyg.train import CollaborativeConfig

SETTINGS = Settings(quick=True, data="synthetic")
SIZES = {"num_users": 20, "num_items": 30, "num_entities": 60, "num_relations": 4, "num_triples": 200}
SMALL = CollaborativeConfig(loss="ranking", epochs=1, passes=1, channels=4, num_layers=1)


@pytest.fixture(scope="module")
def whole():
    return SyntheticKG(**SIZES)


def content(dataset):
    """The training positives and the triples, by ids."""
    user, item = dataset[0]["user", "listens", "entity"].edge_index.tolist()
    pairs = {(dataset.user_ids[u], dataset.item_ids[i]) for u, i in zip(user, item, strict=True)}
    kg = dataset[0]["entity", "kg", "entity"]
    names = dataset.entity_ids
    edges = zip(*kg.edge_index.tolist(), kg.rel_type.tolist(), strict=True)
    return pairs, {(names[h], r, names[t]) for h, t, r in edges if r < dataset.num_relations}


def test_what_is_left_out_comes_back(whole):
    """A part and the tables of the rest are the whole again."""
    users, items = one_of(20, 10, 0), one_of(30, 10, 1)
    assert (users.sum(), items.sum()) == (2, 3)
    want = content(whole)
    part = part_of(whole, users=users)
    assert (part.num_users, part.num_items) == (18, 30)
    assert content(grow(part, plays_of(whole, users)).dataset) == want
    part = part_of(whole, items=items)
    assert (part.num_items, {*part.item_ids} & {*items.nonzero().flatten().tolist()}) == (27, set())
    new = items.nonzero().flatten().tolist()
    assert content(grow(part, triples=triples_of(whole, items), items=new).dataset)[1] == want[1]
    kept = part_of(whole, items=items, keep_triples=True)
    assert content(kept) == ({pair for pair in want[0] if pair[1] not in new}, want[1])
    most = warm_start.most_of(whole, seed=0)
    assert 0.9 * len(want[0]) < len(content(most)[0]) < len(want[0])
    assert (positives(most)[1] != 0).sum() == (positives(whole)[1] != 0).sum()


def test_recall_by_hand(whole):
    recommender = Recommender(make_recommender(whole, SMALL, seed=0))
    items = one_of(30, 3, 0)
    (user, item), part = positives(whole)
    recalls = {"all items": [], "new items": []}
    with torch.no_grad():
        score = recommender._model.score_all(torch.arange(20))
    for number in range(20):
        sought = {
            i for u, i, p in zip(user.tolist(), item.tolist(), part, strict=True) if u == number and p == 2
        }
        sought &= {*items.nonzero().flatten().tolist()}
        known = [
            i for u, i, p in zip(user.tolist(), item.tolist(), part, strict=True) if u == number and p != 2
        ]
        for among, found in recalls.items():
            left = score[number].clone()
            left[known] = -torch.inf
            if among == "new items":
                left[~items] = -torch.inf
            if sought:
                found.append(len(sought & {*left.topk(10).indices.tolist()}) / len(sought))
    for among, found in recalls.items():
        got = update.recall(recommender, whole, items=items, among=among)
        assert got == pytest.approx(sum(found) / len(found))


def test_runs(monkeypatch, whole):
    for module in (update, warm_start):
        monkeypatch.setattr(module, "load", lambda *arguments: whole)
        monkeypatch.setattr(module, "replace", lambda config, **changes: dataclasses.replace(SMALL))
    monkeypatch.setattr(update, "num_processes", lambda *arguments: 1)
    rows = {(row["case"], row["metric"]): row["value"] for row in update.run(SETTINGS).rows}
    new, trained = (rows["new users", f"recall@10, {how}"] for how in ("updated", "trained with them"))
    assert rows["new users", "recall@10, share"] == pytest.approx(100 * new / trained)
    assert ("new items among new items", "recall@10, trained with their triples") in rows
    rows = {(row["case"], row["metric"]): row["value"] for row in warm_start.run(SETTINGS).rows}
    warm, cold = rows["warm start", "wall time"], rows["from nothing", "wall time"]
    assert rows["warm start", "wall time, share"] == pytest.approx(100 * warm / cold)
