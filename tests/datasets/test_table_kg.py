"""Somebody's tables become the data set that their rows say, read by loops."""

import gzip
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import Interaction, RawDataError, RecBoleKG, TableKG, from_spec
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import CheckpointError
from mgwa_pyg.train import CollaborativeConfig, fit

# A few rows leave some users without a negative.
pytestmark = pytest.mark.filterwarnings("ignore:User .* of the .* that negatives are drawn from")
LINKS, KG = ("user", "listens", "entity"), ("entity", "kg", "entity")
PLAYS = pd.DataFrame(
    {
        "user": ["giulia.2", "ben", "giulia.2", "giulia.2", "ben", "caro"],
        "item": [7, 9, 7, 8, 8, 9],
        "plays": [3, 1, 2, 4, 5, 6],
        "when": [10, 20, 60, 30, 40, 50],
    }
)
GRAPH = pd.DataFrame([("7", "by", "x"), ("8", "by", "x"), ("x", "from", "oslo")], columns=["a", "b", "c"])


def positives(dataset, part="train"):
    """The interactions of a part, as ids."""
    links = dataset[0]["user", dataset.interaction.edge, "entity"]
    pairs = links.edge_label_index[:, links[f"{part}_mask"] & (links.edge_label == 1)].T.tolist()
    return {(dataset.user_ids[user], dataset.item_ids[item]) for user, item in pairs}


def triples(dataset):
    """The triples, as ids."""
    kg = dataset[0][KG]
    edges = zip(*kg.edge_index.tolist(), kg.rel_type.tolist(), strict=True)
    ids, names = dataset.entity_ids, dataset.relation_names
    return sorted((str(ids[h]), names[r], str(ids[t])) for h, t, r in edges if r < dataset.num_relations)


def carried(dataset, key):
    """What the training edges carry, by their ids."""
    links = dataset[0][LINKS]
    rows = zip(*links.edge_index.tolist(), links[key].tolist(), strict=True)
    return {(dataset.user_ids[user], dataset.item_ids[item]): value for user, item, value in rows}


@pytest.mark.smoke
def test_ids_weights_and_times_are_those_of_the_rows():
    dataset = TableKG.from_tables(PLAYS, weight="plays", time="when", split="none")
    assert (dataset.user_ids, dataset.item_ids) == (["giulia.2", "ben", "caro"], [7, 9, 8])
    assert all(type(item) is int for item in dataset.item_ids)
    weights = {("giulia.2", 7): 5, ("giulia.2", 8): 4, ("ben", 9): 1, ("ben", 8): 5, ("caro", 9): 6}
    times = {("giulia.2", 7): 60, ("giulia.2", 8): 30, ("ben", 9): 20, ("ben", 8): 40, ("caro", 9): 50}
    assert carried(dataset, "edge_weight") == weights
    assert carried(dataset, "edge_time") == times
    assert dataset[0][LINKS].edge_time.dtype == torch.int64
    assert (dataset.num_entities, dataset.num_relations, dataset.num_triples) == (3, 0, 0)
    counts = carried(TableKG.from_tables(PLAYS, split="none"), "edge_weight")
    assert counts == {**dict.fromkeys(weights, 1), ("giulia.2", 7): 2}


def test_splits_go_by_time_or_by_a_column():
    def parts(**arguments):
        dataset = TableKG.from_tables(PLAYS, **arguments)
        return [positives(dataset, part) for part in ("train", "val", "test")]

    everything = {(user, item) for user, item in zip(PLAYS["user"], PLAYS["item"], strict=True)}
    assert parts(split="none") == [everything, set(), set()]
    # In the order of their last times: ben 9, giulia 8, ben 8, caro 9, giulia 7.
    wanted = [{("ben", 9), ("giulia.2", 8), ("ben", 8)}, {("caro", 9)}, {("giulia.2", 7)}]
    assert parts(split="time", time="when") == wanted
    last = {("giulia.2", 7), ("ben", 8)}  # Neither has a third; caro keeps her only one.
    assert parts(split="last", time="when") == [everything - last, set(), last]
    frame = PLAYS.assign(part=["Test", "valid", "test", "train", "val ", "TRAIN"])
    dataset = TableKG.from_tables(frame, split="column:part")
    assert positives(dataset) == {("giulia.2", 8), ("caro", 9)}
    assert positives(dataset, "val") == {("ben", 9), ("ben", 8)}
    assert positives(dataset, "test") == {("giulia.2", 7)}


