"""The layer against the equations, in every form of its arguments."""

import copy
import inspect
import pickle
import re

import pytest
import torch
from torch.autograd import gradcheck
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from mgwa_pyg.nn import FUSIONS, GatedAggregationConv
from mgwa_pyg.ops import RelationCSR
from tests.graphs import BACKENDS, multigraph
from tests.nn.oracle import (
    aggregate,
    assert_same,
    attention,
    fuse,
    head_parameters,
    randomize,
    scale_by_degree,
    width,
)

ACTIVATIONS = ["sigmoid", "leaky_relu", "tanh", None]
POWERS = [0.5, 1, -1.5]


def expected(conv, fusion, activation, x, edge_index, edge_type, queries, extra=None, concat=True, power=0.0):
    """The layer's output and attention by the oracle's loops."""
    edges = list(zip(*edge_index.tolist(), edge_type.tolist(), strict=True))
    x_source, x_target = (x, x) if isinstance(x, torch.Tensor) else x
    heads, share = conv.heads, conv.query_channels // conv.heads
    outputs, alphas = [], []
    for head in range(heads):
        part = slice(head * share, (head + 1) * share)
        added = None if extra is None else extra[:, part]
        alpha = attention(edges, queries[:, part], conv.relation[:, part], activation, added)
        neighborhood = aggregate(edges, alpha, x_source, x_target.size(0))
        neighborhood = scale_by_degree(edges, neighborhood, power)
        parameters = head_parameters(conv.fusion, fusion, head, heads)
        rows = [fuse(fusion, x_target[v], neighborhood[v], parameters) for v in range(x_target.size(0))]
        outputs.append(torch.stack(rows))
        alphas.append(torch.stack(alpha))
    out = torch.cat(outputs, dim=1) if concat else torch.stack(outputs).mean(dim=0)
    return out, torch.stack(alphas, dim=1)


