"""The layer on generated options and inputs, most of them wrong."""

import re

import pytest
import torch
from hypothesis import strategies as st

from mgwa_pyg.nn import FUSIONS, GatedAggregationConv
from mgwa_pyg.ops import RelationCSR
from tests.damage import answer, damaged, examples, faults_of
from tests.nn.oracle import aggregate, attention, fuse, head_parameters, randomize, scale_by_degree

INPUTS = ["x", "x[1]", "edge_index", "edge_type", "edge_attr", "query", "query_index", "relation", "size"]
FORMS = ["edges", "plan", "csr", "coo"]
HEADS, CHANNELS = 2, 4


@examples(
    "layer options",
    faults=faults_of(
        [],
        [
            *("in_channels", "out_channels", "num_relations", "query_channels"),
            *("heads", "edge_dim", "dropout", "degree_power"),
        ],
        ["score_activation", "fusion", "backend", "concat", "bias"],
        max_size=3,
    ),
    pair=st.sampled_from([None, None, (4, 4), (4, 3), (4,), (4, None), ("4", 4), (4, 0), [4, 4]]),
)
def test_options(faults, pair):
    options = {
        "in_channels": 4,
        "out_channels": 4,
        "num_relations": 2,
        "query_channels": 4,
        "heads": 1,
        "concat": True,
        "score_activation": "sigmoid",
        "fusion": "highway",
        "edge_dim": None,
        "dropout": 0.0,
        "bias": True,
        "backend": "reference",
        "degree_power": 0.0,
    }
    options |= faults
    if pair is not None:
        options["in_channels"] = pair
    conv = answer([*options], lambda: GatedAggregationConv(**options))
    if conv is None:
        assert faults or pair is not None
        return
    width = options["in_channels"]
    sizes = (width, width) if isinstance(width, int) else width
    heads = int(conv.heads)
    x = [torch.randn(3, 4 if size == -1 else size) for size in sizes]
    edge_attr = None if conv.edge_dim is None else torch.randn(4, int(conv.edge_dim))
    edge_index, edge_type = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 0]]), torch.zeros(4, dtype=torch.long)
    out = answer([*options], lambda: conv.eval()(tuple(x), edge_index, edge_type, edge_attr))
    if out is None:
        assert -1 in sizes  # How wide that is shows only here.
        return
    assert out.shape == (3, int(options["out_channels"]) * (heads if options["concat"] else 1))
    assert out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("name", ["edge_index", "edge_type", "query_index"])
def test_types_that_torch_does_not_compute_with(name, dtype):
    conv = GatedAggregationConv(4, 4, num_relations=2)
    given = {
        "x": torch.randn(3, 4),
        "edge_index": torch.tensor([[0, 1], [1, 2]]),
        "edge_type": torch.tensor([0, 1]),
        "query": torch.randn(2, 4),
        "query_index": torch.tensor([0, 1, 1]),
    }
    with pytest.raises(ValueError, match=rf"{name} has shape .* and type {dtype}"):
        conv(**{**given, name: given[name].to(dtype)})


@pytest.mark.parametrize("name", ["x", "x[1]", "query", "relation", "edge_type"])
def test_sparse_tensors_where_dense_ones_are_needed(name):
    conv = GatedAggregationConv(4, 4, num_relations=2)
    x = [torch.randn(3, 4), torch.randn(3, 4)]
    given = {
        "edge_index": torch.tensor([[0, 1], [1, 2]]),
        "edge_type": torch.tensor([0, 1]),
        "query": torch.randn(3, 4),
        "relation": torch.randn(2, 4),
    }
    if name in given:
        given[name] = given[name].to_sparse()
    else:
        x[name == "x[1]"] = x[0].to_sparse()
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is torch.sparse_coo, but a dense tensor"):
        conv(tuple(x), **given)


def make_inputs(num_edges, form, pair, query, edge_dim, num_relations, share, sized):
    """Inputs without a fault; those that are not given are None."""
    num_source, num_target = (5, 3) if pair != "one" else (4, 4)
    edge_index = torch.stack([torch.randint(n, (num_edges,)) for n in (num_source, num_target)])
    if form in ("csr", "coo"):  # Such a layout holds one edge per pair of nodes, in the order of targets.
        edge_index = edge_index.flip(0).unique(dim=1).flip(0).contiguous()
    return {
        "x": torch.randn(num_source, CHANNELS),
        "x[1]": torch.randn(num_target, CHANNELS) if pair == "two" else None,
        "edge_index": edge_index,
        "edge_type": torch.randint(num_relations, (edge_index.size(1),)),
        "edge_attr": torch.randn(edge_index.size(1), 2) if edge_dim else None,
        "query": {
            "own": None,
            "one": torch.randn(CHANNELS),
            "each": torch.randn(num_target, CHANNELS),
            "picked": torch.randn(2, CHANNELS),
        }[query],
        "query_index": torch.randint(2, (num_target,)) if query == "picked" else None,
        "relation": torch.randn(num_relations, CHANNELS) if share else None,
        "size": (num_source, num_target) if sized or pair == "source" else None,
    }


def run(conv, given, shape, form, pair, look):
    """The layer on these inputs, as whoever has a graph of this form would call it."""
    inputs = dict(given)
    x_target = inputs.pop("x[1]")
    if pair != "one":
        inputs["x"] = (inputs["x"], x_target)
    if form == "plan":
        inputs["edge_index"] = RelationCSR.from_edge_index(
            inputs["edge_index"], inputs.pop("edge_type"), conv.num_relations, inputs["size"]
        )
    elif form in ("csr", "coo"):
        # Targets are the rows of this matrix, and the relations its values.
        inputs["edge_index"] = torch.sparse_coo_tensor(
            inputs["edge_index"].flip(0).contiguous(),
            inputs.pop("edge_type"),
            shape[::-1],
            check_invariants=True,
            is_coalesced=True,
        )
        if form == "csr":
            inputs["edge_index"] = inputs["edge_index"].to_sparse_csr()
    return conv(**inputs, return_attention_weights=look)


