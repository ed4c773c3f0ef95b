"""What users, items, entities and relations are called: the words of the files."""

import numpy as np
import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import BookCrossingKG, KGRecDataset, KGRecTables, LastFMKG, RecBoleKG, SyntheticKG
from mgwa_pyg.datasets.names import NumberedNames

KG = ("entity", "kg", "entity")
LINKS = ("user", "listens", "entity")


class NamedKG(KGRecDataset):
    """Three users, two items and one more entity, by the names that are given."""

    def __init__(self, root=None, **names):
        self.names = {"item_names": ["a song", "a song"], "relation_names": ["by"], **names}
        super().__init__(root, negatives="entities")

    def build(self):
        return KGRecTables(
            np.array([[0, 0], [1, 1], [2, 0]]), np.array([[0, 0, 2], [1, 0, 2]]), 3, 3, **self.names
        )


def test_without_ids_they_are_the_numbers(tmp_path):
    for root in (None, tmp_path, tmp_path):
        dataset = NamedKG(root)
        assert (dataset.user_ids, dataset.item_ids) == (range(3), range(2))
        assert dataset.entity_names == ["a song", "a song", "entity 2"]
        assert dataset.entity_names[-1] == "entity 2"
    synthetic = SyntheticKG(num_users=5, num_items=4, num_entities=9)
    assert (synthetic.user_ids, synthetic.item_ids) == (range(5), range(4))
    assert synthetic.entity_names[2:6] == ["item 2", "item 3", "entity 4", "entity 5"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["x", "7", "07"], ["x", "7", "07"]),
        ((10, -4, 2**62), [10, -4, 2**62]),
        ([5, "five", np.int32(6)], [5, "five", 6]),
        (np.array([3, 2, 1], dtype=np.uint8), [3, 2, 1]),
        (np.array(["c", "b", "a"]), ["c", "b", "a"]),
        (pd.Series([9, 8, 7]), [9, 8, 7]),
        (pd.Index(["z", "y", "x"]), ["z", "y", "x"]),
        (torch.tensor([4, 5, 3]), [4, 5, 3]),
        (range(1, 4), [1, 2, 3]),
        ([0, 1, 2], range(3)),
        (NumberedNames("user", 3), ["user 0", "user 1", "user 2"]),
    ],
)
def test_ids_keep_their_type(tmp_path, given, kept):
    for _ in range(2):  # Built, and from its file.
        found = NamedKG(tmp_path, user_ids=given).user_ids
        assert found == kept
        assert [type(one) for one in found] == [type(one) for one in kept]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"user_ids": [1, 2]}, "user_ids has 2 values, but 3 are needed"),
        ({"user_ids": [1, 2, 1]}, r"user_ids\[2\]=1 is the id of an earlier row"),
        ({"user_ids": [1, "a", "1"]}, r"user_ids\[2\]='1' is the id of an earlier row"),
        ({"user_ids": [1, 2, True]}, r"user_ids\[2\]=True: a whole number or a string"),
        ({"user_ids": np.array([True, False, True])}, r"user_ids\[0\]=True: a whole number"),
        ({"user_ids": [1, None, 3]}, r"user_ids\[1\]=None: a whole number"),
        ({"user_ids": pd.Series([1, 2, np.nan])}, r"user_ids\[0\]=1.0: a whole number"),
        ({"user_ids": ["a", float("nan"), "b"]}, r"user_ids\[1\]=nan: a whole number"),
        ({"user_ids": "abc"}, "user_ids='abc': a sequence of"),
        ({"user_ids": {1, 2, 3}}, r"user_ids=\{1, 2, 3\}: a sequence of"),
        ({"user_ids": np.array([[1], [2], [3]])}, r"user_ids\[0\]=\[1\]: a whole number"),
        ({"user_ids": 3}, "user_ids=3: a sequence of"),
        ({"item_ids": ["a", "a"]}, r"item_ids\[1\]='a' is the id of an earlier row"),
        ({"item_ids": ["a", "b", "c"]}, "item_ids has 3 values, but 2 are needed"),
        ({"entity_names": ["a", "b"]}, "entity_names has 2 values, but 3 are needed"),
        ({"entity_names": ["a", "b", 5]}, r"entity_names\[2\]=5: a string is needed"),
        ({"item_names": ["a", None]}, r"item_names\[1\]=None: a string is needed"),
        ({"item_names": ["a", "\ud83d"]}, r"item_names\[1\]='.ud83d': text is needed that UTF-8 can hold"),
        ({"user_ids": ["a", "b", "\udcff"]}, r"user_ids\[2\]='.udcff': text is needed that UTF-8"),
        ({"item_names": "ab"}, "item_names='ab': a sequence of strings"),
        ({"relation_names": [np.nan]}, r"relation_names\[0\]=nan: a string is needed"),
    ],
)
def test_what_is_no_id_or_name_is_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        NamedKG(tmp_path, **names)
    assert not list(tmp_path.iterdir())


def write_recbole(folder, item):
    folder.mkdir(exist_ok=True)
    log = [("196", "b"), ("7", "a"), ("07", "b"), ("7", "c")]
    (folder / "d.inter").write_text(
        "user_id:token\titem_id:token\n" + "".join(f"{user}\t{film}\n" for user, film in log)
    )
    (folder / "d.kg").write_text(
        "head_id:token\trelation_id:token\ttail_id:token\nm.1\tdirected by\tVarda\nm.2\tdirected by\tVarda\n"
    )
    (folder / "d.link").write_text("item_id:token\tentity_id:token\na\tm.1\nb\tm.2\n")
    if item is not None:
        (folder / "d.item").write_text(item)