@pytest.mark.smoke
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_values_and_gradients_equal_the_equations(backend, fusion, heads, power):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(
        5,
        width(fusion, 5, 3),
        num_relations=4,
        query_channels=6,
        heads=heads,
        fusion=fusion,
        backend=backend,
        degree_power=power,
    ).double()
    randomize(conv.fusion)
    x = torch.randn(7, 5, dtype=torch.double, requires_grad=True)
    query = torch.randn(7, 6, dtype=torch.double, requires_grad=True)

    out, (_, alpha) = conv(x, edge_index, edge_type, query=query, return_attention_weights=True)
    want, want_alpha = expected(conv, fusion, "sigmoid", x, edge_index, edge_type, query, power=power)
    torch.testing.assert_close(alpha, want_alpha)
    torch.testing.assert_close(conv(x, edge_index, edge_type, query=query), want)
    assert_same(out, want, [x, query, conv.relation, *conv.fusion.parameters()])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_score_activations(activation):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, score_activation=activation).double()
    x = torch.randn(7, 5, dtype=torch.double)
    out = conv(x, edge_index, edge_type)
    queries = x @ conv.lin_query.weight.t()
    want, _ = expected(conv, "gated", activation, x, edge_index, edge_type, queries)
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("heads", [1, 2])
def test_edge_features_are_added_to_the_relation(heads):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 4, num_relations=4, heads=heads, edge_dim=3, concat=False).double()
    x = torch.randn(7, 5, dtype=torch.double)
    edge_attr = torch.randn(30, 3, dtype=torch.double)
    out = conv(x, edge_index, edge_type, edge_attr)
    extra = edge_attr @ conv.lin_edge.weight.t()
    queries = x @ conv.lin_query.weight.t()
    want, _ = expected(conv, "gated", "sigmoid", x, edge_index, edge_type, queries, extra, concat=False)
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("form", ["edges", "plan", "attention"])
@pytest.mark.parametrize("queries", ["own", "each", "picked", "one", "features"])
def test_of_many_relations_the_pairs_that_occur_are_scored(backend, heads, form, queries):
    num_relations = 3000
    edge_index, edge_type = multigraph(num_relations=num_relations)
    edge_dim = 2 if queries == "features" else None
    conv = GatedAggregationConv(5, 6, num_relations, heads=heads, edge_dim=edge_dim, backend=backend).double()
    x = torch.randn(7, 5, dtype=torch.double, requires_grad=True)
    edge_attr = None if edge_dim is None else torch.randn(30, 2, dtype=torch.double)
    rows = torch.randn(3, 6 * heads, dtype=torch.double, requires_grad=True)
    index = torch.tensor([0, 2, 2, 0, 2, 0, 1])
    told = {
        "each": {"query": rows[index]},
        "picked": {"query": rows, "query_index": index},
        "one": {"query": rows[0]},
    }.get(queries, {})
    edges = (edge_index, edge_type)
    if form == "plan":
        edges = (RelationCSR.from_edge_index(*edges, num_relations, (7, 7)), None)

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda value: kept.append(value) or value, lambda value: value
    ):
        out = conv(x, *edges, edge_attr, return_attention_weights=form == "attention", **told)
    out = out[0] if form == "attention" else out
    assert max(value.numel() for value in kept) <= conv.relation.numel()  # Fewer than 7 x 3000 scores.

    query = {"each": rows[index], "picked": rows[index], "one": rows[0].expand(7, -1)}.get(queries)
    query = x @ conv.lin_query.weight.t() if query is None else query
    extra = None if edge_attr is None else edge_attr @ conv.lin_edge.weight.t()
    want, _ = expected(conv, "gated", "sigmoid", x, edge_index, edge_type, query, extra)
    torch.testing.assert_close(out, want)
    weight, inputs = torch.randn_like(want), [x, rows, *conv.parameters()]
    got = torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True)
    wanted = torch.autograd.grad((want * weight).sum(), inputs, allow_unused=True)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    "given",
    [
        {"aggr": "max"},
        {"aggr": ["mean", "max"]},
        {"aggr": None},
        {"aggr_kwargs": {"t": 2.0}},
        {"node_dim": -2},
    ],
)
def test_another_aggregation_is_refused(given):
    with pytest.raises(ValueError, match=rf"{next(iter(given))}=.*weighted by a softmax"):
        GatedAggregationConv(5, 3, num_relations=4, **given)
    assert GatedAggregationConv(5, 3, aggr="sum", node_dim=0).aggr == "add"


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_decomposed_layers_give_the_same(backend):
    conv = GatedAggregationConv(6, 3, num_relations=4, heads=2, backend=backend)
    parts = GatedAggregationConv(6, 3, num_relations=4, heads=2, backend=backend, decomposed_layers=3)
    parts.load_state_dict(conv.state_dict())
    x, edges = torch.randn(7, 6), multigraph()
    torch.testing.assert_close(parts(x, *edges), conv(x, *edges))


def test_messages_have_two_dimensions_and_all_heads():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, heads=2)
    seen = []
    conv.register_message_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(7, 5)
    _, (_, alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)
    rows = [
        torch.cat([alpha[e, 0] * x[edge_index[0, e]], alpha[e, 1] * x[edge_index[0, e]]]) for e in range(30)
    ]
    torch.testing.assert_close(seen[0], torch.stack(rows))


def test_query_forms_agree():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, query_channels=6)
    x = torch.randn(7, 5)
    rows = torch.randn(2, 6)
    query_index = torch.tensor([0, 1, 1, 0, 1, 0, 0])

    each = conv(x, edge_index, edge_type, query=rows[query_index])
    picked = conv(x, edge_index, edge_type, query=rows, query_index=query_index)
    torch.testing.assert_close(each, picked)
    # As PyG's heterogeneous models pass what belongs to nodes.
    paired = conv(x, edge_index, edge_type, query=(None, rows[query_index]))
    torch.testing.assert_close(each, paired)
    paired = conv(x, edge_index, edge_type, query=(rows, rows), query_index=(None, query_index))
    torch.testing.assert_close(each, paired)

    for one in (rows[0], rows[:1]):
        torch.testing.assert_close(
            conv(x, edge_index, edge_type, query=one),
            conv(x, edge_index, edge_type, query=rows[0].expand(7, 6)),
        )
    own = conv(x, edge_index, edge_type)
    torch.testing.assert_close(own, conv(x, edge_index, edge_type, query=conv.lin_query(x)))


