"""Names and the numbers they stand for."""

from types import SimpleNamespace

import numpy as np
import pytest

from mgwa_pyg.recommend.catalog import Catalog

NAMES = ["Blur", "ABBA", "The Cure", "Air", "Air", "air ", "Sigur Rós"]


@pytest.fixture
def catalog():
    return Catalog(
        SimpleNamespace(
            num_users=3,
            num_items=len(NAMES),
            num_entities=10,
            num_relations=2,
            item_names=NAMES,
            relation_names=["origin", "genre"],
        )
    )


def test_items_go_by_number_or_name(catalog):
    assert catalog.item("ABBA") == catalog.item(1) == catalog.item(np.int64(1)) == 1
    assert catalog.item("  sigur rós") == 6
    assert catalog.item("air ") == 5  # As it is written; "Air" would be two.
    assert catalog.items(["The Cure", 0, "blur"]).tolist() == [0, 2]


def test_nodes_and_relations_have_names(catalog):
    assert [catalog.name(node) for node in (0, 7, 9, 10, 12)] == [
        "Blur",
        "entity 7",
        "entity 9",
        "user 0",
        "user 2",
    ]
    relations = ["origin", "genre", "origin", "genre", "listens", "listens"]
    assert [catalog.relation(relation) for relation in range(6)] == relations


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda c: c.item("Abbba"), ValueError, "no item is called 'Abbba': did you mean 'ABBA'"),
        (lambda c: c.item("zzz"), ValueError, "no item is called 'zzz': nor anything like it"),
        (
            lambda c: c.item("Air"),
            ValueError,
            r"2 items are called 'Air': choose one by its number, \[3, 4\]",
        ),
        (lambda c: c.item("AIR"), ValueError, "3 items are called 'AIR'"),
        (lambda c: c.item(7), IndexError, "item=7: whole numbers from 0 to 6"),
        (lambda c: c.item(-1), IndexError, "item=-1"),
        (lambda c: c.item(1.0), TypeError, r"item=1\.0: a name or a whole number"),
        (lambda c: c.item(True), TypeError, "item=True"),
        (lambda c: c.item(None), TypeError, "item=None"),
        (lambda c: c.user(3), IndexError, "user=3: whole numbers from 0 to 2"),
        (lambda c: c.user("1"), TypeError, "user='1': a whole number"),
        (lambda c: c.items("ABBA"), TypeError, r"items='ABBA': pass a list"),
        (lambda c: c.items(3), TypeError, "items=3: pass a list"),
        (lambda c: c.items([]), ValueError, "items is empty"),
        (lambda c: c.items([0, "nobody"]), ValueError, "no item is called 'nobody'"),
    ],
)
def test_errors_name_what_is_wrong(catalog, ask, error, message):
    with pytest.raises(error, match=message):
        ask(catalog)
