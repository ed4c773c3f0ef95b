"""RecBole's atomic files: tiny ones by hand, and Last.FM's raw files converted to them."""

import hashlib
import os
import tracemalloc
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from mgwa_pyg.datasets import LastFMKG, RawDataError, RecBoleKG, from_spec

KG = ("entity", "kg", "entity")
LINKS = ("user", "listens", "entity")
MASKS = ("train_mask", "val_mask", "test_mask")

# So the tables below have it; that it is said is tested by itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Of the . links in .* have an item without an interaction",
    "ignore:User 'u' has 4 of the 7 entities that negatives are drawn from",
)

# Item x has no link, item ü one that leads nowhere, item gone no interaction; "b" is an item and an
# entity that have nothing to do with each other.
TINY = {
    "inter": (
        "timestamp:float\titem_id:token\trating:float\tuser_id:token\tnote:token_seq\n"
        "1.5\tb\t4.5\tanna k.\t\n2\tx\t2\tanna k.\tso so\n3\tü\t4\t7\t\n4\tb\t4.5\tanna k.\t\n"
        "5\t007\t5e0\t07\t\n6\tx\t4\t07\t\n7\tlow\t1\tlow\t\n"
    ),
    "kg": (
        "head_id:token\trelation_id:token\ttail_id:token\n"
        "m.1\tby\tm.9\nm.2\tin\tb\nm.7\tby\tm.1\nm.5\tin\tb\nm.2\tby\tm.9\n"
    ),
    "link": "entity_id:token\titem_id:token\nm.1\tb\nm.404\tü\nm.2\t007\nm.5\tgone\nm.6\tlow\n",
}
PARTS = {
    "train.inter": "user_id:token\titem_id:token\trating:float\nu\ta\t5\nv\tb\t3\nu\tc\t4\nv\tb\t3\n",
    "valid.inter": "rating:float\tuser_id:token\titem_id:token\n1\tu\td\n4\tv\ta\n",
    "test.inter": "user_id:token\titem_id:token\trating:float\nu\tb\t3\n",
    # Entities enough for each user's negatives.
    "kg": "head_id:token\trelation_id:token\ttail_id:token\ne\tr\tf\ng\tr\th\n",
    "link": "item_id:token\tentity_id:token\na\te\n",
}


def write(root, files, name="tiny"):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for end, text in files.items():
        (folder / f"{name}.{end}").write_bytes(text.encode())
    return folder


@pytest.fixture(autouse=True)
def _raw_variable_does_not_matter(tmp_path, monkeypatch, request):
    if request.node.get_closest_marker("real_data") is None:
        monkeypatch.setenv("MGWA_PYG_RAW", str(tmp_path / "nowhere"))


def named(dataset):
    """Positives by name with their part, and triples with items by name."""
    data = dataset[0]
    links = data[LINKS]
    part = sum(i * links[mask].long() for i, mask in enumerate(MASKS))
    half = dataset.num_interactions
    positives = [
        (user, dataset.item_names[item], int(part[row]))
        for row, (user, item) in enumerate(links.edge_label_index[:, :half].t().tolist())
    ]
    kg = data[KG]
    names = dict(enumerate(dataset.item_names))
    triples = [
        (names.get(h, h), dataset.relation_names[r], names.get(t, t))
        for h, r, t in torch.stack([kg.edge_index[0], kg.rel_type, kg.edge_index[1]])
        .t()
        .tolist()[: dataset.num_triples]
    ]
    return positives, triples


