"""Full ranking against loops over users and items."""

from math import log2

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets import LastFMKG
from mgwa_pyg.evaluation.ranking import full_ranking

USERS, ITEMS = 23, 15


def world(seed=0):
    """Users with none to all of the items as positives, in random splits, and some negatives."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.linspace(0, 1, USERS).unsqueeze(1)
    label = torch.rand(USERS, ITEMS, generator=generator) < share
    positives = label.nonzero().T
    negatives = (~label).nonzero().T[:, ::3]
    # Negatives may be entities that are no items.
    negatives = torch.cat([negatives, torch.tensor([[0, 1], [ITEMS + 3, ITEMS]])], dim=1)
    pairs = torch.cat([positives, negatives], dim=1)
    order = torch.randperm(pairs.size(1), generator=generator)
    part = torch.randint(3, order.shape, generator=generator)

    data = HeteroData()
    data["user"].num_nodes = USERS
    data["entity"].num_nodes = ITEMS + 5
    links = data["user", "listens", "entity"]
    links.edge_label_index = pairs[:, order]
    links.edge_label = (order < positives.size(1)).float()
    links.train_mask, links.val_mask, links.test_mask = part == 0, part == 1, part == 2
    return data


def naive_ranking(score, data, ks, split):
    links = data["user", "listens", "entity"]
    positives = {name: {user: set() for user in range(len(score))} for name in ("train", "val", "test")}
    for name, items in positives.items():
        rows = zip(
            *links.edge_label_index.tolist(),
            links.edge_label.tolist(),
            links[f"{name}_mask"].tolist(),
            strict=True,
        )
        for user, item, label, inside in rows:
            if inside and label == 1:
                items[user].add(item)
    values = {f"{name}@{k}": [] for k in ks for name in ("recall", "ndcg", "mrr")}
    short = 0
    for user, row in enumerate(score):
        truth = positives[split][user]
        if not truth:
            continue
        masked = positives["train"][user] | (positives["val"][user] if split == "test" else set())
        order = np.lexsort((np.arange(len(row)), -np.asarray(row)))
        ranking = [item for item in order.tolist() if item not in masked]
        short += len(ranking) < max(ks)
        for k in ks:
            found = [item in truth for item in ranking[:k]]
            gain = sum(hit / log2(place + 2) for place, hit in enumerate(found))
            best = sum(1 / log2(place + 2) for place in range(min(k, len(truth))))
            values[f"recall@{k}"].append(sum(found) / len(truth))
            values[f"ndcg@{k}"].append(gain / best)
            values[f"mrr@{k}"].append(1 / (found.index(True) + 1) if any(found) else 0.0)
    return {name: sum(value) / len(value) for name, value in values.items()}, short


@pytest.mark.smoke
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("levels", [2, 10_000])  # Nearly all tied, nearly none.
@pytest.mark.parametrize("users_per_step", [1, 5, 64])
def test_metrics_equal_the_loops(split, levels, users_per_step):
    data = world()
    score = torch.randint(levels, (USERS, ITEMS)) / levels - 0.3
    ks = (1, 3, 10, 20)  # The last is more than there are items.
    want, short = naive_ranking(score.tolist(), data, ks, split)
    assert short > 5
    got = full_ranking(lambda user: score[user], data, ITEMS, ks, split, users_per_step)
    assert list(got) == list(want)
    assert got == pytest.approx(want, abs=1e-6)


def test_scores_may_be_whole_numbers_or_half_precise():
    data = world(1)
    count = torch.randint(4, (ITEMS,))
    want, _ = naive_ranking([count.tolist()] * USERS, data, (10, 20), "test")
    for score in (count, count.half()):
        got = full_ranking(lambda user, score=score: score.expand(len(user), -1), data, ITEMS)
        assert got == pytest.approx(want, abs=1e-6)


def test_a_masked_item_never_counts():
    """One user, all items but one seen in training; what fills the ranking up is no hit for anyone."""
    data = HeteroData()
    data["user"].num_nodes, data["entity"].num_nodes = 2, 4
    links = data["user", "listens", "entity"]
    # User 0 is to find the last item, which -1 in the row of user 1 would name as well.
    links.edge_label_index = torch.tensor([[0, 1, 1, 1, 1], [3, 0, 1, 2, 3]])
    links.edge_label = torch.ones(5)
    links.train_mask = torch.tensor([False, True, True, True, False])
    links.val_mask = torch.tensor([False] * 5)
    links.test_mask = ~links.train_mask
    score = torch.tensor([[9.0, 8.0, 7.0, 6.0], [9.0, 8.0, 7.0, -1e38]])
    got = full_ranking(lambda user: score[user], data, 4, ks=(3,))
    assert got == pytest.approx({"recall@3": 0.5, "ndcg@3": 0.5, "mrr@3": 0.5})


def test_the_ideal_and_the_worst_scores():
    data = world()
    links = data["user", "listens", "entity"]
    user, item = links.edge_label_index[:, links.test_mask & (links.edge_label == 1)]
    ideal = torch.zeros(USERS, ITEMS)
    ideal[user, item] = 1.0
    assert set(full_ranking(lambda user: ideal[user], data, ITEMS, (ITEMS,)).values()) == {1.0}
    first = full_ranking(lambda user: -ideal[user], data, ITEMS, (1,))["recall@1"]
    assert first < 0.2  # Of those only who have nothing else left.


def test_no_gradient_is_kept():
    weight = torch.randn(USERS, ITEMS, requires_grad=True)
    seen = []

    def score_all(user):
        seen.append(weight[user])
        return seen[-1]

    full_ranking(score_all, world(), ITEMS, users_per_step=10)
    assert not any(score.requires_grad for score in seen)
    assert [len(score) for score in seen] == [10, 10, 3]


def test_bad_input():
    data = world()

    def rank(score, **options):
        return full_ranking(lambda user: score[user], data, **{"num_items": ITEMS, **options})

    score = torch.zeros(USERS, ITEMS)
    with pytest.raises(ValueError, match=r"the shape \(23, 14\), but \(23, 15\) is needed"):
        rank(score[:, 1:])
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(ValueError, match="returned 1 values that are not finite for the users 20 to 22"):
            rank(
                score.index_put((torch.tensor(21), torch.tensor(2)), torch.tensor(float(value))),
                users_per_step=5,
            )
    with pytest.raises(ValueError, match="split='train' is unknown"):
        rank(score, split="train")
    with pytest.raises(ValueError, match=r"ks=\(\)"):
        rank(score, ks=())
    with pytest.raises(ValueError, match=r"ks=\(0, 5\)"):
        rank(score, ks=(0, 5))
    with pytest.raises(ValueError, match="num_items=14, but a positive is the entity 14"):
        rank(score, num_items=14)
    data["user", "listens", "entity"].test_mask[:] = False
    with pytest.raises(ValueError, match="split='test' has no positive"):
        rank(score)


@pytest.mark.real_data
def test_popularity_on_lastfm(lastfm_raw, tmp_path):
    dataset = LastFMKG(str(tmp_path), negatives="items", seed=0)
    seen = dataset[0]["user", "listens", "entity"].edge_index[1]
    count = torch.bincount(seen, minlength=dataset.num_items)
    score = count.expand(dataset.num_users, -1)
    got = full_ranking(lambda user: score[user], dataset[0], dataset.num_items)
    want, _ = naive_ranking(score.tolist(), dataset[0], (10, 20), "test")
    assert got == pytest.approx(want, abs=1e-6)
