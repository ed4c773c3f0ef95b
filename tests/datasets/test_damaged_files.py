"""Data sets from damaged raw files, and with arguments that make no sense."""

import io
import itertools
import os
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st

from mgwa_pyg.datasets import RecBoleKG, SyntheticKG
from mgwa_pyg.datasets.interactions import interactions
from tests.damage import answer, damaged, examples, faults_of
from tests.datasets import test_book_crossing_kg as book_crossing
from tests.datasets import test_lastfm_kg as lastfm
from tests.datasets import test_recbole_kg as recbole
from tests.datasets.test_book_crossing_kg import TinyBookCrossingKG
from tests.datasets.test_lastfm_kg import TinyLastFMKG

KG = ("entity", "kg", "entity")
NOISE = bytes(range(128, 160))
#: What may stand in place of a field.
FIELDS = ["", "x", "-1", "1.5", "nan", "1e3", "9" * 30, "007", " 5", "1_0", "\u0663", "\x00", '"1"', "0", "2"]


def spoil(content, fault, place, field):
    """The bytes of a file with a fault at a place."""
    lines = content.split(b"\n")
    row = place % max(1, len(lines) - 1)
    cells = lines[row].split(b"\t")
    line = {
        "field": b"\t".join([*cells[: place % len(cells)], field.encode(), *cells[place % len(cells) + 1 :]]),
        "field more": lines[row] + b"\t" + field.encode(),
        "field less": b"\t".join(cells[:-1]),
        "commas": lines[row].replace(b"\t", b","),
        "spaces": lines[row].replace(b"\t", b" "),
        "blank line": lines[row] + b"\n",
        "line twice": lines[row] + b"\n" + lines[row],
        "carriage return": lines[row] + b"\r",
        "header again": lines[row] + b"\n" + lines[0],
    }
    if fault in line:
        return b"\n".join([*lines[:row], line[fault], *lines[row + 1 :]])
    at = place % (len(content) + 1)
    return {
        "cut": content[:at],
        "empty": b"",
        "no line": b"\n".join([*lines[:row], *lines[row + 1 :]]),
        "noise": content[:at] + NOISE + content[at:],
        "nul": content[:at] + b"\x00" + content[at:],
        "byte": content[:at]
        + bytes(byte ^ 1 << place % 8 for byte in content[at : at + 1])
        + content[at + 1 :],
        "only carriage returns": content.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
        "windows": content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
        "mark": b"\xef\xbb\xbf" + content,
        "zip": b"PK\x03\x04" + content,
    }[fault]


FAULTS = [
    *("field", "field more", "field less", "commas", "spaces", "blank line", "line twice", "carriage return"),
    *("header again", "cut", "empty", "no line", "noise", "nul", "byte", "only carriage returns", "windows"),
    *("mark", "zip"),
]
#: In which file, what, and where; the second one only now and then.
DAMAGES = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from([*FAULTS, *4 * ["field"], "missing", "a folder"]),
        st.integers(0, 999),
        st.sampled_from(FIELDS),
    ),
    max_size=2,
)