def test_shared_relation_table():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, query_channels=6)
    x, query = torch.randn(7, 5), torch.randn(6)
    table = torch.randn(4, 6, requires_grad=True)
    out = conv(x, edge_index, edge_type, query=query, relation=table)
    with torch.no_grad():
        conv.relation.copy_(table)
    torch.testing.assert_close(out, conv(x, edge_index, edge_type, query=query))
    out.sum().backward()
    assert table.grad.abs().sum() > 0


def test_one_relation_is_a_gated_mean():
    edge_index, _ = multigraph()
    conv = GatedAggregationConv(5, 3)
    assert conv.lin_query is None
    assert conv.relation is None
    x = torch.randn(7, 5)
    out, (_, alpha) = conv(x, edge_index, return_attention_weights=True)
    degree = torch.bincount(edge_index[1], minlength=7)
    torch.testing.assert_close(alpha[:, 0], 1 / degree[edge_index[1]].float())
    mean = torch.zeros(7, 5).index_add(0, edge_index[1], x[edge_index[0]])
    mean = mean / degree.clamp(min=1).unsqueeze(1)
    torch.testing.assert_close(out, conv.fusion(x, mean.unsqueeze(1)).squeeze(1))


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_of_one_relation_what_is_given_has_a_gradient_of_zero(backend):
    edge_index, _ = multigraph()
    conv, x = GatedAggregationConv(5, 3, backend=backend), torch.randn(7, 5)
    query, relation = torch.randn(7, 3, requires_grad=True), torch.full((1, 3), torch.nan, requires_grad=True)
    out = conv(x, edge_index, query=query, relation=relation)
    torch.testing.assert_close(out, conv(x, edge_index))
    got = torch.autograd.grad(out.square().sum(), [query, relation])
    torch.testing.assert_close(got, (torch.zeros(7, 3), torch.zeros(1, 3)))


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_bipartite_lazy_and_size(backend):
    edge_index, edge_type = multigraph(num_source=9, num_target=5)
    conv = GatedAggregationConv((-1, -1), 3, num_relations=4, backend=backend)
    x = (torch.randn(9, 4), torch.randn(5, 6))
    out = conv(x, edge_index, edge_type)
    assert out.shape == (5, 3)
    torch.testing.assert_close(out, conv(x, edge_index, edge_type, size=(9, 5)))
    want, _ = expected(conv, "gated", "sigmoid", x, edge_index, edge_type, conv.lin_query(x[1]))
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("form", ["csr", "coo", "index"])
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_the_edges_know_the_number_of_targets(backend, form):
    edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    conv = GatedAggregationConv((8, 16), 4, fusion="neighbor", backend=backend)
    x = torch.randn(4, 8)
    known = {
        "csr": lambda: to_torch_csr_tensor(edge_index.flip(0), size=(3, 4)),
        "coo": lambda: to_torch_coo_tensor(edge_index.flip(0), size=(3, 4)),
        "index": lambda: EdgeIndex(edge_index, sparse_size=(4, 3)),
    }[form]()
    out = conv((x, None), known)
    torch.testing.assert_close(out, conv((x, None), edge_index, size=(4, 3)))
    mean = torch.stack([x[:2].mean(dim=0), x[2:].mean(dim=0), torch.zeros(8)])
    torch.testing.assert_close(out, conv.fusion(None, mean.unsqueeze(1)).squeeze(1))
    with pytest.raises(ValueError, match=r"size=\(4, 3\), but x is of \(5, 3\)|shape \(3, 4\), but x is of"):
        conv((torch.randn(5, 8), None), known)
    with pytest.raises(ValueError, match="number of target nodes is unknown"):
        conv((x, None), EdgeIndex(edge_index))


