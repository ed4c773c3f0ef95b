"""Last.FM: on an invented data set of the same form, and on the real files where they are given."""

import copy
import hashlib
import json
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch_geometric import transforms as T

from mgwa_pyg.datasets import DownloadError, LastFMKG, RawDataError, download
from mgwa_pyg.datasets.download import RawFile

KG = ("entity", "kg", "entity")
LINKS = ("user", "listens", "entity")
MASKS = ("train_mask", "val_mask", "test_mask")

# Artist 99 is in no map, so user 4 has no interaction; user 5 has a repeated one.
TINY = {
    "item_index2entity_id.txt": "10\t7\r\n20\t3\r\n30\t100\r\n40\t5\r\n50\t8\r\n60\t9\r\n",
    "artists.dat": (
        "id\tname\turl\tpictureURL\n"
        "60\tOne \u2013 \"Two\" & 'Three'\thttp://a\t\n"
        "10\tCafé 東京\u0085!\thttp://b\thttp://c\n"
        "99\tNobody\t\t\n20\tTwenty\t\t\n30\t30\t\t\n40\tForty, \\t\t\t\n50\tFifty\t\t\n"
    ),
    "user_artists.dat": (
        "userID\tartistID\tweight\n"
        "9\t99\t5\n5\t30\t3\n5\t10\t1\n2\t20\t7\n5\t10\t4\n9\t60\t2\n4\t99\t1\n2\t10\t1\n"
        "9\t10\t0\n9\t40\t3\n"
    ),
    "kg.txt": ("200\tr.b\t7\r\n7\tr.a\t201\r\n3\tr.b\t7\r\n7\tr.c\t201\r\n202\tr.a\t200\r\n3\tr.a\t201\r\n"),
    "ratings_final.txt": (
        "0\t2\t1\n0\t0\t1\n0\t3\t0\n0\t1\t0\n2\t5\t1\n2\t0\t1\n2\t3\t1\n2\t2\t0\n2\t1\t0\n2\t4\t0\n"
        "1\t1\t1\n1\t0\t1\n1\t4\t0\n1\t2\t0\n"
    ),
    "lightkg_split/lastfm.train.inter": (
        "user_id:token\titem_id:token\trating:float\n"
        "5\t10\t3.0\n2\t20\t7.0\n2\t10\t1.0\n9\t60\t2.0\n9\t10\t0.0\n"
    ),
    "lightkg_split/lastfm.valid.inter": ("user_id:token\titem_id:token\trating:float\n5\t30\t3.0\n"),
    "lightkg_split/lastfm.test.inter": ("user_id:token\titem_id:token\trating:float\n9\t40\t3.0\n"),
}
ALL = {"negatives": "frozen", "split": "lightkg"}


class TinyLastFMKG(LastFMKG):
    raw_files = {name: RawFile() for name in LastFMKG.raw_files}  # noqa: RUF012


def write(folder, files=TINY):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with the tiny raw files in place."""
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    write(tmp_path / "raw")
    return tmp_path


def slow_tables(folder):
    """KGCN's preprocessing, row by row."""

    def rows(name):
        return [line.split() for line in (folder / name).read_text().splitlines()]

    item_of = {artist: i for i, (artist, _) in enumerate(rows("item_index2entity_id.txt"))}
    entity_of = {entity: i for i, (_, entity) in enumerate(rows("item_index2entity_id.txt"))}
    user_of, relation_of = {}, {}
    positives, triples = set(), []
    for user, artist, _ in rows("user_artists.dat")[1:]:
        if artist in item_of:
            positives.add((user_of.setdefault(user, len(user_of)), item_of[artist]))
    for head, relation, tail in rows("kg.txt"):
        h = entity_of.setdefault(head, len(entity_of))
        t = entity_of.setdefault(tail, len(entity_of))
        triples.append((h, relation_of.setdefault(relation, len(relation_of)), t))
    return sorted(positives), triples, user_of, item_of, entity_of, list(relation_of)


