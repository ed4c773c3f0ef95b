"""Every linear map of the layer is called: hooks, and what stands in its place or makes its weight, count."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.nn import utils
from torch.nn.utils import parametrizations, prune

from mgwa_pyg.nn import FUSIONS, GatedAggregationConv
from tests.graphs import multigraph
from tests.nn.oracle import aggregate, attention

MAPS = ["lin_query", "lin_edge", "fusion.lin_self", "fusion.lin_neighbor"]


class LowRank(torch.nn.Module):
    """A map with an update of low rank beside it, as LoRA has it: no weight, no sizes."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.weight.size(1), 2, bias=False)
        self.up = torch.nn.Linear(2, base.weight.size(0), bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def affine(base):
    return torch.nn.Sequential(torch.nn.Linear(base.weight.size(1), base.weight.size(0)), torch.nn.Tanh())


IN_PLACE = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old_weight_norm": utils.weight_norm,
    "old_spectral_norm": utils.spectral_norm,
    "prune": lambda module: prune.l1_unstructured(module, "weight", 0.5),
    "hook": lambda module: module.register_forward_hook(lambda _, inputs, output: output * inputs[0].size(0)),
    "forward": lambda module: setattr(module, "forward", lambda x: type(module).forward(module, x) + 1),
}
WRAPS = {**IN_PLACE, "low_rank": LowRank, "affine": affine}


def wrap(conv, name, what):
    made = WRAPS[what](conv.get_submodule(name))
    if what not in IN_PLACE:
        parent, _, child = name.rpartition(".")
        setattr(conv.get_submodule(parent), child, made)
    return conv


def by_the_definition(conv, x, edge_index, edge_type, edge_attr):
    """The layer's output, each map called on what it acts on, the attention by the oracle's loops."""
    edges = list(zip(*edge_index.tolist(), edge_type.tolist(), strict=True))
    query, share = conv.lin_query(x), conv.query_channels // conv.heads
    added = None if edge_attr is None else conv.lin_edge(edge_attr)
    neighborhoods = []
    for head in range(conv.heads):
        part = slice(head * share, (head + 1) * share)
        extra = None if added is None else added[:, part]
        alpha = attention(edges, query[:, part], conv.relation[:, part], "sigmoid", extra)
        neighborhoods.append(torch.stack(aggregate(edges, alpha, x, x.size(0))))
    neighborhood = torch.stack(neighborhoods, dim=1)
    z = conv.fusion.lin_neighbor(neighborhood)
    return F.glu(conv.fusion.lin_self(x).view_as(z) + z, dim=-1).flatten(1)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize(
    ("what", "name", "heads", "edge_dim"),
    [
        (what, name, heads, edge_dim)
        for what in WRAPS
        for name in MAPS
        for heads, edge_dim in [(1, None), (1, 3), (2, 3)]
        if name != "lin_edge" or edge_dim is not None
        # The neighbourhoods' map of several heads is no linear map that another could stand for.
        if name != "fusion.lin_neighbor" or heads == 1 or what in IN_PLACE
    ],
)
def test_the_maps_count_as_they_are_called(what, name, heads, edge_dim, backend):
    edge_index, edge_type = multigraph()
    conv = GatedAggregationConv(5, 4, 4, heads=heads, edge_dim=edge_dim, backend=backend)
    conv = wrap(conv.double(), name, what).double().eval()
    x = torch.randn(7, 5, dtype=torch.double)
    edge_attr = None if edge_dim is None else torch.randn(30, edge_dim, dtype=torch.double)
    out = conv(x, edge_index, edge_type, edge_attr)
    torch.testing.assert_close(out, by_the_definition(conv, x, edge_index, edge_type, edge_attr))

    conv.train()
    for _ in range(2):  # What makes a weight makes it anew for each step.
        conv.zero_grad()
        conv(x, edge_index, edge_type, edge_attr).square().sum().backward()
        assert all(parameter.grad is not None for parameter in conv.parameters())


def test_hooks_on_all_modules_see_every_map():
    edge_index, edge_type = multigraph()
    seen = set()
    for conv, rest in (
        (GatedAggregationConv(5, 4, 4), ()),
        (GatedAggregationConv(5, 4, 4, edge_dim=3), (torch.randn(30, 3),)),
    ):
        hook = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.add(module))
        try:
            conv(torch.randn(7, 5), edge_index, edge_type, *rest)
        finally:
            hook.remove()
        assert {name for name, module in conv.named_modules() if module in seen} >= {
            name for name in MAPS if name != "lin_edge" or rest
        }


@pytest.mark.parametrize("name", ["gated", "sum", "concat", "neighbor", "highway"])
@pytest.mark.parametrize("what", ["prune", "forward", "low_rank"])
@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6)], ids=["shared", "batched"])
def test_columns_are_rows_turned_round_whatever_the_maps_are(what, name, shape):
    fusion = FUSIONS[name](5, 5, 5, 1, True)
    for key, _ in list(fusion.named_children()):
        wrap(fusion, key, what)
    x, neighborhood = torch.randn(shape), torch.randn(3, 5, 6)
    rows = [
        fusion(own.t(), near.t().unsqueeze(1)).squeeze(1)
        for own, near in zip(x.expand(3, 5, 6), neighborhood, strict=True)
    ]
    with torch.no_grad():
        columns = fusion.columns(x, neighborhood)
    torch.testing.assert_close(columns.transpose(1, 2), torch.stack(rows))


@pytest.mark.parametrize("name", FUSIONS)
def test_columns_are_rows_turned_round_whatever_the_fusion_is(name):
    class Shifted(FUSIONS[name]):
        def forward(self, x, neighborhood):
            return super().forward(x, neighborhood) + 1

    x, neighborhood = torch.randn(5, 6), torch.randn(3, 5, 6)
    for fusion in (Shifted(5, 5, 5, 1, True), FUSIONS[name](5, 5, 5, 1, True)):
        fusion.register_forward_hook(lambda *call: 2 * call[-1])
        rows = [fusion(x.t(), near.t().unsqueeze(1)).squeeze(1) for near in neighborhood]
        with torch.no_grad():
            columns = fusion.columns(x, neighborhood)
        torch.testing.assert_close(columns.transpose(1, 2), torch.stack(rows))


def test_maps_are_reset_whatever_they_are():
    conv = wrap(GatedAggregationConv(5, 4, 4), "lin_query", "low_rank")
    before = copy.deepcopy(conv.state_dict())
    conv.reset_parameters()
    assert all(not torch.equal(conv.state_dict()[key], before[key]) for key in before if "weight" in key)


@pytest.mark.parametrize("what", ["low_rank", "affine"])
def test_errors_of_what_stands_in_a_map_s_place_are_its_own(what):
    conv = wrap(GatedAggregationConv(5, 4, 4), "lin_query", what)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        conv(torch.randn(7, 6), *multigraph())
