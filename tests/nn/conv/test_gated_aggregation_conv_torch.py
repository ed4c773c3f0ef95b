"""The layer under PyG's layouts of edges, and under what torch does to modules."""

import contextlib

import pytest
import torch
import torch_geometric.typing
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import coalesce, to_torch_coo_tensor, to_torch_csc_tensor

from mgwa_pyg.nn import FUSIONS, GatedAggregationConv
from tests.graphs import BACKENDS, multigraph
from tests.nn.oracle import randomize, width

# What the layer does with neighbourhoods beyond the default.
OPTIONS = [{}, {"fusion": "highway"}, {"fusion": "identity"}, {"degree_power": 0.5}]


def simple_graph(num_source=7, num_target=7):
    """Typed edges, at most one between two nodes, sorted by target."""
    edge_index, edge_type = multigraph(num_source, num_target)
    return coalesce(edge_index, edge_type, reduce="max", sort_by_row=False)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"degree_power": 0.5}])
@pytest.mark.parametrize("layout", [to_torch_csc_tensor, to_torch_coo_tensor])
def test_torch_sparse_layouts(backend, options, layout):
    edge_index, edge_type = simple_graph(9, 5)
    conv = GatedAggregationConv((4, 6), 3, num_relations=4, backend=backend, **options)
    x = (torch.randn(9, 4), torch.randn(5, 6))
    want, (_, want_alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)

    adj_t = layout(edge_index, edge_type, size=(9, 5)).t()
    if adj_t.layout == torch.sparse_coo:
        adj_t = adj_t.coalesce()
    torch.testing.assert_close(conv(x, adj_t), want)
    out, (attention, alpha) = conv(x, adj_t, return_attention_weights=True)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(alpha, want_alpha)
    assert attention.layout == adj_t.layout
    torch.testing.assert_close(attention.values(), want_alpha)


@pytest.mark.skipif(
    not torch_geometric.typing.WITH_TORCH_SPARSE, reason="PyG's optional package torch_sparse is not used"
)
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_sparse_tensor(power):
    edge_index, edge_type = simple_graph(9, 5)
    conv = GatedAggregationConv((4, 6), 3, num_relations=4, degree_power=power)
    x = (torch.randn(9, 4), torch.randn(5, 6))
    adj_t = SparseTensor.from_edge_index(edge_index, edge_type, sparse_sizes=(9, 5)).t()
    torch.testing.assert_close(conv(x, adj_t), conv(x, edge_index, edge_type))
    out, attention = conv(x, adj_t, return_attention_weights=True)
    torch.testing.assert_close(out, conv(x, edge_index, edge_type))
    assert isinstance(attention, SparseTensor)


def test_sparse_layouts_that_cannot_carry_types():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4)
    x = torch.randn(7, 5)
    with pytest.raises(ValueError, match=r"edge_type .* torch.float32"):
        conv(x, to_torch_csc_tensor(edge_index, size=(7, 7)).t())
    # PyG adds up the values of parallel edges. Where the sum is no relation, that is noticed.
    adj_t = to_torch_csc_tensor(edge_index, torch.full_like(edge_type, 3), size=(7, 7)).t()
    with pytest.raises(IndexError, match="edge_type holds"):
        conv(x, adj_t)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"degree_power": 0.5}])
@pytest.mark.parametrize("sort_order", [None, "row", "col"])
def test_edge_index_class(backend, options, sort_order):
    edge_index, edge_type = multigraph()
    if sort_order is not None:
        order = edge_index[0 if sort_order == "row" else 1].argsort(stable=True)
        edge_index, edge_type = edge_index[:, order], edge_type[order]
    conv = GatedAggregationConv(5, 3, num_relations=4, backend=backend, **options)
    x = torch.randn(7, 5, requires_grad=True)
    want = conv(x, edge_index, edge_type)
    typed = EdgeIndex(edge_index, sparse_size=(7, 7), sort_order=sort_order)
    out = conv(x, typed, edge_type)
    torch.testing.assert_close(out, want)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    (want_gradient,) = torch.autograd.grad(want.square().sum(), x)
    torch.testing.assert_close(gradient, want_gradient)


def test_whole_numbers_as_edge_attr_are_types():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4)
    x = torch.randn(7, 5)
    torch.testing.assert_close(conv(x, edge_index, edge_attr=edge_type), conv(x, edge_index, edge_type))
    featured = GatedAggregationConv(5, 3, num_relations=4, edge_dim=1)
    weight = torch.rand(30)
    torch.testing.assert_close(
        featured(x, edge_index, edge_type, weight), featured(x, edge_index, edge_type, weight[:, None])
    )


@pytest.mark.parametrize("answer", [None, False])
def test_attention_is_returned_on_demand_only(answer):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4)
    out = conv(torch.randn(7, 5), edge_index, edge_type, return_attention_weights=answer)
    assert isinstance(out, torch.Tensor)


