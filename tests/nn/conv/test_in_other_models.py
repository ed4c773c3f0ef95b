"""The layer inside PyG's containers, models, explainers and loaders, and under distributed training.

Each test compares values with calls of the layer itself.
"""

import io
import socket
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import Data
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer, GraphMaskExplainer
from torch_geometric.explain.algorithm.utils import clear_masks, set_hetero_masks, set_masks
from torch_geometric.loader import DataLoader
from torch_geometric.nn import (
    DeepGCNLayer,
    DirGNNConv,
    GPSConv,
    HeteroConv,
    JumpingKnowledge,
    LayerNorm,
    Sequential,
    global_mean_pool,
    summary,
    to_hetero,
    to_hetero_with_bases,
)

from mgwa_pyg.nn import GatedAggregationConv
from tests.graphs import random_edges

N, E, C, RELATIONS = 8, 24, 4, 3
LIKES, LIKED_BY, KNOWS = ("user", "likes", "item"), ("item", "liked_by", "user"), ("user", "knows", "user")

# PyG's Sequential imports the file that it is called from, by the file's name alone; where that fails, it
# silently runs the forward pass of the first Sequential that the process made.
sys.modules["test_in_other_models"] = sys.modules[__name__]


def typed_graph():
    return torch.randn(N, C), *random_edges(N, E, RELATIONS)


def typed_conv(**kwargs):
    return GatedAggregationConv(C, C, num_relations=RELATIONS, **kwargs)


def hetero_graph():
    """Four users and six items of different widths, and the type of each edge within its edge type."""
    x = {"user": torch.randn(4, 5), "item": torch.randn(6, 3)}
    pairs = torch.stack([torch.randint(4, (15,)), torch.randint(6, (15,))])
    edge_index = {LIKES: pairs, LIKED_BY: pairs.flip(0), KNOWS: torch.randint(4, (2, 7))}
    edge_type = {key: torch.randint(RELATIONS, (value.size(1),)) for key, value in edge_index.items()}
    return x, edge_index, edge_type


def test_sequential():
    x, edge_index, edge_type = typed_graph()
    first, second = typed_conv(), typed_conv(heads=2, concat=False)
    arguments = "x, edge_index, edge_type"
    model = Sequential(
        arguments,
        [
            (first, f"{arguments} -> h"),
            torch.nn.Tanh(),
            (second, "h, edge_index, edge_type -> h"),
            (lambda h, x: h + x, "h, x -> h"),
        ],
    )
    want = second(first(x, edge_index, edge_type).tanh(), edge_index, edge_type) + x
    torch.testing.assert_close(model(x, edge_index, edge_type), want)


@pytest.mark.parametrize("aggr", ["sum", "mean", "cat"])
def test_hetero_conv(aggr):
    x, edge_index, edge_type = hetero_graph()
    convs = {
        LIKES: GatedAggregationConv((5, 3), C, num_relations=RELATIONS),
        LIKED_BY: GatedAggregationConv((3, 5), C, num_relations=RELATIONS, heads=2, concat=False),
        KNOWS: GatedAggregationConv(5, C),  # One relation: needs no types.
    }
    types = {key: edge_type[key] for key in (LIKES, LIKED_BY)}
    out = HeteroConv(dict(convs), aggr=aggr)(x, edge_index, edge_type_dict=types)

    torch.testing.assert_close(
        out["item"], convs[LIKES]((x["user"], x["item"]), edge_index[LIKES], types[LIKES])
    )
    parts = [
        convs[LIKED_BY]((x["item"], x["user"]), edge_index[LIKED_BY], types[LIKED_BY]),
        convs[KNOWS](x["user"], edge_index[KNOWS]),
    ]
    want = torch.cat(parts, dim=1) if aggr == "cat" else getattr(torch.stack(parts), aggr)(dim=0)
    torch.testing.assert_close(out["user"], want)


def test_hetero_conv_gives_the_target_its_query():
    x, edge_index, edge_type = hetero_graph()
    convs = {
        key: GatedAggregationConv((-1, -1), C, num_relations=RELATIONS, query_channels=6)
        for key in edge_index
    }
    query = {"user": torch.randn(4, 6), "item": torch.randn(6, 6)}
    model = HeteroConv(dict(convs))
    out = model(x, edge_index, edge_type_dict=edge_type, query_dict=query)
    likes = convs[LIKES]((x["user"], x["item"]), edge_index[LIKES], edge_type[LIKES], query=query["item"])
    torch.testing.assert_close(out["item"], likes)
    user = convs[LIKED_BY](
        (x["item"], x["user"]), edge_index[LIKED_BY], edge_type[LIKED_BY], query=query["user"]
    ) + convs[KNOWS](x["user"], edge_index[KNOWS], edge_type[KNOWS], query=query["user"])
    torch.testing.assert_close(out["user"], user)

    # Items without a query of their own derive it from their features.
    out = model(x, edge_index, edge_type_dict=edge_type, query_dict={"user": query["user"]})
    derived = convs[LIKES]((x["user"], x["item"]), edge_index[LIKES], edge_type[LIKES])
    torch.testing.assert_close(out["item"], derived)
    torch.testing.assert_close(out["user"], user)
    assert not torch.allclose(derived, likes)


