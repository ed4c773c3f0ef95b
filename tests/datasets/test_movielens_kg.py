"""MovieLens, 20M and 1M: on invented files of the same form, beside the papers' preprocessing row by row."""

import numpy as np
import pytest
import torch

from mgwa_pyg.datasets import DownloadError, MovieLens1MKG, MovieLens20MKG, RawDataError, download, raw
from mgwa_pyg.datasets.download import RawFile

KG = ("entity", "kg", "entity")
LINKS = ("user", "watches", "entity")

# Movie 99 has no entity, user 4 no rating of at least 4, movie 40 no positive.
RATINGS = [
    *((9, 99, 5), (5, 30, 4), (2, 20, 5), (4, 10, 3), (5, 10, 5), (9, 40, 3), (7, 20, 4)),
    *((9, 10, 4), (2, 10, 1), (9, 50, 5), (7, 30, 2)),
]
ITEMS = [(10, 7), (20, 3), (30, 100), (40, 5), (50, 8), (60, 9)]
TRIPLES = [
    *((200, "r.b", 7), (7, "r.a", 201), (3, "r.b", 7), (7, "r.c", 201), (202, "r.a", 200), (9, "r.a", 201)),
]
SIZES = {"users": 4, "items": 6, "interactions": 6, "entities": 9, "relations": 3, "triples": 6}


class Tiny20M(MovieLens20MKG):
    expected_statistics = SIZES


class Tiny1M(MovieLens1MKG):
    expected_statistics = SIZES


def lines(rows, separator="\t", end="\n"):
    return "".join(separator.join(map(str, row)) + end for row in rows)


def files(cls):
    """The tiny data set in the form of either class, by file name."""
    rows = [(*row, 978300760 + i) for i, row in enumerate(RATINGS)]
    if cls is Tiny20M:
        halves = [(user, movie, rating - (rating == 3) / 2, time) for user, movie, rating, time in rows]
        return {
            "ratings.csv": "userId,movieId,rating,timestamp\n" + lines(halves, ","),
            "item_index2entity_id.txt": lines(ITEMS, end="\r\n"),
            "kg.txt": lines(TRIPLES, end="\r\n"),
        }
    return {
        "ratings.dat": lines(rows, "::"),
        "item_index2entity_id_rehashed.txt": lines(ITEMS),
        "kg_part1_rehashed.txt": lines(TRIPLES[:2]),
        "kg_part2_rehashed.txt": lines(TRIPLES[2:]),
    }


def write(folder, cls):
    folder.mkdir(parents=True)
    for name, text in files(cls).items():
        (folder / name).write_bytes(text.encode())


@pytest.fixture(params=[Tiny20M, Tiny1M])
def cls(request, monkeypatch):
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    return request.param


@pytest.fixture
def root(tmp_path, cls):
    """A root with the tiny raw files in place."""
    write(tmp_path / "raw", cls)
    return tmp_path


def slow_tables():
    item_of = {movie: i for i, (movie, _) in enumerate(ITEMS)}
    entity_of = {entity: i for i, (_, entity) in enumerate(ITEMS)}
    user_of, relation_of, positives, triples = {}, {}, set(), []
    for user, movie, rating in RATINGS:
        if movie in item_of and rating >= 4:
            positives.add((user_of.setdefault(user, len(user_of)), item_of[movie]))
    for head, relation, tail in TRIPLES:
        h = entity_of.setdefault(head, len(entity_of))
        r = relation_of.setdefault(relation, len(relation_of))
        triples.append((h, r, entity_of.setdefault(tail, len(entity_of))))
    return sorted(positives), triples


