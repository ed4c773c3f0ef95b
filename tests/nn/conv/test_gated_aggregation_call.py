"""How the layer reads a call: every value once, whatever its form, and what it refuses."""

import inspect
import sys

import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex

from mgwa_pyg.nn import GatedAggregationConv
from mgwa_pyg.ops import RelationCSR
from tests.graphs import multigraph

VALUE_CHECKS = ("check_no_nan", "check_finite", "check_range")


def watch(monkeypatch):
    """The names of what the checks of values look at, and how often a backend is chosen, from now on."""
    seen, depth = [], [0]

    def watched(function, name):
        def run(*args, **kwargs):
            if depth[0] == 0 and (name == "choose_backend" or args[1] is not None):
                seen.append(name if name == "choose_backend" else args[0])
            depth[0] += 1
            try:
                return function(*args, **kwargs)
            finally:
                depth[0] -= 1

        return run

    for module in [value for key, value in sys.modules.items() if key.startswith("mgwa_pyg")]:
        for name in (*VALUE_CHECKS, "choose_backend"):
            if inspect.isfunction(function := vars(module).get(name)):
                monkeypatch.setattr(module, name, watched(function, name))
    return seen


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("form", ["edges", "plan", "attention", "features"])
def test_a_call_looks_at_every_value_once(form, backend, monkeypatch):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 4, 4, edge_dim=2 if form == "features" else None, backend=backend)
    x, query, query_index = torch.randn(7, 5), torch.randn(3, 4), torch.randint(3, (7,))
    edges = (edge_index, edge_type)
    if form == "plan":
        edges = (RelationCSR.from_edge_index(*edges, 4, (7, 7)), None)
    edge_attr = torch.randn(30, 2) if form == "features" else None
    seen = watch(monkeypatch)
    conv(
        x,
        *edges,
        edge_attr,
        query=query,
        query_index=query_index,
        return_attention_weights=form == "attention",
    )
    want = ["x", "query_index", "the product of query and relation"]
    want += [] if form == "plan" else ["edge_index[0]", "edge_index[1]", "edge_type"]
    want += ["choose_backend"] if form in ("edges", "plan") else []
    if form == "features":
        want = [*want[:2], "the product of query and relation or edge_attr", *want[3:], "edge_attr"]
    assert sorted(seen) == sorted(want)


@pytest.mark.parametrize("activation", ["sigmoid", "leaky_relu", "tanh", None])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("edge_dim", [None, 2])
def test_relation_scores_are_those_of_edges_without_features(activation, heads, edge_dim):
    conv = GatedAggregationConv(
        5, 4, 3, query_channels=6, heads=heads, edge_dim=edge_dim, score_activation=activation
    )
    query, given = torch.randn(4, 6), torch.randn(3, 6)
    activate = {
        "sigmoid": lambda score: 1 / (1 + (-score).exp()),
        "leaky_relu": lambda score: torch.where(score < 0, score / 5, score),
        "tanh": torch.tanh,
        None: lambda score: score,
    }[activation]
    for relation in (None, given):
        rows = conv.relation if relation is None else relation
        want = torch.empty(4, 3, heads)
        for (b, r, h), _ in np.ndenumerate(want.detach().numpy()):
            part = slice(h * 6 // heads, (h + 1) * 6 // heads)
            want[b, r, h] = activate(query[b, part] @ rows[r, part])
        torch.testing.assert_close(conv.relation_scores(query, relation), want)
    with pytest.raises(ValueError, match=r"query is None, but .* query_channels=6"):
        conv.relation_scores(None)
    with pytest.raises(ValueError, match=r"query has shape \(4, 5\)"):
        conv.relation_scores(query[:, :5])


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_sizes_and_layouts_that_do_not_fit_are_refused_by_every_backend(backend):
    edge_index, edge_type = multigraph()
    conv, x = GatedAggregationConv(5, 3, 4, backend=backend), torch.randn(7, 5)
    known = EdgeIndex(edge_index, sparse_size=(9, 9))
    with pytest.raises(ValueError, match=r"EdgeIndex of sparse_size=\(9, 9\), but x is of \(7, 7\) nodes"):
        conv(x, known, edge_type)
    adjacency = torch.eye(7, dtype=torch.long).to_sparse_csc()
    with pytest.raises(ValueError, match=r"edge_index is torch.sparse_csc.* edge_index.to_sparse_csr\(\)"):
        conv(x, adjacency)
    want = conv(x, torch.arange(7).expand(2, 7), torch.ones(7, dtype=torch.long))
    torch.testing.assert_close(conv(x, adjacency.to_sparse_csr()), want)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5)])
def test_numbers_of_numpy_are_numbers(number):
    conv = GatedAggregationConv(5, 3, dropout=number, degree_power=number)
    assert (type(conv.dropout), conv.dropout) == (type(conv.degree_power), conv.degree_power) == (float, 0.5)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("index_class", [torch.clone, EdgeIndex])
def test_gradients_of_hubs_lose_no_digits_where_messages_are_made(heads, index_class):
    num_edges = 200_000
    source, target = torch.randint(60, (2, num_edges))
    source[: 9 * num_edges // 10] = 0
    edge_index, edge_type = index_class(torch.stack([source, target])), (source + target) % 3
    conv = GatedAggregationConv(4, 4, 3, heads=heads, fusion="identity", backend="reference")
    x, weight = torch.rand(60, 4), 1 + torch.rand(60, 4 * heads)
    grads = []
    for dtype in (torch.float, torch.double):
        leaf = x.to(dtype).requires_grad_()
        out = conv.to(dtype)(leaf, edge_index, edge_type)
        grads.append(torch.autograd.grad((out * weight).sum(), leaf)[0])
    assert (grads[0] - grads[1]).abs().max() <= 1e-6 * grads[1].abs().max()