class Net(torch.nn.Module):
    """A typed and an untyped layer of lazy sizes."""

    def __init__(self):
        super().__init__()
        self.typed = GatedAggregationConv((-1, -1), 6, num_relations=RELATIONS, heads=2)
        self.plain = GatedAggregationConv((-1, -1), C)
        self.lin = torch.nn.Linear(C, 2)

    def forward(self, x, edge_index, edge_type):
        x = self.typed(x, edge_index, edge_type=edge_type).relu()
        return self.lin(self.plain(x, edge_index))


def test_to_hetero():
    x, edge_index, edge_type = hetero_graph()
    model = to_hetero(Net(), ([*x], [*edge_index]), aggr="sum")
    out = model(x, edge_index, edge_type)

    def layer(name, x, typed):
        out = {}
        for key in edge_index:
            source, _, target = key
            conv = getattr(model, name)["__".join(key)]
            pair = x[source] if source == target else (x[source], x[target])
            part = conv(pair, edge_index[key], edge_type[key] if typed else None)
            out[target] = out[target] + part if target in out else part
        return out

    h = {name: value.relu() for name, value in layer("typed", x, typed=True).items()}
    h = layer("plain", h, typed=False)
    for name in x:
        torch.testing.assert_close(out[name], model.lin[name](h[name]))
    out["user"].sum().backward()
    assert model.typed["__".join(LIKED_BY)].relation.grad.abs().sum() > 0


@pytest.mark.parametrize("ckpt_grad", [False, True])
@pytest.mark.parametrize("block", ["res+", "res", "dense", "plain"])
def test_deep_gcn_layer(block, ckpt_grad):
    x, edge_index, edge_type = typed_graph()
    x.requires_grad_()
    conv, norm = typed_conv(), LayerNorm(C)
    layer = DeepGCNLayer(conv, norm, torch.nn.ReLU(), block=block, ckpt_grad=ckpt_grad)
    out = layer(x, edge_index, edge_type)
    if block == "res+":
        want = x + conv(norm(x).relu(), edge_index, edge_type)
    else:
        h = norm(conv(x, edge_index, edge_type)).relu()
        want = {"res": x + h, "dense": torch.cat([x, h], dim=1), "plain": h}[block]
    torch.testing.assert_close(out, want)

    # A checkpointed layer is run twice; its gradients are the same.
    inputs = [x, *conv.parameters()]
    weight = torch.randn_like(want)
    expected = torch.autograd.grad((want * weight).sum(), inputs)
    (out * weight).sum().backward()
    for value, gradient in zip(inputs, expected, strict=True):
        torch.testing.assert_close(value.grad, gradient)


def test_gps_conv():
    x, edge_index, edge_type = typed_graph()
    batch = torch.arange(N) // 5
    conv = typed_conv()
    layer = GPSConv(C, conv, heads=2, norm=None).eval()
    out = layer(x, edge_index, batch, edge_type=edge_type)
    local = conv(x, edge_index, edge_type) + x
    attended = [layer.attn(part, part, part, need_weights=False)[0] for part in (x[:5], x[5:])]
    h = local + torch.cat(attended) + x
    torch.testing.assert_close(out, h + layer.mlp(h))


@pytest.mark.parametrize("mode", ["cat", "max"])
def test_jumping_knowledge(mode):
    x, edge_index, edge_type = typed_graph()
    first, second = typed_conv(), typed_conv()
    h1 = first(x, edge_index, edge_type)
    h2 = second(h1, edge_index, edge_type)
    want = torch.cat([h1, h2], dim=1) if mode == "cat" else torch.maximum(h1, h2)
    torch.testing.assert_close(JumpingKnowledge(mode)([h1, h2]), want)


@pytest.mark.parametrize("root_weight", [False, True])
def test_dir_gnn_conv(root_weight):
    # It hands on no types, so the layer has one relation.
    x, edge_index, _ = typed_graph()
    layer = DirGNNConv(GatedAggregationConv(C, 6), alpha=0.3, root_weight=root_weight)
    inward = layer.conv_in(x, edge_index)
    outward = layer.conv_out(x, edge_index.flip(0))
    want = 0.3 * outward + 0.7 * inward + (layer.lin(x) if root_weight else 0)
    torch.testing.assert_close(layer(x, edge_index), want)


