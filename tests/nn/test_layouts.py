"""However edges lie in memory, layers and models answer as for the same edges in PyG's layout."""

import pytest
import torch

from mgwa_pyg.nn import MGWA, CollaborativeMGWA, GatedAggregationConv
from mgwa_pyg.ops import RelationCSR

NUM_NODES, NUM_RELATIONS = 60, 3


def edges(num_edges, order, num_src=NUM_NODES, num_dst=NUM_NODES):
    """Edges and their relations in PyG's layout and as columns of one table, sorted by a row or not."""
    rows = [torch.randint(num, (num_edges,)) for num in (num_src, NUM_RELATIONS, num_dst)]
    table = torch.stack(rows, dim=1)
    if order is not None:
        table = table[table[:, order].argsort(stable=True)]
    return (torch.stack([table[:, 0], table[:, 2]]), table[:, 1].clone()), (table.t()[::2], table.t()[1])


ORDERS = pytest.mark.parametrize("order", [0, 2, None], ids=["by source", "by target", "unsorted"])


@ORDERS
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("num_edges", [200, 2**15])
def test_of_edges_into_the_default_layer(num_edges, flow, order):
    plain, strided = edges(num_edges, order, num_dst=NUM_NODES - 9)
    conv = GatedAggregationConv(8, 8, NUM_RELATIONS, flow=flow)
    x = torch.randn(NUM_NODES, 8), torch.randn(NUM_NODES - 9, 8)
    if flow == "target_to_source":
        plain, strided = (plain[0].flip(0), plain[1]), (strided[0].flip(0), strided[1])
        strided = strided[0].t().contiguous().t(), strided[1]
    got = conv(x, *strided)
    got_gradient = torch.autograd.grad(got.square().mean(), conv.parameters())
    conv.backend = "reference"
    want = conv(x, *plain)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    gradient = torch.autograd.grad(want.square().mean(), conv.parameters())
    torch.testing.assert_close(got_gradient, gradient, rtol=1e-4, atol=1e-5)


@ORDERS
def test_of_the_graph_and_the_excluded_pairs_of_a_ranking(order):
    plain, strided = edges(300, order)
    graphs = [
        RelationCSR.from_edge_index(*each, NUM_RELATIONS, (NUM_NODES,) * 2) for each in (plain, strided)
    ]
    users, num_items = torch.arange(5), 20
    pairs = torch.stack([torch.arange(40) % 5, torch.randint(num_items, (40,))], dim=1)
    model = MGWA(5, NUM_NODES, NUM_RELATIONS, channels=4, num_layers=2)
    best = model.rank(torch.stack([users, users], dim=1)[:, 0], 7, graphs[1], num_items, exclude=pairs.t())

    score = model.score_items(users, graphs[0], num_items)
    score[pairs[:, 0], pairs[:, 1]] = -torch.inf
    value, item = score.sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(best.score, value[:, :7])
    assert torch.equal(best.item, item[:, :7])


@ORDERS
def test_of_edges_and_interactions_in_the_collaborative_graph(order):
    plain, strided = edges(300, order)
    pairs = torch.stack([torch.arange(40) % 5, torch.randint(20, (40,))], dim=1)
    model = CollaborativeMGWA(20, NUM_NODES, NUM_RELATIONS, channels=4).eval()
    want = model.encode(model.graph(pairs.t().contiguous(), *plain, 5))
    got = model.encode(model.graph(pairs.t(), *strided, 5))
    torch.testing.assert_close(got, want)