@pytest.mark.parametrize("fusion", ["highway", "identity"])
def test_lazy_layers_that_keep_the_width(fusion):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(-1, 5, num_relations=4, fusion=fusion)
    randomize(conv.fusion)
    x = torch.randn(7, 5)
    out = conv(x, edge_index, edge_type)
    want, _ = expected(conv, fusion, "sigmoid", x, edge_index, edge_type, conv.lin_query(x))
    torch.testing.assert_close(out, want)
    narrow = GatedAggregationConv(-1, 4, num_relations=4, fusion=fusion)
    with pytest.raises(ValueError, match=f"fusion='{fusion}' keeps the width"):
        narrow(x, edge_index, edge_type)


def test_targets_without_features():
    edge_index, edge_type = multigraph(num_source=9, num_target=5)
    conv = GatedAggregationConv(4, 3, num_relations=4, fusion="neighbor")
    x, query = torch.randn(9, 4), torch.randn(5, 3)
    out = conv((x, None), edge_index, edge_type, query=query, size=(9, 5))
    torch.testing.assert_close(out, conv((x, torch.randn(5, 4)), edge_index, edge_type, query=query))


def degree_twins(power, *args, **options):
    """A layer that returns its neighbourhoods by degree and one that returns them as they are."""
    conv = GatedAggregationConv(*args, fusion="identity", degree_power=power, **options)
    plain = GatedAggregationConv(*args, fusion="identity", **options)
    plain.load_state_dict(conv.state_dict())
    return conv, plain


def by_degree(out, edge_index, power):
    """The rows of ``out`` times the number of edges into each of them to this power."""
    targets = edge_index[1].tolist()
    factor = [float(targets.count(node)) ** power if node in targets else 1.0 for node in range(len(out))]
    return out * torch.tensor(factor, dtype=out.dtype).unsqueeze(1)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("power", POWERS)
def test_degree_power_multiplies_the_neighbourhood(backend, heads, power):
    edge_index, edge_type = multigraph()
    conv, plain = degree_twins(power, 5, 5, num_relations=4, heads=heads, backend=backend)
    x = torch.randn(7, 5, requires_grad=True)
    want, (_, want_alpha) = plain(x, edge_index, edge_type, return_attention_weights=True)
    want = by_degree(want, edge_index, power)
    out = conv(x, edge_index, edge_type)
    torch.testing.assert_close(out, want)
    assert not out[5:].any()  # These have no edges.
    looked_at, (_, alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)
    torch.testing.assert_close(looked_at, want)
    torch.testing.assert_close(alpha, want_alpha)
    inputs = zip([x, *conv.parameters()], [x, *plain.parameters()], strict=True)
    weight = torch.randn_like(out)
    for leaf, want_leaf in inputs:
        (gradient,) = torch.autograd.grad((out * weight).sum(), leaf, retain_graph=True)
        (want_gradient,) = torch.autograd.grad((want * weight).sum(), want_leaf, retain_graph=True)
        torch.testing.assert_close(gradient, want_gradient)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("given", ["edges", "plan"])
def test_degree_power_counts_the_edges_of_targets(backend, flow, given):
    edge_index, edge_type = multigraph(num_source=9, num_target=5)
    conv, plain = degree_twins(0.5, (4, 6), 4, num_relations=4, backend=backend, flow=flow)
    x = (torch.randn(9, 4), torch.randn(5, 6))
    as_given = edge_index if flow == "source_to_target" else edge_index.flip(0)
    want = by_degree(plain(x, as_given, edge_type), edge_index, 0.5)
    edges = (as_given, edge_type)
    if given == "plan":  # It leads from source to target whatever the flow.
        edges = (RelationCSR.from_edge_index(edge_index, edge_type, 4, (9, 5)),)
    torch.testing.assert_close(conv(x, *edges), want)
    out, _ = conv(x, *edges, return_attention_weights=True)
    torch.testing.assert_close(out, want)


