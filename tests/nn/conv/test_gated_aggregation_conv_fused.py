"""The layer where no messages are made: on edges and on plans, and what makes it fall back on messages."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch_geometric.utils import to_torch_csr_tensor

from mgwa_pyg.nn import FUSIONS, GatedAggregationConv, GatedAggregationGNN
from mgwa_pyg.ops import RelationCSR
from tests.graphs import multigraph
from tests.nn.oracle import assert_same, randomize, width


def make_plan(edge_index, edge_type, size=(7, 7), num_relations=4):
    return RelationCSR.from_edge_index(edge_index, edge_type, num_relations, size)


def is_fused(function):
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    return "mgwa_pyg::relation_softmax_aggregate" in {event.key for event in profiler.key_averages()}


def twins(*args, **options):
    """A layer that makes no messages and one that does, of the same parameters."""
    conv = GatedAggregationConv(*args, backend="torch", **options)
    other = GatedAggregationConv(*args, backend="reference", **options)
    other.load_state_dict(conv.state_dict())
    return conv, other


def check_same(conv, other, x, run, run_other):
    leaves = [value for value in (x if isinstance(x, tuple) else (x,)) if value is not None]
    inputs = [*leaves, *conv.parameters()], [*leaves, *other.parameters()]
    assert_same(run(conv), run_other(other), *inputs)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("queries", ["own", "one", "some"])
def test_a_plan_stands_for_edges(fusion, heads, queries):
    edge_index, edge_type = multigraph()
    out_channels = width(fusion, 5, 3)
    conv, other = twins(5, out_channels, num_relations=4, query_channels=6, heads=heads, fusion=fusion)
    randomize(conv.fusion)
    other.load_state_dict(conv.state_dict())
    x = torch.randn(7, 5, requires_grad=True)
    told = {"own": {}, "one": {"query": torch.randn(6)}}.get(
        queries, {"query": torch.randn(3, 6), "query_index": torch.randint(3, (7,))}
    )
    plan = make_plan(edge_index, edge_type)
    want = lambda layer: layer(x, edge_index, edge_type, **told)  # noqa: E731
    check_same(conv, other, x, want, want)
    check_same(conv, other, x, lambda layer: layer(x, plan, **told), want)
    check_same(other, conv, x, lambda layer: layer(x, plan, **told), want)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("attention", [False, True])
def test_plans_of_bipartite_graphs_lead_from_source_to_target(backend, flow, attention):
    edge_index, edge_type = multigraph(num_source=9, num_target=5)
    conv, other = twins((4, 6), 3, num_relations=4, flow=flow)
    conv = conv if backend == "torch" else other
    x = (torch.randn(9, 4), torch.randn(5, 6))
    given = edge_index if flow == "source_to_target" else edge_index.flip(0)
    want, (_, alpha) = other(x, given, edge_type, return_attention_weights=True)
    out = conv(x, make_plan(edge_index, edge_type, (9, 5)), return_attention_weights=attention)
    if attention:
        out, (edges, weights) = out
        assert torch.equal(edges, given)
        torch.testing.assert_close(weights, alpha)
    torch.testing.assert_close(out, want)


def test_targets_without_features():
    edge_index, edge_type = multigraph(num_source=9, num_target=5)
    conv, other = twins(4, 3, num_relations=4, fusion="neighbor")
    x, query = torch.randn(9, 4), torch.randn(5, 3)
    want = other((x, None), edge_index, edge_type, query=query, size=(9, 5))
    torch.testing.assert_close(conv((x, None), edge_index, edge_type, query=query, size=(9, 5)), want)
    torch.testing.assert_close(conv((x, None), make_plan(edge_index, edge_type, (9, 5)), query=query), want)


def test_one_relation():
    edge_index, _ = multigraph()
    conv, other = twins(5, 3)
    x = torch.randn(7, 5, requires_grad=True)
    check_same(conv, other, x, lambda layer: layer(x, edge_index), lambda layer: layer(x, edge_index))
    plan = make_plan(edge_index, None, num_relations=1)
    torch.testing.assert_close(conv(x, plan), other(x, edge_index))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_dropout(heads):
    edge_index, edge_type = multigraph()
    conv, other = twins(5, 3, num_relations=4, heads=heads, dropout=0.5, fusion="neighbor", bias=False)
    x, plan = torch.randn(7, 5), make_plan(edge_index, edge_type)
    whole = other.eval()(x, edge_index, edge_type)
    torch.testing.assert_close(conv.eval()(x, plan), whole)
    conv.train()
    assert not torch.allclose(conv(x, plan), whole)
    average = torch.stack([conv(x, plan) for _ in range(1500)]).mean(dim=0)
    torch.testing.assert_close(average, whole, atol=0.2, rtol=0.0)


def test_who_looks_at_edges_gets_them():
    edge_index, edge_type = multigraph()
    x, plan = torch.randn(7, 5), make_plan(edge_index, edge_type)
    conv, other = twins(5, 3, num_relations=4)
    want = other(x, edge_index, edge_type)
    assert is_fused(lambda: conv(x, edge_index, edge_type))
    assert is_fused(lambda: conv(x, plan))
    assert not is_fused(lambda: other(x, plan))
    assert not is_fused(lambda: conv(x, plan, return_attention_weights=True))

    seen = []
    hook = conv.register_message_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(conv(x, plan), want)
    assert seen == [(30, 5)]
    hook.remove()
    assert is_fused(lambda: conv(x, plan))

    class Halved(GatedAggregationConv):
        def message(self, x_j, alpha):
            return super().message(x_j, alpha) / 2

    halved = Halved(5, 3, num_relations=4, fusion="neighbor", bias=False, backend="torch")
    plain = GatedAggregationConv(5, 3, num_relations=4, fusion="neighbor", bias=False, backend="torch")
    plain.load_state_dict(halved.state_dict())
    torch.testing.assert_close(halved(x, plan), plain(x, plan) / 2)

    featured = GatedAggregationConv(5, 3, num_relations=4, edge_dim=2, backend="torch")
    edge_attr = torch.randn(30, 2)
    torch.testing.assert_close(
        featured(x, plan, edge_attr=edge_attr), featured(x, edge_index, edge_type, edge_attr)
    )


def test_auto_makes_messages_for_few_edges_alone():
    conv = GatedAggregationConv(5, 3, num_relations=4)
    assert not is_fused(lambda: conv(torch.randn(7, 5), *multigraph()))
    x, (edge_index, edge_type) = torch.randn(50, 32), multigraph(50, 50, 9000)
    conv = GatedAggregationConv(32, 3, num_relations=4)
    assert is_fused(lambda: conv(x, edge_index, edge_type))


def test_a_model_hands_the_plan_on():
    edge_index, edge_type = multigraph()
    model = GatedAggregationGNN(5, 8, num_layers=3, out_channels=2, num_relations=4, backend="torch")
    x = torch.randn(7, 5)
    torch.testing.assert_close(
        model(x, make_plan(edge_index, edge_type)), model(x, edge_index, edge_attr=edge_type)
    )


@pytest.mark.parametrize("given", ["edges", "plan"])
@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"degree_power": 0.5}])
def test_compiles_without_a_graph_break(given, options):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, backend="torch", **options)
    x = torch.randn(7, 5, requires_grad=True)
    edges = (edge_index, edge_type) if given == "edges" else (make_plan(edge_index, edge_type),)
    torch._dynamo.reset()
    out = torch.compile(conv, fullgraph=True, backend="aot_eager")(x, *edges)
    want = conv(x, *edges)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), x), torch.autograd.grad(want.square().sum(), x)
    )


def test_nothing_of_edges_times_features_is_made():
    edge_index, edge_type = multigraph(50, 50, 5000)
    conv = GatedAggregationConv(64, 16, num_relations=4)
    x = torch.randn(50, 64, requires_grad=True)
    for edges in [(edge_index, edge_type), (make_plan(edge_index, edge_type, (50, 50)),)]:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            conv(x, *edges).sum().backward()
        largest = max(event.self_cpu_memory_usage for event in profiler.events())
        assert largest < 4 * 5000 * 64 / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_type": torch.zeros(30).long()}, "edge_type is given, but edge_index is a RelationCSR"),
        ({"size": (7, 8)}, r"size=\(7, 8\), but edge_index is a RelationCSR of size \(7, 7\)"),
        ({"edge_index": make_plan(*multigraph(), num_relations=5)}, "RelationCSR of 5 relations"),
        ({"x": torch.randn(6, 5)}, r"RelationCSR of size \(7, 7\), but x or size is of \(6, 6\)"),
        ({"x": (torch.randn(6, 5), torch.randn(7, 5))}, r"size \(7, 7\), but x or size is of \(6, 7\)"),
        ({"edge_attr": torch.randn(30, 2)}, "edge_dim=None"),
    ],
)
def test_plans_that_do_not_fit(change, message):
    conv = GatedAggregationConv(5, 3, num_relations=4, backend="torch")
    arguments = {"x": torch.randn(7, 5), "edge_index": make_plan(*multigraph()), **change}
    with pytest.raises(ValueError, match=message):
        conv(**arguments)


def test_wrong_edges_are_named_as_given():
    edge_index, edge_type = multigraph()
    x = torch.randn(7, 5)
    for flow in ("source_to_target", "target_to_source"):
        conv = GatedAggregationConv(5, 3, num_relations=4, backend="torch", flow=flow)
        wrong = edge_index.clone()
        wrong[1, 3] = 7
        with pytest.raises(IndexError, match=r"edge_index\[1\] holds 7"):
            conv(x, wrong, edge_type)
    with pytest.raises(ValueError, match="Flow direction"):
        conv(x, to_torch_csr_tensor(edge_index, torch.zeros_like(edge_type), size=(7, 7)))


@pytest.mark.parametrize(("width", "num_relations"), [(5, 4), (20, 20)])
def test_own_queries_either_way_round(width, num_relations):
    edge_index, edge_type = multigraph(num_relations=num_relations)
    conv = GatedAggregationConv(width, 3, num_relations=num_relations)
    # The narrow layer projects the relations, the wide one the nodes.
    x = torch.randn(7, width, requires_grad=True)
    out = conv(x, edge_index, edge_type)
    want = conv(x, edge_index, edge_type, query=conv.lin_query(x))
    torch.testing.assert_close(out, want)
    parameters = [x, *conv.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), parameters),
        torch.autograd.grad(want.square().sum(), parameters),
        rtol=1e-4,
        atol=1e-5,
    )
