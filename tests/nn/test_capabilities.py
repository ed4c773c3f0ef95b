"""What layers for typed edges can do, PyG's and ours: tries each cell of the table in docs/."""

import copy
import io
import logging
import pickle
import re
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import torch_geometric
from torch.testing import assert_close
from torch_geometric import EdgeIndex
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.nn import GATv2Conv, HeteroConv, RGATConv, RGCNConv, to_hetero
from torch_geometric.utils import scatter, to_torch_csr_tensor

from mgwa_pyg.nn import GatedAggregationConv

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "gated_aggregation_conv.md").read_text()
RELATIONS = 3
FEATURES = 3  # Width of edge features.


class Layer(NamedTuple):
    """One column: how a layer is made, and how it is told the edges' types."""

    name: str
    make: Callable[..., torch.nn.Module]
    types_in: str = "edge_type"

    def told(self, types, features=None, relations=RELATIONS):
        """The arguments that carry the edges' types and features."""
        if self.types_in == "edge_type":
            return {"edge_type": types} | ({} if features is None else {"edge_attr": features})
        one_hot = F.one_hot(types, relations).to(torch.get_default_dtype())
        return {"edge_attr": one_hot if features is None else torch.cat([one_hot, features], dim=1)}


def _typed(layer):
    return lambda i, o, relations=RELATIONS, **options: layer(i, o, relations, **options)


def _gatv2(in_channels, out_channels, relations=RELATIONS, **options):
    # Its self loops have no relation, and do not go with a pair of node sets.
    options["edge_dim"] = relations + options.get("edge_dim", 0)
    return GATv2Conv(in_channels, out_channels, add_self_loops=False, **options)


LAYERS = [
    Layer("RGATConv", _typed(RGATConv)),
    Layer("GATv2Conv", _gatv2, types_in="edge_attr"),
    Layer("RGCNConv", _typed(RGCNConv)),
    Layer("GatedAggregationConv", _typed(GatedAggregationConv)),
]

CHECKS = {}


def capability(name):
    """Register a check: a function that raises unless the layer has the capability."""

    def register(check):
        CHECKS[name] = check
        return check

    return register