def test_degree_power_beyond_the_numbers_of_half_precision():
    # The factor is more than 65,504, the largest number there is, but the product is not.
    conv = GatedAggregationConv(2, 2, fusion="identity", degree_power=1.0, backend="torch").half()
    edge_index = torch.zeros(2, 70_000, dtype=torch.long)
    out = conv(torch.full((1, 2), 0.01, dtype=torch.half), edge_index)
    torch.testing.assert_close(out, torch.full((1, 2), 700.0, dtype=torch.half), rtol=1e-2, atol=0)


@pytest.mark.parametrize("given", ["edges", "plan"])
def test_degree_power_of_targets_without_features(given):
    edge_index, edge_type = multigraph(num_source=9, num_target=5)
    conv, plain = degree_twins(0.5, 4, 4, num_relations=4)
    x, query = torch.randn(9, 4), torch.randn(5, 4)
    want = by_degree(plain((x, None), edge_index, edge_type, query=query, size=(9, 5)), edge_index, 0.5)
    if given == "plan":
        out = conv((x, None), RelationCSR.from_edge_index(edge_index, edge_type, 4, (9, 5)), query=query)
    else:
        out = conv((x, None), edge_index, edge_type, query=query, size=(9, 5))
    torch.testing.assert_close(out, want)


def test_degree_power_counts_what_dropout_drops():
    edge_index, edge_type = multigraph()
    conv, plain = degree_twins(0.5, 5, 5, num_relations=4, dropout=0.5)
    x = torch.randn(7, 5)
    torch.manual_seed(1)
    out = conv(x, edge_index, edge_type)
    torch.manual_seed(1)
    torch.testing.assert_close(out, by_degree(plain(x, edge_index, edge_type), edge_index, 0.5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_degree_power_takes_more_edges_than_half_precision_can_count(dtype):
    count = 70_000  # The largest number of torch.float16 is 65504.
    conv = GatedAggregationConv(3, 3, fusion="identity", degree_power=0.5, backend="torch")
    edge_index = torch.stack([torch.zeros(count, dtype=torch.long), torch.ones(count, dtype=torch.long)])
    out = conv(torch.ones(2, 3, dtype=dtype), edge_index)
    assert out.dtype == dtype
    torch.testing.assert_close(out[1].float(), torch.full((3,), count**0.5), atol=0.0, rtol=0.01)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_edge_order_does_not_matter(backend):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, heads=2, backend=backend)
    x, order = torch.randn(7, 5), torch.randperm(30)
    torch.testing.assert_close(
        conv(x, edge_index, edge_type), conv(x, edge_index[:, order], edge_type[order])
    )


def test_target_to_source_is_the_reverse_graph():
    edge_index, edge_type = multigraph(num_source=9, num_target=5)
    conv = GatedAggregationConv((4, 6), 3, num_relations=4)
    back = GatedAggregationConv((4, 6), 3, num_relations=4, flow="target_to_source")
    back.load_state_dict(conv.state_dict())
    x = (torch.randn(9, 4), torch.randn(5, 6))
    want = conv(x, edge_index, edge_type)
    torch.testing.assert_close(back(x, edge_index.flip(0), edge_type), want)
    torch.testing.assert_close(back(x, edge_index.flip(0), edge_type, size=(5, 9)), want)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("num_nodes", [0, 3])
@pytest.mark.parametrize("power", [0.0, -0.5])
def test_graph_without_edges(backend, num_nodes, power):
    conv = GatedAggregationConv(5, 3, num_relations=4, backend=backend, degree_power=power)
    x = torch.randn(num_nodes, 5)
    out = conv(x, torch.empty(2, 0, dtype=torch.long), torch.empty(0, dtype=torch.long))
    torch.testing.assert_close(out, conv.fusion(x, torch.zeros(num_nodes, 1, 5)).flatten(1))


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_attention_sums_to_one_and_survives_large_scores(backend):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, score_activation=None, backend=backend)
    out, (_, alpha) = conv(
        torch.randn(7, 5),
        edge_index,
        edge_type,
        query=1000 * torch.randn(7, 3),
        return_attention_weights=True,
    )
    assert out.isfinite().all()
    total = torch.zeros(7, 1).index_add(0, edge_index[1], alpha)
    has_neighbor = torch.bincount(edge_index[1], minlength=7) > 0
    torch.testing.assert_close(total[:, 0], has_neighbor.float())


