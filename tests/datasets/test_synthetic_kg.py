"""The generated data set: its schema, its determinism, and what it plants."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch_geometric import transforms as T

from mgwa_pyg.datasets import SyntheticKG, synthetic_kg

KG = ("entity", "kg", "entity")
LINKS = ("user", "listens", "entity")
SMALL = {
    "num_users": 40,
    "num_items": 60,
    "num_entities": 100,
    "num_relations": 5,
    "num_triples": 300,
    "num_interactions": 333,
}


def same(a, b):
    stores = zip(a.edge_stores, b.edge_stores, strict=True)
    return all(x[key].equal(y[key]) for x, y in stores for key in {*x.keys(), *y.keys()})


@pytest.mark.smoke
def test_schema():
    dataset = SyntheticKG(**SMALL)
    data = dataset[0]
    assert data.validate()
    assert repr(dataset) == (
        "SyntheticKG(users=40, items=60, interactions=333, entities=100, relations=5, triples=300)"
    )
    assert dataset.item_names[59] == "item 59"
    assert dataset.relation_names == [f"relation {r}" for r in range(5)]
    assert (data["user"].num_nodes, data["entity"].num_nodes) == (40, 100)

    edge_index, rel_type = data[KG].edge_index, data[KG].rel_type
    assert edge_index[:, 300:].equal(edge_index[:, :300].flip(0))
    assert rel_type[300:].equal(rel_type[:300] + 5)
    assert rel_type.unique().tolist() == list(range(10))
    assert set(edge_index.unique().tolist()) <= set(range(100))

    links = data[LINKS]
    pairs, label = links.edge_label_index, links.edge_label
    assert pairs.shape == (2, 666)
    assert label.dtype == torch.float
    assert label.equal((torch.arange(666) < 333).float())
    assert pairs.unique(dim=1).size(1) == 666
    assert links.edge_index.equal(pairs[:, links.train_mask & (label == 1)])
    masks = torch.stack([links.train_mask, links.val_mask, links.test_mask])
    assert masks.sum(dim=0).eq(1).all()
    assert masks.sum(dim=1).tolist() == [400, 133, 133]
    positives = torch.bincount(pairs[0][label == 1], minlength=40)
    assert positives.min() >= 1
    assert positives.max() > positives.min()
    assert positives.equal(torch.bincount(pairs[0][label == 0], minlength=40))


def test_seeds_and_pools():
    data = SyntheticKG(**SMALL)[0]
    assert same(data, SyntheticKG(**SMALL)[0])
    assert not same(data, SyntheticKG(**SMALL, seed=1)[0])

    entities = SyntheticKG(**SMALL, negatives="entities")[0]
    for key in ("train_mask", "val_mask", "test_mask"):
        assert data[LINKS][key][:333].equal(entities[LINKS][key][:333])
    assert data[LINKS].edge_index.equal(entities[LINKS].edge_index)
    assert data[LINKS].edge_label_index[1].max() < 60
    assert entities[LINKS].edge_label_index[1].max() >= 60


# More rows than are drawn at a time.
def test_middle_size():
    dataset = SyntheticKG(
        num_users=6_000,
        num_items=5_000,
        num_entities=30_000,
        num_relations=60,
        num_triples=300_000,
        num_interactions=60_000,
    )
    data = dataset[0]
    assert data.validate()
    assert (dataset.num_triples, dataset.num_interactions) == (300_000, 60_000)
    assert (len(dataset.item_names), len(dataset.relation_names)) == (5_000, 60)

    edge_index, rel_type = data[KG].edge_index, data[KG].rel_type
    assert edge_index.dtype == rel_type.dtype == torch.long
    assert (edge_index.size(1), rel_type.numel()) == (600_000, 600_000)
    head, tail = edge_index[:, :300_000]
    assert edge_index[:, 300_000:].equal(torch.stack([tail, head]))
    assert rel_type[300_000:].equal(rel_type[:300_000] + 60)
    assert (int(rel_type[:300_000].min()), int(rel_type[:300_000].max())) == (0, 59)
    assert 0 <= head.min() < head.max() < 30_000
    assert 5_000 <= tail.min() < tail.max() < 30_000  # No item is a tail.
    # Three quarters are about items, then a fifth about others; the last ones repeat any of them.
    assert head[:225_000].max() < 5_000
    assert head[225_000:285_000].min() >= 5_000
    assert 0.75 < (head[285_000:] < 5_000).double().mean() < 0.83

    links = data[LINKS]
    user, item = links.edge_label_index
    assert user.numel() == links.edge_label.numel() == 120_000
    assert (user * 5_000 + item).unique().numel() == 120_000  # No pair twice, whatever its label.
    assert (int(item.min()), int(item.max())) == (0, 4_999)
    positives, negatives = (torch.bincount(half, minlength=6_000) for half in user.chunk(2))
    assert positives.equal(negatives)
    assert positives.min() >= 1
    assert int(links.train_mask.sum()) == 72_000

    planted = dataset.planted_score(user, item)
    assert roc_auc_score(links.edge_label, planted) > 0.85


def test_chunks_leave_no_trace(monkeypatch):
    dataset = SyntheticKG(**SMALL)
    pairs = dataset[0][LINKS].edge_label_index
    monkeypatch.setattr(synthetic_kg, "CHUNK", 7)
    chunked = SyntheticKG(**SMALL)
    assert same(dataset[0], chunked[0])
    assert dataset.planted_score(*pairs).equal(chunked.planted_score(*pairs))


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_lottery_draws_what_numpy_draws(size):
    weight = np.random.default_rng(1).exponential(size=size) ** 4
    expected = np.random.default_rng(0).choice(size, size=5000, p=weight / weight.sum())
    drawn = synthetic_kg._Lottery(weight).draw(5000, np.random.default_rng(0))
    assert np.array_equal(drawn, expected)


def test_names_are_a_list_but_for_their_memory():
    names, expected = SyntheticKG(**SMALL).item_names, [f"item {i}" for i in range(60)]
    assert names == expected
    assert expected == names
    assert names == SyntheticKG(**SMALL).item_names
    assert names != expected[:-1]
    assert names != [*expected[:-1], "item 60"]
    assert names != SyntheticKG(**SMALL).relation_names
    assert list(names) == expected
    assert (names[-1], names[3:9:2]) == (expected[-1], expected[3:9:2])
    assert names.index("item 7") == 7
    assert "item 60" not in names
    assert repr(names) == "['item 0', 'item 1', 'item 2', ...]"
    with pytest.raises(IndexError):
        names[60]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Reads the peak from Linux's /proc")
def test_memory_stays_near_the_data():
    # In a process of its own, as others' peaks count too. Less than 0.7 of the data is needed
    # beside them: the triples and the preferences.
    script = """
