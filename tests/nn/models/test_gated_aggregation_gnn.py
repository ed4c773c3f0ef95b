"""The basic model: equal to its layers stacked by hand, and a drop-in for PyG's own."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader, NodeLoader
from torch_geometric.nn import BatchNorm, GraphNorm, GraphSAGE, JumpingKnowledge, to_hetero
from torch_geometric.nn.models import GAT
from torch_geometric.utils import to_torch_coo_tensor

from mgwa_pyg.nn import GatedAggregationConv, GatedAggregationGNN
from mgwa_pyg.sampler import KHopSampler
from tests.graphs import random_edges

N, RELATIONS = 9, 3


def typed_graph():
    return torch.randn(N, 5), *random_edges(N, 30, RELATIONS, isolated=1)


def stack(
    model,
    sizes,
    jk=None,
    act=F.relu,
    act_first=False,
    dropout=0.0,
    norm_args=(),
    average_last=False,
    **kwargs,
):
    """The model as a function, with layers made afresh from ``sizes``, the model's parameters in them."""
    convs = [GatedAggregationConv(*size, num_relations=RELATIONS, **kwargs) for size in sizes]
    for conv, source in zip(convs, model.convs, strict=True):
        conv.load_state_dict(source.state_dict())
        conv.dropout = dropout
    if average_last:
        convs[-1].concat = False

    def forward(x, edge_index, edge_type):
        xs = []
        for i, conv in enumerate(convs):
            x = conv(x, edge_index, edge_type)
            if i < len(convs) - 1 or jk is not None:
                x = act(x) if act_first else x
                x = model.norms[i](x, *norm_args)
                x = x if act_first else act(x)
                x = F.dropout(x, p=dropout)
                xs.append(x)
        if jk in ("cat", "max", "lstm"):
            jump = JumpingKnowledge(jk, 8, len(convs))
            if jk == "lstm":
                jump.load_state_dict(model.jk.state_dict())
            x = jump(xs)
        return x if jk is None else F.linear(x, model.lin.weight, model.lin.bias)

    return forward


def test_the_constructor_and_forward_are_those_of_pyg():
    for name in ("__init__", "forward"):
        for other in (GraphSAGE, GAT):
            ours, theirs = (
                [
                    (each.name, each.kind, each.default)
                    for each in inspect.signature(method).parameters.values()
                ]
                for method in (getattr(GatedAggregationGNN, name), getattr(other, name))
            )
            assert ours == theirs


def test_edge_weights_are_refused():
    x, edge_index, _ = typed_graph()
    with pytest.raises(ValueError, match=r"edge_weight has shape \(30,\)"):
        GatedAggregationGNN(5, 8, 2)(x, edge_index, torch.rand(30))


@pytest.mark.parametrize("jk", [None, "last", "cat", "max", "lstm"])
def test_equals_the_layers_stacked_by_hand(jk):
    x, edge_index, edge_type = typed_graph()
    model = GatedAggregationGNN(5, 8, 3, out_channels=4, jk=jk, num_relations=RELATIONS)
    want = stack(model, [(5, 8), (8, 8), (8, 4 if jk is None else 8)], jk)
    out = model(x, edge_index, edge_attr=edge_type)
    assert out.shape == (N, 4)
    torch.testing.assert_close(out, want(x, edge_index, edge_type))
    assert not torch.allclose(out, model(x, edge_index, edge_attr=(edge_type + 1) % RELATIONS))


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("jk", [None, "cat"])
def test_without_out_channels(num_layers, jk):
    x, edge_index, edge_type = typed_graph()
    model = GatedAggregationGNN(5, 8, num_layers, jk=jk, num_relations=RELATIONS)
    want = stack(model, [(5, 8), (8, 8)][:num_layers], jk)
    assert model.out_channels == 8
    torch.testing.assert_close(model(x, edge_index, edge_attr=edge_type), want(x, edge_index, edge_type))


