"""KGCN against its published equations and against its official code, a pair at a time."""

import pytest
import torch

from mgwa_pyg.nn import KGCN
from mgwa_pyg.sampler import NeighborSampler
from tests.graphs import random_edges
from tests.nn.oracle import aggregate, assert_same, attention, fuse, head_parameters, randomize

K = 4


def naive_score(model, fusion, equations, user, item, edge_index, edge_type):
    """All entities carried through all layers, for one user and one item."""
    edges = list(zip(*edge_index.tolist(), edge_type.tolist(), strict=True))
    x = model.entity_emb.weight
    u = model.user_emb.weight[user]
    d = len(u)
    for layer, conv in enumerate(model.convs):
        query = u / d if equations == "official" else u  # A mean over d, or a sum.
        alpha = attention(edges, query.expand(x.size(0), -1), model.relation_emb.weight, None)
        neighborhood = aggregate(edges, alpha, x, x.size(0))
        if equations == "official":
            neighborhood = [row / K for row in neighborhood]  # A mean over K.
        parameters = head_parameters(conv.fusion, fusion, 0, 1)
        x = torch.stack([fuse(fusion, x[v], neighborhood[v], parameters) for v in range(x.size(0))])
        is_last = layer == len(model.convs) - 1
        x = (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()) if is_last else x * (x > 0)
    return u @ x[item]


@pytest.mark.parametrize("equations", ["paper", "official"])
@pytest.mark.parametrize("fusion", ["sum", "concat", "neighbor"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_scores_and_gradients_equal_the_equations(equations, fusion, num_layers):
    edge_index, edge_type = random_edges(8, 20, 3, isolated=1)
    options = {"channels": 5, "fusion": fusion, "equations": equations, "num_neighbors": K}
    model = KGCN(4, 8, 3, num_layers=num_layers, **options).double()
    randomize(model, std=0.7)
    user, item = torch.tensor([0, 3, 3, 1]), torch.tensor([2, 2, 7, 0])
    hood = NeighborSampler(edge_index, edge_type, 8).sample(item, num_layers)

    got = model(user, *hood)
    want = torch.stack(
        [
            naive_score(model, fusion, equations, u, v, edge_index, edge_type)
            for u, v in zip(user, item, strict=True)
        ]
    )
    assert_same(got, want, model.parameters())


def test_the_official_code_repeated_by_hand():
    """Its reshapes, for one layer and K neighbours an entity: both means over the last axes."""
    model = KGCN(2, 6, 3, channels=4, equations="official", num_neighbors=3).double()
    neighbors, relations = torch.tensor([1, 2, 5]), torch.tensor([0, 2, 2])
    edge_index = torch.stack([neighbors, torch.zeros_like(neighbors)])
    hood = NeighborSampler(edge_index, relations, 6).sample(torch.tensor([0]), 1)

    user = model.user_emb.weight[1]
    score = (user * model.relation_emb.weight[relations]).mean(dim=-1).softmax(dim=-1)
    mean = (score.unsqueeze(-1) * model.entity_emb.weight[neighbors]).mean(dim=0)
    out = torch.tanh(model.convs[0].fusion.lin(model.entity_emb.weight[0] + mean))
    torch.testing.assert_close(model(torch.tensor([1]), *hood), (user * out).sum().view(1))


def test_every_parameter_is_trained():
    edge_index, edge_type = random_edges(8, 20, 3, isolated=1)
    model = KGCN(4, 8, 3, num_layers=2)
    hood = NeighborSampler(edge_index, edge_type, 8).sample(torch.tensor([1]), 2)
    model(torch.tensor([0]), *hood).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"equations": "mine"}, "equations='mine' is unknown"),
        ({"num_neighbors": 0}, "num_neighbors=0"),
        ({"num_layers": 0}, "num_layers=0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        KGCN(4, 8, 3, **options)
