"""Ids and names, and the rows they stand for."""

import unicodedata
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mgwa_pyg.recommend.catalog import Catalog, ItemId, one_line, whole_number

NAMES = ["Blur", "ABBA", "The Cure", "Air", "Air", "air ", "Sigur Rós"]


def made(users=range(3), items=range(7), names=NAMES, relations=("origin", "genre")):
    entities = [*names, *(f"the {place}" for place in ("north", "south", "east"))]
    return Catalog(
        SimpleNamespace(
            num_users=len(users),
            num_items=len(items),
            num_entities=len(entities),
            num_relations=len(relations),
            user_ids=users,
            item_ids=items,
            entity_names=entities,
            relation_names=list(relations),
        )
    )


@pytest.fixture
def catalog():
    return made()


def test_items_go_by_id_or_name(catalog):
    assert catalog.item("ABBA") == catalog.item(1) == catalog.item(np.int64(1)) == catalog.item("1") == 1
    assert catalog.item("  sigur rós") == 6
    assert catalog.item("air ") == 5  # As it is written; "Air" would be two.
    assert catalog.items(["The Cure", 0, "blur"]).tolist() == [0, 2]


def test_ids_are_those_of_the_files():
    """Ids that are other rows' numbers: whoever takes one for the other is found out."""
    catalog = made(users=[2, 0, 1], items=["30", "x7", "2", "007", "7", "1", "0"])
    assert [catalog.user(user) for user in (0, 1, 2)] == [1, 2, 0]
    assert [catalog.user(user) for user in ("2", np.uint8(2), torch.tensor([5, 2])[1], np.array(2))] == [
        0
    ] * 4
    assert [catalog.item(item) for item in (30, "30", "x7", 7, "007", 0)] == [0, 0, 1, 4, 3, 6]
    assert catalog.items(torch.tensor([2, 30])).tolist() == catalog.items(["30", 2, 2]).tolist() == [0, 2]
    assert catalog.name(10) == "user 2"
    assert catalog.user_ids(torch.tensor([2, 2, 0])).tolist() == [1, 1, 2]
    assert catalog.item_ids(torch.tensor([6, 3])).tolist() == ["0", "007"]


@pytest.mark.parametrize("ids", [range(3), [5, 7, 9], ["a", "b", "c"]], ids=str)
def test_ids_have_a_type_without_rows_too(ids):
    some, none = (made(users=ids).user_ids(torch.tensor(rows).long()) for rows in ([0], []))
    assert some.dtype == none.dtype == pd.Series(list(ids)).dtype


def test_what_is_the_id_of_one_and_the_name_of_another_is_asked_back():
    catalog = made(items=[11, 12, 13, 300, 15, 16, 17], names=["300", "301", "x", "y", "301", "z", "15"])
    with pytest.raises(ValueError, match=r"may be one of 2 items: .* from 11 \('300'\), 300 \('y'\)"):
        catalog.item("300")
    assert catalog.item(300) == 3
    assert catalog.item(11) == 0
    catalog = made(items=["11", "x"], names=["x", "11"])
    with pytest.raises(ValueError, match=r"from ItemId\('11'\) \('x'\), ItemId\('x'\) \('11'\)$"):
        catalog.items(["x"])
    assert catalog.items([ItemId("x")]).tolist() == [1]
    rows = torch.tensor([1, 0])
    assert catalog.items(catalog.item_ids(rows)).tolist() == [0, 1]
    assert [catalog.item(item) for item in pd.DataFrame({"item": catalog.item_ids(rows)})["item"]] == [1, 0]
    with pytest.raises(ValueError, match="no item has the id 'y'"):
        catalog.item(ItemId("y"))
    # Of one item it may be both.
    assert made(items=NAMES[:3], names=NAMES[:3]).item("ABBA") == 1


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("Sigur Rós", unicodedata.normalize("NFD", "Sigur Rós")),
        (unicodedata.normalize("NFD", "Beyoncé"), unicodedata.normalize("NFC", "BEYONCÉ")),
        ("Guns N’ Roses", "guns n' roses"),
        ("Guns N' Roses", "Guns N’ Roses"),
        ("“Weird Al” Yankovic", '"Weird Al" Yankovic'),
        ("Jay–Z", "jay-z"),
        ("a‑ha", "A-ha"),
        ("The  Cure", "the cure"),
        ("The\u00a0Cure", "The Cure"),
        ("The Cure", " The \t\u2009Cure\n"),
        ("Straße", "STRASSE"),
        ("ＡＢＢＡ", "abba"),
        ("soft\u00adhyphen\u200b", "softhyphen"),
        ("❤\ufe0f", "❤"),
        ("two\nlines", "two lines"),
        ("\x1b[31mred", " [31mred"),
    ],
)
def test_ways_to_write_a_name_find_it(name, asked):
    assert made(items=range(2), names=["another", name]).item(asked) == 1