def test_summary(monkeypatch):
    # Only the drawing of the table needs the tabulate package: take the rows instead.
    table = []
    fake = SimpleNamespace(tabulate=lambda rows, **kwargs: table.extend(rows) or "")
    monkeypatch.setitem(sys.modules, "tabulate", fake)
    x, edge_index, edge_type = typed_graph()
    summary(
        Sequential("x, edge_index, edge_type", [(typed_conv(), "x, edge_index, edge_type -> x")]),
        x,
        edge_index,
        edge_type,
    )
    # Query projection C·C, relations R·C, and the gate's V and W: 2·C out of 2·C in, and a bias of 2·C.
    count = C * C + RELATIONS * C + 2 * C * 2 * C + 2 * C
    assert table[-1] == [
        "├─(module_0)GatedAggregationConv",
        f"[{N}, {C}], [2, {E}], [{E}]",
        f"[{N}, {C}]",
        f"{count:,}",
    ]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"heads": 2, "degree_power": 0.5}, {"edge_dim": 2}])
@pytest.mark.parametrize(("backend", "num_edges"), [("auto", 30), ("auto", 2**16), ("torch", 30)])
def test_a_traced_layer_holds_for_other_graphs(backend, num_edges, options):
    def graph(num_nodes, num_edges):
        given = torch.randn(num_nodes, C), *random_edges(num_nodes, num_edges, RELATIONS)
        return (*given, torch.rand(num_edges, 2)) if options == {"edge_dim": 2} else given

    conv = typed_conv(backend=backend, **options).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(conv, graph(50, num_edges), check_trace=False), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    # Of torch's own operators: others may open the file without the package.
    assert "mgwa_pyg::" not in str(loaded.inlined_graph)
    for given in (graph(7, 20), graph(90, 400), graph(5, 0)):
        torch.testing.assert_close(loaded(*given), conv(*given))


def test_batches_of_graphs_equal_the_graphs_one_by_one():
    graphs = []
    for num_nodes, num_edges in ((5, 12), (1, 0), (7, 20)):
        graphs.append(
            Data(
                x=torch.randn(num_nodes, C),
                edge_index=torch.randint(num_nodes, (2, num_edges)),
                edge_type=torch.randint(RELATIONS, (num_edges,)),
                query=torch.randn(1, 6),
            )
        )
    conv = typed_conv(query_channels=6)
    batch = next(iter(DataLoader(graphs, batch_size=3)))
    own = conv(batch.x, batch.edge_index, batch.edge_type)
    given = conv(batch.x, batch.edge_index, batch.edge_type, query=batch.query, query_index=batch.batch)
    for i, graph in enumerate(graphs):
        rows = batch.batch == i
        torch.testing.assert_close(own[rows], conv(graph.x, graph.edge_index, graph.edge_type))
        want = conv(graph.x, graph.edge_index, graph.edge_type, query=graph.query[0])
        torch.testing.assert_close(given[rows], want)


class Classifier(torch.nn.Module):
    """Two layers and a log-softmax, of nodes or of whole graphs."""

    def __init__(self, pool=False, **options):
        super().__init__()
        self.pool = pool
        self.first = typed_conv(concat=False, **options)
        self.second = GatedAggregationConv(C, 3, num_relations=RELATIONS, concat=False, **options)

    def forward(self, x, edge_index, edge_type, batch=None):
        x = self.first(x, edge_index, edge_type).relu()
        x = self.second(x, edge_index, edge_type)
        if self.pool:
            x = global_mean_pool(x, batch)
        return x.log_softmax(dim=-1)