def test_of_equal_times_the_later_row_is_later():
    frame = pd.DataFrame({"user": ["u"] * 4, "item": [3, 1, 2, 0], "when": [5, 5, 5, 5]})
    dataset = TableKG.from_tables(frame, time="when", split="last")
    assert positives(dataset, "val") == {("u", 2)}
    assert positives(dataset, "test") == {("u", 0)}


def test_nanoseconds_decide_what_is_last():
    times = pd.to_datetime([1_700_000_000_000_000_900 - 400 * n for n in range(3)])
    frame = pd.DataFrame({"user": ["u"] * 3, "item": [3, 2, 1], "when": times})
    dataset = TableKG.from_tables(frame, time="when", split="last")
    assert positives(dataset, "val") == {("u", 2)}
    assert positives(dataset, "test") == {("u", 3)}


def test_weights_that_add_up_to_too_much_are_blamed_on_their_pair():
    frame = pd.DataFrame({"user": ["u", "v", "v"], "item": [1, 2, 2], "w": [3e38] * 3})
    with pytest.raises(
        RawDataError, match=r"interactions.iloc\[1\]: the weights of its user and item add up"
    ):
        TableKG.from_tables(frame, weight="w")


@pytest.mark.parametrize("split", ["random", "per_user", "time", "last"])
def test_every_split_is_a_partition_that_the_seed_fixes(split):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"user": rng.integers(0, 9, 200), "item": rng.integers(0, 30, 200), "t": rng.integers(0, 50, 200)}
    )
    one, two = (TableKG.from_tables(frame, time="t", split=split, seed=4) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    parts = [positives(one, part) for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == one.num_interactions == len({*frame[["user", "item"]].itertuples(False)})
    assert not parts[0] & parts[1]
    assert not parts[2] & (parts[0] | parts[1])
    if split == "time":
        time = frame.groupby(["user", "item"])["t"].max().to_dict()
        ends = [[time[pair] for pair in part] for part in parts]
        assert max(ends[0]) <= min(ends[1])
        assert max(ends[1]) <= min(ends[2])
        assert [len(part) for part in parts[1:]] == [int(0.2 * one.num_interactions)] * 2
    if split in ("per_user", "last"):
        assert {user for user, _ in parts[0]} == {*one.user_ids}


def test_ends_of_triples_are_items_or_anything_else():
    dataset = TableKG.from_tables(PLAYS, triples=GRAPH)
    assert triples(dataset) == sorted(map(tuple, GRAPH.to_numpy().tolist()))
    assert dataset.item_ids == [7, 9, 8]
    assert dataset.entity_ids == [7, 9, 8, "x", "oslo"]
    summary = dataset.summary()
    assert (summary["items with triples"], summary["ids of the graph"], summary["rows"]) == (2, 4, 6)


def test_a_triple_counts_once():
    graph = pd.concat(
        [GRAPH, GRAPH.iloc[::-1], pd.DataFrame([("7", "kind", "kind=a")], columns=GRAPH.columns)]
    )
    dataset = TableKG.from_tables(PLAYS.assign(kind="a"), triples=graph, attributes=["kind"])
    wanted = {*map(tuple, graph.to_numpy().tolist()), ("8", "kind", "kind=a"), ("9", "kind", "kind=a")}
    assert triples(dataset) == sorted(wanted)
    assert dataset.summary()["triples"] == len(wanted)


def test_links_say_which_entity_an_item_is():
    graph = GRAPH.replace({"7": "m.7", "8": "m.8"})
    links = {7: "m.7", 8: "m.8", 5: "m.5", 9: "nowhere"}
    names = {"m.7": "Seven", "oslo": "Oslo", "elsewhere": "?"}
    dataset = TableKG.from_tables(PLAYS, triples=graph, links=links, entity_names=names)
    assert triples(dataset) == sorted(map(tuple, graph.to_numpy().tolist()))
    assert (dataset.item_ids, dataset.entity_ids) == ([7, 9, 8], ["m.7", 9, "m.8", "x", "oslo"])
    assert dataset.entity_names == ["Seven", "9", "8", "x", "Oslo"]
    summary = dataset.summary()
    assert summary["links"] == 4
    assert summary["links of items without interactions"] == 1
    assert summary["links to ids that no triple has"] == 2
    # Without the links, an id that happens to be the same is no item.
    graph = pd.DataFrame([("m.7", "by", "9")])
    dataset = TableKG.from_tables(PLAYS, triples=graph, links=pd.DataFrame([(7, "m.7")]))
    assert dataset.num_entities == 4
    with pytest.warns(UserWarning, match="1 items are linked to an entity that a later row links"):
        dataset = TableKG.from_tables(PLAYS, triples=graph, links=pd.DataFrame([(7, "m.7"), (8, "m.7")]))
    assert dataset.entity_ids == [7, 9, "m.7", "9"]


def test_names_and_attributes_are_columns():
    items = pd.DataFrame(
        {
            "item": [8, 7, 7, 6],
            "title": ["Eight", "Seven", "Seven", "Six"],
            "genre": ["rock|pop", "pop", None, "jazz"],
            "year": [1990.0, np.nan, 2000.0, 1970.0],
        }
    )
    dataset = TableKG.from_tables(
        PLAYS, items=items, name="title", attributes=["genre", "year"], separator="|", triples=GRAPH
    )
    assert triples(dataset) == sorted(
        [
            *map(tuple, GRAPH.to_numpy().tolist()),
            ("8", "genre", "genre=rock"), ("8", "genre", "genre=pop"), ("7", "genre", "genre=pop"),
            ("8", "year", "year=1990"), ("7", "year", "year=2000"),
        ]
    )  # fmt: skip
    assert dataset.item_names == ["Seven", "9", "Eight"]
    assert dataset.entity_names[3:] == ["x", "oslo", "rock", "pop", "1990", "2000"]
    # Without a table of items, the interactions say it.
    frame = PLAYS.assign(kind=pd.Categorical(["a", "b", "a", "a", None, "b"], ["c", "b", "a"]))
    assert triples(TableKG.from_tables(frame, attributes=["kind"])) == [
        ("7", "kind", "kind=a"), ("8", "kind", "kind=a"), ("9", "kind", "kind=b"),
    ]  # fmt: skip


def test_numbers_that_nobody_shares_are_no_categories():
    many = pd.DataFrame({"user": ["u"] * 60, "item": range(60), "price": np.linspace(1, 2, 60)})
    for price in (many["price"], range(60), many["price"].map(str)):
        with pytest.raises(RawDataError, match=r"'price' has 60 different numbers.*pandas\.cut"):
            TableKG.from_tables(many.assign(price=price), attributes=["price"])
    assert TableKG.from_tables(many.assign(price=[*range(30)] * 2), attributes=["price"]).num_triples == 60
    # As the message advises.
    classes = pd.cut(many["price"], 3)
    for price in (classes, classes.astype(object), classes.astype(classes.cat.categories.dtype)):
        dataset = TableKG.from_tables(many.assign(price=price), attributes=["price"])
        assert dataset.entity_names[60:] == [*map(str, classes.cat.categories)]


def test_few_items_in_the_graph_are_loudly_warned_of():
    nodes = [f"http://x.org/artist/{item}" for item in (7, 8)]
    with pytest.warns(
        UserWarning, match="Only 0 of the 3 items have triples.*2 items would be found by the end"
    ):
        TableKG.from_tables(PLAYS, triples=pd.DataFrame([(node, "by", "x") for node in nodes]))


def test_tables_that_match_nothing_are_loudly_warned_of():
    items = pd.DataFrame({"item": ["07", "08", "09"], "title": ["Seven", "Eight", "Nine"]})
    with pytest.warns(UserWarning, match="items: only 0 of the 3 items are in it.*'7'.*'07'"):
        TableKG.from_tables(PLAYS, items=items, name="title")
    with pytest.warns(UserWarning, match="entity_names: it names none of the entities.*'7'.*'OSLO'"):
        TableKG.from_tables(PLAYS, triples=GRAPH, entity_names={"OSLO": "Oslo"})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"item": "artist"},
            r"interactions: it has no column 'artist' for the item.*'user', 'item', 'plays'",
        ),
        ({"split": "last"}, "split='last' goes by time"),
        ({"split": "monthly"}, "split='monthly' is unknown"),
        ({"split": "column:plays"}, r"interactions.iloc\[0\]: the part is '3', but one of train, val"),
        ({"negatives": "none"}, "negatives='none' is unknown"),
        ({"links": {7: "x"}}, "pass it as triples="),
        ({"interaction": "eats"}, "interaction='eats' is unknown"),
        ({"item": "user"}, "interactions: the column 'user' cannot be both the user and the item"),
        ({"attributes": ["plays", "plays"]}, r"attributes=\['plays', 'plays'\]: 'plays' is there twice"),
        ({"separator": ""}, "separator='': text such as"),
        ({"separator": 5}, "separator=5: text such as"),
        ({"weight": "user"}, r"iloc\[0\]: the weight 'giulia.2' is (text|no number)"),
    ],
)
def test_wrong_arguments_are_named(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        TableKG.from_tables(PLAYS, **arguments)


def test_parts_that_contradict_each_other_are_blamed_on_their_row():
    frame = PLAYS.assign(part=["train", "train", "test", "train", "train", "train"])
    with pytest.raises(RawDataError, match=r"interactions.iloc\[2\]: its user and item are in another part"):
        TableKG.from_tables(frame, split="column:part")


def test_the_words_are_those_that_are_asked_for(tmp_path):
    words = Interaction("plays", "played", "players")
    dataset = TableKG.from_tables(PLAYS, interaction=words)
    dataset.to_file(tmp_path / "data.pt")
    assert TableKG(tmp_path / "data.pt").interaction == words
    assert ("user", "plays", "entity") in dataset[0].edge_types


def test_a_file_holds_all_of_it(tmp_path):
    dataset = TableKG.from_tables(
        PLAYS, triples=GRAPH, weight="plays", time="when", seed=3, negatives="entities"
    )
    dataset.to_file(tmp_path / "data.pt")
    again = TableKG(tmp_path / "data.pt")
    assert again.fingerprint == dataset.fingerprint
    assert again.summary().equals(dataset.summary())
    assert (again.seed, again.negatives, again.split) == (3, "entities", "random")
    assert again.entity_ids == dataset.entity_ids
    assert from_spec({"class": "TableKG", "arguments": {"path": "data.pt"}}, tmp_path).num_items == 3


def test_what_is_no_file_of_a_data_set_says_what_is(tmp_path):
    plays, other = tmp_path / "plays.csv", tmp_path / "best.ckpt"
    PLAYS.to_csv(plays, index=False)
    torch.save({"kind": "mine"}, other)
    none = tmp_path / "none.pt"
    kinds = {plays: RuntimeError, other: RuntimeError, tmp_path: IsADirectoryError, none: FileNotFoundError}
    for path, kind in kinds.items():
        with pytest.raises(kind, match=r"Pass a file that TableKG.to_file wrote.*from_tables") as error:
            TableKG(path)
        assert str(path) in str(error.value)
        assert "elete" not in str(error.value)
    with pytest.raises(TypeError, match=r"a path is needed.*from_tables"):
        TableKG(PLAYS)
    with pytest.raises(
        IsADirectoryError, match=r"is a folder: pass the path of a file, such as .*dataset.pt"
    ):
        TableKG.from_tables(PLAYS).to_file(tmp_path)
    assert {*tmp_path.iterdir()} == {plays, other}


@pytest.mark.parametrize("split", ["random", "none"])
def test_a_run_folder_opens_without_the_tables(tmp_path, split):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"user": rng.integers(0, 9, 200), "item": [f"i{i}" for i in rng.integers(0, 30, 200)]}
    )
    dataset = TableKG.from_tables(frame, split=split)
    run = fit(dataset, CollaborativeConfig(epochs=2, channels=4), tmp_path / "mine")
    assert len(run.score) == int(dataset[0][LINKS].test_mask.sum())
    assert len(run.history) == 2
    shutil.move(tmp_path / "mine", tmp_path / "moved")
    recommender = Recommender.load(tmp_path / "moved")
    user = dataset.user_ids[2]
    best = recommender.recommend(user, k=5)
    seen = {*frame["item"][frame["user"] == user]}
    assert {*best["item"]} <= {*frame["item"]} - seen
    assert best.equals(Recommender.load(tmp_path / "moved", dataset).recommend(str(user), k=5))
    other = TableKG.from_tables(frame, split=split, seed=1 + (split == "none"))
    with pytest.raises(CheckpointError, match="other data of the same sizes"):
        Recommender.load(tmp_path / "moved", other)


