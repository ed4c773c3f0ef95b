"""On a GPU: the operation, the layer, the samplers and the models give what they give on the CPU."""

import copy

import pandas as pd
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.explain.algorithm import GNNExplainer
from torch_geometric.loader import NodeLoader

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation import Popularity, user_auc
from mgwa_pyg.nn import FUSIONS, KGCN, MGWA, CollaborativeMGWA, GatedAggregationConv, RippleNet
from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.sampler import KHopSampler, NeighborSampler
from mgwa_pyg.train import fit

CUDA = torch.device("cuda")
NUM_NODES, NUM_RELATIONS = 300, 7

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(scope="module")
def graph():
    """A multigraph with a few hubs, whose last nodes have no edges."""
    generator = torch.Generator().manual_seed(0)
    edge_index = (torch.rand(2, 4000, generator=generator) ** 3 * (NUM_NODES - 5)).long()
    return edge_index, torch.randint(NUM_RELATIONS, (4000,), generator=generator)


@pytest.fixture(scope="module")
def data():
    sizes = {"num_users": 40, "num_items": 60, "num_entities": 120, "num_relations": 4, "num_triples": 800}
    return SyntheticKG(**sizes, num_interactions=600)


def on_cuda(value):
    return value.to(CUDA) if isinstance(value, (torch.Tensor, RelationCSR, torch.nn.Module)) else value


def check_same(module, *args, **options):
    """Output and gradients of all parameters and features, on both devices."""
    results = []
    for move in (lambda value: value, on_cuda):
        moved = move(copy.deepcopy(module))
        given = [move(arg.detach()) if isinstance(arg, torch.Tensor) else move(arg) for arg in args]
        leaves = [arg for arg in given if isinstance(arg, torch.Tensor) and arg.is_floating_point()]
        for leaf in leaves:
            leaf.requires_grad_()
        out = moved(*given, **{name: move(value) for name, value in options.items()})
        generator = torch.Generator().manual_seed(1)
        (out * move(torch.randn(out.shape, generator=generator).to(out.dtype))).sum().backward()
        leaves += [parameter for parameter in moved.parameters() if parameter.grad is not None]
        results.append([out.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_a_plan_moves(graph):
    plan = RelationCSR.from_edge_index(*graph, NUM_RELATIONS, (NUM_NODES, NUM_NODES))
    pinned = Data(plan=plan).pin_memory()
    for moved in (plan.cuda(), plan.pin_memory().to(CUDA, non_blocking=True), pinned.cuda().plan):
        for name, value in vars(moved.cpu()).items():
            if isinstance(value, torch.Tensor):
                assert getattr(moved, name).is_cuda
                torch.testing.assert_close(value, getattr(plan, name))


@pytest.mark.parametrize("backend", ["auto", "torch", "triton", "reference"])
@pytest.mark.parametrize("num_tables", [None, 3])
@pytest.mark.parametrize("num_queries", [1, NUM_NODES])
@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.bfloat16])
def test_operation(graph, backend, num_tables, num_queries, dtype):
    plan = RelationCSR.from_edge_index(*graph, NUM_RELATIONS, (NUM_NODES, NUM_NODES))
    x = torch.randn(NUM_NODES, 48, dtype=dtype)
    shape = (num_queries, NUM_RELATIONS) if num_tables is None else (num_tables, num_queries, NUM_RELATIONS)
    table = torch.randn(shape, dtype=torch.promote_types(dtype, torch.float))
    query_index = None if num_queries == 1 else torch.arange(NUM_NODES)
    weight = torch.randn(NUM_NODES, *(() if num_tables is None else (num_tables,)), 48, dtype=torch.double)

    def run(x, table, plan, query_index, backend):
        leaves = x.requires_grad_(), table.requires_grad_()
        out = relation_softmax_aggregate(*leaves, plan, query_index, backend)
        return out, *torch.autograd.grad((out.double() * weight.to(out.device)).sum(), leaves)

    want = run(x.double(), table.double(), plan, query_index, "reference")
    got = run(*map(on_cuda, (x, table, plan, query_index)), backend)
    for value, other in zip(got, want, strict=True):
        error = (value.cpu().double() - other).norm() / other.norm()
        assert error < {torch.double: 1e-12, torch.float: 1e-5, torch.bfloat16: 2e-2}[dtype]


