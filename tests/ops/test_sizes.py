"""Compiled and exported programs hold for graphs of any size."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from mgwa_pyg.nn import GatedAggregationConv
from mgwa_pyg.ops import RelationCSR
from tests.graphs import BACKENDS, random_edges

R = 3


def graph(num_nodes, num_edges):
    return torch.randn(num_nodes, 8), *random_edges(num_nodes, num_edges, R)


class Net(nn.Module):
    def __init__(self, backend, with_plan):
        super().__init__()
        self.conv, self.with_plan = GatedAggregationConv(8, 4, R, heads=2, backend=backend), with_plan

    def forward(self, x, edge_index, edge_type):
        if self.with_plan:
            size = x.size(0), x.size(0)
            return self.conv(x, RelationCSR.from_edge_index(edge_index, edge_type, R, size))
        return self.conv(x, edge_index, edge_type)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("with_plan", [False, True])
def test_one_program_for_all_sizes(backend, with_plan):
    torch._dynamo.reset()
    net, counter = Net(backend, with_plan), CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    for num_nodes, num_edges in ((20, 90), (9, 14), (50, 300), (40, 20), (33, 400)):
        inputs = graph(num_nodes, num_edges)
        inputs[0].requires_grad_()
        out, expected = compiled(*inputs), net(*inputs)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(
            torch.autograd.grad(out.square().sum(), inputs[0]),
            torch.autograd.grad(expected.square().sum(), inputs[0]),
        )
    assert counter.frame_count <= 2


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("with_plan", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_export_for_all_sizes(backend, with_plan, strict):
    nodes, edges = torch.export.Dim("nodes"), torch.export.Dim("edges")
    net = Net(backend, with_plan)
    shapes = {0: nodes}, {1: edges}, {0: edges}
    program = torch.export.export(net, graph(9, 14), dynamic_shapes=shapes, strict=strict).module()
    for num_nodes, num_edges in ((20, 90), (100, 2000), (5, 3), (5, 2), (5, 1), (5, 0), (1, 4), (1, 0)):
        inputs = graph(num_nodes, num_edges)
        torch.testing.assert_close(program(*inputs), net(*inputs))