def _graph(sources=7, targets=7, edges=20):
    """Distinct random edges with types; the last target has none."""
    pair = torch.randperm(sources * (targets - 1))[:edges]
    return torch.stack([pair % sources, pair // sources]), torch.randint(RELATIONS, (edges,))


def _homogeneous(layer, **options):
    """A layer, node features, edges and their types."""
    return layer.make(4, 8, **options), torch.randn(7, 4), *_graph()


def _differ(first, second, what):
    if torch.allclose(first, second):
        raise AssertionError(f"{what} makes no difference")


@capability("types of edges change the result")
def _types(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    target = int(edge_index[1].bincount().argmax())
    edge = int((edge_index[1] == target).nonzero()[0])
    other = types.clone()
    other[edge] = (other[edge] + 1) % RELATIONS
    out, changed = conv(x, edge_index, **layer.told(types)), conv(x, edge_index, **layer.told(other))
    _differ(out[target], changed[target], "another type")
    rest = torch.arange(7) != target
    assert_close(out[rest], changed[rest])


@capability("the type of a node's only edge changes its result")
def _only_edge(layer):
    conv, x, edge_index = layer.make(4, 8), torch.randn(2, 4), torch.tensor([[0], [1]])
    first, second = (conv(x, edge_index, **layer.told(torch.tensor([r]))) for r in (0, 1))
    _differ(first[1], second[1], "another type")


@capability("parallel edges of different types each count")
def _parallel(layer):
    conv, x = layer.make(4, 8), torch.randn(4, 4)
    x[3] = x[0]  # An edge from the copy must count as one from the node itself.
    types = torch.tensor([0, 1, 0])
    parallel = conv(x, torch.tensor([[0, 0, 1], [2, 2, 2]]), **layer.told(types))
    apart = conv(x, torch.tensor([[0, 3, 1], [2, 2, 2]]), **layer.told(types))
    assert_close(parallel[2], apart[2])
    single = conv(x, torch.tensor([[0, 1], [2, 2]]), **layer.told(types[[0, 2]]))
    _differ(parallel[2], single[2], "the second of two parallel edges")


@capability("a pair of node sets of different widths (bipartite)")
def _bipartite(layer):
    conv, (edge_index, types) = layer.make((4, 6), 8), _graph(9, 5)
    x, order = (torch.randn(9, 4), torch.randn(5, 6)), torch.randperm(9)
    out = conv(x, edge_index, **layer.told(types))
    assert out.shape == (5, 8), f"shape {tuple(out.shape)}"
    relabelled = torch.stack([order.argsort()[edge_index[0]], edge_index[1]])
    assert_close(out, conv((x[0][order], x[1]), relabelled, **layer.told(types)))


@capability("sizes derived from the first input (`-1`)")
def _lazy(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    lazy = layer.make(-1, 8)
    lazy(x, edge_index, **layer.told(types))
    lazy.load_state_dict(conv.state_dict())
    assert_close(lazy(x, edge_index, **layer.told(types)), conv(x, edge_index, **layer.told(types)))


@capability("edges in any order")
def _order(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    order = torch.randperm(len(types))
    out = conv(x, edge_index[:, order], **layer.told(types[order]))
    assert_close(out, conv(x, edge_index, **layer.told(types)))


@capability("`EdgeIndex`")
def _edge_index(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    order = edge_index[1].argsort()
    ours = EdgeIndex(edge_index[:, order], sparse_size=(7, 7), sort_order="col")
    assert_close(conv(x, ours, **layer.told(types[order])), conv(x, edge_index, **layer.told(types)))


@capability("`torch.sparse` CSR, types as its values")
def _csr(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    (values,) = layer.told(types).values()  # One-hot rows for GATv2Conv.
    adjacency = to_torch_csr_tensor(edge_index.flip(0), values, size=(7, 7))
    assert_close(conv(x, adjacency), conv(x, edge_index, **layer.told(types)))


@capability("a graph without edges, and one without nodes")
def _empty(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    full = conv(x, edge_index, **layer.told(types))
    out = conv(x, edge_index[:, :0], **layer.told(types[:0]))
    assert_close(out[6], full[6])  # The last node has no edge in either.
    assert conv(x[:0], edge_index[:, :0], **layer.told(types[:0])).shape == (0, 8)


@capability("targets without edges are finite")
def _isolated(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    out = conv(x, edge_index, **layer.told(types))
    assert out.isfinite().all(), "not finite"
    others = torch.cat([torch.randn(6, 4), x[6:]])
    assert_close(out[6], conv(others, edge_index, **layer.told(types))[6])


@capability('`flow="target_to_source"` is the reversed graph')
def _flow(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    back = layer.make(4, 8, flow="target_to_source")
    back.load_state_dict(conv.state_dict())
    assert_close(back(x, edge_index.flip(0), **layer.told(types)), conv(x, edge_index, **layer.told(types)))


@capability("attention weights returned")
def _attention(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    out, (_, alpha) = conv(x, edge_index, **layer.told(types), return_attention_weights=True)
    assert_close(out, conv(x, edge_index, **layer.told(types)))
    total = scatter(alpha, edge_index[1], dim_size=7)
    assert_close(total, (edge_index[1].bincount(minlength=7) > 0).float().view(7, 1))


@capability("`return_attention_weights=False` gives a plain tensor")
def _no_attention(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    out = conv(x, edge_index, **layer.told(types), return_attention_weights=False)
    assert isinstance(out, torch.Tensor), f"a {type(out).__name__}"
    assert_close(out, conv(x, edge_index, **layer.told(types)))


@capability("a query from outside, one per user")
def _query(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    users, node = torch.randn(2, 8), torch.arange(7)
    both = torch.cat([edge_index, edge_index + 7], dim=1)
    user_of = torch.cat([torch.zeros_like(node), torch.ones_like(node)])
    out = conv(x.repeat(2, 1), both, **layer.told(types.repeat(2)), query=users, query_index=user_of)
    for user, part in zip(users, out.split(7), strict=True):
        assert_close(part, conv(x, edge_index, **layer.told(types), query=user))
    _differ(out[:7], out[7:], "another user")


@capability("relation vectors shared with an embedding outside")
def _relation(layer):
    embedding = torch.nn.Embedding(RELATIONS, 8)
    x, (edge_index, types) = torch.randn(7, 4), _graph()
    if layer.name == "GatedAggregationConv":
        conv = layer.make(4, 8)

        def run():
            return conv(x, edge_index, types, relation=embedding.weight)

    else:  # As features of the edges, one row for each of them.
        conv = layer.make(4, 8, edge_dim=8)

        def run():
            return conv(x, edge_index, **layer.told(types, embedding(types)))

    out = run()
    out.square().sum().backward()
    if embedding.weight.grad is None or not embedding.weight.grad.abs().sum() > 0:
        raise AssertionError("the embedding gets no gradient")
    with torch.no_grad():
        embedding.weight.normal_()
    _differ(out, run(), "another embedding")


@capability("edge features beside the types")
def _features(layer):
    conv, x, edge_index, types = _homogeneous(layer, edge_dim=FEATURES)
    first, second = (
        conv(x, edge_index, **layer.told(types, torch.randn(len(types), FEATURES))) for _ in (0, 1)
    )
    _differ(first, second, "another edge feature")


@capability("several heads")
def _heads(layer):
    outs = []
    for concat in (True, False):
        torch.manual_seed(1)
        conv, x, edge_index, types = _homogeneous(layer, heads=2, concat=concat)
        outs.append(conv(x, edge_index, **layer.told(types)))
    assert_close(outs[0].view(7, 2, 8).mean(dim=1), outs[1])


@capability("node ids in place of features")
def _node_ids(layer):
    conv, (edge_index, types) = layer.make(7, 8), _graph()
    out = conv(torch.arange(7), edge_index, **layer.told(types))
    assert_close(out, conv(torch.eye(7), edge_index, **layer.told(types)))


def _explain(layer, algorithm):
    """The edges' weights, which edges end at the explained node, and the layer's own attention."""
    conv, x, edge_index, types = _homogeneous(layer)
    explainer = Explainer(
        conv,
        algorithm,
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    target = int(edge_index[1].bincount().argmax())
    mask = explainer(x, edge_index, index=target, **layer.told(types)).edge_mask
    _, (_, alpha) = conv(x, edge_index, **layer.told(types), return_attention_weights=True)
    return mask, edge_index[1] == target, alpha


@capability("`GNNExplainer`")
def _gnn_explainer(layer):
    mask, near, _ = _explain(layer, GNNExplainer(epochs=10))
    assert ((mask > 0) == near).all(), "weights where there should be none, or none where there should be"


@capability("`AttentionExplainer`")
def _attention_explainer(layer):
    mask, near, alpha = _explain(layer, AttentionExplainer())
    assert (mask[near] > 0).all(), "an edge of the target has no weight"
    assert_close(mask, alpha.mean(dim=1) * (mask > 0))  # It leaves out edges far from the target.


@capability("`torch.compile(fullgraph=True, dynamic=True)`, no graph break")
def _compile(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    torch._dynamo.reset()
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):  # One program for graphs of any size.
        for nodes, edges in ((7, 20), (9, 31)):
            x, (edge_index, types) = torch.randn(nodes, 4), _graph(nodes, nodes, edges)
            out = compiled(x, edge_index, **layer.told(types))
            assert_close(out, conv(x, edge_index, **layer.told(types)))
    breaks = torch._dynamo.explain(conv)(x, edge_index, **layer.told(types)).graph_break_count
    assert breaks == 0, f"{breaks} graph breaks"


@capability("`torch.export` with any number of nodes and edges")
def _export(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    auto = torch.export.Dim.AUTO
    (name,) = layer.told(types)
    program = torch.export.export(
        conv,
        (x, edge_index),
        layer.told(types),
        dynamic_shapes={"x": {0: auto}, "edge_index": {1: auto}, name: {0: auto}},
    )
    x, edge_index, types = torch.randn(9, 4), *_graph(9, 9, 31)
    assert_close(
        program.module()(x, edge_index, **layer.told(types)), conv(x, edge_index, **layer.told(types))
    )


@capability("bfloat16 autocast, finite and close")
def _autocast(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x, edge_index, **layer.told(types))
    out.float().sum().backward()
    assert_close(out.float(), conv(x, edge_index, **layer.told(types)), atol=0.05, rtol=0.05)


@capability("deterministic algorithms, the same bits twice")
def _deterministic(layer):
    torch.use_deterministic_algorithms(True)
    try:
        conv, x, edge_index, types = _homogeneous(layer)
        runs = []
        for _ in (0, 1):
            leaf = x.clone().requires_grad_()
            out = conv(leaf, edge_index, **layer.told(types))
            runs.append((out, *torch.autograd.grad(out.square().sum(), leaf)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, *runs)), "values differ"


@capability("gradients exact in double precision (`gradcheck`)")
def _gradcheck(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    arguments = {
        name: value.double() if value.is_floating_point() else value
        for name, value in layer.told(types).items()
    }
    conv = conv.double()
    torch.autograd.gradcheck(
        lambda x: conv(x, edge_index, **arguments), x.double().requires_grad_(), fast_mode=True
    )


@capability("`deepcopy` and `pickle`")
def _copies(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert_close(other(x, edge_index, **layer.told(types)), conv(x, edge_index, **layer.told(types)))


@capability("every parameter is initialised")
def _initialised(layer):
    torch.use_deterministic_algorithms(True)  # Fills memory that nobody has written with NaN.
    try:
        conv = layer.make(4, 8, **({} if layer.name == "RGCNConv" else {"heads": 2}))
    finally:
        torch.use_deterministic_algorithms(False)
    unset = [name for name, value in conv.named_parameters() if value.isnan().any()]
    assert not unset, f"{', '.join(unset)} left uninitialised"


@capability("every parameter gets a gradient (DDP)")
def _gradients(layer):
    conv, x, edge_index, types = _homogeneous(layer)
    conv(x, edge_index, **layer.told(types)).square().sum().backward()
    unused = [name for name, value in conv.named_parameters() if value.grad is None]
    assert not unused, f"{', '.join(unused)} unused"


def _two_node_types():
    """Features, edges and their types of two node types, of different number, with edges both ways."""
    there, back = _graph(7, 5), _graph(5, 7)
    keys = ("a", "to", "b"), ("b", "to", "a")
    x = {"a": torch.randn(7, 4), "b": torch.randn(5, 4)}
    return (
        x,
        dict(zip(keys, (there[0], back[0]), strict=True)),
        dict(zip(keys, (there[1], back[1]), strict=True)),
    )


def _hetero(layer, wrap):
    x, edge_index, types = _two_node_types()
    module, part = wrap((list(x), list(edge_index)))
    told = {key: layer.told(value) for key, value in types.items()}
    (name,) = told["a", "to", "b"]
    out = module(x, edge_index, {key: value[name] for key, value in told.items()})
    for key in edge_index:
        source, _, target = key
        assert_close(out[target], part(key)((x[source], x[target]), edge_index[key], **told[key]))


@capability("`HeteroConv`")
def _hetero_conv(layer):
    def wrap(metadata):
        module = HeteroConv({key: layer.make(4, 8) for key in metadata[1]})

        def run(x, edge_index, told):
            return module(x, edge_index, **{f"{layer.types_in}_dict": told})

        return run, lambda key: module.convs[key]

    _hetero(layer, wrap)


class _Net(torch.nn.Module):
    """A model of one layer, to be made heterogeneous."""

    def __init__(self, conv, types_in):
        super().__init__()
        self.conv, self.types_in = conv, types_in

    def forward(self, x, edge_index, edge_told):
        return self.conv(x, edge_index, **{self.types_in: edge_told})


@capability("`to_hetero`")
def _to_hetero(layer):
    def wrap(metadata):
        model = to_hetero(_Net(layer.make(4, 8), layer.types_in), metadata)
        return model, lambda key: model.conv["__".join(key)]

    _hetero(layer, wrap)


def saved_bytes(layer):
    """Bytes that autograd keeps for the backward pass; N=2,000, E=20,000, F=32, R=60."""
    torch.manual_seed(0)
    conv, x = layer.make(32, 32, relations=60), torch.randn(2000, 32, requires_grad=True)
    edge_index, types = torch.randint(2000, (2, 20_000)), torch.randint(60, (20_000,))
    told = layer.told(types, relations=60)
    storages = {}  # Held on to, lest an address is used twice.

    def pack(value):
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = conv(x, edge_index, **told)
    assert out.shape == (2000, 32)
    return sum(storage.nbytes() for storage in storages.values())


def attempt(layer, check):
    """Why the layer lacks a capability; None if it has it."""
    torch.manual_seed(0)
    quiet = io.StringIO()  # torch.export tells at length what it cannot do.
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(quiet), redirect_stderr(quiet):
            warnings.simplefilter("ignore")
            check(layer)
    except Exception as error:
        return _reason(error)
    finally:
        logging.disable(logging.NOTSET)
    return None


def _reason(error):
    """An exception in one short line."""
    line = str(error).strip().split("\n")[0].strip()
    if match := re.search(r"unexpected keyword argument '(\w+)'", line):
        return f"no argument `{match[1]}`"
    where = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, AssertionError):
        if where.filename == __file__:
            return line
        if where.name == "assert_close":
            return "values differ"
        line = line or f"`{where.line}`"
    return f"{type(error).__name__}: {line if len(line) < 90 else line[:88] + '…'}"


# --- The table of the page ---


def _table():
    """The cells of the page by row and column, and the reasons behind their noes."""
    table, reasons = PAGE[PAGE.index("| | `RGATConv`") :].split("\n\n")[:2]
    (names, _, *rows) = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()
    ]
    cells = {name: dict(zip([n.strip("` ") for n in names[1:]], row, strict=True)) for name, *row in rows}
    return cells, dict(re.findall(r"^(\d+)\. (.*)$", reasons, flags=re.MULTILINE))


CELLS, REASONS = _table()
SAVED = "saved for backward"


def _must_be_measured_here(layer):
    """Of our layer the page tells what is true of every version, of PyG's what is true of two."""
    versions = re.search(r"torch (\d[\d.]+\d) and PyG (\d[\d.]+\d)", PAGE).groups()
    if layer.name != "GatedAggregationConv" and versions != (
        torch.__version__.split("+")[0],
        torch_geometric.__version__,
    ):
        pytest.skip("the page speaks of torch {} and PyG {}".format(*versions))


def test_the_page_has_every_capability():
    assert list(CELLS) == [*CHECKS, SAVED]
    assert {tuple(row) for row in CELLS.values()} == {tuple(layer.name for layer in LAYERS)}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("name", CHECKS)
def test_capability(name, layer):
    _must_be_measured_here(layer)
    reason = attempt(layer, CHECKS[name])
    answer, number = re.fullmatch(r"(yes|no)(?: \((\d+)\))?", CELLS[name][layer.name]).groups()
    assert (answer == "yes") == (reason is None), reason
    assert reason == REASONS.get(number)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_saved_for_backward(layer):
    _must_be_measured_here(layer)
    assert f"{saved_bytes(layer) / 2**20:.1f} MiB" == CELLS[SAVED][layer.name]
    if layer is not LAYERS[-1]:
        assert saved_bytes(layer) > saved_bytes(LAYERS[-1])