@pytest.mark.parametrize("negatives", ["items", "entities"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_by_hand(tmp_path, negatives, end):
    folder = write(tmp_path, {name: text.replace("\n", end) for name, text in TINY.items()})
    dataset = RecBoleKG(tmp_path, "tiny", negatives=negatives)
    assert dataset[0].validate()
    assert repr(dataset) == "RecBoleKG(users=4, items=5, interactions=6, entities=9, relations=2, triples=5)"
    assert dataset.item_names == ["b", "x", "ü", "007", "low"]
    assert dataset.relation_names == ["by", "in"]
    positives, triples = named(dataset)
    # Users "anna k.", "7", "07" and "low".
    assert [pair[:2] for pair in positives] == [
        *((0, "b"), (0, "x"), (1, "ü"), (2, "x"), (2, "007"), (3, "low")),
    ]
    # Entities beyond the items: m.9, b, m.7 and m.5.
    assert triples == [
        *(("b", "by", 5), ("007", "in", 6), (7, "by", "b"), (8, "in", 6), ("007", "by", 5)),
    ]
    (path,) = (folder / "processed").iterdir()
    assert path.name.startswith(f"v4-RecBoleKG-{negatives}-random-seed0-")


def test_min_rating(tmp_path):
    folder = write(tmp_path, TINY)
    dataset = RecBoleKG(tmp_path, "tiny", min_rating=4)
    # m.6 is in no triple; item low is gone, and user low with it.
    assert repr(dataset) == "RecBoleKG(users=3, items=4, interactions=4, entities=8, relations=2, triples=5)"
    assert dataset.item_names == ["b", "ü", "007", "x"]
    assert RecBoleKG(tmp_path, "tiny", min_rating=1).num_interactions == 6
    assert RecBoleKG(tmp_path, "tiny", min_rating=4.0).num_interactions == 4
    assert RecBoleKG(tmp_path, "tiny").num_interactions == 6
    assert len(list((folder / "processed").iterdir())) == 3


def test_the_word_of_the_interactions(tmp_path):
    folder = write(tmp_path, TINY)
    for _ in range(2):  # Each has a processed file of its own.
        for word in ("listens", "reads", "watches", "interacts"):
            dataset = RecBoleKG(tmp_path, "tiny", interaction=word)
            assert dataset.interaction.edge == word
            assert dataset[0].edge_types == [KG, ("user", word, "entity")]
            assert from_spec(dataset.spec)[0].edge_types == dataset[0].edge_types
    assert len(list((folder / "processed").iterdir())) == 4
    assert RecBoleKG(tmp_path, "tiny").interaction.edge == "listens"
    arguments = dataset.spec["arguments"]
    assert arguments.pop("interaction") == "interacts"  # Specs of earlier checkpoints lack it.
    assert from_spec({"class": "RecBoleKG", "arguments": arguments}).interaction.edge == "listens"
    with pytest.raises(ValueError, match=r"interaction='plays' is unknown: choose one of .*'interacts'"):
        RecBoleKG(tmp_path, "tiny", interaction="plays")


def test_files_split(tmp_path):
    write(tmp_path, PARTS)
    dataset = RecBoleKG(tmp_path, "tiny", negatives="entities", split="files", min_rating=3)
    positives, _ = named(dataset)
    assert dataset.item_names == ["a", "b", "c"]
    assert positives == [(0, "a", 0), (0, "b", 2), (0, "c", 0), (1, "a", 1), (1, "b", 0)]
    links = dataset[0][LINKS]
    assert links.edge_index.tolist() == [[0, 0, 1], [0, 2, 1]]
    for mask in MASKS:
        assert links[mask][:5].equal(links[mask][5:])


def test_split_by_user(tmp_path):
    rows = "".join(f"u{k % 3}\ti{k}\t5\n" for k in range(60))
    link = "item_id:token\tentity_id:token\ni0\te\n"
    inter = "user_id:token\titem_id:token\trating:float\n" + rows
    write(tmp_path, {"inter": inter, "kg": PARTS["kg"], "link": link})
    dataset = RecBoleKG(tmp_path, "tiny", split="per_user", min_rating=3)
    positives, _ = named(dataset)
    for user in range(3):
        assert sorted(part for one, _, part in positives if one == user) == [0] * 16 + [1, 1, 2, 2]
    assert from_spec(dataset.spec).fingerprint == dataset.fingerprint


def test_several_items_linked_to_one_entity(tmp_path):
    link = "item_id:token\tentity_id:token\nb\tm.1\nx\tm.1\nb\tm.2\n007\tm.9\nx\tm.9\ngone\tm.1\ngone\tm.9\n"
    write(tmp_path, {**TINY, "link": link})
    with pytest.warns(UserWarning, match=r"links 1 items to an entity .* \(the first is item 007\): they"):
        dataset = RecBoleKG(tmp_path, "tiny")
    _, triples = named(dataset)
    # m.1 and m.9 belong to x, m.2 to b, which so keeps triples.
    assert [triple[:1] + triple[2:] for triple in triples] == [
        *(("x", "x"), ("b", 5), (6, "x"), (7, 5), ("b", "x")),
    ]
    write(tmp_path, {**TINY, "link": TINY["link"] + "m.1\tb\n"})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "'.*links")
        RecBoleKG(tmp_path, "tiny", force_reload=True)


LINK_HEADER = "item_id:token\tentity_id:token\n"


@pytest.mark.parametrize(
    ("link", "counts"),
    [
        ("b\tm.1\nx\tm.2\n", None),
        ("b\tm.1\nx\tm.2\ngone\tm.5\n", (1, "'gone'", 0, None)),
        ("b\tm.1\nx\tm.404\nx\t/m/2\n", (0, None, 2, "'m.404'")),
        ("b\tm.1\nb.0\tm.2\n x\tm.9 \n", (2, "'b.0'", 1, "'m.9 '")),
        ('b\tm.1\n"x"\t"m.9"\n', (1, "'\"x\"'", 1, "'\"m.9\"'")),
    ],
)
def test_links_that_match_nothing_are_counted(tmp_path, link, counts):
    write(tmp_path, {**TINY, "link": LINK_HEADER + link})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        RecBoleKG(tmp_path, "tiny")
    texts = [str(warning.message) for warning in caught if "links in" in str(warning.message)]
    if counts is None:
        assert texts == []
        return
    (text,) = texts
    items, item, entities, entity = counts
    assert f"tiny.link', {items} have an item without an interaction" in text
    assert f"and {entities} an entity without triples" in text
    for name in (item, entity):
        assert name is None or f"(the first is {name})" in text


def test_links_of_items_below_the_rating_are_no_mistake(tmp_path):
    write(tmp_path, {**TINY, "link": LINK_HEADER + "b\tm.1\nlow\tm.2\n"})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*links in")
        RecBoleKG(tmp_path, "tiny", min_rating=4)


@pytest.mark.parametrize(
    "change",
    [
        {"link": LINK_HEADER + "b.0\tm.1\nx.0\tm.2\n"},
        {"link": LINK_HEADER + "b \tm.1\n"},
        {"link": LINK_HEADER + '"b"\t"m.1"\n'},
        {"link": LINK_HEADER + "b\tm.404\ngone\tm.1\n"},
        {"kg": TINY["kg"].replace("m.", "/m/")},
        {"link": LINK_HEADER + "m.1\tb\nm.2\tx\n"},
    ],
)
def test_links_none_of_which_matches_are_refused(tmp_path, change):
    folder = write(tmp_path, {**TINY, **change})
    with pytest.raises(
        RawDataError, match=r"tiny\.link': none of its \d links leads .* the first item is 'b'"
    ):
        RecBoleKG(tmp_path, "tiny")
    assert not (folder / "processed").exists()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark(tmp_path, end):
    write(tmp_path, TINY)
    plain = RecBoleKG(tmp_path, "tiny").fingerprint
    item = "item_id:token\ttitle:token_seq\nb\tb\n"
    files = {name: "\ufeff" + text.replace("\n", end) for name, text in {**TINY, "item": item}.items()}
    write(tmp_path, files)
    assert RecBoleKG(tmp_path, "tiny").fingerprint == plain


@pytest.mark.parametrize(
    ("end", "old", "new", "message"),
    [
        ("inter", "4\tb\t4.5\tanna k.\t\n", "4\tb\t4.5\tanna k. \t\n", r"1 users .* 'anna k. ', and 'anna"),
        ("inter", "6\tx", "6\t\"x\"", "1 items .* '\"x\"', and 'x'"),
        ("inter", "7\tlow\t1\tlow", "7\tlow\t1\t7.0", r"1 users .* '7\.0', and '7'"),
        ("kg", "m.2\tby\tm.9", "m.2\tby\t\ufeffm.9\xa0", r"1 entities .*m\.9\\xa0', and 'm\.9'"),
    ],
)  # fmt: skip
def test_ids_written_in_two_ways_are_told(tmp_path, end, old, new, message):
    assert old in TINY[end]
    write(tmp_path, {**TINY, end: TINY[end].replace(old, new)})
    with pytest.warns(UserWarning, match=message):
        RecBoleKG(tmp_path, "tiny")


@pytest.mark.parametrize("block", [1, 7, 40, 2**20])
@pytest.mark.parametrize(("tables", "split"), [(TINY, "random"), (PARTS, "files")])
def test_the_size_of_the_blocks_does_not_matter(tmp_path, monkeypatch, block, tables, split):
    write(tmp_path, tables)
    wanted = RecBoleKG(tmp_path, "tiny", negatives="entities", split=split)
    monkeypatch.setattr("mgwa_pyg.datasets.raw.BLOCK", block)
    again = RecBoleKG(tmp_path, "tiny", negatives="entities", split=split, force_reload=True)
    assert again.fingerprint == wanted.fingerprint
    write(tmp_path, {**tables, "kg": tables["kg"] + "e\tr\n"})
    line = tables["kg"].count("\n") + 1
    with pytest.raises(RawDataError, match=rf"tiny\.kg', line {line}: 'e\\tr' has 2 fields instead of 3"):
        RecBoleKG(tmp_path, "tiny", negatives="entities", split=split)


@pytest.mark.parametrize("end", ["inter", "kg"])
def test_a_header_that_stands_there_again(tmp_path, end):
    folder = write(tmp_path, {**TINY, end: TINY[end] + TINY[end]})
    line = TINY[end].count("\n") + 1
    with pytest.raises(RawDataError) as error:
        RecBoleKG(tmp_path, "tiny")
    assert str(error.value).startswith(f"'{folder / 'tiny'}.{end}', line {line}: it is the header again.")


def test_memory_of_a_large_log(tmp_path):
    rows = 300_000
    log = "".join(f"{k % 5_011}\t{k * 7 % 1_999}\t4.5\t1112486027\n" for k in range(rows))
    write(
        tmp_path,
        {
            "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + log,
            "kg": "head_id:token\trelation_id:token\ttail_id:token\nm.1\tr\tm.2\n",
            "link": LINK_HEADER + "1\tm.1\n",
        },
    )
    del log
    tracemalloc.start()
    dataset = RecBoleKG(tmp_path, "tiny")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.num_interactions == rows
    assert peak <= 150 * rows


@pytest.mark.parametrize(
    ("end", "old", "new", "line", "problem"),
    [
        ("inter", "user_id:token", "user:token", 1, "fields 'user_id' instead of one"),
        ("inter", "item_id:token", "items:token", 1, "has 0 fields 'item_id' instead of one"),
        ("inter", "rating:float", "stars:float", 1, "has 0 fields 'rating' instead of one"),
        ("inter", "note:token_seq", "user_id:token", 1, "has 2 fields 'user_id' instead of one"),
        (
            "inter",
            "3\tü\t4\t7\t\n",
            "3\tü\t4\t7\n",
            4,
            "has 4 fields instead of 5 (field 1, item_id, rating,",
        ),
        ("inter", "3\tü\t4\t7\t\n", "3\tü\tfour\t7\t\n", 4, "the rating 'four' is not a number"),
        ("inter", "3\tü\t4\t7\t\n", "3\tü\t\t7\t\n", 4, "the rating is missing"),
        ("inter", "3\tü\t4\t7\t\n", "3\t\t4\t7\t\n", 4, "the item_id is missing"),
        ("inter", None, "user_id:token\titem_id:token\trating:float\n", None, "no row below its header"),
        (
            "inter",
            None,
            "user_id:token\titem_id:token\trating:float\na\tb\t0\n",
            None,
            "no interaction is left",
        ),
        ("inter", None, "", None, "it is empty"),
        ("kg", "head_id", "head", 1, "has 0 fields 'head_id' instead of one"),
        ("kg", "m.7\tby\tm.1", "m.7\tby", 4, "'m.7\\tby' has 2 fields instead of 3 (head_id, relation_id"),
        ("link", "entity_id", "entity", 1, "has 0 fields 'entity_id'"),
        ("link", "m.2\t007", "m.2 007", 4, "'m.2 007' has 1 fields instead of 2 (entity_id, item_id)"),
    ],
)
def test_bad_files(tmp_path, end, old, new, line, problem):
    assert old is None or old in TINY[end]
    text = new if old is None else TINY[end].replace(old, new, 1)
    folder = write(tmp_path, {**TINY, end: text})
    with pytest.raises(RawDataError) as error:
        RecBoleKG(tmp_path, "tiny", min_rating=1)
    where = f"'{folder / 'tiny'}.{end}'"
    assert str(error.value).startswith(f"{where}: " if line is None else f"{where}, line {line}: ")
    assert problem in str(error.value)
    assert str(error.value).endswith("Correct the file, or convert it again: see RecBole's description of "
                                     "atomic files.")  # fmt: skip
    assert not (folder / "processed").exists()


def test_the_rating_is_needed_for_min_rating_only(tmp_path):
    write(tmp_path, {**TINY, "inter": TINY["inter"].replace("rating:float", "stars:float")})
    assert RecBoleKG(tmp_path, "tiny").num_interactions == 6


def test_a_pair_in_two_parts(tmp_path):
    folder = write(tmp_path, {**PARTS, "test.inter": PARTS["test.inter"] + "v\tb\t5\n"})
    with pytest.raises(RawDataError) as error:
        RecBoleKG(tmp_path, "tiny", split="files")
    problem = "user v and item b have a line in another part of the split"
    assert str(error.value).startswith(f"'{folder / 'tiny.test.inter'}', line 3: {problem}")


@pytest.mark.parametrize(
    ("split", "files", "missing"),
    [
        ("random", PARTS, "tiny.inter"),
        ("files", TINY, "tiny.train.inter, tiny.valid.inter, tiny.test.inter"),
        ("per_user", PARTS, "tiny.inter"),
        ("random", {"inter": ""}, "tiny.kg, tiny.link"),
    ],
)
def test_missing_files(tmp_path, split, files, missing):
    folder = write(tmp_path, files)
    with pytest.raises(FileNotFoundError) as error:
        RecBoleKG(tmp_path, "tiny", split=split)
    assert str(error.value).startswith(f"'{folder}' has no file {missing}. 'root' must be the folder that")
    assert "must lie in its folder 'tiny'." in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "name='': the name of a folder in root"),
        ({"name": "../tiny"}, "name='../tiny': "),
        ({"name": ".."}, "name='..': "),
        ({"name": None}, "name=None: "),
        ({"min_rating": "4"}, "min_rating='4': a finite number or None"),
        ({"min_rating": float("nan")}, "min_rating=nan: "),
        ({"min_rating": True}, "min_rating=True: "),
        ({"split": "lightkg"}, r"split='lightkg' is unknown: choose one of .*'per_user', 'files'\]"),
        ({"negatives": "frozen"}, r"negatives='frozen' is unknown: choose one of \['items', 'entities'\]"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    write(tmp_path, TINY)
    with pytest.raises(ValueError, match=message):
        RecBoleKG(tmp_path, **{"name": "tiny", **arguments})


def test_other_numbers_and_no_root(tmp_path):
    write(tmp_path, TINY)
    for number, count in ((np.float32(4.5), 2), (np.int64(4), 4), (Fraction(9, 2), 2)):
        assert RecBoleKG(tmp_path, "tiny", min_rating=number).num_interactions == count
    for root in (None, 3, b"tiny"):
        with pytest.raises(TypeError, match=r"root=.*: the folder that holds RecBole's data sets is needed"):
            RecBoleKG(root, "tiny")


def atomic_files(folder):
    """Last.FM's raw files as atomic files, and those of the public split beside them."""
    items = [line.split() for line in (folder / "item_index2entity_id.txt").read_text().splitlines()]
    artists = {artist for artist, _ in items}
    rows = [line.split("\t") for line in (folder / "user_artists.dat").read_text().splitlines()[1:]]
    facts = (folder / "kg.txt").read_text().splitlines()
    parts = {part: folder / "lightkg_split" / f"lastfm.{part}.inter" for part in ("train", "valid", "test")}
    return {
        "inter": "user_id:token\tweight:float\titem_id:token\n"
        + "".join(f"{user}\t{weight}\t{artist}\n" for user, artist, weight in rows if artist in artists),
        "kg": "head_id:token\trelation_id:token\ttail_id:token\n" + "".join(f"{fact}\n" for fact in facts),
        "link": "item_id:token\tentity_id:token\n" + "".join(f"{a}\t{e}\n" for a, e in items),
        **{f"{part}.inter": path.read_text() for part, path in parts.items()},
    }


@pytest.mark.real_data
@pytest.mark.parametrize(("split", "lastfm_split"), [("random", "random"), ("files", "lightkg")])
def test_real_lastfm_in_atomic_files(tmp_path, lastfm_raw, split, lastfm_split):
    folder = lastfm_raw / "lastfm"
    write(tmp_path, atomic_files(folder), "lastfm")
    ours = RecBoleKG(tmp_path, "lastfm", split=split)
    theirs = LastFMKG(tmp_path / "lastfmkg", split=lastfm_split)
    assert repr(ours).removeprefix("RecBole") == repr(theirs).removeprefix("LastFM")
    assert sorted(ours.relation_names) == sorted(theirs.relation_names)

    # The same numbering of items by token; users and further entities are matched through it.
    lines = (folder / "item_index2entity_id.txt").read_text().splitlines()
    item_of = {line.split()[0]: i for i, line in enumerate(lines)}
    entity = np.full(ours.num_entities, -1)
    entity[: ours.num_items] = [item_of[token] for token in ours.item_names]
    entity[ours.num_items :] = np.arange(ours.num_items, ours.num_entities)
    relation = np.array([theirs.relation_names.index(name) for name in ours.relation_names])
    a, b = ours[0][KG], theirs[0][KG]
    triples = ours.num_triples
    # Both number entities and relations by first appearance in the same file.
    assert entity[a.edge_index[:, :triples].numpy()].tolist() == b.edge_index[:, :triples].tolist()
    assert relation[a.rel_type[:triples].numpy()].tolist() == b.rel_type[:triples].tolist()

    if split == "files":
        texts = [
            (tmp_path / "lastfm" / f"lastfm.{part}.inter").read_text() for part in ("train", "valid", "test")
        ]
        ours_first = [line.split("\t")[0] for text in texts for line in text.splitlines()[1:]]
    else:
        ours_first = [line.split("\t")[0] for line in atomic_files(folder)["inter"].splitlines()[1:]]
    theirs_first = [line.split("\t")[0] for line in atomic_files(folder)["inter"].splitlines()[1:]]
    order = {user: i for i, user in enumerate(dict.fromkeys(theirs_first))}
    users = np.array([order[user] for user in dict.fromkeys(ours_first)])

    def rows(dataset, user_of, item_of):
        links = dataset[0][LINKS]
        half = dataset.num_interactions
        part = sum(i * links[mask].long() for i, mask in enumerate(MASKS)) * (split == "files")
        user, item = links.edge_label_index[:, :half].numpy()
        return sorted(zip(user_of[user].tolist(), item_of[item].tolist(), part[:half].tolist(), strict=True))

    same = np.arange(theirs.num_entities)
    assert rows(ours, users, entity) == rows(theirs, same, same)


# The SHA-256 of the lines "user, item, part" of the split that rankings of MovieLens-100k are compared on.
ML100K_SPLIT = "1c321877c76bf27fd25c408aa38507be9c369f7504b3f02ad71e90e7c0254660"


@pytest.mark.real_data
def test_the_ranking_split_of_movielens(tmp_path):
    root = Path(os.environ["MGWA_PYG_RAW"], "recbole")
    if not (root / "ml-100k").is_dir():
        pytest.skip("the raw files of MovieLens-100k are not there")
    options = {"min_rating": 4, "split": "per_user", "seed": 0, "interaction": "watches"}
    dataset = RecBoleKG(root, "ml-100k", **options, processed=tmp_path)
    links = dataset[0]["user", "watches", "entity"]
    half = dataset.num_interactions
    part = (links.val_mask.int() + 2 * links.test_mask.int())[:half]
    assert part.bincount().tolist() == [44_300, 5_538, 5_537]
    lines = sorted(
        f"{dataset.user_ids[user]}\t{dataset.item_ids[item]}\t{('train', 'val', 'test')[held]}\n"
        for user, item, held in zip(*links.edge_label_index[:, :half].tolist(), part.tolist(), strict=True)
    )
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == ML100K_SPLIT