@pytest.mark.parametrize("negatives", ["items", "entities"])
@pytest.mark.parametrize("chunk", [1, 4, 2**20])
def test_tables(root, cls, monkeypatch, negatives, chunk):
    monkeypatch.setattr(raw, "CHUNK", chunk)
    dataset = cls(root, negatives=negatives)
    positives, triples = slow_tables()
    data = dataset[0]
    assert data.validate()
    pairs = data[LINKS].edge_label_index.t().tolist()
    assert list(map(tuple, pairs[:6])) == positives
    assert not set(map(tuple, pairs[6:])) & set(positives)
    head, relation, tail = torch.tensor(triples).t()
    assert data[KG].edge_index.equal(torch.stack([torch.cat([head, tail]), torch.cat([tail, head])]))
    assert data[KG].rel_type.equal(torch.cat([relation, relation + 3]))
    assert dataset.item_names == ["10", "20", "30", "40", "50", "60"]
    assert dataset.relation_names == ["r.b", "r.a", "r.c"]
    assert repr(dataset) == (
        f"{cls.__name__}(users=4, items=6, interactions=6, entities=9, relations=3, triples=6)"
    )


def test_indices_by_hand(root, cls):
    # Users 5, 2, 7, 9 by their first positive; items 10, 20, 30, 40, 50, 60.
    pairs = cls(root)[0][LINKS].edge_label_index[:, :6]
    assert pairs.tolist() == [[0, 0, 1, 2, 3, 3], [0, 2, 1, 1, 0, 4]]


def test_the_first_line_of_the_small_one_is_a_rating(tmp_path, monkeypatch):
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    write(tmp_path / "raw", Tiny1M)
    path = tmp_path / "raw" / "ratings.dat"
    path.write_text("5::50::5::1\n" + path.read_text())
    monkeypatch.setattr(Tiny1M, "expected_statistics", {**SIZES, "interactions": 7})
    assert Tiny1M(tmp_path).num_interactions == 7


@pytest.mark.parametrize(("original", "archive"), [(MovieLens20MKG, "ml-20m"), (MovieLens1MKG, "ml-1m")])
def test_missing_ratings(tmp_path, monkeypatch, original, archive):
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    with pytest.raises(FileNotFoundError) as error:
        original(tmp_path / "new")
    folder = tmp_path / "new" / "raw"
    assert str(error.value) == (
        f"'{folder}' has no file {original.ratings_file}, which cannot be downloaded by itself. Download "
        f"http://files.grouplens.org/datasets/movielens/{archive}.zip, unpack it, and copy its file "
        f"{archive}/{original.ratings_file} into '{folder}'."
    )
    assert not folder.exists()
    monkeypatch.setenv("MGWA_PYG_RAW", str(tmp_path / "shared"))
    with pytest.raises(FileNotFoundError) as error:
        original(tmp_path / "new")
    assert f"into '{tmp_path / 'shared' / original.raw_folder}'." in str(error.value)


def test_the_knowledge_graph_is_downloaded(root, cls, tmp_path, monkeypatch):
    names = [name for name in files(cls) if not name.startswith("ratings")]
    assert list(cls.raw_files) == names
    served = {name: RawFile((root / "raw" / name).as_uri()) for name in names}
    monkeypatch.setattr(cls, "raw_files", served)
    monkeypatch.setattr(download, "SCHEMES", ("file",))
    new = tmp_path / "new" / "raw"
    new.mkdir(parents=True)
    (new / cls.ratings_file).write_text(files(cls)[cls.ratings_file])
    assert repr(cls(tmp_path / "new")) == repr(cls(root))
    (root / "raw" / names[0]).unlink()
    (new / names[0]).unlink()
    with pytest.raises(DownloadError, match=f"Place {names[0]} into"):
        cls(tmp_path / "new", force_reload=True)


def test_addresses_are_pinned():
    for original, commit in [
        (MovieLens20MKG, "KGCN/2363ca2ddc66a79860629b2e0ec6ad23c57697c8"),
        (MovieLens1MKG, "RippleNet/0e4f648a51266092df8ffff134f306d49a398052"),
    ]:
        for name, file in original.raw_files.items():
            assert file.url == f"https://raw.githubusercontent.com/hwwang55/{commit}/data/movie/{name}"
        assert list(original.raw_files) == [original.items_file, *original.triples_files]