def model_config(level):
    return {"mode": "multiclass_classification", "task_level": level, "return_type": "log_probs"}


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("explanation_type", ["model", "phenomenon"])
def test_gnn_explainer(level, explanation_type):
    x, edge_index, edge_type = typed_graph()
    model = Classifier(pool=level == "graph").eval()
    want = model(x, edge_index, edge_type)
    explainer = Explainer(
        model,
        GNNExplainer(epochs=5),
        explanation_type=explanation_type,
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config=model_config(level),
    )
    explanation = explainer(
        x,
        edge_index,
        edge_type=edge_type,
        index=2 if level == "node" else None,
        target=want.argmax(1) if explanation_type == "phenomenon" else None,
    )
    assert explanation.edge_mask.shape == (E,)
    assert explanation.node_mask.shape == (N, C)
    for mask in (explanation.edge_mask, explanation.node_mask):
        assert mask.isfinite().all()
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert mask.unique().numel() > 2  # It learned something.
    # The layer works as before once the explainer has gone.
    torch.testing.assert_close(model(x, edge_index, edge_type), want)


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"backend": "torch"}, {"degree_power": 0.5}])
def test_attention_explainer_reads_the_attention(reduce, options):
    x, edge_index, edge_type = typed_graph()
    model = Classifier(**options).eval()
    explainer = Explainer(
        model,
        AttentionExplainer(reduce=reduce),
        explanation_type="model",
        edge_mask_type="object",
        model_config=model_config("node"),
    )
    mask = explainer(x, edge_index, edge_type=edge_type).edge_mask

    h, (_, first) = model.first(x, edge_index, edge_type, return_attention_weights=True)
    _, (_, second) = model.second(h.relu(), edge_index, edge_type, return_attention_weights=True)
    layers = torch.stack([first, second])  # [2, E, H]: over heads first, then over layers.
    want = layers.mean(dim=(0, 2)) if reduce == "mean" else layers.amax(dim=(0, 2))
    torch.testing.assert_close(mask, want)


@pytest.mark.parametrize(
    "backend", ["auto", "torch", "reference", pytest.param("scatter", marks=pytest.mark.scatter)]
)
def test_edge_masks_remove_edges_from_the_aggregation(backend):
    x, edge_index, edge_type = typed_graph()
    conv = typed_conv(backend=backend)
    plain, (_, alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)
    mask = (torch.rand(E) < 0.5).float()

    # The explainers mask messages: the attention stays that of the whole neighbourhood.
    set_masks(conv, mask, edge_index, apply_sigmoid=False)
    messages = mask[:, None] * alpha * x[edge_index[0]]
    neighborhood = torch.zeros(N, C).index_add(0, edge_index[1], messages)
    want = conv.fusion(x, neighborhood.unsqueeze(1)).squeeze(1)
    masked, (_, masked_alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)
    torch.testing.assert_close(masked, want)
    torch.testing.assert_close(masked_alpha, alpha)
    assert not torch.allclose(masked, plain)

    set_masks(conv, torch.ones(E), edge_index, apply_sigmoid=False)
    torch.testing.assert_close(conv(x, edge_index, edge_type), plain)
    set_masks(conv, torch.zeros(E), edge_index, apply_sigmoid=False)
    alone = conv(x, edge_index, edge_type)
    clear_masks(conv)
    torch.testing.assert_close(alone, conv(x, edge_index[:, :0], edge_type[:0]))
    torch.testing.assert_close(conv(x, edge_index, edge_type), plain)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("fusion", ["gated", "neighbor"])