@pytest.mark.parametrize("order", ["plan", "edges", "sorted edges"])
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_a_plan_is_the_same_wherever_it_is_made(graph, order, backend):
    here = RelationCSR.from_edge_index(*graph, NUM_RELATIONS, (NUM_NODES, NUM_NODES))
    there = RelationCSR.from_edge_index(*map(on_cuda, graph), NUM_RELATIONS, (NUM_NODES, NUM_NODES))
    for name in ("rowptr", "dst", "rel", "colptr"):
        assert torch.equal(getattr(here, name), getattr(there, name).cpu())
    edges, types = here.to_edge_index() if order == "sorted edges" else graph
    given = (here, None) if order == "plan" else (edges, types)
    conv = GatedAggregationConv(12, 12, NUM_RELATIONS, backend="reference")
    other = GatedAggregationConv(12, 12, NUM_RELATIONS, backend=backend).to(CUDA)
    other.load_state_dict(conv.state_dict())
    x = torch.randn(NUM_NODES, 12)
    torch.testing.assert_close(
        other(x.to(CUDA), *map(on_cuda, given)).cpu(), conv(x, *given), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("options", [{}, {"heads": 4}, {"edge_dim": 3}, {"degree_power": 0.5}], ids=str)
def test_layer(graph, fusion, options):
    conv = GatedAggregationConv(16, 16, NUM_RELATIONS, fusion=fusion, **options)
    edge_attr = torch.randn(4000, 3) if "edge_dim" in options else None
    check_same(conv, torch.randn(NUM_NODES, 16), *graph, edge_attr=edge_attr)


def test_layer_in_a_graph_break_free_compiled_step(graph):
    plan = on_cuda(RelationCSR.from_edge_index(*graph, NUM_RELATIONS, (NUM_NODES, NUM_NODES)))
    conv = GatedAggregationConv(16, 16, NUM_RELATIONS).to(CUDA)
    x = torch.randn(NUM_NODES, 16, device=CUDA)
    compiled = torch.compile(lambda x: conv(x, plan).square().mean(), fullgraph=True)
    wanted = torch.autograd.grad(conv(x, plan).square().mean(), [*conv.parameters()])
    torch.testing.assert_close(torch.autograd.grad(compiled(x), [*conv.parameters()]), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_autocast(graph, dtype):
    conv = GatedAggregationConv(16, 16, NUM_RELATIONS).to(CUDA)
    x = torch.randn(NUM_NODES, 16, device=CUDA)
    given = [*map(on_cuda, graph)]
    with torch.autocast("cuda", dtype):
        out = conv(x, *given)
    torch.testing.assert_close(out.float(), conv(x, *given), rtol=5e-2, atol=5e-2)
    out.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in conv.parameters())


def test_deterministic(graph):
    conv = GatedAggregationConv(16, 16, NUM_RELATIONS, backend="triton").to(CUDA)
    x = torch.randn(NUM_NODES, 16, device=CUDA)
    plan = on_cuda(RelationCSR.from_edge_index(*graph, NUM_RELATIONS, (NUM_NODES, NUM_NODES)))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        first, second = (
            torch.autograd.grad(conv(x, plan).square().sum(), [*conv.parameters()]) for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("model_class", [MGWA, KGCN])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_models_of_neighborhoods(graph, model_class, num_layers):
    model = model_class(20, NUM_NODES, NUM_RELATIONS, channels=8, num_layers=num_layers)
    sampler = NeighborSampler(*graph, NUM_NODES, 6)
    item = torch.randint(NUM_NODES, (50,))
    hood = sampler.sample(item, num_layers)
    check_same(model, torch.randint(20, (50,)), *hood)


@pytest.mark.parametrize("model_class", [MGWA, KGCN])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_ranking(graph, model_class, num_layers):
    model = model_class(20, NUM_NODES, NUM_RELATIONS, channels=8, num_layers=num_layers)
    plan = RelationCSR.from_edge_index(*graph, NUM_RELATIONS, (NUM_NODES, NUM_NODES))
    users = torch.arange(20)
    want = model.score_items(users, plan, 100)
    got = on_cuda(model).score_items(users.to(CUDA), on_cuda(plan), 100)
    torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-4)


class Collaborative(torch.nn.Module):
    """The model with its graph, made on the device of the edges."""

    def __init__(self):
        super().__init__()
        self.model = CollaborativeMGWA(100, NUM_NODES, NUM_RELATIONS, channels=8, dropout=0.0)

    def forward(self, user, item, listens, edge_index, edge_type):
        return self.model(user, item, self.model.graph(listens, edge_index, edge_type, 30))


def test_collaborative_mgwa(graph):
    listens = torch.stack([torch.randint(30, (200,)), torch.randint(100, (200,))])
    check_same(Collaborative(), torch.randint(30, (64,)), torch.randint(100, (64,)), listens, *graph)


def test_ripplenet(graph):
    model = RippleNet(NUM_NODES, NUM_RELATIONS, channels=8, num_hops=2)
    memory = torch.randint(4000, (50, 2, 16))
    check_same(model, torch.randint(NUM_NODES, (50,)), memory, *graph)


@pytest.mark.parametrize("fanout", [None, 3])
def test_neighbor_sampler_draws_on_the_device(graph, fanout):
    edges = [*map(on_cuda, graph)]
    sampler = NeighborSampler(*edges, NUM_NODES, fanout)
    hood = sampler.sample(torch.arange(0, NUM_NODES, 3, device=CUDA), 2)
    assert hood.node.device.type == hood.edge_index.device.type == "cuda"
    pairs = set(map(tuple, torch.stack([*graph[0], graph[1]], dim=1).tolist()))
    node = hood.node.cpu()
    drawn = torch.stack([*node[hood.edge_index.cpu()], hood.edge_type.cpu()], dim=1)
    assert set(map(tuple, drawn.tolist())) <= pairs
    degree = torch.bincount(graph[0][1], minlength=NUM_NODES)[node[: hood.num_sampled_nodes[0]]]
    assert hood.num_sampled_edges[0] == int(degree.clamp(max=fanout or 10**9).sum())


def test_k_hop_sampler_draws_on_the_device(graph):
    data = Data(edge_index=graph[0], edge_type=graph[1], num_nodes=NUM_NODES, x=torch.randn(NUM_NODES, 4))
    data = data.to(CUDA)
    loader = NodeLoader(data, KHopSampler(data, [4, 4]), torch.arange(NUM_NODES, device=CUDA), batch_size=64)
    for batch in loader:
        assert batch.edge_index.device.type == "cuda"
        torch.testing.assert_close(batch.x, data.x[batch.n_id])
        torch.testing.assert_close(data.edge_index[:, batch.e_id], batch.n_id[batch.edge_index])
        torch.testing.assert_close(data.edge_type[batch.e_id], batch.edge_type)


def test_evaluation_takes_tensors_of_the_device(data):
    moved = Popularity(copy.copy(data[0]).to(CUDA), data.num_items)
    user = torch.arange(data.num_users, device=CUDA)
    want = Popularity(data[0], data.num_items).score_all(user.cpu())
    torch.testing.assert_close(moved.score_all(user), want)
    label, score = torch.arange(40, device=CUDA) % 2, torch.rand(40, device=CUDA)
    assert user_auc(label, score, label * 0) == user_auc(label.cpu(), score.cpu(), label.cpu() * 0)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_fit(data, name, tmp_path):
    result = fit(data, RECOMMENDERS[name].config_class(epochs=2), tmp_path, device="cuda")
    assert result.score.device.type == "cpu"
    assert result.score.isfinite().all()


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_fit_by_ranking_loss(data, name, tmp_path):
    config = RECOMMENDERS[name].config_class(epochs=2, loss="ranking")
    result = fit(data, config, tmp_path, device="cuda")
    assert result.score.isfinite().all()


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_a_checkpoint_answers_alike_on_the_cpu_and_on_the_device(data, name, tmp_path):
    fit(data, RECOMMENDERS[name].config_class(epochs=2), tmp_path, device="cuda")
    there, here = (Recommender.load(tmp_path, data, device=device) for device in ("cuda", "cpu"))
    newcomer = here.recommend(3)["item"].tolist()[:3]
    answers = [
        lambda recommender: recommender.recommend(3),
        lambda recommender: recommender.recommend_batch([3, 4, 3]),
        lambda recommender: recommender.similar_items(5),
        lambda recommender: recommender.recommend_for(newcomer),
        lambda recommender: recommender.explain(3, 5).parts,
        lambda recommender: recommender.explain(newcomer, 5).parts,
    ]
    for answer in answers[:3] if name == "lightgcn" else answers:  # It knows no more.
        pd.testing.assert_frame_equal(answer(there), answer(here), rtol=1e-6, atol=1e-9)
    if name not in ("ripplenet", "lightgcn"):
        assert "mask" in there.explain(3, 5, GNNExplainer(epochs=2)).parts
