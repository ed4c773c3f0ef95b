"""What is called alike in two data sets."""

import pytest

from mgwa_pyg.datasets.ids import DataIds, Rows

OLD = DataIds(user=["7", "a"], item=["x", "y"], entity=["x", "m1", "q", "r", "q"], relation=["by"])


def rows(**new):
    made = Rows.between(OLD, OLD._replace(**new))
    return {kind: getattr(made, kind).tolist() for kind in made._fields}


def test_rows_by_ids():
    assert rows() == {"user": [0, 1], "item": [0, 1], "entity": [0, 1, -1, 3, 4], "relation": [0]}
    assert rows(user=["b", "7"], relation=["by", "of"])["user"] == [-1, 0]
    assert rows(relation=["of", "by"])["relation"] == [-1, 0]


def test_an_item_is_that_of_its_id_whatever_triples_call_it():
    got = rows(item=["y", "x"], entity=["m9", "x", "q", "m1"])
    assert got["item"] == [1, 0]
    assert got["entity"] == [1, 0, 4, 1]  # Of two entities that are called alike the last counts.


def test_an_item_without_a_link_is_nothing_else_of_its_id():
    old = DataIds(user=[], item=["1", "2"], entity=["2", "2", "9"], relation=[])
    new = old._replace(item=["2", "9", "1"], entity=["2", "9", "2", "9"])
    assert Rows.between(old, new).entity.tolist() == [1, -1, 0, 2]
    assert Rows.between(old, old._replace(item=[], entity=["2", "9"])).entity.tolist() == [0, 2]


def test_an_entity_that_has_become_an_item():
    got = rows(item=["x", "r", "new"], entity=["x", "r", "new", "q"])
    assert got["item"] == [0, -1, -1]
    assert got["entity"] == [0, 3, -1, 4]


def test_nothing_there():
    assert rows(relation=[])["relation"] == []
    assert Rows.between(OLD._replace(relation=[]), OLD).relation.tolist() == [-1]


def test_ids_as_text():
    assert DataIds.unpacked(OLD.packed()) == OLD
    assert all(isinstance(text, str) for text in OLD.packed().values())
    with pytest.raises(KeyError, match="item"):
        DataIds.unpacked({"user": "[]"})
