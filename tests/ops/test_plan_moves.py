"""A plan goes where tensors go: devices, batches, files and other processes, and comes back whole."""

import copy
import io
import pickle

import lightning
import pytest
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from mgwa_pyg.nn import MGWA, CollaborativeMGWA, GatedAggregationConv
from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from tests.graphs import random_edges

NUM_NODES, NUM_RELATIONS = 20, 3


def make(num_edges=60):
    edges = random_edges(NUM_NODES, num_edges, NUM_RELATIONS)
    return RelationCSR.from_edge_index(*edges, NUM_RELATIONS, (NUM_NODES, NUM_NODES))


def tensors(plan):
    return {name: value for name, value in vars(plan).items() if isinstance(value, torch.Tensor)}


def check_same(got, want):
    assert type(got) is RelationCSR
    assert (got.size, got.num_relations) == (want.size, want.num_relations)
    assert tensors(got).keys() == tensors(want).keys()
    for name, value in tensors(want).items():
        torch.testing.assert_close(getattr(got, name), value, rtol=0, atol=0)


def devices(plan):
    return {value.device.type for value in tensors(plan).values()}


def test_it_moves_along_with_the_data_that_holds_it():
    # "meta" stands for a GPU.
    plan = make()
    data, hetero = Data(x=torch.randn(NUM_NODES, 2), plan=plan), HeteroData(plan=plan)
    hetero["entity"].plan = plan
    moved = [each.to("meta", non_blocking=True) for each in (data, hetero)]
    assert [devices(each.plan) for each in (*moved, hetero["entity"])] == [{"meta"}] * 3
    assert devices(plan) == {"cpu"}
    check_same(Data(plan=plan).cpu().plan, plan)
    assert all(value.is_shared() for value in tensors(Data(plan=plan).share_memory_().plan).values())
    assert devices(plan.to("meta", non_blocking=True)) == {"meta"}
    with pytest.raises(TypeError, match="device"):
        plan.to(torch.float64)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.conv = GatedAggregationConv(4, 4, NUM_RELATIONS)
        self.seen = None

    def training_step(self, batch, _):
        self.seen = batch["plan"]
        return self.conv(batch["x"], batch["plan"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_batches_of_lightning(precision):
    plan, x = make(), torch.randn(NUM_NODES, 4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, precision=precision, enable_model_summary=False, **quiet
    )
    module = Module()
    trainer.fit(module, DataLoader([{"x": x, "plan": plan}], batch_size=None))
    check_same(module.seen, plan)
    conv = GatedAggregationConv(4, 4, NUM_RELATIONS)
    conv = Fabric(accelerator="cpu", precision=precision).setup_module(conv)
    assert conv(x, plan).isfinite().all()


def through_torch(value, **options):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True, **options)


@pytest.mark.parametrize(
    "transport",
    [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan)), through_torch],
    ids=["copy", "deepcopy", "pickle", "torch.save"],
)
def test_copies_and_files(transport):
    for plan in (make(), make(0), make().targets(3, 9), make().repeat(2)):
        check_same(transport(plan), plan)


def test_files_of_data_and_other_devices():
    plan = make()
    with torch.serialization.safe_globals([DataEdgeAttr, DataTensorAttr, GlobalStorage]):
        check_same(through_torch(Data(plan=plan)).plan, plan)
    assert devices(through_torch(plan, map_location="meta")) == {"meta"}


def test_workers_send_it():
    plan = make()
    (batch,) = DataLoader([{"plan": plan}], batch_size=None, num_workers=1)
    check_same(batch["plan"], plan)


def test_damaged_files_are_refused():
    plan = make()
    plan.col = plan.col.clone().fill_(10**6)  # Beyond the nodes: kernels would read what is not theirs.
    with pytest.raises(IndexError, match="col holds 1000000"):
        through_torch(plan)


def test_tensors_by_hand():
    plan = make()
    strided = {name: value.repeat_interleave(2)[::2] for name, value in tensors(plan).items()}
    got = RelationCSR(**{**vars(plan), **strided})
    check_same(got, plan)
    assert all(value.is_contiguous() for value in tensors(got).values())


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("col", lambda index: index.float(), ValueError, "col has shape .* torch.float32"),
        ("col", lambda index: None, ValueError, "col is None"),
        ("dst", lambda index: index[1:], ValueError, r"dst has shape \(59,\)"),
        ("dst", lambda index: index.long(), ValueError, "dst has .* torch.int64, but 60 of type torch.int32"),
        ("perm", lambda index: index.int(), ValueError, "perm has .* torch.int32"),
        ("rel", lambda index: index.to("meta"), ValueError, "rel .* on cpu"),
        ("rel", lambda index: index + 1, IndexError, "rel holds 3"),
        ("csc", lambda index: index - 1, IndexError, "csc holds -1"),
        ("rowptr", lambda index: index[:-1], ValueError, r"rowptr has shape \(20,\)"),
        ("rowptr", lambda index: index.flip(0), ValueError, "contradict"),
        ("colptr", lambda index: index * 0, ValueError, "contradict"),
        ("dst", lambda index: index.flip(0), ValueError, "contradict"),
        ("cdst", lambda index: index.flip(0), ValueError, "contradict"),
        ("csc", lambda index: index * 0, ValueError, "contradict"),
        ("perm", lambda index: index * 0, ValueError, "contradict"),
        ("num_relations", lambda number: 0, ValueError, "num_relations=0"),
        ("size", lambda size: 20, ValueError, "size=20"),
    ],
)
def test_tensors_by_hand_that_do_not_go_together(name, change, error, message):
    state = vars(make())
    with pytest.raises(error, match=message):
        RelationCSR(**{**state, name: change(state[name])})


def test_copies_side_by_side_know_their_edges():
    plan = make()
    edge_index, edge_type = plan.to_edge_index()
    got_index, got_type = plan.repeat(3).to_edge_index()
    assert torch.equal(got_index, torch.cat([edge_index + NUM_NODES * copy for copy in range(3)], dim=1))
    assert torch.equal(got_type, edge_type.repeat(3))


@pytest.mark.parametrize("num_edges", [60, 2**15])
def test_the_default_device_does_not_matter(num_edges):
    # "meta" stands for a GPU again: whatever is made on it by mistake cannot be used.
    edge_index, edge_type = random_edges(NUM_NODES, num_edges, NUM_RELATIONS)
    x, table, users = torch.randn(NUM_NODES, 4), torch.randn(2, NUM_RELATIONS), torch.arange(5)
    query_index, pairs = torch.arange(NUM_NODES) % 2, torch.stack([users, users])
    conv, mgwa = GatedAggregationConv(4, 4, NUM_RELATIONS), MGWA(5, NUM_NODES, NUM_RELATIONS, num_layers=2)
    own = CollaborativeMGWA(9, NUM_NODES, NUM_RELATIONS, channels=4).eval()
    size = NUM_NODES, NUM_NODES

    def results():
        plan = RelationCSR.from_edge_index(edge_index, edge_type, NUM_RELATIONS, size)
        yield from tensors(plan).values()
        yield relation_softmax_aggregate(x, table, plan, query_index, "torch")
        yield conv(x, plan)
        yield conv(x, edge_index, edge_type)
        yield from mgwa.rank(users, 3, plan, 9, exclude=pairs)
        yield from own.rank(users, 3, own.graph(pairs, edge_index, edge_type, 5), exclude=pairs)

    want = list(results())
    with torch.device("meta"):
        got = list(results())
    torch.testing.assert_close(got, want)
