"""RippleNet against its equations, a user, an item and a triple at a time, in double precision."""

import copy

import pytest
import torch

from mgwa_pyg.nn.models.ripplenet import ITEM_UPDATES, RippleNet
from tests.graphs import random_edges
from tests.nn.oracle import assert_same, randomize

NUM_ENTITIES, NUM_RELATIONS, NUM_TRIPLES = 9, 4, 12


def make(item_update="plus_transform", all_hops=True, num_hops=3, channels=5, size=4):
    """A model of double precision, and five users of whom the second and the last have no triples."""
    model = RippleNet(NUM_ENTITIES, NUM_RELATIONS, channels, num_hops, item_update, all_hops).double()
    randomize(model, std=0.6)
    # The last relation is not used.
    edge_index, edge_type = random_edges(NUM_ENTITIES, NUM_TRIPLES, NUM_RELATIONS - 1)
    memory = torch.randint(NUM_TRIPLES, (5, num_hops, size))
    memory[[1, 4]] = -1
    return model, memory, edge_index, edge_type


def triples(model, memory, edge_index, edge_type):
    """Head, matrix of the relation and tail of each triple of one hop of one user."""
    entity = model.entity_emb.weight
    for triple in memory.tolist():
        head, tail = edge_index[:, triple].tolist()
        yield entity[head], model.relation[edge_type[triple]], entity[tail]


def naive_logit(model, item, memory, edge_index, edge_type):
    """The logit of one user, given by the memory, and one item."""
    v = model.entity_emb.weight[item]
    if memory[0, 0] < 0:
        return 0 * v.sum()
    answers = []
    for hop in memory:
        parts = list(triples(model, hop, edge_index, edge_type))
        score = [torch.exp(v @ R @ h) for h, R, _ in parts]
        o = sum(s / sum(score) * t for s, (_, _, t) in zip(score, parts, strict=True))
        answers.append(o)
        if model.item_update == "replace":
            v = o
        elif model.item_update == "plus":
            v = v + o
        elif model.item_update == "replace_transform":
            v = model.transform.weight @ o
        else:
            v = model.transform.weight @ (v + o)
    return v @ (sum(answers) if model.all_hops else answers[-1])


@pytest.mark.parametrize("num_hops", [1, 3])
@pytest.mark.parametrize("all_hops", [True, False])
@pytest.mark.parametrize("item_update", ITEM_UPDATES)
def test_logits_and_gradients_equal_the_equations(item_update, all_hops, num_hops):
    model, *graph = make(item_update, all_hops, num_hops)
    memory, edges = graph[0], graph[1:]
    item = torch.tensor([2, 2, 0, 8, 5])
    want = [naive_logit(model, v, m, *edges) for v, m in zip(item.tolist(), memory, strict=True)]
    got = model(item, *graph)
    assert_same(got, torch.stack(want), model.parameters())
    assert got[[1, 4]].tolist() == [0, 0]


@pytest.mark.parametrize("item_update", ITEM_UPDATES)
def test_several_items_for_each_user(item_update):
    model, *graph = make(item_update)
    memory, edges = graph[0], graph[1:]
    item = torch.randint(NUM_ENTITIES, (5, 7))
    want = [
        torch.stack([naive_logit(model, v, m, *edges) for v in row])
        for row, m in zip(item.tolist(), memory, strict=True)
    ]
    got = model(item, *graph)
    assert_same(got, torch.stack(want), model.parameters())
    pairs = model(item.flatten(), memory.repeat_interleave(7, dim=0), *edges)
    torch.testing.assert_close(got.flatten(), pairs)


@pytest.mark.parametrize("num_hops", [1, 3])
def test_kge_loss_equals_its_equation(num_hops):
    model, *graph = make(num_hops=num_hops)
    memory, edges = graph[0], graph[1:]
    want = 0
    for hop in range(num_hops):
        plausible = [
            1 / (1 + torch.exp(-(h @ R @ t)))
            for user in (0, 2, 3)
            for h, R, t in triples(model, memory[user, hop], *edges)
        ]
        want = want - sum(plausible) / len(plausible)
    assert_same(model.kge_loss(*graph), want, model.parameters())


def test_embedding_penalty_equals_its_equation():
    model, *graph = make("plus_transform")
    memory, edges = graph[0], graph[1:]
    want = 0
    for user in (0, 2, 3):
        for hop in memory[user]:
            for parts in triples(model, hop, *edges):
                want = want + sum((part**2).sum() for part in parts)
    assert_same(model.embedding_penalty(*graph), want, model.parameters())


