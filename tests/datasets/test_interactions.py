"""The edges between users and items are found, whatever they are called."""

import pytest
import torch
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.interactions import interactions


def data_with(*types):
    data = HeteroData()
    for kind in types:
        data[kind].edge_index = torch.tensor([[0], [1]])
    return data


def test_any_word_will_do():
    data = data_with(("entity", "kg", "entity"), ("user", "reads", "entity"), ("entity", "rev_reads", "user"))
    assert interactions(data) is data["user", "reads", "entity"]


def test_of_several_the_labelled_one_counts():
    data = data_with(("user", "plays", "entity"), ("user", "likes", "entity"))
    with pytest.raises(ValueError, match=r"'plays'.*'likes'"):
        interactions(data)
    data["user", "likes", "entity"].edge_label_index = torch.tensor([[0], [1]])
    assert interactions(data) is data["user", "likes", "entity"]


def test_none_is_an_error():
    with pytest.raises(ValueError, match="no edges from users to entities"):
        interactions(data_with(("entity", "kg", "entity")))
