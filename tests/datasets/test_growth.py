"""Data sets that grow, against sets of ids put together by hand."""

import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import RawDataError, SyntheticKG, TableKG
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
    assert (grown.num_interactions, grown.num_held_out) == (3, 1)
    assert grow(data, plays(sorted(before[1])[0])).num_held_out == 0
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


@pytest.fixture(scope="module")
def linked():
    """Item 1 is the graph's 2, item 4 its 7; item 2 is not in the graph."""
    seen = pd.DataFrame({"user": [0, 0, 1, 1, 2, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3, 4, 1, 4]})
    graph = facts((2, "r", 50), (3, "r", 50), (7, "r", 51), (9, "r", 51))
    return TableKG.from_tables(seen, triples=graph, links={1: 2, 3: 3, 4: 7}, split="none")


def test_triples_speak_of_ids_of_the_graph(linked):
    made = grow(linked, triples=facts((2, "r", 51), (77, "r", 2)), items=[]).dataset
    kg = made[0]["entity", "kg", "entity"]
    found = kg.edge_index[:, kg.rel_type == 0].t().tolist()
    assert [made.item_ids.index(1), [*made.entity_ids].index(51)] in found
    assert [[*made.entity_ids].index(77), made.item_ids.index(1)] in found
    assert all(made.item_ids.index(2) not in ends for ends in found)
    assert grow(linked, triples=facts((78, "r", 51)), items=[78]).items == [78]


def test_ids_that_may_be_two_things_are_refused(linked):
    with pytest.raises(ValueError, match="item 9 is new, and the knowledge graph has an entity of this id"):
        grow(linked, plays((0, 9)))
    with pytest.raises(ValueError, match="4 may be a new entity or item 4, which the graph calls 7"):
        grow(linked, triples=facts((4, "r", 51)))


def test_the_summary_is_of_what_there_is(linked, tmp_path):
    was = linked.summary()
    made = grow(linked, plays((9, 1), (9, 10)), facts((10, "r", 51))).dataset
    got = made.summary().to_dict()
    assert got == {
        "users": 5, "items": 5, "interactions": 11, "entities": made.num_entities, "relations": 1,
        "triples": 5, "items with triples": 4, "interactions for train": 11, "interactions for val": 0,
        "interactions for test": 0,
    }  # fmt: skip
    made.to_file(tmp_path / "made.pt")
    assert TableKG(tmp_path / "made.pt").summary().to_dict() == got
    assert linked.summary().equals(was)
    assert was["rows"] == 9


def test_items_that_were_there_take_names(data):
    made = grow(data, plays(("u0", "i1")), items={"i3": "Another name"}).dataset
    assert made.item_names[3] == made.entity_names[3] == "Another name"
    assert [*made.item_names[:3]] == [*data.item_names[:3]]


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
    with pytest.raises(RawDataError, match="interactions: it has no row"):
        grow(data, pd.DataFrame({"user": [], "item": []}))
    with pytest.raises(TypeError, match="items=3"):
        grow(data, plays(("u0", "i1")), items=3)
