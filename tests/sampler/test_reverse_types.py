"""Reverses of types of edges: those that are named, and those that only look like it."""

import warnings

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.sampler import EdgeSamplerInput

from mgwa_pyg.sampler import KHopSampler, k_hop_sampler

BUYS, BOUGHT_BY = ("user", "buys", "item"), ("item", "bought_by", "user")
LISTENS, REVERSE = ("user", "listens", "item"), ("item", "rev_listens", "user")
FOLLOWS = ("user", "follows", "user")
NUM_USERS, NUM_ITEMS = 8, 11


def graph():
    """A type with a reverse of the common name, one with a reverse of another, and one between users."""
    torch.manual_seed(0)
    data = HeteroData({"user": {"num_nodes": NUM_USERS}, "item": {"num_nodes": NUM_ITEMS}})
    for there, back in ((LISTENS, REVERSE), (BUYS, BOUGHT_BY)):
        edge_index = torch.stack([torch.randint(NUM_USERS, (25,)), torch.randint(NUM_ITEMS, (25,))])
        data[there].edge_index = edge_index
        data[back].edge_index = edge_index.flip(0)[:, torch.randperm(25)]
    data[FOLLOWS].edge_index = torch.randint(NUM_USERS, (2, 12))
    return data


def warnings_of(data, link_type, links=None, **options):
    """What a sampler warns of at the first of two batches, and that it does not do so again."""
    sampler = KHopSampler(data, [2], exclude_supervision=True, **options)
    row, col = (data[link_type].edge_index if links is None else links)[:, :9]
    texts = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sampler.sample_from_edges(EdgeSamplerInput(None, row, col, input_type=link_type))
        texts.append([str(warning.message) for warning in caught])
    assert texts[1] == []
    return texts[0]


def test_warns_of_a_reverse_under_another_name():
    data = graph()
    (text,) = warnings_of(data, BUYS)
    assert f"reverse_edge_types={{{BUYS}: {BOUGHT_BY}}}" in text
    (text,) = warnings_of(data, BOUGHT_BY)
    assert f"edges {BUYS} look like those of {BOUGHT_BY} reversed" in text
    for options in ({BUYS: BOUGHT_BY}, {BUYS: [BOUGHT_BY]}, {BOUGHT_BY: BUYS}, {BUYS: []}):
        assert warnings_of(data, BUYS, reverse_edge_types=options) == []
    assert warnings_of(data, LISTENS) == warnings_of(data, FOLLOWS) == []

    # Part of the edges stands there reversed; or these and more; or the predicted type is not in the graph.
    buys = data[BUYS].edge_index
    data[BOUGHT_BY].edge_index = buys.flip(0)[:, :5]
    assert len(warnings_of(data, BUYS)) == 1
    data[BOUGHT_BY].edge_index = torch.cat([buys.flip(0), torch.randint(8, (2, 40))], dim=1)
    assert len(warnings_of(data, BUYS)) == 1
    del data[BUYS]
    assert len(warnings_of(data, BUYS, links=buys)) == 1


@pytest.mark.parametrize("num_edges", [5, 25, 60])
def test_does_not_warn_of_other_edges(num_edges):
    # Of 88 pairs: dense graphs share edges by chance.
    for seed in range(10):
        torch.manual_seed(seed)
        data = graph()
        pairs = torch.cartesian_prod(torch.arange(NUM_USERS), torch.arange(NUM_ITEMS)).t()
        data[BUYS].edge_index = pairs[:, torch.randperm(88)[:num_edges]]
        data[BOUGHT_BY].edge_index = pairs[:, torch.randperm(88)[:num_edges]].flip(0)
        assert warnings_of(data, BUYS) == []
    data[BOUGHT_BY].edge_index = data[BOUGHT_BY].edge_index[:, :0]
    assert warnings_of(data, BUYS) == []


def test_reverses_that_do_not_fit():
    data = graph()
    for given, message in (
        ({BUYS: ("item", "sold_to", "user")}, "has .*sold_to.*, but a type from 'item' to 'user' among"),
        ({BUYS: LISTENS}, "has .*listens.*, but a type from 'item' to 'user' among"),
        ({BUYS: "bought_by"}, "is 'bought_by', but a type of edges or a list of them"),
        ({BUYS: None}, "is None, but a type of edges or a list of them"),
        ({"buys": BOUGHT_BY}, "a type of edges between nodes"),
        ({("user", "buys", "film"): BOUGHT_BY}, "a type of edges between nodes"),
        ([(BUYS, BOUGHT_BY)], "but a dict of types of edges is needed"),
    ):
        with pytest.raises(ValueError, match=f"reverse_edge_types.*{message}"):
            KHopSampler(data, [2], exclude_supervision=True, reverse_edge_types=given)
    with pytest.raises(ValueError, match="exclude_supervision leaves out: set that, too"):
        KHopSampler(data, [2], reverse_edge_types={BUYS: BOUGHT_BY})
    with pytest.raises(ValueError, match="exclude_supervision leaves out: set that, too"):
        k_hop_sampler(data, [2], reverse_edge_types={BUYS: BOUGHT_BY})
    assert k_hop_sampler(
        data, [2], exclude_supervision=True, reverse_edge_types={BUYS: BOUGHT_BY}
    )._reverse_types.of(BUYS) == [BOUGHT_BY]
