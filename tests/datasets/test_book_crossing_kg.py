"""Book-Crossing: on an invented data set of the same form, and on the real files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mgwa_pyg.datasets import BookCrossingKG, RawDataError, download
from mgwa_pyg.datasets.download import RawFile

KG = ("entity", "kg", "entity")
LINKS = ("user", "reads", "entity")
RATINGS, TRIPLES = "ratings_final.npy", "kg_final.txt"

# Items 0 to 4, of which item 4 is a negative only; entities 0 to 6.
ROWS = [
    *([1, 3, 1], [0, 2, 1], [0, 1, 0], [1, 4, 0], [0, 0, 1], [0, 4, 0]),
    *([2, 1, 1], [2, 0, 0]),
]
LINES = "5\t1\t0\n0\t0\t6\n3\t1\t6\n5\t1\t0\n"


class TinyBookCrossingKG(BookCrossingKG):
    raw_files = {name: RawFile() for name in BookCrossingKG.raw_files}  # noqa: RUF012


def write(folder, rows=ROWS, lines=LINES):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / RATINGS, np.array(rows, dtype=np.int32))
    (folder / TRIPLES).write_text(lines)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with the tiny raw files in place."""
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    write(tmp_path / "raw")
    return tmp_path


def check(dataset, rows, triples):
    data = dataset[0]
    assert data.validate()
    positives = sorted((user, item) for user, item, label in rows if label == 1)
    links = data[LINKS]
    half = len(positives)
    assert list(map(tuple, links.edge_label_index[:, :half].t().tolist())) == positives
    negatives = list(map(tuple, links.edge_label_index[:, half:].t().tolist()))
    assert [user for user, _ in negatives] == [user for user, _ in positives]
    assert not set(negatives) & set(positives)
    if dataset.negatives == "frozen":
        assert sorted(negatives) == sorted((user, item) for user, item, label in rows if label == 0)
    head, relation, tail = torch.tensor(triples).t()
    num_relations = len({r for _, r, _ in triples})
    assert data[KG].edge_index.equal(torch.stack([torch.cat([head, tail]), torch.cat([tail, head])]))
    assert data[KG].rel_type.equal(torch.cat([relation, relation + num_relations]))
    assert dataset.relation_names == [str(r) for r in range(num_relations)]
    assert dataset.item_names == [str(i) for i in range(dataset.num_items)]


@pytest.mark.parametrize("negatives", ["items", "entities", "frozen"])
def test_tables(root, negatives):
    dataset = TinyBookCrossingKG(root, negatives=negatives)
    check(dataset, ROWS, [[5, 1, 0], [0, 0, 6], [3, 1, 6], [5, 1, 0]])
    assert repr(dataset) == (
        "TinyBookCrossingKG(users=3, items=5, interactions=4, entities=7, relations=2, triples=4)"
    )


def test_frozen_negatives_keep_the_file_s_order(root):
    links = TinyBookCrossingKG(root, negatives="frozen")[0][LINKS]
    assert links.edge_label_index[:, 4:].t().tolist() == [[0, 1], [0, 4], [1, 4], [2, 0]]


def changed(row, new):
    return [new if i == row else old for i, old in enumerate(ROWS) if new is not None or i != row]