def test_of_names_that_are_written_alike_the_exact_one_is_meant():
    names = ["Beyoncé", unicodedata.normalize("NFD", "Beyoncé")]
    catalog = made(items=range(2), names=names)
    assert [catalog.item(name) for name in names] == [0, 1]
    with pytest.raises(ValueError, match="2 items"):
        catalog.item("BEYONCÉ")


def test_nodes_and_relations_have_names(catalog):
    assert [catalog.name(node) for node in (0, 7, 9, 10, 12)] == [
        "Blur",
        "the north",
        "the east",
        "user 0",
        "user 2",
    ]
    relations = ["origin", "genre", "origin", "genre", "listens", "listens"]
    assert [catalog.relation(relation) for relation in range(6)] == relations
    assert made(relations=["listens"]).relation(1) == "listens (of entities)"


@pytest.mark.parametrize("value", [4, np.int8(4), np.array(4), torch.tensor(4), torch.tensor([3, 4])[1]])
def test_whole_numbers(value):
    assert whole_number(value) == 4


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, torch.tensor(True), np.array(True), 4.0, np.float32(4), torch.tensor(4.0)),
        *(
            torch.tensor([4]),
            np.array([4]),
            torch.empty((), dtype=torch.long, device="meta"),
            None,
            "4",
            b"4",
        ),
    ],
    ids=repr,
)
def test_no_whole_numbers(value):
    assert whole_number(value) is None


def test_a_line_is_one_line_and_the_rest_is_as_it_was():
    assert one_line("a\nb\x1b[31m\u2028c \u00a0 d\u202ee\U0001f469\u200d\U0001f3a4[b]$x$") == (
        "a b [31m c \u00a0 d e\U0001f469\u200d\U0001f3a4[b]$x$"
    )


OWN = {"users": ["196", "anna", "7"], "items": [400, 42, 43, 44, 45, 46, 47]}


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda c: c.item("Abbba"), ValueError, "no item is called 'Abbba': did you mean 'ABBA'"),
        (lambda c: c.item("zzz"), ValueError, "no item is called 'zzz', nor anything like it"),
        (lambda c: c.item("Air"), ValueError, r"2 items: choose one by its id.* 3 \('Air'\), 4 \('Air'\)$"),
        (lambda c: c.item("AIR"), ValueError, "the item 'AIR' may be one of 3 items"),
        (lambda c: c.item(7), IndexError, "item=7: whole numbers from 0 to 6"),
        (lambda c: c.item(-1), IndexError, "item=-1"),
        (lambda c: c.item(1.0), TypeError, r"item=1\.0: an id or a name is needed"),
        (lambda c: c.item(True), TypeError, "item=True"),
        (lambda c: c.item(None), TypeError, "item=None"),
        (lambda c: c.user(3), IndexError, "user=3: whole numbers from 0 to 2"),
        (lambda c: c.user("me"), ValueError, "no user has the id 'me', nor anything like it"),
        (lambda c: c.user(1.0), TypeError, r"user=1\.0: an id is needed"),
        (lambda c: c.items("ABBA"), TypeError, r"items='ABBA': pass a list"),
        (lambda c: c.items(3), TypeError, "items=3: pass a list"),
        (lambda c: c.items(torch.tensor(3)), TypeError, r"items=tensor\(3\): pass a list"),
        (lambda c: c.items(torch.eye(2).long()), TypeError, r"item=tensor\(\[1, 0\]\)"),
        (lambda c: c.items([]), ValueError, "items is empty"),
        (lambda c: c.items([0, "nobody"]), ValueError, "no item is called 'nobody'"),
        (lambda c: made(**OWN).user(0), IndexError, "no user has the id 0, nor anything like it"),
        (lambda c: made(**OWN).user(1996), IndexError, "no user has the id 1996: did you mean '196'"),
        (lambda c: made(**OWN).user("Anna"), ValueError, "no user has the id 'Anna': did you mean 'anna'"),
        (lambda c: made(**OWN).item(0), IndexError, "no item has the id 0"),
        (lambda c: made(**OWN).item(4000), IndexError, "no item has the id 4000: did you mean 400"),
    ],
)
def test_errors_name_what_is_wrong(catalog, ask, error, message):
    with pytest.raises(error, match=message):
        ask(catalog)
