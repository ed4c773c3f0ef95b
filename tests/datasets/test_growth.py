"""Data sets that grow, against sets of ids put together by hand."""

import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import RawDataError, SyntheticKG
from mgwa_pyg.datasets.growth import grow
from mgwa_pyg.datasets.schema import check_data
from tests.tables import OfTables, tables_of

SIZES = {"num_users": 20, "num_items": 30, "num_entities": 60, "num_relations": 4, "num_triples": 200}


@pytest.fixture(scope="module")
def data():
    return OfTables(tables_of(SyntheticKG(**SIZES)))


def content(dataset):
    """What a data set says of what, by ids: positives with their parts, training edges, and triples."""
    links, kg = dataset[0]["user", "listens", "entity"], dataset[0]["entity", "kg", "entity"]
    user, item, entity = dataset.user_ids, dataset.item_ids, dataset.entity_ids
    positives = {
        (user[u], item[i], part)
        for part in ("train", "val", "test")
        for u, i in links.edge_label_index[:, links[f"{part}_mask"] & (links.edge_label == 1)].t().tolist()
    }
    edges = {(user[u], item[i]) for u, i in links.edge_index.t().tolist()}
    triples = {
        (entity[h], dataset.relation_names[r], entity[t])
        for h, t, r in zip(*kg.edge_index.tolist(), kg.rel_type.tolist(), strict=True)
        if r < dataset.num_relations
    }
    return positives, edges, triples


def plays(*pairs):
    return pd.DataFrame(pairs, columns=["user", "item"])


def facts(*triples):
    return pd.DataFrame(triples, columns=["head", "relation", "tail"])


def test_what_is_new_joins_what_was_there(data):
    before, fingerprint = content(data), data.fingerprint
    held_out = next((u, i) for u, i, part in sorted(before[0]) if part == "test")
    new_plays = [("u0", "i99"), ("someone", "i99"), ("someone", "i3"), ("someone", "i3"), held_out]
    new_facts = [
        ("i99", "relation 1", "entity 40"),
        ("fresh", "relation 1", "entity 40"),
        ("fresh", "made in", "nowhere"),
        ("i0", "relation 0", "i3"),
        sorted(before[2])[0],
    ]
    grown = grow(data, plays(*new_plays), facts(*new_facts), items={"fresh": "A fresh one"})
    positives, edges, triples = content(grown.dataset)
    added = {*new_plays[:3]}
    assert positives == before[0] | {(*pair, "train") for pair in added}
    assert edges == before[1] | added
    assert triples == before[2] | {*new_facts}
    assert (grown.users, grown.items) == (["someone"], ["i99", "fresh"])
    assert (grown.entities, grown.relations) == (["nowhere"], ["made in"])
    assert grown.num_interactions == 3
    assert grown.num_triples == len(triples) - len(before[2])
    made = grown.dataset
    check_data(made, made[0])
    assert made.num_items == 32
    assert made.entity_names[:32] == made.item_names == [*data.item_names, "i99", "A fresh one"]
    assert made.entity_names[-1] == "nowhere"
    assert made.fingerprint != fingerprint
    assert (content(data), data.fingerprint) == (before, fingerprint)
    again = grow(made, plays(*new_plays), facts(*new_facts), items=["fresh"])
    assert content(again.dataset) == content(made)
    assert (again.users, again.items, again.num_interactions, again.num_triples) == ([], [], 0, 0)


def test_every_new_head_is_an_item_unless_said_otherwise(data):
    new = facts(("x", "relation 0", "entity 40"), ("y", "relation 0", "z"))
    assert grow(data, triples=new).items == ["x", "y"]
    some = grow(data, triples=new, items=["y"])
    assert (some.items, some.entities) == (["y"], ["x", "z"])
    assert grow(data, triples=new, items=[]).items == []
    both = facts(("x", "relation 0", "y"), ("y", "relation 0", "entity 40"))
    with pytest.raises(ValueError, match=r"'y' is new, and the head of one triple and the tail of another"):
        grow(data, triples=both)
    assert grow(data, triples=both, items=["x"]).entities == ["y"]
    assert grow(data, plays(("u0", "y")), triples=both).items == ["y", "x"]


def test_an_entity_that_has_users_becomes_an_item(data):
    before = content(data)[2]
    grown = grow(data, plays(("u0", "entity 40")))
    made = grown.dataset
    check_data(made, made[0])
    assert (made.num_items, made.num_entities) == (31, 60)
    assert made.item_ids[-1] == made.item_names[-1] == "entity 40"
    assert [*made.entity_ids[31:41]] == [*data.entity_ids[30:40]]
    assert [*made.entity_ids[41:]] == [*data.entity_ids[41:]]
    assert content(made)[2] == before


def test_a_negative_that_was_played_is_none_any_more(data):
    links = data[0]["user", "listens", "entity"]
    user, item = links.edge_label_index[:, links.edge_label == 0][:, 0].tolist()
    made = grow(data, plays((f"u{user}", f"i{item}"))).dataset
    links = made[0]["user", "listens", "entity"]
    found = (links.edge_label_index == torch.tensor([[user], [item]])).all(dim=0)
    assert links.edge_label[found].tolist() == [1.0]


def test_wrong_tables_are_refused(data):
    with pytest.raises(ValueError, match="there is nothing to add"):
        grow(data)
    with pytest.raises(RawDataError, match="no column 'item' or 'item_id'"):
        grow(data, pd.DataFrame({"user": [1], "what": [2]}))
    with pytest.raises(RawDataError, match=r"interactions.iloc\[1\]: the user is missing"):
        grow(data, plays(("u0", "i0"), (None, "i1")))
    with pytest.raises(TypeError, match="items=3"):
        grow(data, plays(("u0", "i1")), items=3)