@pytest.mark.parametrize("negatives", ["items", "frozen"])
@pytest.mark.parametrize(
    ("rows", "row", "problem"),
    [
        (changed(3, [1, 4, 2]), 4, "the label is 2, not 0 or 1"),
        (changed(3, [1, 3, 0]), 4, "user 1 and item 3 have an earlier row"),
        (changed(3, [0, 4, 0]), 6, "user 0 and item 4 have an earlier row"),
        (changed(3, [4, 4, 0]), 4, "user 4 is none of the 3 users"),
        (changed(3, [0, 3, 0]), None, "user 0 has 3 negatives instead of 2"),
        (changed(3, None), None, "user 1 has 0 negatives instead of 1"),
        (changed(4, None), None, "user 0 has 2 negatives instead of 1"),
        (changed(0, None), None, "it has no user with a positive numbered 1"),
        ([[0, 0, 0]], None, "it has no user with a positive numbered 0"),
        ([*ROWS, [0, 9, 1]], None, "it has no item numbered 5"),
        ([[0, 0, 1, 5]], None, "its shape is [1, 4] instead of [num_rows, 3] (user, item, label)"),
    ],
)
def test_bad_ratings(root, negatives, rows, row, problem):
    write(root / "raw", rows)
    with pytest.raises(RawDataError) as error:
        TinyBookCrossingKG(root, negatives=negatives)
    path = root / "raw" / RATINGS
    assert str(error.value).startswith(f"'{path}': " if row is None else f"'{path}', row {row}: ")
    assert problem in str(error.value)
    assert not (root / "processed").exists()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (LINES.replace("3\t1\t6", "3\t1"), ", line 3: '3\\t1' has 2 fields instead of 3 (head"),
        (LINES.replace("3\t1\t6", "3\tx\t6"), ", line 3: the relation 'x' is not"),
        (LINES.replace("3\t1\t6", "3\t3\t6"), ": it has no relation numbered 2"),
        (LINES.replace("3\t1\t6", "3\t1\t8"), ": it has no entity numbered 7"),
        ("", ": it is empty"),
    ],
)
def test_bad_triples(root, lines, problem):
    write(root / "raw", lines=lines)
    with pytest.raises(RawDataError) as error:
        TinyBookCrossingKG(root)
    assert str(error.value).startswith(f"'{root / 'raw' / TRIPLES}'{problem}")


@pytest.mark.parametrize("name", [RATINGS, TRIPLES])
def test_wrong_checksum(root, monkeypatch, name):
    monkeypatch.setattr(
        TinyBookCrossingKG,
        "raw_files",
        {n: RawFile(sha256="0" * 64 if n == name else None) for n in (RATINGS, TRIPLES)},
    )
    found = hashlib.sha256((root / "raw" / name).read_bytes()).hexdigest()
    with pytest.raises(RawDataError, match=f"{name}': its SHA-256 is {found} instead of 0000"):
        TinyBookCrossingKG(root)


def test_missing_files_are_downloaded(root, tmp_path, monkeypatch):
    served = {
        name: RawFile((root / "raw" / name).as_uri(), (root / "raw" / name).stat().st_size)
        for name in (RATINGS, TRIPLES)
    }
    monkeypatch.setattr(TinyBookCrossingKG, "raw_files", served)
    monkeypatch.setattr(download, "SCHEMES", ("file",))
    TinyBookCrossingKG(tmp_path / "new")
    for name in (RATINGS, TRIPLES):
        assert (tmp_path / "new" / "raw" / name).read_bytes() == (root / "raw" / name).read_bytes()


@pytest.mark.real_data
@pytest.mark.parametrize("negatives", ["items", "entities", "frozen"])
def test_real_tables(tmp_path, lastfm_raw, negatives):
    folder = Path(lastfm_raw, "book_crossing")
    dataset = BookCrossingKG(tmp_path, negatives=negatives)
    rows = np.load(folder / RATINGS, allow_pickle=False).tolist()
    assert len(rows) == 139_746
    triples = [list(map(int, line.split())) for line in (folder / TRIPLES).read_text().splitlines()]
    check(dataset, rows, triples)
    assert repr(dataset) == (
        "BookCrossingKG(users=17860, items=14967, interactions=69873, entities=77903, relations=25, "
        "triples=151500)"
    )
    for name in (RATINGS, TRIPLES):
        assert (folder / name).stat().st_size == BookCrossingKG.raw_files[name].size


@pytest.mark.real_data
@pytest.mark.parametrize("name", [RATINGS, TRIPLES])
def test_real_checksums(tmp_path, lastfm_raw, monkeypatch, name):
    monkeypatch.delenv("MGWA_PYG_RAW")
    (tmp_path / "raw").mkdir()
    for other in (RATINGS, TRIPLES):
        content = (lastfm_raw / "book_crossing" / other).read_bytes()
        if other == name == RATINGS:
            content = content[:-12] + np.array([17859, 1, 0], dtype=np.int32).tobytes()
        elif other == name:
            content = content[: content.rindex(b"\n", 0, -1) + 1]
        (tmp_path / "raw" / other).write_bytes(content)
    with pytest.raises(RawDataError, match=f"{name}': its SHA-256 is .* instead of"):
        BookCrossingKG(tmp_path)