def test_attention_dropout():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, dropout=0.5)
    x = torch.randn(7, 5)
    _, (_, alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)
    conv.eval()
    _, (_, whole) = conv(x, edge_index, edge_type, return_attention_weights=True)
    kept = alpha > 0
    assert 0 < kept.sum() < alpha.numel()
    torch.testing.assert_close(alpha[kept], 2 * whole[kept])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"fusion": "highway"}, {"degree_power": 0.5}])
def test_half_precision_stays_close(dtype, options):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 5, num_relations=4, **options)
    x = torch.randn(7, 5)
    want = conv(x, edge_index, edge_type)
    out = copy.deepcopy(conv).to(dtype)(x.to(dtype), edge_index, edge_type)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), want, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize(("fusion", "power"), [*((fusion, 0.0) for fusion in FUSIONS), ("gated", 0.5)])
def test_gradcheck(backend, fusion, power):
    edge_index, edge_type = multigraph(num_edges=12)
    conv = GatedAggregationConv(
        3,
        width(fusion, 3, 2),
        num_relations=4,
        query_channels=2,
        fusion=fusion,
        backend=backend,
        degree_power=power,
    ).double()
    randomize(conv.fusion)
    x = torch.randn(7, 3, dtype=torch.double, requires_grad=True)
    query = torch.randn(7, 2, dtype=torch.double, requires_grad=True)
    relation = torch.randn(4, 2, dtype=torch.double, requires_grad=True)

    def run(x, query, relation):
        return conv(x, edge_index, edge_type, query=query, relation=relation)

    assert gradcheck(run, (x, query, relation))


def test_copies_give_the_same():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4)
    x = torch.randn(7, 5)
    want = conv(x, edge_index, edge_type)
    torch.testing.assert_close(copy.deepcopy(conv)(x, edge_index, edge_type), want)
    torch.testing.assert_close(pickle.loads(pickle.dumps(conv))(x, edge_index, edge_type), want)
    other = GatedAggregationConv(-1, 3, num_relations=4, query_channels=3)
    other.load_state_dict(conv.state_dict())
    torch.testing.assert_close(other(x, edge_index, edge_type), want)


def test_reset_parameters_follows_the_seed():
    conv = GatedAggregationConv(5, 3, num_relations=4)

    def reset(seed):
        torch.manual_seed(seed)
        conv.reset_parameters()
        return copy.deepcopy(conv.state_dict())

    first, other, again = reset(3), reset(4), reset(3)
    for name in first:
        torch.testing.assert_close(again[name], first[name])
        assert "bias" in name or not torch.equal(other[name], first[name])