def test_the_penalty_is_of_the_embeddings_as_they_are_called():
    model, memory, *edges = make()
    want = model.embedding_penalty(memory, *edges)
    model.entity_emb.register_forward_hook(lambda *call: 3 * call[-1])
    entities = 9 * (want - _relations_penalty(model, memory, edges[1]))
    torch.testing.assert_close(
        model.embedding_penalty(memory, *edges), entities + _relations_penalty(model, memory, edges[1])
    )


def _relations_penalty(model, memory, edge_type):
    return model.relation[edge_type[memory[[0, 2, 3]]]].square().sum()


def test_half_precision_sums_over_more_memories_than_it_can_count():
    model, memory, *seen = make(size=32)
    memory = memory[[0, 2, 3]].repeat(500, 1, 1)
    half = model.half()
    got = half.kge_loss(memory, *seen), half.embedding_penalty(memory, *seen)
    model = copy.deepcopy(half).double()
    want = model.kge_loss(memory, *seen), model.embedding_penalty(memory, *seen)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=0)


def test_users_without_triples_alone():
    model, memory, *edges = make("plus")
    memory = memory[[1, 4]]
    logit = model(torch.tensor([0, 3]), memory, *edges)
    losses = [model.kge_loss(memory, *edges), model.embedding_penalty(memory, *edges)]
    assert logit.tolist() == [0, 0]
    assert [loss.item() for loss in losses] == [0, 0]
    (logit.sum() + sum(losses)).backward()
    assert all(parameter.grad.eq(0).all() for parameter in model.parameters())
    assert model(torch.empty(2, 0, dtype=torch.long), memory, *edges).shape == (2, 0)


def test_parameters():
    names = {name for name, _ in RippleNet(9, 4).named_parameters()}
    assert names == {"entity_emb.weight", "relation", "transform.weight"}
    assert "transform.weight" not in dict(RippleNet(9, 4, item_update="plus").named_parameters())
    # Each matrix by itself after Glorot: the bound does not know how many there are.
    relation = RippleNet(9, 1000, channels=6).relation
    bound = (6 / (6 + 6)) ** 0.5
    assert 0.99 * bound < relation.abs().max() <= bound


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_hops=0"):
        RippleNet(9, 4, num_hops=0)
    with pytest.raises(ValueError, match=r"item_update='add' is unknown: choose one of \['replace', 'plus'"):
        RippleNet(9, 4, item_update="add")
    model, memory, edge_index, edge_type = make()
    item = torch.zeros(5, dtype=torch.long)
    for method in (model.kge_loss, model.embedding_penalty, lambda *graph: model(item, *graph)):
        with pytest.raises(ValueError, match=r"memory has shape \(5, 2, 4\) .* num_hops=3"):
            method(memory[:, :2], edge_index, edge_type)
        with pytest.raises(ValueError, match=r"edge_type has shape \(11,\) .* 12 triples"):
            method(memory, edge_index, edge_type[1:])
        with pytest.raises(IndexError, match=r"memory holds 12, .* \(the number of triples is 12\)"):
            method(memory.clamp(min=12), edge_index, edge_type)
        with pytest.raises(IndexError, match=r"edge_index holds 9, .* \(num_entities is 9\)"):
            method(memory, edge_index.clamp(min=9), edge_type)
        with pytest.raises(IndexError, match=r"edge_type holds 4, .* \(num_relations is 4\)"):
            method(memory, edge_index, edge_type.clamp(min=4))
    with pytest.raises(ValueError, match=r"item has shape \(4,\) .* shape 5 users or 5 users × items"):
        model(item[:4], memory, edge_index, edge_type)
    with pytest.raises(IndexError, match="item holds 9"):
        model(item + 9, memory, edge_index, edge_type)


@pytest.mark.parametrize("all_hops", [True, False])
@pytest.mark.parametrize("item_update", ITEM_UPDATES)
def test_parts_add_up_to_the_logit(item_update, all_hops):
    model, memory, edge_index, edge_type = make(item_update, all_hops)
    seen = memory, edge_index, edge_type
    for item in (torch.arange(len(memory)), torch.randint(NUM_ENTITIES, (len(memory), 2))):
        logit = model(item, *seen)
        part, attention = model.parts(item, *seen)
        torch.testing.assert_close(part.sum(dim=(-2, -1)), logit)
        known = memory[:, 0, 0] >= 0
        torch.testing.assert_close(
            attention[known].sum(dim=-1), attention.new_ones(attention[known].shape[:-1])
        )
        assert not attention[~known].any()