def check_against_slow_tables(dataset, folder):
    positives, triples, user_of, item_of, entity_of, relations = slow_tables(folder)
    data = dataset[0]
    assert data.validate()
    assert dataset.num_users == data["user"].num_nodes == len(user_of)
    assert dataset.num_items == len(dataset.item_names) == len(item_of)
    assert dataset.num_entities == data["entity"].num_nodes == len(entity_of)
    assert dataset.num_interactions == len(positives)
    assert dataset.num_triples == len(triples)
    assert dataset.num_relations == len(relations)
    assert dataset.relation_names == relations

    head, relation, tail = torch.tensor(triples).t()
    assert data[KG].edge_index.equal(torch.stack([torch.cat([head, tail]), torch.cat([tail, head])]))
    assert data[KG].rel_type.equal(torch.cat([relation, relation + len(relations)]))

    links = data[LINKS]
    pairs, label = links.edge_label_index, links.edge_label
    assert label.dtype == torch.float
    assert pairs.dtype == torch.long
    assert sorted(map(tuple, pairs[:, label == 1].t().tolist())) == positives
    assert links.edge_index.equal(pairs[:, links.train_mask & (label == 1)])
    assert sum(links[mask].int() for mask in MASKS).eq(1).all()
    negatives = list(map(tuple, pairs[:, label == 0].t().tolist()))
    assert len(set(negatives)) == len(negatives)
    assert not set(negatives) & set(positives)
    assert sorted(u for u, _ in negatives) == [u for u, _ in positives]
    num_candidates = len(entity_of) if dataset.negatives == "entities" else len(item_of)
    assert max(item for _, item in negatives) < num_candidates


def same(a, b):
    stores = zip(a.edge_stores, b.edge_stores, strict=True)
    return all(x[key].equal(y[key]) for x, y in stores for key in {*x.keys(), *y.keys()})


@pytest.mark.parametrize("negatives", ["items", "entities", "frozen"])
@pytest.mark.parametrize("split", ["random", "lightkg"])
def test_tables(root, negatives, split):
    dataset = TinyLastFMKG(root, negatives=negatives, split=split)
    check_against_slow_tables(dataset, root / "raw")
    assert repr(dataset) == (
        "TinyLastFMKG(users=3, items=6, interactions=7, entities=9, relations=3, triples=6)"
    )
    assert dataset.item_names == [
        "Café 東京\u0085!",
        "Twenty",
        "30",
        "Forty, \\t",
        "Fifty",
        "One \u2013 \"Two\" & 'Three'",
    ]
    assert set(dataset[0].to_dict()) == {"_global_store", "user", "entity", KG, LINKS}


def test_indices_by_hand(root):
    data = TinyLastFMKG(root)[0]
    # Users 5, 2, 9; items 10, 20, 30, 40, 50, 60.
    assert data[LINKS].edge_label_index[:, :7].tolist() == [
        [0, 0, 1, 1, 2, 2, 2],
        [0, 2, 0, 1, 0, 3, 5],
    ]
    # Entity 7 is item 0 and entity 3 item 1; 200, 201 and 202 follow.
    assert data[KG].edge_index[:, :6].tolist() == [[6, 0, 1, 0, 8, 1], [0, 7, 0, 7, 6, 7]]
    assert data[KG].rel_type.tolist() == [0, 1, 0, 2, 1, 1, 3, 4, 3, 5, 4, 4]


def test_frozen_negatives_and_lightkg_split(root):
    links = TinyLastFMKG(root, **ALL)[0][LINKS]
    assert links.edge_label_index[:, 7:].t().tolist() == [
        *([0, 3], [0, 1], [1, 4], [1, 2], [2, 2], [2, 1], [2, 4]),
    ]
    assert links.val_mask.nonzero().flatten().tolist() == [1, 8]
    assert links.test_mask.nonzero().flatten().tolist() == [5, 12]
    assert same(TinyLastFMKG(root, **ALL, seed=1)[0], TinyLastFMKG(root, **ALL)[0])


def test_seeds_and_pools(root):
    def make(**kwargs):
        return TinyLastFMKG(root, **kwargs, force_reload=True)[0]

    assert same(make(seed=3), make(seed=3))
    assert len({str(make(seed=s)[LINKS].edge_label_index.tolist()) for s in range(5)}) > 1
    assert len({str(make(seed=s)[LINKS].test_mask.tolist()) for s in range(5)}) > 1
    for seed in range(5):
        items, entities, frozen = (
            make(seed=seed, negatives=negatives)[LINKS] for negatives in ("items", "entities", "frozen")
        )
        for mask in MASKS:
            assert items[mask].equal(entities[mask])
            assert items[mask][:7].equal(frozen[mask][:7])