@pytest.mark.parametrize("act_first", [False, True])
@pytest.mark.parametrize("norm", ["BatchNorm", BatchNorm(8, momentum=0.3), "GraphNorm", None])
def test_normalization_and_activation(norm, act_first):
    x, edge_index, edge_type = typed_graph()
    batch = torch.arange(N) // 5
    model = GatedAggregationGNN(
        5,
        8,
        2,
        act="leaky_relu",
        act_kwargs={"negative_slope": 0.4},
        act_first=act_first,
        norm=norm,
        norm_kwargs={"eps": 0.1} if isinstance(norm, str) else None,
        jk="last",
        num_relations=RELATIONS,
    )
    assert model.supports_norm_batch == isinstance(model.norms[0], GraphNorm)
    want = stack(
        model,
        [(5, 8), (8, 8)],
        "last",
        act=lambda x: F.leaky_relu(x, 0.4),
        act_first=act_first,
        norm_args=(batch,) if norm == "GraphNorm" else (),
    )
    out = model(x, edge_index, edge_attr=edge_type, batch=batch, batch_size=2)
    torch.testing.assert_close(out, want(x, edge_index, edge_type))


def test_dropout_is_of_features_and_attention():
    x, edge_index, edge_type = typed_graph()
    model = GatedAggregationGNN(5, 8, 2, dropout=0.5, num_relations=RELATIONS)
    assert [conv.dropout for conv in model.convs] == [0.5, 0.5]
    want = stack(model, [(5, 8), (8, 8)], dropout=0.5)
    torch.manual_seed(1)
    out = model(x, edge_index, edge_attr=edge_type)
    torch.manual_seed(1)
    torch.testing.assert_close(out, want(x, edge_index, edge_type))
    evaluated = model.eval()(x, edge_index, edge_attr=edge_type)
    assert not torch.allclose(out, evaluated)
    want = stack(model, [(5, 8), (8, 8)])
    torch.testing.assert_close(evaluated, want(x, edge_index, edge_type))


def test_heads_share_the_hidden_channels_and_the_output_is_their_mean():
    x, edge_index, edge_type = typed_graph()
    model = GatedAggregationGNN(5, 8, 3, out_channels=3, heads=2, num_relations=RELATIONS)
    assert [(conv.out_channels, conv.concat) for conv in model.convs] == [(4, True), (4, True), (3, False)]
    want = stack(model, [(5, 4), (8, 4), (8, 3)], heads=2, average_last=True)
    out = model(x, edge_index, edge_attr=edge_type)
    assert out.shape == (N, 3)
    torch.testing.assert_close(out, want(x, edge_index, edge_type))

    averaged = GatedAggregationGNN(5, 8, 2, heads=3, concat=False, num_relations=RELATIONS)
    want = stack(averaged, [(5, 8), (8, 8)], heads=3, concat=False)
    torch.testing.assert_close(averaged(x, edge_index, edge_attr=edge_type), want(x, edge_index, edge_type))

    with pytest.raises(ValueError, match="heads=3"):
        GatedAggregationGNN(5, 8, 2, heads=3)


def test_arguments_reach_every_layer():
    model = GatedAggregationGNN(
        5,
        8,
        3,
        num_relations=RELATIONS,
        fusion="concat",
        score_activation="tanh",
        backend="reference",
        degree_power=0.5,
    )
    for conv in model.convs:
        assert conv.num_relations == RELATIONS
        assert conv.score_activation == "tanh"
        assert conv.backend == "reference"
        assert conv.degree_power == 0.5
        assert type(conv.fusion).__name__ == "ConcatFusion"


def test_edge_features():
    x, edge_index, _ = typed_graph()
    edge_attr = torch.randn(30, 4)
    model = GatedAggregationGNN(5, 8, 2, edge_dim=4)
    first, second = model.convs
    h = first(x, edge_index, edge_attr=edge_attr).relu()
    want = second(h, edge_index, edge_attr=edge_attr)
    torch.testing.assert_close(model(x, edge_index, edge_attr=edge_attr), want)


