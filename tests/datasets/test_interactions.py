"""The edges between users and items are found, whatever they are called."""

import pytest
import torch
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets import (
    BookCrossingKG,
    Interaction,
    KGRecDataset,
    KGRecTables,
    LastFMKG,
    MovieLens1MKG,
    MovieLens20MKG,
    RecBoleKG,
    SyntheticKG,
)
from mgwa_pyg.datasets.interactions import LISTENS, READS, WATCHES, interactions
from mgwa_pyg.datasets.schema import check_data


class GamesKG(KGRecDataset):
    """Two games and their maker."""

    interaction = Interaction("plays", "played", "players")

    def build(self):
        return KGRecTables([[0, 0], [1, 1]], [[0, 0, 3]], 2, 4, ["a", "b", "c"], ["by"])


def data_with(*types):
    data = HeteroData()
    for kind in types:
        data[kind].edge_index = torch.tensor([[0], [1]])
    return data


def test_any_word_will_do():
    data = data_with(("entity", "kg", "entity"), ("user", "reads", "entity"), ("entity", "rev_reads", "user"))
    assert interactions(data) is data["user", "reads", "entity"]


def test_of_several_the_one_that_is_split_counts():
    data = data_with(("user", "plays", "entity"), ("user", "likes", "entity"))
    with pytest.raises(ValueError, match=r"'plays'.*'likes'"):
        interactions(data)
    data["user", "likes", "entity"].edge_label_index = torch.tensor([[0], [1]])
    assert interactions(data) is data["user", "likes", "entity"]
    data["user", "plays", "entity"].edge_label_index = torch.tensor([[0], [1]])
    data["user", "plays", "entity"].train_mask = torch.tensor([True])
    assert interactions(data) is data["user", "plays", "entity"]


def test_none_is_an_error():
    with pytest.raises(ValueError, match="no edges from users to entities"):
        interactions(data_with(("entity", "kg", "entity")))


def test_each_data_set_has_its_word():
    words = {
        BookCrossingKG: READS,
        MovieLens1MKG: WATCHES,
        MovieLens20MKG: WATCHES,
        **dict.fromkeys((KGRecDataset, LastFMKG, RecBoleKG, SyntheticKG), LISTENS),
    }
    assert {kind: kind.interaction for kind in words} == words


def test_a_word_of_your_own(tmp_path, monkeypatch):
    for _ in range(2):  # Built, and from the processed file.
        dataset = GamesKG(tmp_path)
        data = dataset[0]
        assert interactions(data) is data["user", "plays", "entity"]
        check_data(dataset, data)
    fingerprint = dataset.fingerprint
    monkeypatch.setattr(GamesKG, "interaction", Interaction("owns", "owned", "owners"))
    other = GamesKG(tmp_path)  # It is built anew.
    assert ("user", "owns", "entity") in other[0].edge_types
    with pytest.raises(ValueError, match=r"the data have no data\['user', 'owns', 'entity'\]"):
        check_data(other, data)
    assert other.fingerprint == fingerprint  # Nothing is learned from the word: checkpoints fit both.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("plays", "interaction='plays': an Interaction is needed"),
        (Interaction("plays", "played", ""), "people='.*three words are needed"),
        (Interaction(1, "played", "players"), "edge=1.*three words are needed"),
    ],
)
def test_what_is_no_interaction(wrong, message):
    class WrongKG(GamesKG):
        interaction = wrong

    with pytest.raises(TypeError, match=message):
        WrongKG(None)