def test_a_finished_fit_of_other_tables_is_kept_with_its_data(tmp_path):
    config = CollaborativeConfig(epochs=1, channels=4)
    first, second = (TableKG.from_tables(PLAYS, split="none", weight=weight) for weight in (None, "plays"))
    fit(first, config, tmp_path)
    with pytest.warns(UserWarning, match="kept as best-1.ckpt and dataset-1.pt"):
        fit(second, config, tmp_path)
    assert Recommender.load(tmp_path).dataset.fingerprint == second.fingerprint
    assert TableKG(tmp_path / "dataset-1.pt").fingerprint == first.fingerprint


@pytest.mark.tables
def test_five_lines_from_files_to_a_recommender(tmp_path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "user": [f"giulia.{i}" for i in rng.integers(0, 8, 120)],
            "artist": [f"http://x.org/{i}" for i in rng.integers(0, 20, 120)],
            "plays": rng.integers(1, 9, 120),
            "when": pd.Timestamp("2024-05-17") + pd.to_timedelta(rng.integers(0, 10**6, 120), unit="s"),
        }
    )
    frame.to_parquet(tmp_path / "plays.parquet")
    with gzip.open(tmp_path / "kg.nt.gz", "wt") as file:
        file.writelines(
            f"<http://x.org/{i}> <http://x.org/is> <http://x.org/g{i % 3}> .\n" for i in range(20)
        )
    dataset = TableKG.from_tables(
        tmp_path / "plays.parquet", triples=tmp_path / "kg.nt.gz", user="user", item="artist",
        weight="plays", time="when",
    )  # fmt: skip
    assert dataset.summary()["items with triples"] == dataset.num_items
    total = frame["when"].astype("datetime64[s]").astype("int64")
    assert int(dataset[0][LINKS].edge_time.min()) >= total.min()
    fit(dataset, CollaborativeConfig(epochs=1, channels=4), tmp_path / "runs")
    (tmp_path / "plays.parquet").unlink()
    assert len(Recommender.load(tmp_path / "runs").recommend("giulia.2", k=3)) == 3


@pytest.mark.real_data
def test_recbole_files_come_through_this_door_as_through_their_own(lastfm_raw, tmp_path):
    folder = lastfm_raw / "recbole" / "ml-100k"
    dataset = TableKG.from_tables(
        folder / "ml-100k.inter", user="user_id", item="item_id", weight="rating", time="timestamp",
        triples=folder / "ml-100k.kg", links=folder / "ml-100k.link",
        items=folder / "ml-100k.item", name="movie_title",
    )  # fmt: skip
    theirs = RecBoleKG(lastfm_raw / "recbole", "ml-100k", processed=tmp_path)
    assert str(dataset).partition("(")[2] == str(theirs).partition("(")[2]
    assert [*map(str, dataset.user_ids)] == theirs.user_ids
    assert dataset.item_names == theirs.item_names
    assert triples(dataset) == triples(theirs)