def test_it_is_a_first_class_message_passing_layer():
    conv = GatedAggregationConv(8, 16, num_relations=3)
    assert str(conv) == "GatedAggregationConv(8, 16, num_relations=3)"
    assert str(GatedAggregationConv((8, 4), 16, heads=2)) == (
        "GatedAggregationConv((8, 4), 16, num_relations=1, heads=2)"
    )
    # PyG replaces both by code made for the class; where its parser fails, it silently does not.
    assert conv.propagate.__module__.endswith("GatedAggregationConv_propagate")
    assert conv.edge_updater.__module__.endswith("GatedAggregationConv_edge_updater")
    assert "alpha" in inspect.signature(conv.message).parameters  # What AttentionExplainer looks for.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "mean"}, "fusion='mean' is unknown"),
        ({"score_activation": "relu"}, "score_activation='relu' is unknown"),
        ({"backend": "fast"}, "backend='fast' is unknown"),
        ({"num_relations": 0}, "num_relations=0"),
        ({"heads": 0}, "heads=0"),
        ({"heads": 2, "query_channels": 5}, "query_channels=5 cannot be shared out to heads=2"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"in_channels": (4, 5), "fusion": "sum"}, "fusion='sum' adds"),
        ({"in_channels": (4, 5), "fusion": "highway"}, "fusion='highway' keeps the width"),
        ({"in_channels": 5, "fusion": "highway"}, "fusion='highway' keeps the width"),
        ({"in_channels": 5, "fusion": "identity"}, "fusion='identity' keeps the width"),
        ({"dropout": "0.1"}, "dropout='0.1'"),
        ({"out_channels": 0}, "out_channels=0"),
        ({"in_channels": 0}, "in_channels=0: at least one channel"),
        ({"in_channels": -5}, "in_channels=-5"),
        ({"in_channels": (4,)}, r"in_channels=(4,): one size"),
        ({"edge_dim": 1.5}, "edge_dim=1.5"),
        ({"fusion": ["gated"]}, r"fusion=['gated'] is unknown"),
        ({"degree_power": float("nan")}, "degree_power=nan: a finite number"),
        ({"degree_power": float("inf")}, "degree_power=inf: a finite number"),
        ({"degree_power": "0.5"}, "degree_power='0.5': a finite number"),
        ({"degree_power": None}, "degree_power=None: a finite number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GatedAggregationConv(**{"in_channels": 4, "out_channels": 4, **options})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"edge_type": None}, ValueError, "edge_type is None"),
        ({"edge_type": torch.zeros(29, dtype=torch.long)}, ValueError, r"edge_type .*\(29,\).* 30"),
        ({"edge_type": torch.zeros(30)}, ValueError, "edge_type .* torch.float32"),
        ({"edge_type": torch.full((30,), 4)}, IndexError, "edge_type holds 4"),
        ({"edge_type": torch.full((30,), -1)}, IndexError, "edge_type holds -1"),
        ({"edge_index": torch.full((2, 30), 7)}, IndexError, r"edge_index\[0\] holds 7"),
        ({"edge_index": torch.zeros(3, 30)}, ValueError, r"edge_index has shape \(3, 30\)"),
        ({"edge_attr": torch.zeros(30, 2)}, ValueError, "edge_dim=None"),
        ({"edge_attr": torch.zeros(30), "edge_type": None}, ValueError, r"\(30,\).* whole numbers"),
        ({"edge_attr": torch.zeros(30, dtype=torch.long)}, ValueError, r"\(30,\).* edge_type is None"),
        ({"query": torch.zeros(7, 5)}, ValueError, r"query has shape \(7, 5\).* query_channels=6"),
        ({"query": torch.zeros(3, 6)}, ValueError, "query has 3 rows, but there are 7 target"),
        (
            {"query": None, "query_index": torch.zeros(7)},
            ValueError,
            "query_index .* query is None",
        ),
        ({"query_index": torch.zeros(6, dtype=torch.long)}, ValueError, r"query_index .*\(6,\)"),
        ({"query_index": torch.full((7,), 7)}, IndexError, "query_index holds 7"),
        ({"relation": torch.zeros(3, 6)}, ValueError, r"relation has shape \(3, 6\)"),
        ({"x": torch.zeros(2, 7, 5)}, ValueError, "static graphs"),
        ({"x": torch.zeros(7, 4)}, ValueError, "x has 4 channels, but in_channels=5"),
        ({"x": torch.zeros(7, 5).double()}, ValueError, "x has type torch.float64, but .* torch.float32"),
        ({"x": torch.zeros(7, 5).long()}, ValueError, r"x must be .* \(7, 5\) and type torch.int64"),
        ({"x": None}, ValueError, "x must be .* part is None"),
        ({"x": (torch.zeros(7, 5), torch.zeros(7))}, ValueError, r"x\[1\] has shape \(7,\)"),
        ({"edge_index": [[0], [1]]}, ValueError, r"edge_index is \[\[0\], \[1\]\]"),
        ({"edge_type": torch.zeros(30, device="meta").long()}, ValueError, "edge_type is on meta"),
        ({"query": "all"}, ValueError, "query is 'all'"),
        ({"query": torch.zeros(7, 6).double()}, ValueError, "query has type torch.float64"),
        ({"query": torch.full((7, 6), 3e38)}, ValueError, "product of query and relation .* infinite"),
        ({"size": (7,)}, ValueError, r"size=\(7,\)"),
        ({"size": (9, 9)}, ValueError, r"size=\(9, 9\), but x is of \(7, 7\) nodes"),
        ({"x": (torch.zeros(7, 5), None)}, ValueError, "needs features of the target"),
    ],
)
def test_bad_input(change, error, message):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, query_channels=6, score_activation=None)
    torch.nn.init.constant_(conv.relation, 2.0)
    arguments = {
        "x": torch.randn(7, 5),
        "edge_index": edge_index,
        "edge_type": edge_type,
        "query": torch.randn(7, 6),
        **change,
    }
    with pytest.raises(error, match=message):
        conv(**arguments)


