"""However tensors lie in memory, the results are those of a loop over the edges as lists."""

import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex, Index

from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from tests.graphs import BACKENDS

NUM_SRC, NUM_DST, NUM_RELATIONS, NUM_EDGES = 9, 7, 3, 40


def triples(order):
    """Rows of source, relation and target; sorted by the column that ``order`` names."""
    rows = torch.stack([torch.randint(n, (NUM_EDGES,)) for n in (NUM_SRC, NUM_RELATIONS, NUM_DST)], dim=1)
    return rows if order is None else rows[rows[:, order].argsort(stable=True)]


#: Each takes rows of triples and returns edges and relations.
EDGES = {
    "columns": lambda rows: (torch.stack([rows[:, 0], rows[:, 2]]), rows[:, 1]),
    "turned": lambda rows: (rows[:, [0, 2]].t(), rows[:, 1]),
    "turned table": lambda rows: (rows.t()[::2], rows.t()[1]),
    "NumPy": lambda rows: (torch.from_numpy(rows.numpy()[:, ::2].T), torch.from_numpy(rows.numpy()[:, 1])),
    "Fortran's order": lambda rows: (
        torch.from_numpy(np.asfortranarray(rows.numpy()[:, ::2])).t(),
        torch.from_numpy(np.asfortranarray(rows.numpy()))[:, 1],
    ),
    "turned and flipped": lambda rows: (rows[:, [2, 0]].t().flip(0), rows[:, 1].flip(0).flip(0)),
    "every second": lambda rows: (
        rows[:, [0, 2]].t().repeat_interleave(2, dim=1)[:, ::2],
        rows[:, 1].repeat_interleave(3)[::3],
    ),
    "part of more": lambda rows: (rows.t().repeat(1, 2)[::2, NUM_EDGES:], rows[:, 1].repeat(2)[NUM_EDGES:]),
    "PyG's classes": lambda rows: (
        EdgeIndex(rows[:, [0, 2]].t().contiguous()),
        Index(rows[:, 1].contiguous()),
    ),
}


def loop(rows, x, table, query_index):
    """The definition, edge by edge; each target's query is a row of the table."""
    out = []
    for node in range(NUM_DST):
        edges = [(source, relation) for source, relation, target in rows.tolist() if target == node]
        row = torch.zeros_like(x[0])
        weight = [table[query_index[node], relation].exp() for _, relation in edges]
        for (source, _), w in zip(edges, weight, strict=True):
            row = row + w / sum(weight) * x[source]
        out.append(row)
    return torch.stack(out)


def gradients(out, inputs):
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out * weight).sum(), inputs)


def is_tensor(value):
    return isinstance(value, torch.Tensor)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("order", [0, 2, None], ids=["by source", "by target", "unsorted"])
@pytest.mark.parametrize("layout", EDGES)
def test_of_edges(layout, order, dtype, backend):
    rows = triples(order)
    edge_index, edge_type = EDGES[layout](rows.to(dtype))
    plan = RelationCSR.from_edge_index(edge_index, edge_type, NUM_RELATIONS, (NUM_SRC, NUM_DST))
    assert all(type(i) is torch.Tensor and i.is_contiguous() for i in vars(plan).values() if is_tensor(i))
    (source, target), relation = plan.to_edge_index()
    assert torch.equal(torch.stack([source, relation, target], dim=1), rows)
    x = torch.randn(NUM_SRC, 4, dtype=torch.double, requires_grad=True)
    table = torch.randn(2, NUM_RELATIONS, dtype=torch.double, requires_grad=True)
    query_index = torch.randint(2, (NUM_DST,))
    got = relation_softmax_aggregate(x, table, plan, query_index, backend)
    want = loop(rows, x, table, query_index)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, (x, table)), gradients(want, (x, table)))


def test_one_relation_for_all_edges():
    rows = triples(2)
    edge_type = torch.tensor([1]).expand(NUM_EDGES)
    plan = RelationCSR.from_edge_index(rows.t()[::2], edge_type, NUM_RELATIONS, (NUM_SRC, NUM_DST))
    assert plan.rel.is_contiguous()
    assert plan.rel.tolist() == [1] * NUM_EDGES


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("order", [0, 2, None], ids=["by source", "by target", "unsorted"])
def test_a_plan_does_not_change_with_its_input(order, dtype):
    rows = triples(order).to(dtype)
    edge_index, edge_type = rows[:, [0, 2]].t().contiguous(), rows[:, 1].contiguous()
    plan = RelationCSR.from_edge_index(edge_index, edge_type, NUM_RELATIONS, (NUM_SRC, NUM_DST))
    before = {name: value.clone() for name, value in vars(plan).items() if is_tensor(value)}
    edge_index.zero_()
    edge_type.zero_()
    for name, value in before.items():
        assert torch.equal(getattr(plan, name), value), name


def every_second(value):
    return value.repeat_interleave(2, dim=-1)[..., ::2]


#: The same values in another layout, or for the last one, equal values that are stored once.
VALUES = {
    "turned": lambda value: value.mT.contiguous().mT if value.dim() > 1 else every_second(value),
    "every second": every_second,
    "one row for all": lambda value: value[..., :1, :].expand_as(value) if value.dim() > 1 else value,
    "one column for all": lambda value: value[..., :1].expand_as(value),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", VALUES)
def test_of_features_scores_and_queries(layout, backend):
    rows = triples(None)
    plan = RelationCSR.from_edge_index(rows.t()[::2], rows[:, 1], NUM_RELATIONS, (NUM_SRC, NUM_DST))
    x = VALUES[layout](torch.randn(NUM_SRC, 4, dtype=torch.double)).requires_grad_()
    table = VALUES[layout](torch.randn(3, NUM_RELATIONS, dtype=torch.double)).requires_grad_()
    query_index = VALUES[layout](torch.randint(3, (NUM_DST,)))
    got = relation_softmax_aggregate(x, table, plan, query_index, backend)
    want = loop(rows, x, table, query_index)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, (x, table)), gradients(want, (x, table)))