def test_processed_file(root):
    dataset = TinyLastFMKG(root, seed=4)
    path = root / "processed" / "v4-TinyLastFMKG-items-random-seed4.pt"
    assert list(path.parent.iterdir()) == [path]
    torch.load(path, weights_only=True)
    for file in sorted((root / "raw").rglob("*.*")):
        if file.is_file():
            file.unlink()
    cached = TinyLastFMKG(root, seed=4)  # Needs no raw file.
    assert same(dataset[0], cached[0])
    assert cached.item_names == dataset.item_names
    assert repr(cached) == repr(dataset)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_damaged_processed_file(root, size):
    dataset = TinyLastFMKG(root)
    path = Path(dataset.processed_paths[0])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RuntimeError, match=r"seed0.pt' is damaged .*force_reload=True"):
        TinyLastFMKG(root)
    assert same(TinyLastFMKG(root, force_reload=True)[0], dataset[0])
    assert same(TinyLastFMKG(root)[0], dataset[0])


def test_transforms(root):
    def mark(data):
        data["user"].marked = torch.ones(3)
        return data

    assert "marked" in TinyLastFMKG(root, transform=mark)[0]["user"]
    assert "marked" not in TinyLastFMKG(root)[0]["user"]
    with pytest.warns(UserWarning, match=r"pre_transform None, not with .*force_reload"):
        TinyLastFMKG(root, pre_transform=mark)
    dataset = TinyLastFMKG(root, pre_transform=mark, force_reload=True)
    assert "marked" in dataset[0]["user"]
    assert "marked" in TinyLastFMKG(root, pre_transform=mark)[0]["user"]
    assert copy.copy(dataset).num_items == copy.deepcopy(dataset).num_items == 6
    undirected = T.ToUndirected(merge=False)(dataset[0].to("cpu"))
    assert undirected["entity", "rev_listens", "user"].edge_index.equal(dataset[0][LINKS].edge_index.flip(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"negatives": "films"},
            r"negatives='films' is unknown: choose one of \['items', 'entities', 'frozen'\]",
        ),
        ({"negatives": None}, "negatives=None "),
        ({"split": "8:2"}, r"split='8:2' is unknown: choose one of .*'per_user', 'lightkg'\]"),
        ({"seed": -1}, "seed=-1: a whole number of at least 0"),
        ({"seed": 1.0}, "seed=1.0: "),
        ({"seed": "1"}, "seed='1': "),
    ],
)
def test_bad_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        TinyLastFMKG(root, **arguments)
    assert not (root / "processed").exists()


RATINGS, ITEMS, TRIPLES = "ratings_final.txt", "item_index2entity_id.txt", "kg.txt"
NAMES, INTERACTIONS = "artists.dat", "user_artists.dat"
TRAIN, VALID, TEST = (f"lightkg_split/lastfm.{part}.inter" for part in ("train", "valid", "test"))