def test_sparse_adjacency_holds_the_types():
    x, edge_index, _ = typed_graph()
    edge_index = torch.unique(edge_index, dim=1)  # A sparse layout has one edge per pair of nodes.
    edge_type = torch.randint(1, RELATIONS, (edge_index.size(1),))
    adj_t = to_torch_coo_tensor(edge_index.flip(0), edge_type, size=N)
    model = GatedAggregationGNN(5, 8, 2, num_relations=RELATIONS)
    torch.testing.assert_close(model(x, adj_t), model(x, edge_index, edge_attr=edge_type))


@pytest.mark.parametrize("jk", [None, "last"])
def test_inference_layer_by_layer(jk):
    x, edge_index, _ = typed_graph()
    model = GatedAggregationGNN(5, 8, 2, out_channels=4, norm="LayerNorm", jk=jk).eval()
    want = model(x, edge_index)
    for i in range(2):
        x = model.inference_per_layer(i, x, edge_index, batch_size=N)
    torch.testing.assert_close(x, want)


@pytest.mark.parametrize("jk", [None, "last"])
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("what", ["edge_type", "edge_attr", "features", "nothing"])
def test_inference_by_a_loader_knows_types_and_features(what, cache, jk):
    x, edge_index, edge_type = typed_graph()
    given = {"features": torch.randn(30, 2), "nothing": None}.get(what, edge_type)
    options = {"features": {"edge_dim": 2}, "nothing": {}}.get(what, {"num_relations": RELATIONS})
    name = what if what == "edge_type" else "edge_attr"
    data = Data(x=x, edge_index=edge_index, **{name: torch.randn(30) if given is None else given})
    sampler = KHopSampler(data, [-1], disjoint=False)
    model = GatedAggregationGNN(5, 8, 2, out_channels=4, norm="BatchNorm", jk=jk, **options)
    with pytest.raises(ValueError, match="training=True"):
        model.inference(NeighborLoader(data, [-1], neighbor_sampler=sampler))
    model.eval()
    for shuffle in (False, True):
        loader = NeighborLoader(data, [-1], neighbor_sampler=sampler, batch_size=4, shuffle=shuffle)
        out = model.inference(loader, cache=cache)
        torch.testing.assert_close(out, model(x, edge_index, edge_attr=given))
    loader = NeighborLoader(data, [-1], neighbor_sampler=sampler, input_nodes=torch.arange(3))
    with pytest.raises(ValueError, match=f"loader goes through 3 of {N} nodes"):
        model.inference(loader)
    for rest, found in (  # The others would stay what memory held.
        ({"batch_size": N - 1, "drop_last": True}, N - 1),
        ({"input_nodes": torch.zeros(N, dtype=torch.long)}, 1),
    ):
        with pytest.raises(ValueError, match=f"loader goes through {found} of {N} nodes"):
            model.inference(NeighborLoader(data, [-1], neighbor_sampler=sampler, **rest), cache=cache)
    with pytest.raises(ValueError, match="a Data with x is needed"):
        model.inference(NodeLoader(Data(edge_index=edge_index, num_nodes=N), sampler))
    with pytest.raises(ValueError, match="jk='cat'"):
        GatedAggregationGNN(5, 8, 2, jk="cat").eval().inference(loader)


def test_lazy_sizes():
    x, edge_index, edge_type = typed_graph()
    model = GatedAggregationGNN(-1, 8, 2, out_channels=4, heads=2, num_relations=RELATIONS)
    model(x, edge_index, edge_attr=edge_type)
    sized = GatedAggregationGNN(5, 8, 2, out_channels=4, heads=2, num_relations=RELATIONS)
    sized.load_state_dict(model.state_dict())
    out = model(x, edge_index, edge_attr=edge_type)
    torch.testing.assert_close(out, sized(x, edge_index, edge_attr=edge_type))