@pytest.mark.parametrize(
    ("item", "names"),
    [
        (None, ["b", "a", "c"]),
        ("item_id:token\tyear:float\nb\t1\n", ["b", "a", "c"]),
        ("item_id:token\tmovie_title:token_seq\nq\tNo\nb\tCléo\na\tVagabond\n", ["Cléo", "Vagabond", "c"]),
        ("artist_name:token\tTitle:token_seq\titem_id:token\nx\t Jetée \ta\ny\t\tb\n", ["b", "Jetée", "c"]),
        ("item_id:token\tname:token\nb\tsame\na\tsame\nc\tsame", ["same"] * 3),
        ("title_length:float\ttitle_id:token\titem_id:token\ttitle:token_seq\n1\t2\tb\tC\n", ["C", "a", "c"]),
        ("item_id:token\tbrand_name:token\tname:token\nb\tX\tC\n", ["C", "a", "c"]),
        ("item_id:token\ttitle_of_film:token\tmy_title:token\nb\tX\tC\n", ["C", "a", "c"]),
    ],
)
def test_recbole_ids_are_tokens_and_names_are_titles(tmp_path, item, names):
    write_recbole(tmp_path / "d", item)
    for _ in range(2):
        dataset = RecBoleKG(tmp_path, "d", negatives="entities")
        assert dataset.user_ids == ["196", "7", "07"]
        assert dataset.item_ids == ["b", "a", "c"]
        assert dataset.item_names == names
        assert dataset.entity_names == [*names, "Varda"]
        assert dataset.relation_names == ["directed by"]


def test_titles_that_match_no_item_are_told(tmp_path):
    write_recbole(tmp_path / "d", "item_id:token\ttitle:token\nb.0\tX\na.0\tY\n")
    with pytest.warns(UserWarning, match=r"d\.item' has none of the items: its first is 'b\.0', .* 'b'\."):
        assert RecBoleKG(tmp_path, "d", negatives="entities").item_names == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("film:token\ttitle:token_seq\na\tx\n", r"d\.item', line 1: .* has 0 fields 'item_id'"),
        ("item_id:token\ttitle:token_seq\na\tx\nb\n", r"d\.item', line 3: 'b' has 1 fields instead of 2"),
        (
            "item_id:token\ttitle:token_seq\na\tx\na\ty\n",
            r"d\.item', line 3: item a has an earlier line",
        ),
    ],
)
def test_a_bad_file_of_items_is_named(tmp_path, item, message):
    write_recbole(tmp_path / "d", item)
    with pytest.raises(ValueError, match=message):
        RecBoleKG(tmp_path, "d", negatives="entities")


@pytest.mark.real_data
def test_real_lastfm_ids(tmp_path, lastfm_raw):
    dataset = LastFMKG(tmp_path)
    name_of = {
        int(line.split("\t")[0]): line.split("\t")[1]
        for line in (lastfm_raw / "lastfm" / "artists.dat").read_text().splitlines()[1:]
    }
    assert [name_of[artist] for artist in dataset.item_ids] == dataset.item_names
    rows = (lastfm_raw / "lastfm" / "user_artists.dat").read_text().splitlines()[1:]
    pairs_of_file = {tuple(map(int, row.split("\t")[:2])) for row in rows}
    links = dataset[0][LINKS]
    pairs = links.edge_label_index[:, links.edge_label == 1].t().tolist()
    items = set(dataset.item_ids)
    assert {(dataset.user_ids[user], dataset.item_ids[item]) for user, item in pairs} == {
        pair for pair in pairs_of_file if pair[1] in items
    }
    assert len(dataset.entity_names) == dataset.num_entities
    assert dataset.entity_names[: dataset.num_items] == dataset.item_names

    # Every triple by name is a line of the file, in its order.
    entity_of = {}
    for line in (lastfm_raw / "lastfm" / "item_index2entity_id.txt").read_text().splitlines():
        artist, entity = map(int, line.split())
        entity_of[entity] = name_of[artist]
    facts = [line.split("\t") for line in (lastfm_raw / "lastfm" / "kg.txt").read_text().splitlines()]
    kg, half = dataset[0][KG], dataset.num_triples
    found = [
        (dataset.entity_names[head], dataset.relation_names[relation], dataset.entity_names[tail])
        for head, relation, tail in zip(
            *kg.edge_index[:1, :half].tolist(),
            kg.rel_type[:half].tolist(),
            *kg.edge_index[1:, :half].tolist(),
            strict=True,
        )
    ]
    assert found == [
        (entity_of.get(int(head), f"entity {head}"), relation, entity_of.get(int(tail), f"entity {tail}"))
        for head, relation, tail in facts
    ]


@pytest.mark.real_data
def test_real_book_crossing_ids(tmp_path, lastfm_raw):
    dataset = BookCrossingKG(tmp_path)
    assert (dataset.user_ids, dataset.item_ids) == (range(17860), range(14967))


@pytest.mark.real_data
def test_real_ml_100k_titles(lastfm_raw, tmp_path):
    source = lastfm_raw / "recbole" / "ml-100k"
    if not source.is_dir():
        pytest.skip("no files here")
    (tmp_path / "ml-100k").mkdir()
    for path in source.iterdir():
        (tmp_path / "ml-100k" / path.name).symlink_to(path)
    dataset = RecBoleKG(tmp_path, "ml-100k", min_rating=4)
    table = pd.read_csv(source / "ml-100k.item", sep="\t", dtype=str).set_index("item_id:token")
    assert dataset.item_names == table["movie_title:token_seq"][dataset.item_ids].tolist()