@pytest.mark.parametrize(
    ("name", "old", "new", "line", "problem"),
    [
        # Any file
        *((name, None, b"", None, "it is empty") for name in TINY),
        *((name, b"\n", b"\n\xff", 2, "byte 0xff is not UTF-8") for name in TINY),
        *((name, b"\t", b" ", 1, "") for name in TINY),
        (INTERACTIONS, None, b"userID\tartistID\tweight\n", None, "no row below its header"),
        (INTERACTIONS, b"userID", b"user", 1, r"header is 'user\tartistID\tweight', not 'userID\t"),
        (INTERACTIONS, b"5\t30\t3\n", b"5\t30\n", 3, r"'5\t30' has 2 fields instead of 3 (user, artist"),
        (INTERACTIONS, b"9\t40\t3\n", b"9\t4", 11, r"'9\t4' has 2 fields"),
        (INTERACTIONS, b"5\t30\t3\n", b"5\t30\t3\t1\n", 3, "has 4 fields"),
        (INTERACTIONS, b"5\t30\t3\n", b"five\t30\t3\n", 3, "user 'five' is not a non-negative integer"),
        (INTERACTIONS, b"5\t30\t3\n", b"-5\t30\t3\n", 3, "user '-5' is not a non-negative integer"),
        (INTERACTIONS, b"5\t30\t3\n", b"5\t1_0\t3\n", 3, "artist '1_0' is not"),
        (INTERACTIONS, b"5\t30\t3\n", b"5\t3e1\t3\n", 3, "artist '3e1' is not"),
        (INTERACTIONS, b"5\t30\t3\n", b"5\t30\t-3\n", 3, "weight '-3' is not"),
        (INTERACTIONS, b"5\t30\t3\n", b"5\t" + b"9" * 99 + b"\t3\n", 3, "artist '999"),
        (INTERACTIONS, b"5\t30\t3\n", b"5\t30\t3\n\n", 4, "'' has 1 fields instead of 3"),
        (
            INTERACTIONS,
            None,
            b"userID\tartistID\tweight\n9\t99\t5\n",
            2,
            "neither this row nor a later one has an artist of item_index2entity_id.txt",
        ),
        # An item without an entity, and other faults of the map
        (ITEMS, b"20\t3\r\n", b"20\t\r\n", 2, "the entity is missing"),
        (ITEMS, b"20\t3\r\n", b"20\r\n", 2, "'20' has 1 fields instead of 2 (artist, entity)"),
        (ITEMS, b"50\t8\r\n", b"20\t8\r\n", 5, "artist 20 has an earlier line"),
        (ITEMS, b"50\t8\r\n", b"50\t3\r\n", 5, "entity 3 has an earlier line"),
        (NAMES, b"40\tForty", b"41\tForty", None, "it has no artist 40"),
        (NAMES, b"40\tForty", b"20\tForty", 7, "artist 20 has an earlier line"),
        (NAMES, b"50\tFifty", b"50\t", 8, "the name is missing"),
        (TRIPLES, b"3\tr.b\t7", b"3\t\t7", 3, "the relation is missing"),
        (TRIPLES, b"3\tr.b\t7", b"3\tr.b\tx", 3, "tail 'x' is not"),
        # Indices and labels
        (RATINGS, b"2\t2\t0\n", b"3\t2\t0\n", 8, "user 3 is none of the 3 users"),
        (RATINGS, b"2\t2\t0\n", b"2\t6\t0\n", 8, "item 6 is none of the 6 items"),
        (RATINGS, b"2\t2\t0\n", b"2\t2\t2\n", 8, "the label is 2, not 0 or 1"),
        (RATINGS, b"2\t2\t0\n", b"2\t1\t0\n", 9, "user 2 and item 1 have an earlier line"),
        (RATINGS, b"2\t2\t0\n", b"2\t2\t1\n", 8, "user 2 and item 2 are no interaction in user_"),
        (RATINGS, b"2\t3\t1\n", b"2\t3\t0\n", 7, "user 2 and item 3 are an interaction in user_"),
        (RATINGS, b"2\t3\t1\n", b"", None, "user 2 has 2 positives instead of 3"),
        (RATINGS, b"2\t2\t0\n", b"", None, "user 2 has 2 negatives instead of 3"),
        (TRAIN, b"2\t20\t7", b"2\t99\t7", 3, "artist 99 is not in item_index2entity_id.txt"),
        (TRAIN, b"2\t20\t7", b"4\t20\t7", 3, "user 4 has no interaction in user_artists.dat"),
        (TRAIN, b"2\t20\t7", b"2\t50\t7", 3, "user 2 and artist 50 are no interaction in user_"),
        (TRAIN, b"2\t20\t7", b"2\t10\t7", 4, "user 2 and artist 10 have an earlier line"),
        (TEST, b"9\t40\t3", b"5\t30\t3", 2, "user 5 and artist 30 have a line in another part"),
        (TRAIN, b"2\t20\t7.0\n", b"", None, "have user 2 and artist 20, an interaction in user_"),
        (VALID, b"rating", b"score", 1, "the header is"),
    ],
)
def test_bad_raw_file(root, name, old, new, line, problem):
    path = root / "raw" / name
    content = path.read_bytes()
    assert old is None or old in content
    path.write_bytes(new if old is None else content.replace(old, new, 1))
    with pytest.raises(RawDataError) as error:
        TinyLastFMKG(root, **ALL)
    message = str(error.value)
    assert message.startswith(f"'{path}': " if line is None else f"'{path}', line {line}: ")
    assert problem in message
    assert "Delete the file and let the data set download it again, or restore it" in message
    assert isinstance(error.value, ValueError)
    assert not (root / "processed").exists()