def test_trimming_leaves_the_seeds_as_they_are():
    # Two seeds; three nodes one hop away, four nodes two hops away; edges in the order of hops.
    edge_index = torch.tensor([[2, 3, 4, 3, 5, 6, 7, 8, 0, 8], [0, 0, 1, 1, 2, 2, 3, 4, 4, 2]])
    edge_type = torch.arange(10) % RELATIONS
    model = GatedAggregationGNN(5, 8, 2, out_channels=4, num_relations=RELATIONS)
    x = torch.randn(9, 5)
    whole = model(x, edge_index, edge_attr=edge_type)
    trimmed = model(
        x,
        edge_index,
        edge_attr=edge_type,
        num_sampled_nodes_per_hop=[2, 3, 4],
        num_sampled_edges_per_hop=[4, 6],
    )
    assert trimmed.shape == (5, 4)
    torch.testing.assert_close(trimmed[:2], whole[:2])


def test_to_hetero():
    model = GatedAggregationGNN((-1, -1), 8, 2, out_channels=4, num_relations=RELATIONS)
    likes, liked = ("user", "likes", "item"), ("item", "liked_by", "user")
    x = {"user": torch.randn(4, 5), "item": torch.randn(6, 3)}
    pairs = torch.stack([torch.randint(4, (15,)), torch.randint(6, (15,))])
    edge_index = {likes: pairs, liked: pairs.flip(0)}
    edge_type = {likes: torch.randint(RELATIONS, (15,)), liked: torch.randint(RELATIONS, (15,))}
    hetero = to_hetero(model, ([*x], [*edge_index]))
    out = hetero(x, edge_index, edge_attr=edge_type)

    h = x
    for i in range(2):
        h = {
            target: hetero.convs[i]["__".join(key)](
                (h[source], h[target]), edge_index[key], edge_type=edge_type[key]
            )
            for key in (likes, liked)
            for source, _, target in [key]
        }
        h = {name: value.relu() for name, value in h.items()} if i == 0 else h
    for name in x:
        torch.testing.assert_close(out[name], h[name])


@pytest.mark.parametrize("model_class", [GraphSAGE, GatedAggregationGNN])
def test_the_training_script_is_the_same_for_every_model(model_class):
    label = torch.arange(60) % 3
    edge_index = torch.randint(60, (2, 900))
    alike = label[edge_index[0]] == label[edge_index[1]]
    edge_index = edge_index[:, alike | (torch.rand(900) < 0.1)]
    x = F.one_hot(label, 3) + 2.0 * torch.randn(60, 3)

    model = model_class(3, 16, num_layers=2, out_channels=3, dropout=0.2, norm="LayerNorm")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, edge_index), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    accuracy = (model.eval()(x, edge_index).argmax(1) == label).float().mean()
    assert accuracy > 0.9


def test_copies_and_checkpoints():
    x, edge_index, edge_type = typed_graph()
    model = GatedAggregationGNN(5, 8, 2, heads=2, jk="cat", norm="BatchNorm", num_relations=RELATIONS).eval()
    want = model(x, edge_index, edge_attr=edge_type)
    copied = copy.deepcopy(model)
    other = GatedAggregationGNN(5, 8, 2, heads=2, jk="cat", norm="BatchNorm", num_relations=RELATIONS).eval()
    assert not torch.allclose(other(x, edge_index, edge_attr=edge_type), want)
    other.load_state_dict(model.state_dict())
    model.reset_parameters()
    assert not torch.allclose(model(x, edge_index, edge_attr=edge_type), want)
    for same in (copied, other):
        torch.testing.assert_close(same(x, edge_index, edge_attr=edge_type), want)


def test_repr():
    model = GatedAggregationGNN(5, 8, 3, out_channels=4)
    assert str(model) == "GatedAggregationGNN(5, 4, num_layers=3)"
