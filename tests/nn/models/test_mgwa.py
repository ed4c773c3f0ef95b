"""The model against the paper's equations, a pair at a time."""

import pytest
import torch

from mgwa_pyg.nn import KGCN, MGWA
from mgwa_pyg.sampler import NeighborSampler
from tests.graphs import random_edges
from tests.nn.oracle import aggregate, assert_same, attention, fuse, head_parameters, randomize


def naive_score(model, fusion, user, item, edge_index, edge_type):
    """Eq. 11 with all entities carried through all layers, for one user and one item."""
    edges = list(zip(*edge_index.tolist(), edge_type.tolist(), strict=True))
    x = model.entity_emb.weight
    query = model.user_emb.weight[user]
    for conv in model.convs:
        alpha = attention(edges, query.expand(x.size(0), -1), model.relation_emb.weight, "sigmoid")
        neighborhood = aggregate(edges, alpha, x, x.size(0))
        parameters = head_parameters(conv.fusion, fusion, 0, 1)
        x = torch.stack([fuse(fusion, x[v], neighborhood[v], parameters) for v in range(x.size(0))])
    return query @ x[item]


@pytest.mark.smoke
@pytest.mark.parametrize("fusion", ["gated", "sum"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_scores_and_gradients_equal_the_equations(fusion, num_layers):
    edge_index, edge_type = random_edges(8, 20, 3, isolated=1)
    model = MGWA(4, 8, 3, channels=5, num_layers=num_layers, fusion=fusion).double()
    randomize(model, std=0.7)
    user, item = torch.tensor([0, 3, 3, 1]), torch.tensor([2, 2, 7, 0])
    hood = NeighborSampler(edge_index, edge_type, 8).sample(item, num_layers)

    got = model(user, *hood)
    want = torch.stack(
        [naive_score(model, fusion, u, v, edge_index, edge_type) for u, v in zip(user, item, strict=True)]
    )
    assert_same(got, want, model.parameters())


@pytest.mark.parametrize("kind", [MGWA, KGCN])
@pytest.mark.parametrize("num_relations", [1, 3])
def test_every_parameter_is_trained(kind, num_relations):
    edge_index, edge_type = random_edges(8, 20, 3, isolated=1)
    model = kind(4, 8, num_relations, num_layers=2)
    hood = NeighborSampler(edge_index, edge_type % num_relations, 8).sample(torch.tensor([1]), 2)
    model(torch.tensor([0]), *hood).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_depth_must_match():
    edge_index, edge_type = random_edges(8, 20, 3, isolated=1)
    hood = NeighborSampler(edge_index, edge_type, 8).sample(torch.tensor([1]), 1)
    with pytest.raises(ValueError, match=r"num_sampled_nodes=.* as deep as num_layers=2"):
        MGWA(4, 8, 3, num_layers=2)(torch.tensor([0]), *hood)
    with pytest.raises(ValueError, match="num_layers=0"):
        MGWA(4, 8, 3, num_layers=0)