def expected(conv, given, form, pair):
    """The layer by loops, in double precision."""

    def wide(value):
        return None if value is None else value.double()

    conv = conv.double()
    x_source = wide(given["x"])
    x_target = x_source if pair == "one" else wide(given["x[1]"])
    query, index, size = wide(given["query"]), given["query_index"], given["size"]
    num_target = size[1] if x_target is None else x_target.size(0)
    edges, edge_type, extra = given["edge_index"], given["edge_type"], given["edge_attr"]
    if edge_type is None:
        edge_type = torch.zeros(edges.size(1)) if extra is None or conv.edge_dim is not None else extra
    if form in ("csr", "coo") and conv.num_relations == 1:  # Then the values of a matrix say nothing.
        edge_type = torch.zeros(edges.size(1))
    if conv.edge_dim is None:
        extra = None
    edges = list(zip(*edges.tolist(), edge_type.long().tolist(), strict=True))
    relation = conv.relation if given["relation"] is None else wide(given["relation"])
    if conv.relation is None:  # Nothing tells edges apart.
        query, index, relation = torch.zeros(num_target, CHANNELS), None, torch.zeros(1, CHANNELS)
    elif query is None:
        query = x_target @ conv.lin_query.weight.t()
    elif query.dim() == 1 or query.size(0) == 1:
        query = query.view(1, -1).expand(num_target if index is None else int(index.max()) + 1, -1)
    if index is not None:
        query = query[index.long()]
    if extra is not None:
        extra = wide(extra).view(len(edges), 2) @ conv.lin_edge.weight.t()
    fusion = next(name for name, kind in FUSIONS.items() if type(conv.fusion) is kind)
    outputs = []
    for head in range(HEADS):
        share = CHANNELS // HEADS
        part = slice(head * share, (head + 1) * share)
        alpha = attention(
            edges,
            query[:, part],
            relation[:, part],
            conv.score_activation,
            None if extra is None else extra[:, part],
        )
        rows = scale_by_degree(edges, aggregate(edges, alpha, x_source, num_target), conv.degree_power)
        parameters = head_parameters(conv.fusion, fusion, head, HEADS)
        own = [None] * num_target if x_target is None else x_target
        rows = [fuse(fusion, own[node], rows[node], parameters) for node in range(num_target)]
        outputs.append(torch.stack(rows) if rows else torch.empty(0, CHANNELS, dtype=torch.double))
    return torch.cat(outputs, dim=1)


@examples(
    "layer",
    seed=st.integers(0, 999),
    num_edges=st.sampled_from([0, 1, 6]),
    form=st.sampled_from(["edges", *FORMS]),
    pair=st.sampled_from(["one", "two", "source"]),
    query=st.sampled_from(["own", "one", "each", "picked"]),
    share=st.booleans(),
    sized=st.booleans(),
    look=st.booleans(),
    edge_dim=st.booleans(),
    num_relations=st.sampled_from([1, 3]),
    activation=st.sampled_from(["sigmoid", "leaky_relu", "tanh", None]),
    fusion=st.sampled_from([*FUSIONS]),
    power=st.sampled_from([0.0, 0.5]),
    backend=st.sampled_from(["auto", "torch", "reference"]),
    faults=faults_of(INPUTS[:-1]),
    size=st.sampled_from([None] * 9 + [(5, 3), (3, 5), (9, 9), (5,), ("5", 3), (0, 0), (-1, 3), 5]),
)
def test_inputs(
    seed,
    num_edges,
    form,
    pair,
    query,
    share,
    sized,
    look,
    edge_dim,
    num_relations,
    activation,
    fusion,
    power,
    backend,
    faults,
    size,
):
    torch.manual_seed(seed)
    conv = GatedAggregationConv(
        CHANNELS,
        CHANNELS,
        num_relations,
        CHANNELS,
        HEADS,
        fusion=fusion,
        score_activation=activation,
        edge_dim=2 if edge_dim else None,
        backend=backend,
        degree_power=power,
    )
    randomize(conv.fusion)
    inputs = make_inputs(
        num_edges, form, pair, query, edge_dim, num_relations, share, sized or form != "edges"
    )
    given = damaged(inputs, faults)
    given["size"] = inputs["size"] if size is None else size
    if form in ("csr", "coo"):  # Torch alone says what makes such a matrix; its values may be any.
        given["edge_index"], values = inputs["edge_index"], given["edge_type"]
        if (
            not isinstance(values, torch.Tensor)
            or values.is_meta
            or values.shape != inputs["edge_type"].shape
        ):
            given["edge_type"] = inputs["edge_type"]
    out = answer(
        [*INPUTS, "num_relations", "in_channels"], lambda: run(conv, given, inputs["size"], form, pair, look)
    )
    needs_target = conv.fusion.uses_self or (query == "own" and (num_relations > 1 or edge_dim))
    if out is None:
        assert faults or size is not None or (pair == "source" and needs_target)
        return
    if look:
        out, _ = out
    tolerance = (
        0.05 if any(isinstance(v, torch.Tensor) and v.dtype is torch.half for v in given.values()) else 1e-4
    )
    want = expected(conv, given, form, pair)
    if any(isinstance(value, torch.Tensor) and value.isinf().any() for value in given.values()):
        out, want = out[want.isfinite()], want[want.isfinite()]
    torch.testing.assert_close(out.double(), want, atol=tolerance, rtol=tolerance)
