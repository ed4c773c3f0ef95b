"""Exact ranking against scoring pair by pair with whole neighbourhoods."""

import copy

import pytest
import torch
from torch.nn.utils import parametrizations, prune

from mgwa_pyg.nn import KGCN, MGWA
from mgwa_pyg.nn.models import all_items
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.sampler import NeighborSampler
from tests.nn.oracle import randomize

NUM_USERS, NUM_ITEMS, NUM_ENTITIES, NUM_RELATIONS = 6, 9, 14, 3

MODELS = {
    "mgwa": (MGWA, {}),
    "mgwa sum": (MGWA, {"fusion": "sum"}),
    "mgwa neighbor": (MGWA, {"fusion": "neighbor"}),
    "mgwa highway": (MGWA, {"fusion": "highway"}),
    "mgwa identity": (MGWA, {"fusion": "identity"}),
    "kgcn concat": (KGCN, {"fusion": "concat"}),
    "kgcn official": (KGCN, {"equations": "official", "num_neighbors": 4}),
}


def graph(num_relations=NUM_RELATIONS):
    # The last entities stand alone, an item is among them.
    edge_index = torch.randint(1, NUM_ENTITIES - 2, (2, 40))
    edge_type = torch.randint(num_relations, (40,))
    plan = RelationCSR.from_edge_index(edge_index, edge_type, num_relations, (NUM_ENTITIES,) * 2)
    return plan, NeighborSampler(edge_index, edge_type, NUM_ENTITIES)


def make(name, num_layers=1, num_relations=NUM_RELATIONS):
    model_class, options = MODELS[name]
    model = model_class(NUM_USERS, NUM_ENTITIES, num_relations, channels=5, num_layers=num_layers, **options)
    return randomize(model, std=0.7)


def pairwise(model, sampler, users):
    """The scores of all items, a subgraph for each pair."""
    item = torch.arange(NUM_ITEMS).repeat(len(users))
    hood = sampler.sample(item, model.num_layers)
    with torch.no_grad():
        return model(users.repeat_interleave(NUM_ITEMS), *hood).view(len(users), NUM_ITEMS)