def test_wrong_statistics(root, cls, monkeypatch):
    monkeypatch.setattr(cls, "expected_statistics", {**SIZES, "users": 138_159, "triples": 7})
    with pytest.raises(RawDataError) as error:
        cls(root)
    names = [name for name in files(cls) if not name.startswith("ratings")]
    assert str(error.value) == (
        f"'{root / 'raw'}': its files give 4 users instead of 138,159, 6 triples instead of 7. Delete "
        f"{', '.join(names)} and let the data set download them again. Take {cls.ratings_file} anew "
        f"from {cls.archive}."
    )
    assert not (root / "processed").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "problem"),
    [
        ("ratings", "5S30S4", "5S30Sx", 2, "the rating 'x"),
        ("ratings", "5S30S4", "5S-30S4", 2, "the movie '-30' is not a non-negative integer"),
        ("ratings", "5S30S4", "5S30", 2, "has 3 fields instead of 4 (user, movie, rating, timestamp)"),
        ("ratings", "5S30S4", "5S30S4S1", 2, "has 5 fields instead of 4"),
        ("ratings", "5S30S4", "S30S4", 2, "the user is missing"),
        ("ratings", None, "1S99S5S1\n1S10S3S1\n", None, "no rating of at least 4 for a movie of item_"),
        ("items", "20\t3", "20", 2, "'20' has 1 fields instead of 2 (movie, entity)"),
        ("items", "20\t3", "x\t3", 2, "the movie 'x' is not"),
        ("items", "50\t8", "20\t8", 5, "movie 20 has an earlier line"),
        ("items", "50\t8", "50\t3", 5, "entity 3 has an earlier line"),
        ("triples", "7\tr.a\t201", "7\t\t201", 2, "the relation is missing"),
        ("triples", "7\tr.a\t201", "7\tr.a", 2, "has 2 fields instead of 3 (head, relation, tail)"),
    ],
)
def test_bad_raw_file(root, cls, file, old, new, line, problem):
    names = {"ratings": cls.ratings_file, "items": cls.items_file, "triples": cls.triples_files[0]}
    path = root / "raw" / names[file]
    separator = "," if cls is Tiny20M else "::"
    header = cls is Tiny20M and file == "ratings"
    text = path.read_bytes().decode()
    new = new.replace("S", separator)
    if old is None:
        text = text.split("\n")[0] + "\n" + new if header else new
    else:
        assert old.replace("S", separator) in text
        text = text.replace(old.replace("S", separator), new, 1)
    path.write_bytes(text.encode())
    with pytest.raises(RawDataError) as error:
        cls(root)
    where = f"'{path}': " if line is None else f"'{path}', line {line + header}: "
    assert str(error.value).startswith(where)
    assert problem in str(error.value)
    remedy = f"Take {cls.ratings_file} anew from {cls.archive}." if file == "ratings" else "Delete the file"
    assert remedy in str(error.value)


def test_wrong_header(tmp_path, monkeypatch):
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    write(tmp_path / "raw", Tiny20M)
    path = tmp_path / "raw" / "ratings.csv"
    path.write_text(path.read_text().removeprefix("userId,movieId,rating,timestamp\n"))
    with pytest.raises(RawDataError, match=r"line 1: the header is '9,99,5.*, not 'userId,movieId,rating,"):
        Tiny20M(tmp_path)


def test_published_statistics_agree_with_each_other():
    # The papers count a negative for each positive.
    assert 2 * MovieLens20MKG.expected_statistics["interactions"] == 13_501_622
    for original in (MovieLens20MKG, MovieLens1MKG):
        sizes = original.expected_statistics
        assert sizes["items"] <= sizes.get("entities", np.inf)