import re, torch
from mgwa_pyg.datasets import SyntheticKG

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

SyntheticKG()  # Loads what is loaded late.
before = peak()
data = SyntheticKG(
    num_users=30_000,
    num_items=30_000,
    num_entities=150_000,
    num_relations=60,
    num_triples=1_500_000,
    num_interactions=300_000,
)[0]
size = sum(x.nbytes for store in data.edge_stores for x in store.values())
print((peak() - before) / size)
"""
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert 1 <= float(run.stdout) < 1.7


@pytest.mark.parametrize("seed", range(3))
def test_preferences_can_be_recovered(seed):
    dataset = SyntheticKG(seed=seed)
    links = dataset[0][LINKS]
    user, item = links.edge_label_index[:, links.test_mask]
    label = links.edge_label[links.test_mask]
    popularity = torch.bincount(links.edge_index[1], minlength=dataset.num_items)
    popularity_auc = roc_auc_score(label, popularity[item])
    planted_auc = roc_auc_score(label, dataset.planted_score(user, item))
    assert 0.6 < popularity_auc < 0.7
    assert planted_auc > 0.9

    # A model that is blind to what the user cares for stays behind.
    preferences = dataset._preferences
    care = np.full_like(preferences.care, 1 / preferences.care.shape[1])
    blind = type(preferences)(preferences.taste, care, preferences.popularity, preferences.triples)
    blind_auc = roc_auc_score(label, blind.of_pairs(user.numpy(), item.numpy()))
    assert popularity_auc + 0.15 < blind_auc < planted_auc - 0.03


def test_planted_score_by_hand():
    dataset = SyntheticKG(**SMALL)
    preferences = dataset._preferences
    kg = dataset[0][KG]
    user, item = 7, 11
    total = weight = 0.0
    for i in range(300):
        head, tail = kg.edge_index[:, i].tolist()
        if head == item:
            care = preferences.care[user, kg.rel_type[i] % 4]
            total += care * preferences.taste[user, (tail - 60) % 8]
            weight += care
    expected = 6.0 * total / weight + preferences.popularity[item]
    users, items = torch.tensor([user, user]), torch.tensor([item, 60])
    score = dataset.planted_score(users, items)
    torch.testing.assert_close(score, torch.tensor([expected, -np.inf], dtype=torch.float))
    every = preferences.of_all(np.arange(40), np.arange(60))
    np.testing.assert_allclose(every[user, item], expected, rtol=1e-5)


def test_default_has_parallel_edges_and_bare_nodes(synthetic):
    kg = synthetic[0][KG]
    head, tail = kg.edge_index[:, : synthetic.num_triples]
    pairs = head * synthetic.num_entities + tail
    triples = pairs * synthetic.num_relations + kg.rel_type[: synthetic.num_triples]
    assert pairs.unique().numel() < triples.unique().numel()
    bare = torch.bincount(kg.edge_index.flatten(), minlength=synthetic.num_entities) == 0
    assert bare[: synthetic.num_items].any()
    assert bare[synthetic.num_items :].any()


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_users": 1, "num_items": 2, "num_entities": 2, "num_relations": 1, "num_triples": 1},
        {"num_users": 3, "num_items": 8, "num_entities": 8, "num_triples": 40},
        {"num_users": 9, "num_items": 10, "num_entities": 11, "num_interactions": 45},
        {"num_users": 9, "num_items": 11, "num_entities": 50, "num_interactions": 9},
        {"num_users": 300, "num_items": 3000, "num_entities": 4000},
        {"num_users": 90, "num_entities": 2**57, "num_interactions": 900, "negatives": "entities"},
    ],
)
def test_extreme_sizes(sizes):
    dataset = SyntheticKG(**sizes)
    assert dataset[0].validate()
    assert dataset.num_interactions >= dataset.num_users
    assert dataset.num_entities == sizes["num_entities"]


def test_nothing_is_written_without_a_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SyntheticKG(**SMALL)
    assert list(tmp_path.iterdir()) == []


def test_cache(tmp_path):
    dataset = SyntheticKG(tmp_path, **SMALL)
    cached = SyntheticKG(tmp_path, **SMALL)
    assert cached._preferences is None  # Not built again.
    assert cached.item_names == dataset.item_names
    assert same(dataset[0], cached[0])
    assert repr(dataset) == repr(cached)
    pairs = dataset[0][LINKS].edge_label_index
    assert dataset.planted_score(*pairs).equal(cached.planted_score(*pairs))
    SyntheticKG(tmp_path, **{**SMALL, "num_triples": 301})
    SyntheticKG(tmp_path, **SMALL, seed=1)
    assert len(list((tmp_path / "processed").iterdir())) == 3


def test_the_default_device_does_not_matter(tmp_path):
    # "meta" stands for a GPU: data are on the CPU until somebody moves them.
    user, entity = torch.arange(40), torch.arange(40) + 40
    dataset = SyntheticKG(**SMALL)
    with torch.device("meta"):
        made, kept, read = (SyntheticKG(root, **SMALL) for root in (None, tmp_path, tmp_path))
        score = made.planted_score(user, entity)
    assert all(same(dataset[0], other[0]) for other in (made, kept, read))
    assert score.equal(dataset.planted_score(user, entity))


def test_transforms_and_copies():
    data = SyntheticKG(**SMALL, transform=T.ToUndirected(merge=False))[0]
    assert ("entity", "rev_listens", "user") in data.edge_types
    dataset = SyntheticKG(**SMALL)
    assert dataset.copy().num_items == 60
    assert dataset[:1].num_items == 60
    assert dataset.to("cpu")[0].to("cpu").validate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "num_users=0: a whole number of at least 1"),
        ({"num_items": 1}, "num_items=1: "),
        ({"num_items": 101}, "num_items=101: at most num_entities=100 "),
        ({"num_entities": -3}, "num_entities=-3: "),
        ({"num_relations": 0}, "num_relations=0: "),
        ({"num_triples": 2.5}, "num_triples=2.5: "),
        ({"num_interactions": 39}, "num_interactions=39: from 40 to 1200 "),
        ({"num_interactions": 1201}, "num_interactions=1201: "),
        ({"seed": -1}, "seed=-1: a whole number of at least 0"),
        ({"seed": True}, "seed=True: "),
        ({"negatives": "frozen"}, r"negatives='frozen' is unknown: choose one of \['items', 'entities'\]"),
        ({"split": "lightkg"}, r"split='lightkg' is unknown: choose one of \['random', 'per_user'\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticKG(**{**SMALL, **arguments})
