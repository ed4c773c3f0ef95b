"""Sums by relation against the operation that knows no shortcut."""

import pytest
import torch

from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from mgwa_pyg.ops.relation_sums import RelationSums


def case(num_edges=60, size=(9, 7), num_relations=4, channels=3, num_queries=11):
    # The last target has no edge; some pairs of nodes have several, of one relation or more.
    edge_index = torch.stack([torch.randint(size[0], (num_edges,)), torch.randint(size[1] - 1, (num_edges,))])
    edge_type = torch.randint(num_relations, (num_edges,))
    plan = RelationCSR.from_edge_index(edge_index, edge_type, num_relations, size)
    x = torch.randn(size[0], channels, dtype=torch.double)
    return x, torch.randn(num_queries, num_relations, dtype=torch.double), plan


@pytest.mark.parametrize("scale", [1, 20, 1000])
def test_equals_the_operation_whatever_the_range_of_the_scores(scale):
    x, table, plan = case()
    want = relation_softmax_aggregate(x, scale * table.unsqueeze(1), plan, backend="reference")
    got = RelationSums(x, plan).aggregate(scale * table)
    torch.testing.assert_close(got, want.permute(1, 2, 0))
    assert got[..., -1].abs().max() == 0


def test_single_precision_at_the_widest_range_that_needs_no_softmax():
    x, table, plan = case()
    table = 59.9 * (table - table.amin(1, keepdim=True)) / (table.amax(1) - table.amin(1)).unsqueeze(1)
    want = relation_softmax_aggregate(x, table.unsqueeze(1), plan, backend="reference").permute(1, 2, 0)
    got = RelationSums(x.float(), plan).aggregate(table.float())
    torch.testing.assert_close(got, want.float(), rtol=1e-5, atol=1e-5)


def test_no_edges_and_no_queries():
    x, table, _ = case()
    empty = RelationCSR.from_edge_index(torch.empty(2, 0).long(), torch.empty(0).long(), 4, (9, 7))
    assert RelationSums(x, empty).aggregate(table).abs().max() == 0
    assert RelationSums(x, empty).aggregate(table[:0]).shape == (0, 3, 7)


@pytest.mark.parametrize("scale", [1, 20])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_precision_rounds_the_result_alone(dtype, scale):
    x, table, plan = case(num_edges=3000)
    x = (100 * x).to(dtype)  # Sums of so many are beyond what half precision holds.
    want = relation_softmax_aggregate(x.double(), scale * table.unsqueeze(1), plan, backend="reference")
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            got = RelationSums(x, plan).aggregate((scale * table).float())
        torch.testing.assert_close(got, want.permute(1, 2, 0).to(dtype), rtol=1e-2, atol=1e-2)
    assert RelationSums.num_bytes(7, 4, x) == RelationSums.num_bytes(7, 4, x.float())


def test_many_edges_of_one_relation():
    num_edges = 10**6
    edge_index = torch.stack([torch.zeros(num_edges).long(), torch.zeros(num_edges).long()])
    plan = RelationCSR.from_edge_index(edge_index, None, 1, (1, 1))
    got = RelationSums(torch.tensor([[0.1]]), plan).aggregate(torch.zeros(1, 1))
    torch.testing.assert_close(got, torch.full((1, 1, 1), 0.1), rtol=1e-6, atol=0)


def test_scores_of_minus_infinity():
    x, table, plan = case()
    table[0, 1], table[1] = -torch.inf, -torch.inf
    want = relation_softmax_aggregate(x, table[[0, 2]].unsqueeze(1), plan, backend="reference")
    got = RelationSums(x, plan).aggregate(table)[[0, 2]]
    torch.testing.assert_close(got, want.permute(1, 2, 0))
