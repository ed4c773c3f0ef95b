"""Derivatives of every kind through the operation and the layer, at sizes on both sides of "auto"'s limit."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad, functional

from mgwa_pyg.nn import GatedAggregationConv
from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from tests.graphs import BACKENDS, random_edges

N, R = 7, 3
EDGES, TYPES = random_edges(N, 30, R)
PLAN = RelationCSR.from_edge_index(EDGES, TYPES, R, (N, N))


def dense(x, tables):
    """The same without edges: the softmax over all pairs of nodes and relations, weighted by their number."""
    count = torch.zeros(N, N, R).index_put_((EDGES[1], EDGES[0], TYPES), torch.ones(30), accumulate=True)
    weight = count * tables.exp().view(-1, 1, 1, R)
    total = weight.sum(dim=(2, 3)).clamp(min=1e-300)
    return torch.einsum("hvur,uc->vhc", weight, x) / total.t().unsqueeze(2)


def inputs():
    return torch.randn(N, 2, dtype=torch.double), torch.randn(2, 1, R, dtype=torch.double)


def operation(backend):
    return lambda x, tables: relation_softmax_aggregate(x, tables, PLAN, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_and_second_derivatives_of_every_mode(backend):
    arguments = tuple(value.requires_grad_() for value in inputs())
    assert torch.autograd.gradcheck(
        operation(backend), arguments, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(
        operation(backend), arguments, check_fwd_over_rev=True, check_batched_grad=True
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivative_with_dropout(backend):
    def function(x, tables):
        torch.manual_seed(1)
        return relation_softmax_aggregate(x, tables, PLAN, backend=backend, dropout=0.5)

    assert torch.autograd.gradgradcheck(function, tuple(value.requires_grad_() for value in inputs()))


def vectorised(function, x):
    return functional.jacobian(function, x, vectorize=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("jacobian", [torch.func.jacrev, torch.func.jacfwd, functional.jacobian, vectorised])
def test_jacobians(backend, jacobian):
    x, tables = inputs()
    functions = [lambda tables, of=of: of(x, tables) for of in (operation(backend), dense)]
    if jacobian in (functional.jacobian, vectorised):
        got, wanted = (jacobian(function, tables) for function in functions)
    else:
        got, wanted = (jacobian(function)(tables) for function in functions)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hessians(backend):
    x, tables = inputs()
    loss, wanted = (lambda tables, of=of: of(x, tables).pow(3).sum() for of in (operation(backend), dense))
    wanted = torch.func.hessian(wanted)(tables)
    torch.testing.assert_close(torch.func.hessian(loss)(tables), wanted)
    torch.testing.assert_close(functional.hessian(loss, tables), wanted)
    torch.testing.assert_close(functional.hessian(loss, tables, vectorize=True), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_third_derivative(backend):
    x, tables = inputs()
    tables.requires_grad_()
    values = []
    for function in (operation(backend), dense):
        value = function(x, tables).pow(2).sum()
        for _ in range(3):
            (grad,) = torch.autograd.grad(value, tables, create_graph=True)
            value = grad.pow(2).sum()
        values.append(value)
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tangents_of_a_dual_level(backend):
    x, tables = inputs()
    tangent = torch.randn_like(x)
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(operation(backend)(forward_ad.make_dual(x, tangent), tables)).tangent
    torch.testing.assert_close(out, dense(tangent, tables))  # It is linear in x.


@pytest.mark.parametrize("backend", BACKENDS)
def test_graphs_in_a_batch(backend):
    x, tables = inputs()
    graphs = torch.stack([EDGES, EDGES.flip(0), EDGES.roll(1, 1)])

    def function(edges):
        plan = RelationCSR.from_edge_index(edges, TYPES, R, (N, N))
        return relation_softmax_aggregate(x, tables, plan, backend=backend)

    wanted = torch.stack([function(edges) for edges in graphs])
    torch.testing.assert_close(torch.func.vmap(function)(graphs), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("graph", [(PLAN,), (EDGES, TYPES)], ids=["plan", "edges"])
def test_ensembles_and_gradients_of_layers(backend, graph):
    convs = [GatedAggregationConv(2, 2, R, heads=2, backend=backend).double() for _ in range(3)]
    x = torch.randn(4, N, 2, dtype=torch.double)
    stacked, buffers = torch.func.stack_module_state(convs)

    def call(parameters, buffers, x):
        return torch.func.functional_call(convs[0], (parameters, buffers), (x, *graph))

    out = torch.func.vmap(call, (0, 0, None))(stacked, buffers, x[0])
    torch.testing.assert_close(out, torch.stack([conv(x[0], *graph) for conv in convs]))

    parameters = {name: value.detach() for name, value in convs[0].named_parameters()}
    grad = torch.func.grad(lambda parameters, x: call(parameters, {}, x).pow(2).sum())
    by_sample = torch.func.vmap(grad, (None, 0))(parameters, x)
    for index in range(4):
        wanted = torch.autograd.grad(convs[0](x[index], *graph).pow(2).sum(), [*convs[0].parameters()])
        for value, (name, _) in zip(wanted, convs[0].named_parameters(), strict=True):
            torch.testing.assert_close(by_sample[name][index], value)


@pytest.mark.parametrize("num_edges", [200, 40_000])
def test_every_size_of_the_default_layer(num_edges):
    num_nodes = num_edges // 10
    edges, types = random_edges(num_nodes, num_edges, R)
    x, tangent = torch.randn(2, num_nodes, 16, dtype=torch.double)
    conv = GatedAggregationConv(16, 8, R).double()
    plan = RelationCSR.from_edge_index(edges, types, R, (num_nodes, num_nodes))
    conv.requires_grad_(False)

    def loss(x, *graph):
        return conv(x, *graph).pow(2).sum()

    step = 1e-5 * tangent
    for graph in ((edges, types), (plan,)):
        grad = torch.func.grad(loss)(x, *graph)
        slope = (loss(x + step, *graph) - loss(x - step, *graph)) / 2e-5
        torch.testing.assert_close((grad * tangent).sum(), slope, rtol=1e-6, atol=0)
        got = torch.func.jvp(lambda x, graph=graph: loss(x, *graph), (x,), (tangent,))[1]
        torch.testing.assert_close(got, slope, rtol=1e-6, atol=0)
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(leaf, *graph), leaf, create_graph=True)
        (second,) = torch.autograd.grad((grad * tangent).sum(), leaf)
        change = torch.func.grad(loss)(x + step, *graph) - torch.func.grad(loss)(x - step, *graph)
        torch.testing.assert_close(second, change / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_shapes_without_values(backend):
    with FakeTensorMode():
        x, (edges, types) = torch.randn(N, 8), random_edges(N, 30, R)
        conv = GatedAggregationConv(8, 8, R, backend=backend)
        plan = RelationCSR.from_edge_index(edges, types, R, (N, N))
        for graph in ((edges, types), (plan,)):
            out = conv(x, *graph)
            out.sum().backward()
            assert out.shape == (N, 8)
            assert conv.relation.grad.shape == conv.relation.shape
        table = torch.randn(1, R)
    # Such tensors are used outside of the mode, too.
    assert relation_softmax_aggregate(x, table, plan, backend=backend).shape == (N, 8)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
def test_transforms_inside_what_is_compiled(transform):
    x, tables = inputs()
    function = transform(lambda x: operation("torch")(x, tables))
    torch._dynamo.reset()
    out = torch.compile(function, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(out, torch.func.jacrev(lambda x: dense(x, tables))(x))