@pytest.mark.parametrize(
    ("fusion", "options"),
    [
        *((fusion, {}) for fusion in FUSIONS),
        *(
            ("gated", {name: value})
            for name, value in [("heads", 2), ("edge_dim", 2), ("dropout", 0.5), ("degree_power", 0.5)]
        ),
    ],
)
def test_compiles_without_a_graph_break(fusion, options):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, width(fusion, 5, 3), num_relations=4, fusion=fusion, **options).eval()
    randomize(conv.fusion)
    edge_attr = torch.randn(30, 2) if "edge_dim" in options else None
    x = torch.randn(7, 5, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, dynamic=True, backend="aot_eager")
    for nodes, edges in ((7, 30), (6, 11)):
        part = x[:nodes]
        kept = (edge_index < nodes).all(dim=0).nonzero().squeeze(1)[:edges]
        some = edge_index[:, kept], edge_type[kept], None if edge_attr is None else edge_attr[kept]
        want, out = conv(part, *some), compiled(part, *some)
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(
            torch.autograd.grad(out.square().sum(), x), torch.autograd.grad(want.square().sum(), x)
        )


@pytest.mark.slow
def test_inductor_gives_the_same():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4)
    x = torch.randn(7, 5, requires_grad=True)
    torch._dynamo.reset()
    want, out = conv(x, edge_index, edge_type), torch.compile(conv, fullgraph=True)(x, edge_index, edge_type)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), x), torch.autograd.grad(want.square().sum(), x)
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_exports_with_dynamic_shapes(options):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 5, num_relations=4, **options)
    randomize(conv.fusion)
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    shapes = {"x": {0: nodes}, "edge_index": {1: edges}, "edge_type": {0: edges}}
    program = torch.export.export(
        conv, (torch.randn(7, 5), edge_index, edge_type), dynamic_shapes=shapes
    ).module()
    for count in (7, 9):
        x = torch.randn(count, 5)
        torch.testing.assert_close(
            program(x, edge_index[:, :20], edge_type[:20]), conv(x, edge_index[:, :20], edge_type[:20])
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", OPTIONS)
def test_autocast_keeps_the_softmax_in_single_precision(dtype, options):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 5, num_relations=4, **options)
    x = torch.randn(7, 5)
    want = conv(x, edge_index, edge_type)
    with torch.autocast("cpu", dtype=dtype):
        out, (_, alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)
    assert alpha.dtype == torch.float32
    total = torch.zeros(7, 1).index_add(0, edge_index[1], alpha)
    has_neighbor = torch.bincount(edge_index[1], minlength=7) > 0
    torch.testing.assert_close(total[:, 0], has_neighbor.float())  # Half precision would be off by 1e-3.
    torch.testing.assert_close(out.float(), want, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_deterministic_mode_repeats_itself(backend, power):
    edge_index, edge_type = multigraph(num_source=200, num_target=200, num_edges=5000)
    conv = GatedAggregationConv(32, 16, num_relations=4, heads=2, backend=backend, degree_power=power)
    x = torch.randn(200, 32, requires_grad=True)

    def run():
        out = conv(x, edge_index, edge_type)
        return [out, *torch.autograd.grad(out.square().sum(), [x, *conv.parameters()])]

    with deterministic():
        for first, second in zip(run(), run(), strict=True):
            assert torch.equal(first, second)


def saved_storages(run):
    """The sizes of the distinct storages that autograd keeps for the backward pass, in bytes."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    assert out.requires_grad
    return list(kept.values())


@pytest.mark.parametrize(("backend", "times"), [("auto", 0), ("torch", 0), ("reference", 1)])
def test_the_score_path_keeps_nothing_of_edges_times_features(backend, times):
    nodes, edges, width, relations = 100, 20_000, 32, 60
    edge_index, edge_type = multigraph(nodes, nodes, edges, relations)
    conv = GatedAggregationConv(width, width, num_relations=relations, backend=backend)
    x = torch.randn(nodes, width, requires_grad=True)
    lifted = 4 * edges * width

    # If at all, the neighbours' features are lifted once, for the sum; what the scores keep is by edge alone.
    kept = saved_storages(lambda: conv(x, edge_index, edge_type))
    assert sum(size >= lifted for size in kept) == times
    assert sum(kept) < (0.5 + times) * lifted


def test_no_parameter_stays_without_a_shape():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(-1, 3, num_relations=4, query_channels=6)
    conv(torch.randn(7, 5), edge_index, edge_type, query=torch.randn(6))
    assert conv.lin_query.weight.shape == (6, 5)
    torch.optim.Adam(conv.parameters())


@pytest.mark.parametrize("name", ["x", "query", "relation", "edge_attr"])
def test_nan_is_named(name):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, query_channels=6, edge_dim=2)
    arguments = {
        "x": torch.randn(7, 5),
        "query": torch.randn(7, 6),
        "relation": torch.randn(4, 6),
        "edge_attr": torch.randn(30, 2),
    }
    arguments[name][1, 1] = float("nan")
    with pytest.raises(ValueError, match=rf"{name}.* holds .* that are NaN"):
        conv(edge_index=edge_index, edge_type=edge_type, **arguments)


def test_infinite_features_are_the_users_business():
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 3, num_relations=4, query_channels=6)
    x = torch.randn(7, 5)
    x[0, 0], x[1, 0] = float("inf"), float("-inf")
    conv(x, edge_index, edge_type, query=torch.randn(6))


def test_values_are_checked_on_the_cpu_or_on_demand(monkeypatch):
    from torch_geometric import debug

    from mgwa_pyg.utils.checks import values_are_checked

    assert values_are_checked(torch.device("cpu"))
    assert not values_are_checked(torch.device("cuda"))
    with debug():
        assert values_are_checked(torch.device("cuda"))