def load_spoilt(write, damages, load):
    """What becomes of a data set when its raw files are damaged: itself and its files, or twice None."""
    with tempfile.TemporaryDirectory() as name:
        raw, kept = Path(name, "raw"), Path(name, "kept")
        write(raw)
        files = sorted(path for path in raw.rglob("*") if path.is_file())
        for number, fault, place, field in damages:
            path = files[number % len(files)]
            if not path.is_file():
                continue
            content = path.read_bytes()
            if fault in ("missing", "a folder"):
                path.unlink()
                if fault == "a folder":
                    path.mkdir()
            else:
                path.write_bytes(spoil(content, fault, place, field))
        before = sorted(raw.rglob("*"))
        with mock.patch.dict(os.environ, MGWA_PYG_RAW=str(raw)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A user may also have too many positives for as many negatives.
            dataset = answer([path.name for path in files] + ["User"], lambda: load(raw, kept))
        if dataset is None:
            assert damages
            assert sorted(raw.rglob("*")) == before
            assert not [path for path in kept.rglob("*") if path.is_file()]
            return None, None
        return dataset, {path.name: path.read_bytes() for path in files if path.is_file()}


def rows_of(content, header=True):
    lines = content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    return [line.split("\t") for line in lines[header:]]


def assert_holds(dataset, positives, triples, num_users, num_entities, negatives=None):
    """The data are these tables, and negatives as there should be."""
    data = dataset[0]
    data.validate()
    assert (data["user"].num_nodes, data["entity"].num_nodes) == (num_users, num_entities)
    pairs = list(map(tuple, interactions(data).edge_label_index.t().tolist()))
    half = len(positives)
    assert pairs[:half] == sorted(positives)
    assert interactions(data).edge_label.tolist() == [1.0] * half + [0.0] * (len(pairs) - half)
    assert len(set(pairs)) == len(pairs)
    pool = num_entities if dataset.negatives == "entities" else dataset.num_items
    of_user = Counter(user for user, _ in positives)
    if negatives is None:  # As many as positives, or what is left.
        left = {user: min(count, pool - count) for user, count in of_user.items()}
        assert Counter(user for user, _ in pairs[half:]) == Counter(left)
    else:
        assert sorted(pairs[half:]) == sorted(negatives)
    head, tail = data[KG].edge_index[:, : len(triples)].tolist()
    relation = data[KG].rel_type[: len(triples)].tolist()
    assert list(zip(head, relation, tail, strict=True)) == triples
    assert data[KG].edge_index.size(1) == 2 * len(triples)


def numbers():
    """A table that numbers what it is asked for by first appearance."""
    return defaultdict(itertools.count().__next__)


@examples(
    "Last.FM's files",
    damages=DAMAGES,
    negatives=st.sampled_from(["items", "entities", "frozen"]),
    split=st.sampled_from(["random", "lightkg"]),
)
def test_files_of_lastfm(damages, negatives, split):
    dataset, files = load_spoilt(
        lambda raw: lastfm.write(raw / "lastfm"),
        damages,
        lambda raw, kept: TinyLastFMKG(kept, negatives=negatives, split=split),
    )
    if dataset is None:
        return
    links = [
        (int(artist), int(entity)) for artist, entity in rows_of(files["item_index2entity_id.txt"], False)
    ]
    item_of = {artist: number for number, (artist, _) in enumerate(links)}
    entity_of, relation_of, user_of = numbers(), numbers(), numbers()
    for _, entity in links:
        entity_of[entity]
    called = {int(row[0]): row[1] for row in rows_of(files["artists.dat"])}
    assert list(dataset.item_names) == [called[artist] for artist, _ in links]
    positives = {
        (user_of[int(user)], item_of[int(artist)])
        for user, artist, _ in rows_of(files["user_artists.dat"])
        if int(artist) in item_of
    }
    triples = [
        (entity_of[int(head)], relation_of[relation], entity_of[int(tail)])
        for head, relation, tail in rows_of(files["kg.txt"], False)
    ]
    frozen = None
    if negatives == "frozen":
        rows = [tuple(map(int, row)) for row in rows_of(files["ratings_final.txt"], False)]
        frozen = [(user, item) for user, item, label in rows if label == 0]
    assert_holds(dataset, positives, triples, len(user_of), len(entity_of), frozen)
    assert list(dataset.relation_names) == list(relation_of)
    if split == "lightkg":
        for part in ("train", "valid", "test"):
            wanted = sorted(
                (user_of[int(user)], item_of[int(artist)])
                for user, artist, _ in rows_of(files[f"lastfm.{part}.inter"])
            )
            links = interactions(dataset[0])
            mask = links[f"{part.removesuffix('id')}_mask"] & (links.edge_label == 1)
            assert links.edge_label_index[:, mask].t().tolist() == list(map(list, wanted))


@examples(
    "RecBole's files",
    damages=DAMAGES,
    how=st.sampled_from([("random", None), ("random", 3.0), ("files", 3.0)]),
)
def test_files_of_recbole(damages, how):
    split, min_rating = how
    tables = recbole.TINY if split == "random" else recbole.PARTS
    dataset, files = load_spoilt(
        lambda raw: recbole.write(raw, tables),
        damages,
        lambda raw, _: RecBoleKG(raw, "tiny", negatives="entities", split=split, min_rating=min_rating),
    )
    if dataset is None:
        return

    def table(end, *fields):
        header, *rows = rows_of(files[f"tiny.{end}"], header=False)
        places = [[name.split(":")[0] for name in header].index(field) for field in fields]
        return [[row[place] for place in places] for row in rows]

    user_of, item_of, relation_of = (numbers() for _ in range(3))
    positives = set()
    for end in [end for end in tables if end.endswith("inter")]:
        for user, item, *rating in table(end, "user_id", "item_id", *["rating"] * (min_rating is not None)):
            if not rating or float(rating[0]) >= min_rating:
                positives.add((user_of[user], item_of[item]))
    item_at = {
        entity: item_of[item] for item, entity in table("link", "item_id", "entity_id") if item in item_of
    }
    others = numbers()

    def number(entity):
        return item_at[entity] if entity in item_at else len(item_of) + others[entity]

    triples = [
        (number(head), relation_of[relation], number(tail))
        for head, relation, tail in table("kg", "head_id", "relation_id", "tail_id")
    ]
    assert_holds(dataset, positives, triples, len(user_of), len(item_of) + len(others))
    assert list(dataset.item_names) == list(item_of)
    assert list(dataset.relation_names) == list(relation_of)


@examples(
    "Book-Crossing's files", damages=DAMAGES, negatives=st.sampled_from(["items", "entities", "frozen"])
)
def test_files_of_book_crossing(damages, negatives):
    dataset, files = load_spoilt(
        lambda raw: book_crossing.write(raw / "book_crossing"),
        damages,
        lambda raw, kept: TinyBookCrossingKG(kept, negatives=negatives),
    )
    if dataset is None:
        return
    rows = np.load(io.BytesIO(files[book_crossing.RATINGS])).tolist()
    positives = {(user, item) for user, item, label in rows if label == 1}
    triples = [tuple(map(int, row)) for row in rows_of(files[book_crossing.TRIPLES], False)]
    frozen = [(user, item) for user, item, label in rows if label == 0] if negatives == "frozen" else None
    num_entities = 1 + max(
        [item for _, item, _ in rows] + [node for head, _, tail in triples for node in (head, tail)]
    )
    num_users = 1 + max(user for user, _ in positives)
    assert_holds(dataset, positives, triples, num_users, num_entities, frozen)


SIZES = {
    "num_users": 6,
    "num_items": 8,
    "num_entities": 12,
    "num_relations": 3,
    "num_triples": 20,
    "num_interactions": 12,
}
OPTIONS = {"negatives": "items", "seed": 0, "split": "random"}


@examples(
    "SyntheticKG",
    faults=faults_of([], [*SIZES, "seed"], ["negatives", "split"], max_size=3),
    pair_faults=faults_of(["user", "item"]),
)
def test_synthetic_kg(faults, pair_faults):
    given = damaged({**SIZES, **OPTIONS}, faults)
    dataset = answer(given, lambda: SyntheticKG(**given))
    if dataset is None:
        assert faults
        return
    wanted = {name: int(given[name]) for name in SIZES if given[name] is not None}
    assert {name: getattr(dataset, name) for name in wanted} == wanted
    data = dataset[0]
    data.validate()
    pairs = interactions(data).edge_label_index
    assert len(set(map(tuple, pairs.t().tolist()))) == pairs.size(1) == 2 * dataset.num_interactions
    assert pairs.min() >= 0
    assert int(pairs[1].max()) < dataset.num_items
    assert int(pairs[0].max()) < dataset.num_users

    good = {
        "user": torch.tensor([0, 0, dataset.num_users - 1]),
        "item": torch.tensor([0, 1, dataset.num_entities - 1]),
    }
    asked = damaged(good, pair_faults)
    score = answer(good, lambda: dataset.planted_score(**asked))
    if score is None:
        assert pair_faults
        return
    assert score.shape == asked["user"].shape
    for place, (user, item) in enumerate(zip(asked["user"].tolist(), asked["item"].tolist(), strict=True)):
        if item >= dataset.num_items:
            assert score[place] == -torch.inf
        else:
            every = dataset.planted_score(
                torch.full((dataset.num_items,), user), torch.arange(dataset.num_items)
            )
            torch.testing.assert_close(score[place], every[item])