@pytest.mark.parametrize("name", sorted(set(TINY) - {VALID, TEST}))
def test_wrong_checksum(root, name, monkeypatch):
    digests = {name: hashlib.sha256((root / "raw" / name).read_bytes()).hexdigest() for name in TINY}
    files = {name: RawFile(sha256=digest) for name, digest in digests.items()}
    monkeypatch.setattr(TinyLastFMKG, "raw_files", files)
    TinyLastFMKG(root, **ALL)

    path = root / "raw" / name
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])  # All but the last row.
    with pytest.raises(RawDataError) as error:
        TinyLastFMKG(root, **ALL, force_reload=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"'{path}': its SHA-256 is {found} instead of {digests[name]}" in str(error.value)


def test_line_ends_and_missing_last_newline(root, tmp_path):
    data = TinyLastFMKG(root, **ALL)[0]
    other = tmp_path / "other"
    write(other / "raw", {name: text.replace("\r\n", "\n") for name, text in TINY.items()})
    assert same(TinyLastFMKG(other, **ALL)[0], data)
    write(
        other / "raw",
        {
            name: text.replace("\n", "\r\n").removesuffix("\r\n")
            for name, text in TINY.items()
            if "\r" not in text
        },
    )
    assert same(TinyLastFMKG(other, **ALL, force_reload=True)[0], data)


def test_shared_raw_folder_comes_first(root, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    write(shared / "lastfm", {**TINY, INTERACTIONS: TINY[INTERACTIONS].replace("9\t40\t3\n", "")})
    before = sorted(shared.rglob("*"))
    monkeypatch.setenv("MGWA_PYG_RAW", str(shared))
    dataset = TinyLastFMKG(root)
    assert dataset.num_interactions == 6
    assert dataset.raw_dir == str(shared / "lastfm")
    assert sorted(shared.rglob("*")) == before

    (shared / "lastfm" / NAMES).unlink()
    with pytest.raises(FileNotFoundError) as error:
        TinyLastFMKG(root, force_reload=True)
    assert str(error.value).startswith(f"'{shared / 'lastfm'}' has no file artists.dat. MGWA_PYG")
    monkeypatch.setenv("MGWA_PYG_RAW", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TinyLastFMKG(root, force_reload=True)
    assert not (tmp_path / "nowhere").exists()


def test_only_the_files_needed_are_required(root):
    for name in (RATINGS, TRAIN, VALID, TEST):
        (root / "raw" / name).unlink()
    TinyLastFMKG(root)
    with pytest.raises(DownloadError, match=r"Place ratings_final.txt, lightkg_split/lastfm.train"):
        TinyLastFMKG(root, **ALL)


def test_missing_files_are_downloaded(root, tmp_path, monkeypatch):
    for name, text in TINY.items():
        (tmp_path / "served" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "served" / name).write_bytes(text.encode())
    files = {
        name: RawFile((tmp_path / "served" / name).as_uri(), len(text.encode()))
        for name, text in TINY.items()
    }
    monkeypatch.setattr(TinyLastFMKG, "raw_files", files)
    monkeypatch.setattr(download, "SCHEMES", ("file",))
    expected = TinyLastFMKG(root, **ALL)[0]
    assert same(TinyLastFMKG(tmp_path / "new", **ALL)[0], expected)
    for name, text in TINY.items():
        assert (tmp_path / "new" / "raw" / name).read_bytes() == text.encode()

    (tmp_path / "served" / ITEMS).unlink()
    with pytest.raises(DownloadError, match=ITEMS):
        TinyLastFMKG(tmp_path / "failing")
    assert not (tmp_path / "failing").exists()


def test_a_failed_write_leaves_nothing(root, monkeypatch):
    def fail(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        TinyLastFMKG(root)
    assert not (root / "processed").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are no copies of this one there")
def test_two_processes_on_one_root(root, tmp_path):
    def build(file):
        barrier.wait()
        made = [TinyLastFMKG(root, seed=seed)[0][LINKS].edge_label_index.tolist() for seed in range(30)]
        file.write_text(json.dumps(made))

    context = multiprocessing.get_context("fork")  # Such import nothing again.
    barrier = context.Barrier(2)
    files = [tmp_path / f"{number}.json" for number in range(2)]
    processes = [context.Process(target=build, args=(file,)) for file in files]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (json.loads(file.read_text()) for file in files)
    assert first == second
    for seed in (0, 29):
        expected = TinyLastFMKG(root, seed=seed, force_reload=True)[0][LINKS].edge_label_index
        assert first[seed] == expected.tolist()
    assert len(list((root / "processed").iterdir())) == 30


def popularity_auc(dataset):
    links = dataset[0][LINKS]
    count = torch.bincount(links.edge_index[1], minlength=dataset.num_entities)
    test = links.test_mask
    return roc_auc_score(links.edge_label[test], count[links.edge_label_index[1, test]])


@pytest.mark.real_data
@pytest.mark.parametrize("negatives", ["items", "entities", "frozen"])
def test_real_tables(tmp_path, lastfm_raw, negatives):
    dataset = LastFMKG(tmp_path, negatives=negatives)
    check_against_slow_tables(dataset, lastfm_raw / "lastfm")
    assert repr(dataset) == (
        "LastFMKG(users=1872, items=3846, interactions=21173, entities=9366, relations=60, triples=15518)"
    )
    assert dataset.item_names[0] == "Diary of Dreams"
    links = dataset[0][LINKS]
    assert [int(links[mask].sum()) for mask in MASKS] == [25408, 8469, 8469]


@pytest.mark.real_data
def test_real_frozen_rows(tmp_path, lastfm_raw):
    links = LastFMKG(tmp_path, negatives="frozen")[0][LINKS]
    rows = torch.cat([links.edge_label_index, links.edge_label[None].long()]).t()
    lines = (lastfm_raw / "lastfm" / "ratings_final.txt").read_text().split("\n")[:-1]
    assert sorted("\t".join(map(str, row)) for row in rows.tolist()) == sorted(lines)


@pytest.mark.real_data
@pytest.mark.parametrize("negatives", ["items", "frozen"])
def test_real_lightkg_split(tmp_path, lastfm_raw, negatives):
    dataset = LastFMKG(tmp_path, negatives=negatives, split="lightkg")
    links = dataset[0][LINKS]
    _, _, user_of, item_of, _, _ = slow_tables(lastfm_raw / "lastfm")
    for mask, part, count in zip(MASKS, ("train", "valid", "test"), (17350, 1907, 1916), strict=True):
        path = lastfm_raw / "lastfm" / "lightkg_split" / f"lastfm.{part}.inter"
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        expected = sorted([user_of[user], item_of[artist]] for user, artist, _ in rows)
        positive = links[mask] & (links.edge_label == 1)
        assert sorted(links.edge_label_index[:, positive].t().tolist()) == expected
        assert len(expected) == count
        negative = links[mask] & (links.edge_label == 0)
        assert links.edge_label_index[0, negative].equal(links.edge_label_index[0, positive])


@pytest.mark.real_data
@pytest.mark.parametrize(("negatives", "auc"), [("items", 0.7945), ("entities", 0.8792)])
def test_real_protocols(tmp_path, lastfm_raw, negatives, auc):
    scores = [popularity_auc(LastFMKG(tmp_path, negatives, seed)) for seed in range(5)]
    assert abs(sum(scores) / 5 - auc) < 0.005


@pytest.mark.real_data
@pytest.mark.parametrize("name", TINY)
def test_real_checksums(tmp_path, lastfm_raw, monkeypatch, name):
    monkeypatch.delenv("MGWA_PYG_RAW")
    for other in TINY:
        path = tmp_path / "raw" / other
        path.parent.mkdir(parents=True, exist_ok=True)
        content = (lastfm_raw / "lastfm" / other).read_bytes()
        assert len(content) == LastFMKG.raw_files[other].size
        cut = content[: content.rindex(b"\n", 0, -1) + 1] if other == name else content
        path.write_bytes(cut)
    with pytest.raises(RawDataError, match=f"{name}': its SHA-256 is .* instead of"):
        LastFMKG(tmp_path, **ALL)
    assert not (tmp_path / "processed").exists()
