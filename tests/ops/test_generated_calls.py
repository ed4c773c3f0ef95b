"""The operation on generated inputs, most of them wrong."""

import math

import torch
from hypothesis import strategies as st

from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from tests.damage import answer, damaged, examples, faults_of

GRAPH = ("edge_index", "edge_type", "num_relations", "size")
OPERATION = ("x", "table", "query_index", "backend", "dropout")
SIZES = [
    None,
    (4, 3),
    (4, 4),
    (3, 3),
    (4,),
    (4, -1),
    (4, None),
    (4.5, 3),
    ("4", 3),
    [4, 3],
    4,
    (0, 0),
    (9, 9),
]


def expected(x, table, query_index, edge_index, edge_type, num_targets):
    """The operation by loops over Python's numbers, for one table."""
    num_channels, x, table = x.size(1), x.double().tolist(), table.double().tolist()
    edges = list(zip(*edge_index.tolist(), edge_type.tolist(), strict=True))
    rows = []
    for node in range(num_targets):
        row = table[0 if query_index is None else int(query_index[node])]
        mine = [(x[source], row[kind]) for source, target, kind in edges if target == node]
        highest = max((score for _, score in mine), default=0.0)
        weight = [math.exp(score - highest) for _, score in mine]
        rows.append(
            [
                sum(w / sum(weight) * features[c] for w, (features, _) in zip(weight, mine, strict=True))
                for c in range(num_channels)
            ]
        )
    return torch.tensor(rows, dtype=torch.double).view(num_targets, num_channels)


@examples(
    "operation",
    seed=st.integers(0, 999),
    num_edges=st.sampled_from([0, 1, 6]),
    tables=st.sampled_from([0, 1, 2]),
    picks=st.booleans(),
    size=st.one_of(st.just((4, 3)), st.sampled_from(SIZES)),
    backend=st.sampled_from(["auto", "torch", "reference", "triton", "fast"]),
    faults=faults_of(
        ["edge_index", "edge_type", "x", "table", "query_index"], ["num_relations", "dropout"], ["backend"]
    ),
)
def test_the_operation(seed, num_edges, tables, picks, size, backend, faults):
    draw = torch.Generator().manual_seed(seed)
    rows = 2 if picks else 1
    arguments = {
        "edge_index": torch.stack([torch.randint(n, (num_edges,), generator=draw) for n in (4, 3)]),
        "edge_type": torch.randint(2, (num_edges,), generator=draw),
        "num_relations": 2,
        "size": size,
        "x": torch.randn(4, 2, generator=draw),
        "table": torch.randn(*[tables][:tables], rows, 2, generator=draw),
        "query_index": torch.randint(2, (3,), generator=draw) if picks else None,
        "backend": backend,
        "dropout": 0.0,
    }
    given = damaged(arguments, faults)
    plan = answer(GRAPH, lambda: RelationCSR.from_edge_index(*(given[name] for name in GRAPH)))
    if plan is None:
        assert faults or size != (4, 3)
        return
    out = answer(
        (*GRAPH, *OPERATION),
        lambda: relation_softmax_aggregate(
            given["x"], given["table"], plan, *(given[name] for name in OPERATION[2:])
        ),
    )
    if out is None:
        assert faults or size != (4, 3) or backend in ("triton", "fast")
        return
    assert given["dropout"] == 0
    edge_index, edge_type = given["edge_index"], given["edge_type"]
    edge_type = torch.zeros(edge_index.size(1)) if edge_type is None else edge_type
    several = given["table"] if given["table"].dim() == 3 else given["table"].unsqueeze(0)
    want = [
        expected(given["x"], table, given["query_index"], edge_index, edge_type.long(), plan.size[1])
        for table in several
    ]
    want = torch.stack(want, dim=1) if given["table"].dim() == 3 else want[0]
    tolerance = 0.02 if torch.half in (given["x"].dtype, given["table"].dtype) else 1e-5
    torch.testing.assert_close(
        out.double(), want, atol=tolerance, rtol=tolerance, equal_nan=not given["x"].isfinite().all()
    )