def test_the_mean_over_edges_is_as_precise_as_the_features():
    x, edge_index = torch.randn(4, 3, dtype=torch.double), torch.tensor([[0, 1, 2], [3, 3, 3]])
    conv = GatedAggregationConv(3, 3, fusion="identity").double()
    out, (_, alpha) = conv(x, edge_index, return_attention_weights=True)
    torch.testing.assert_close(alpha, torch.full((3, 1), 1 / 3, dtype=torch.double), rtol=0, atol=1e-15)
    torch.testing.assert_close(out[3], x[:3].mean(dim=0), rtol=0, atol=1e-15)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_whole_numbers_of_any_type(backend, dtype):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, query_channels=6, backend=backend)
    x, query, query_index = torch.randn(7, 5), torch.randn(2, 6), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    want = conv(x, edge_index, edge_type, query=query, query_index=query_index)
    short = [index.to(dtype) for index in (edge_index, edge_type)]
    arguments = {"query": query, "query_index": query_index.to(dtype)}
    torch.testing.assert_close(conv(x, *short, **arguments), want)
    out, _ = conv(x, *short, **arguments, return_attention_weights=True)
    torch.testing.assert_close(out, want)


def test_values_of_a_sparse_matrix_do_not_matter_with_one_relation():
    conv = GatedAggregationConv(5, 3, edge_dim=2)
    x, edge_attr = torch.randn(3, 5), torch.randn(3, 2)
    edge_index = torch.tensor([[1, 2, 0], [0, 1, 2]])
    adj = torch.sparse_coo_tensor(edge_index.flip(0), torch.rand(3), (3, 3), check_invariants=True)
    out = conv(x, adj.coalesce().to_sparse_csr(), edge_attr=edge_attr)
    torch.testing.assert_close(out, conv(x, edge_index, edge_attr=edge_attr))
    with pytest.raises(ValueError, match=r"edge_index is a sparse tensor .* not coalesced"):
        conv(x, adj, edge_attr=edge_attr)
    with pytest.raises(ValueError, match=r"edge_index has shape \(3, 3\), but x is of \(4, 4\) nodes"):
        conv(torch.randn(4, 5), adj.coalesce(), edge_attr=edge_attr)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("return_attention_weights", [False, True])
def test_gradients_pass_layers_on_one_coo_adjacency(backend, return_attention_weights):
    edges = torch.unique(torch.randint(6, (2, 18)), dim=1)
    types = torch.randint(1, 5, (edges.size(1),))
    adjacency = torch.sparse_coo_tensor(edges.flip(0), types, (6, 6), check_invariants=False).coalesce()
    conv = GatedAggregationConv(4, 4, 5, backend=backend, degree_power=0.5)
    x, grads = torch.randn(6, 4, requires_grad=True), []
    for graph in ((adjacency,), (edges, types)):
        out = x
        for _ in range(2):
            out = conv(out, *graph, return_attention_weights=return_attention_weights)
            out = out[0] if return_attention_weights else out
        grads.append(torch.autograd.grad(out.square().sum(), [x, *conv.parameters()]))
    torch.testing.assert_close(*grads)