def test_graph_mask_explainer(fusion, backend):
    x, edge_index, edge_type = typed_graph()
    model = Sequential(
        "x, edge_index, edge_type",
        [
            (typed_conv(backend=backend), "x, edge_index, edge_type -> x"),
            (typed_conv(fusion=fusion, backend=backend), "x, edge_index, edge_type -> x"),
        ],
    )
    explainer = Explainer(
        model,
        GraphMaskExplainer(2, epochs=2, log=False),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    mask = explainer(x, edge_index, edge_type=edge_type).edge_mask
    assert mask.shape == (E,)
    assert mask.isfinite().all()


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("heads", [1, 2])
def test_to_hetero_with_bases(heads, backend):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GatedAggregationConv(C, C, heads=heads, backend=backend)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    x = {"user": torch.randn(4, C), "item": torch.randn(6, C)}
    pairs = torch.stack([torch.randint(4, (15,)), torch.randint(6, (15,))])
    edge_index = {LIKES: pairs, LIKED_BY: pairs.flip(0)}
    model = to_hetero_with_bases(Net(), ([*x], [*edge_index]), num_bases=2, in_channels={"x": C})
    out = model(x, edge_index)

    # The same as one graph: the layer is a mean here, and each basis weighs the messages of an edge type.
    start = {"user": 0, "item": 4}
    node = torch.cat([model.align_lin__x.lins[name](x[name]) for name in x])
    want = torch.zeros(10, heads * C)
    for conv in model.conv.convs:
        rows = [torch.zeros(C) for _ in range(10)]
        for number, (key, (source, target)) in enumerate(edge_index.items()):
            weight = conv.edge_type_weight[0, number]
            degree = torch.bincount(target)
            for u, v in zip(source.tolist(), target.tolist(), strict=True):
                rows[start[key[2]] + v] = (
                    rows[start[key[2]] + v] + weight * node[start[key[0]] + u] / degree[v]
                )
        neighborhood = torch.stack(rows).unsqueeze(1).expand(-1, heads, -1)
        want = want + conv.fusion(node, neighborhood).flatten(1)
    torch.testing.assert_close(torch.cat([out["user"], out["item"]]), want)


def test_masked_edges_still_count_for_the_degree_power():
    x, edge_index, edge_type = typed_graph()
    conv = typed_conv(fusion="identity", degree_power=0.5)
    _, (_, alpha) = conv(x, edge_index, edge_type, return_attention_weights=True)
    mask = (torch.rand(E) < 0.5).float()
    messages = mask[:, None] * alpha * x[edge_index[0]]
    degree = torch.bincount(edge_index[1], minlength=N)
    want = torch.zeros(N, C).index_add(0, edge_index[1], messages) * degree[:, None] ** 0.5
    set_masks(conv, mask, edge_index, apply_sigmoid=False)
    torch.testing.assert_close(conv(x, edge_index, edge_type), want)
    clear_masks(conv)


def test_edge_masks_of_a_whole_target_equal_its_removal():
    # Where all edges of a target are masked, masking and removing are the same.
    x, edge_index, edge_type = typed_graph()
    conv = typed_conv(heads=2)
    keep = edge_index[1] != edge_index[1, 0]
    set_masks(conv, keep.float(), edge_index, apply_sigmoid=False)
    masked = conv(x, edge_index, edge_type)
    clear_masks(conv)
    torch.testing.assert_close(masked, conv(x, edge_index[:, keep], edge_type[keep]))


def test_edge_masks_by_edge_type():
    x, edge_index, edge_type = hetero_graph()
    conv = HeteroConv({key: GatedAggregationConv((-1, -1), C, num_relations=RELATIONS) for key in edge_index})
    conv(x, edge_index, edge_type_dict=edge_type)
    mask = {key: torch.ones(value.size(1)) for key, value in edge_index.items()}
    mask[LIKED_BY] = torch.zeros(15)
    set_hetero_masks(conv, mask, edge_index, apply_sigmoid=False)
    masked = conv(x, edge_index, edge_type_dict=edge_type)
    clear_masks(conv)
    emptied = edge_index | {LIKED_BY: torch.empty(2, 0, dtype=torch.long)}
    types = edge_type | {LIKED_BY: torch.empty(0, dtype=torch.long)}
    want = conv(x, emptied, edge_type_dict=types)
    for name in x:
        torch.testing.assert_close(masked[name], want[name])


class DistributedNet(torch.nn.Module):
    """Every parameter that a layer can have."""

    def __init__(self):
        super().__init__()
        self.typed = typed_conv(heads=2)
        self.featured = GatedAggregationConv(2 * C, C, num_relations=RELATIONS, edge_dim=2)
        self.plain = GatedAggregationConv(C, C)

    def forward(self, data):
        x = self.typed(data.x, data.edge_index, data.edge_type)
        x = self.featured(x, data.edge_index, data.edge_type, data.edge_attr)
        return self.plain(x, data.edge_index)


@pytest.fixture
def process_group(monkeypatch):
    """A group of this process alone: DDP counts gradients in it as in a larger one."""
    # No look-up of the host's name, which may wait for a network.
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_distributed_data_parallel_finds_no_unused_parameter(process_group):
    net = DistributedNet()
    x, edge_index, edge_type = typed_graph()
    data = Data(x=x, edge_index=edge_index, edge_type=edge_type, edge_attr=torch.randn(E, 2))
    net(data).square().sum().backward()
    want = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    assert all(gradient.abs().sum() > 0 for gradient in want.values())

    parallel = DistributedDataParallel(net, find_unused_parameters=False)
    for _ in range(2):  # A parameter without a gradient is reported at the next step.
        net.zero_grad()
        parallel(data).square().sum().backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(parameter.grad, want[name])


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize("removed", [False, True])
def test_distributed_data_parallel_with_queries_from_outside(process_group, removed):
    conv = typed_conv()
    x, edge_index, edge_type = typed_graph()
    query, relation = torch.randn(conv.query_channels), torch.randn(RELATIONS, conv.query_channels)
    if removed:  # As the layer's page says.
        conv.register_module("lin_query", None)
        conv.register_parameter("relation", None)
    parallel = DistributedDataParallel(conv, find_unused_parameters=False)

    def step():
        parallel(x, edge_index, edge_type, query=query, relation=relation).sum().backward()

    step()
    if removed:
        step()
    else:
        with pytest.raises(RuntimeError, match="that were not used in producing loss"):
            step()
