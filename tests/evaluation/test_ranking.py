"""Full ranking against loops over users and items."""

from math import log2

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.metrics import LinkPredMRR, LinkPredNDCG, LinkPredRecall

from mgwa_pyg.datasets import LastFMKG
from mgwa_pyg.evaluation.ranking import full_ranking, ranking_metrics, top_items

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


def naive_top(score, data, k, split):
    links = data["user", "listens", "entity"]
    positives = links.edge_label_index[:, links.edge_label == 1].T
    seen = {part: {user: set() for user in range(USERS)} for part in ("train", "val", "test")}
    for part, items in seen.items():
        for user, item in positives[links[f"{part}_mask"][links.edge_label == 1]].tolist():
            items[user].add(item)
    users, rankings = [], []
    for user in range(USERS):
        if seen[split][user]:
            left = set(range(ITEMS)) - seen["train"][user] - (seen["val"][user] if split == "test" else set())
            users.append(user)
            rankings.append((sorted(left, key=lambda item: (-score[user][item], item)) + [-1] * k)[:k])
    return users, rankings


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("levels", [2, 10_000])
@pytest.mark.parametrize("k", [1, 10, 20])
def test_the_best_items_equal_the_loops(split, levels, k):
    data = world(2)
    score = torch.randint(levels, (USERS, ITEMS)) / levels
    top = top_items(lambda user: score[user], data, ITEMS, k, split, users_per_step=7)
    users, rankings = naive_top(score.tolist(), data, k, split)
    assert top.user.tolist() == users
    assert top.item.tolist() == rankings
    for user, items, scores in zip(users, rankings, top.score, strict=True):
        assert scores.tolist() == [score[user, item] if item >= 0 else -torch.inf for item in items]
    assert k == 1 or (top.item == -1).any()
    assert len(users) < USERS


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_of_each_user_are_those_of_pyg(split):
    data = world(3)
    score = torch.randint(5, (USERS, ITEMS)) / 5
    top = top_items(lambda user: score[user], data, ITEMS, 20, split)
    got = ranking_metrics(top, data, ITEMS, split, ks=(1, 5, 20))
    links = data["user", "listens", "entity"]
    held = links.edge_label_index[:, links[f"{split}_mask"] & (links.edge_label == 1)]
    for name, metric in (("recall", LinkPredRecall), ("ndcg", LinkPredNDCG), ("mrr", LinkPredMRR)):
        for k in (1, 5, 20):
            values = got[f"{name}@{k}"]
            assert values.shape == top.user.shape
            for user, item, value in zip(top.user, top.item, values, strict=True):
                truth = held[:, held[0] == user]
                oracle = metric(k)
                # PyG takes -1 for an item of the row before: another number that is no item.
                oracle.update(item.where(item >= 0, ITEMS)[None], truth * torch.tensor([[0], [1]]))
                assert value == pytest.approx(float(oracle.compute()), abs=1e-6)
    means = full_ranking(lambda user: score[user], data, ITEMS, (1, 5, 20), split)
    assert means == pytest.approx({name: values.mean() for name, values in got.items()})


def test_metrics_of_rankings_from_elsewhere():
    data = world()
    top = top_items(lambda user: torch.rand(len(user), ITEMS), data, ITEMS, 5)
    want = ranking_metrics(top, data, ITEMS, ks=(5,))
    some = torch.arange(len(top.user)).flip(0)[::2]  # Some users, in another order.
    got = ranking_metrics((top.user[some].int(), top.item[some].int()), data, ITEMS, ks=(5,))
    for name, values in want.items():
        assert got[name].tolist() == values[some].tolist()


def test_rankings_that_cannot_be_measured():
    data = world()
    top = top_items(lambda user: torch.zeros(len(user), ITEMS), data, ITEMS, 5)
    with pytest.raises(ValueError, match=r"ks=\(5, 10\): from 1 to 5 is needed"):
        ranking_metrics(top, data, ITEMS, ks=(5, 10))
    with pytest.raises(ValueError, match="user 0 has no positive in split='test'"):
        ranking_metrics(top._replace(user=top.user - top.user[0]), data, ITEMS, ks=(5,))
    with pytest.raises(ValueError, match=r"item has shape \(2, 5\) .*, but whole numbers of shape"):
        ranking_metrics((top.user, top.item[:2]), data, ITEMS, ks=(5,))
    with pytest.raises(IndexError, match=f"user .*{USERS}"):
        ranking_metrics((top.user + USERS, top.item), data, ITEMS, ks=(5,))
    with pytest.raises(ValueError, match="split='train' is unknown"):
        ranking_metrics(top, data, ITEMS, split="train", ks=(5,))
    with pytest.raises(ValueError, match="k=0 and users_per_step=64: each must be at least 1"):
        top_items(lambda user: torch.zeros(len(user), ITEMS), data, ITEMS, 0)


def test_scores_stay_as_they_are():
    kept = torch.zeros(USERS, ITEMS)
    full_ranking(lambda user: kept[: len(user)], world(), ITEMS)
    assert (kept == 0).all()


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
    assert [len(score) for score in seen] == [10, 8]  # Who has nothing to be found is not ranked.


def test_bad_input():
    data = world()

    def rank(score, **options):
        return full_ranking(lambda user: score[user], data, **{"num_items": ITEMS, **options})

    score = torch.zeros(USERS, ITEMS)
    with pytest.raises(ValueError, match=r"the shape \(18, 14\), but \(18, 15\) is needed"):
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