@pytest.mark.parametrize("sums", [True, False], ids=["sums", "operation"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_those_of_pairs(name, num_layers, sums, monkeypatch):
    monkeypatch.setattr(all_items, "_sums_pay", lambda *_: sums)
    plan, sampler = graph()
    model = make(name, num_layers)
    users = torch.tensor([3, 0, 5, 3])
    want = pairwise(model, sampler, users)
    for max_bytes in (None, 1, 3 * NUM_ITEMS * 5 * 8):  # All at once, one by one, users or items in parts.
        got = model.score_items(users, plan, NUM_ITEMS, max_bytes)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", ["user_emb", "entity_emb", "relation_emb"])
@pytest.mark.parametrize("what", ["prune", "weight_norm", "hook"])
def test_embeddings_count_as_they_are_called(what, name, num_layers):
    plan, sampler = graph()
    model = make("mgwa", num_layers)
    embedding = model.get_submodule(name)
    if what == "prune":
        prune.random_unstructured(embedding, "weight", 0.5)
        with torch.no_grad():  # A step of training: pruning makes the weight of it when the module is called.
            embedding.weight_orig.mul_(-1.5)
    elif what == "weight_norm":
        parametrizations.weight_norm(embedding)
    else:
        embedding.register_forward_hook(lambda *call: 2 * call[-1])
    users = torch.arange(NUM_USERS)
    got = model.score_items(users, plan, NUM_ITEMS), model.rank(users, NUM_ITEMS, plan, NUM_ITEMS).score
    want = pairwise(model, sampler, users)
    torch.testing.assert_close(got[0], want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[1], want.sort(dim=1, descending=True).values, rtol=1e-5, atol=1e-5)


def test_one_relation_and_no_attention():
    plan, sampler = graph(num_relations=1)
    model = make("mgwa", num_layers=2, num_relations=1)
    users = torch.arange(NUM_USERS)
    got = model.score_items(users, plan, NUM_ITEMS)
    torch.testing.assert_close(got, pairwise(model, sampler, users), rtol=1e-5, atol=1e-5)


def test_dropout_takes_no_part():
    plan, sampler = graph()
    model = MGWA(NUM_USERS, NUM_ENTITIES, NUM_RELATIONS, dropout=0.5)
    users = torch.arange(NUM_USERS)
    got = model.train().score_items(users, plan, NUM_ITEMS)
    torch.testing.assert_close(got, pairwise(model.eval(), sampler, users))


@pytest.mark.parametrize("max_bytes", [None, 1, 4 * 8 * 10 * 4])
@pytest.mark.parametrize("k", [1, 4, NUM_ITEMS])
def test_ranks_by_those_scores_without_the_excluded(k, max_bytes):
    plan, sampler = graph()
    model = make("mgwa")
    users = torch.tensor([5, 1, 2, 1])
    exclude = torch.tensor([[5, 5, 1, 0, 2, 2, 5], [0, 8, 3, 2, 7, 1, 0]])
    want = pairwise(model, sampler, users)
    for row, user in enumerate(users.tolist()):
        for excluded_user, item in exclude.t().tolist():
            if user == excluded_user:
                want[row, item] = -torch.inf
    value, item = want.sort(dim=1, descending=True)
    item[value == -torch.inf] = NUM_ITEMS

    got = model.rank(users, k, plan, NUM_ITEMS, exclude, max_bytes)
    assert got.item.tolist() == item[:, :k].tolist()
    torch.testing.assert_close(got.score, value[:, :k], rtol=1e-5, atol=1e-5)
    assert got.item.tolist() != model.rank(users, k, plan, NUM_ITEMS).item.tolist()


def test_records_no_gradient_and_ranks_nobody():
    plan, _ = graph()
    model = make("mgwa")
    assert not model.rank(torch.tensor([0]), 2, plan, NUM_ITEMS).score.requires_grad
    nobody = model.rank(torch.empty(0).long(), 2, plan, NUM_ITEMS)
    assert nobody.item.shape == nobody.score.shape == (0, 2)


def test_errors_name_what_is_wrong():
    plan, _ = graph()
    model = make("mgwa")
    users = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="k=10: between 1 and num_items=9"):
        model.rank(users, 10, plan, NUM_ITEMS)
    with pytest.raises(IndexError, match="users holds 6"):
        model.rank(torch.tensor([6]), 1, plan, NUM_ITEMS)
    with pytest.raises(ValueError, match=r"users has shape \(1, 2\)"):
        model.rank(users.unsqueeze(0), 1, plan, NUM_ITEMS)
    with pytest.raises(ValueError, match="num_items=15: items are the first of 14 entities"):
        model.rank(users, 1, plan, 15)
    with pytest.raises(ValueError, match=r"graph is of size \(14, 14\) with 2 relations"):
        model.rank(users, 1, graph(num_relations=2)[0], NUM_ITEMS)
    with pytest.raises(ValueError, match=r"exclude has shape \(3, 2\)"):
        model.rank(users, 1, plan, NUM_ITEMS, exclude=torch.zeros(3, 2).long())
    with pytest.raises(IndexError, match=r"exclude\[1\] holds 9"):
        model.rank(users, 1, plan, NUM_ITEMS, exclude=torch.tensor([[0], [9]]))
    with pytest.raises(ValueError, match="max_bytes=0"):
        model.rank(users, 1, plan, NUM_ITEMS, max_bytes=0)
    with torch.no_grad():
        model.user_emb.weight[1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        model.rank(users, 1, plan, NUM_ITEMS)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_half_precision(name, dtype, num_layers):
    plan, sampler = graph()
    model = make(name, num_layers)
    with torch.no_grad():
        model.relation_emb.weight.mul_(8)  # Relations' scores differ widely.
    model, users = model.to(dtype), torch.arange(NUM_USERS)
    want = pairwise(copy.deepcopy(model).double(), sampler, users)  # Of the same, rounded parameters.
    error = {"pairs": pairwise(model, sampler, users), "all": model.score_items(users, plan, NUM_ITEMS)}
    error = {which: float((got.double() - want).abs().max() / want.std()) for which, got in error.items()}
    assert error["all"] < 4 * error["pairs"] + 10 * torch.finfo(dtype).eps, error


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_autocast(name, dtype, num_layers):
    plan, sampler = graph()
    model, users = make(name, num_layers), torch.arange(NUM_USERS)
    want = pairwise(model, sampler, users)
    with torch.autocast("cpu", dtype):
        got = model.score_items(users, plan, NUM_ITEMS)
        best = model.rank(users, 3, plan, NUM_ITEMS)
    error = 10 * torch.finfo(dtype).eps * want.abs().max()
    assert (got - want).abs().max() < error
    assert (best.score - want.sort(dim=1, descending=True).values[:, :3]).abs().max() < error


class Server(torch.nn.Module):
    def __init__(self, model, plan):
        super().__init__()
        self.model, self.plan = model, plan

    def forward(self, users, exclude):
        best = self.model.rank(users, 4, self.plan, NUM_ITEMS, exclude)
        return self.model.score_items(users, self.plan, NUM_ITEMS), *best


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", ["mgwa", "kgcn official"])
def test_exports_for_any_number_of_users_and_excluded_pairs(name, num_layers):
    plan, _ = graph()
    server = Server(make(name, num_layers).eval(), plan)
    pairs = torch.stack([torch.arange(20) % NUM_USERS, torch.arange(20) % NUM_ITEMS])
    shapes = {0: torch.export.Dim.DYNAMIC}, {1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(server, (torch.arange(3), pairs), dynamic_shapes=shapes)
    for users in (torch.arange(NUM_USERS), torch.tensor([5, 1])):
        got, want = (run(users, pairs[:, :7]) for run in (program.module(), server))
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("max_bytes", [None, 1, 4 * 8 * 10 * 4])
def test_equal_scores_rank_by_number(max_bytes):
    plan, _ = graph()
    model = make("mgwa")
    with torch.no_grad():
        model.user_emb.weight[1:3] = 0.0  # All scores of these users are zero, the others' differ.
    users = torch.tensor([1, 0, 2])
    exclude = torch.tensor([[1, 1], [0, 3]])
    got = model.rank(users, 5, plan, NUM_ITEMS, exclude, max_bytes).item
    assert got[0].tolist() == [1, 2, 4, 5, 6]
    assert got[2].tolist() == [0, 1, 2, 3, 4]
    assert (
        got[1].tolist()
        == model.score_items(users[1:2], plan, NUM_ITEMS)[0].argsort(descending=True)[:5].tolist()
    )
