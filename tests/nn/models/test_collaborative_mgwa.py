"""CollaborativeMGWA against its equations in loops, and what its messages may know."""

import math

import pytest
import torch

from mgwa_pyg.nn import CollaborativeMGWA
from mgwa_pyg.nn.models import item_item
from mgwa_pyg.ops import RelationCSR
from tests.nn.oracle import assert_same, randomize

NUM_USERS, NUM_ITEMS, NUM_ENTITIES, NUM_RELATIONS = 4, 5, 8, 3
LISTENS = torch.tensor([[0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 2, 3]])  # User 3 and item 4 have no interaction.
EDGES = torch.tensor([[0, 5, 1, 6, 4, 5, 2], [5, 0, 6, 1, 5, 4, 6]])
TYPES = torch.tensor([0, 1, 0, 1, 2, 2, 0])


def make(**options):
    model = CollaborativeMGWA(NUM_ITEMS, NUM_ENTITIES, NUM_RELATIONS, channels=6, **options).double().eval()
    return randomize(model, std=0.6)


def naive(model, listens):
    """Embeddings of users and entities, and the entities' biases, node by node."""
    edges = [(int(a), int(b), int(r)) for (a, b), r in zip(EDGES.t(), TYPES, strict=True)]
    for user, item in listens.t().tolist():
        edges.append((NUM_ENTITIES + user, item, NUM_RELATIONS))
        edges.append((item, NUM_ENTITIES + user, NUM_RELATIONS + 1))
    x = list(model.entity_emb.weight)
    for user in range(NUM_USERS):
        heard = [model.history_emb.weight[i] for u, i in listens.t().tolist() if u == user]
        zero = torch.zeros(6, dtype=torch.double)
        x.append(sum(heard, zero) / math.sqrt(max(1, len(heard))))
    layers = [x]
    for conv in model.convs:
        after = []
        for v, own in enumerate(x):
            into = [(a, r) for a, b, r in edges if b == v]
            scores = [
                torch.sigmoid(conv.lin_query.weight @ own @ conv.relation[r])
                if model.attention
                else own.sum() * 0
                for _, r in into
            ]
            exp = [score.exp() for score in scores]
            zero = torch.zeros(6, dtype=torch.double)
            m = sum((e / sum(exp) * x[a] for e, (a, _) in zip(exp, into, strict=True)), zero)
            m = m * math.sqrt(max(1, len(into)))
            if hasattr(conv.fusion, "lin_self"):
                fusion = conv.fusion
                logit = (
                    fusion.lin_self.weight @ own + fusion.lin_neighbor.weight @ m + fusion.lin_neighbor.bias
                )
                gate = torch.sigmoid(logit)
                m = gate * own + (1 - gate) * m
            after.append(m)
        x = after
        layers.append(x)
    z = [torch.stack(nodes).mean(dim=0) for nodes in zip(*layers, strict=True)]
    bias = []
    for v in range(NUM_ENTITIES):
        count = sum(i == v for _, i in listens.t().tolist())
        triples = sum(b == v and r < NUM_RELATIONS for _, b, r in edges)
        known = [math.log(1 + count), math.log(1 + triples)]
        bias.append(torch.tensor(known, dtype=torch.double) @ model.entity_bias.weight[0])
    return torch.stack(z[NUM_ENTITIES:]), torch.stack(z[:NUM_ENTITIES]), torch.stack(bias)


@pytest.mark.smoke
@pytest.mark.parametrize("fusion", ["highway", "identity"])
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_scores_and_gradients_equal_the_equations(fusion, attention, num_layers):
    model = make(fusion=fusion, attention=attention, num_layers=num_layers)
    graph = model.graph(LISTENS, EDGES, TYPES, NUM_USERS)
    z_user, z_item, bias = naive(model, LISTENS)
    want = z_user @ z_item.t() + bias
    user, item = torch.cartesian_prod(torch.arange(NUM_USERS), torch.arange(NUM_ENTITIES)).t()
    got = model(user, item, graph).view(NUM_USERS, NUM_ENTITIES)
    assert_same(got, want, model.parameters())


def paths_of(model, listens):
    """What items say of each other directly, for all users and items, path by path."""
    listens = [(u, i) for u, i in listens.t().tolist()]
    edges = {(int(a), int(b), int(r)) for (a, b), r in zip(EDGES.t(), TYPES, strict=True)}
    alpha, beta = (4 * model.item_item.log_alpha).exp(), (4 * model.item_item.log_beta).exp()
    known = [sum(i == j for _, j in listens) for i in range(NUM_ITEMS)]
    seen = [[i for v, i in listens if v == u] for u in range(NUM_USERS)]

    def holders(t, r):
        return {b for a, b, q in edges if (a, q) == (t, r) and b < NUM_ITEMS}

    size = [
        0.1 + sum(1 / len(holders(t, r)) for t, b, r in edges if b == i and len(holders(t, r)) >= 2)
        for i in range(NUM_ITEMS)
    ]
    score = torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.double)
    for u in range(NUM_USERS):
        for j in seen[u]:
            for v in range(NUM_USERS):
                for i in seen[v] if j in seen[v] else []:
                    length = len(seen[u]) * len(seen[v]) * (known[j] + 3) * (known[i] + 3)
                    score[u, i] = score[u, i] + alpha / math.sqrt(length)
            for t, target, r in edges:
                if target == j and len(holders(t, r)) >= 2:
                    for i in holders(t, r):
                        length = len(seen[u]) * size[j] * size[i]
                        score[u, i] = score[u, i] + beta[r] / len(holders(t, r)) / math.sqrt(length)
    return score


@pytest.mark.parametrize("at_once", [1, 2**22])
def test_paths_between_items_equal_the_equations(at_once, monkeypatch):
    monkeypatch.setattr(item_item, "_AT_ONCE", at_once)
    model = make(item_item=True)
    graph = model.graph(LISTENS, torch.cat([EDGES, EDGES[:, :2]], dim=1), torch.cat([TYPES, TYPES[:2]]), 4)
    user, item = torch.cartesian_prod(torch.arange(NUM_USERS), torch.arange(NUM_ENTITIES)).t()
    z_user, z_entity = model.encode(graph)
    direct = model(user, item, graph).view(NUM_USERS, NUM_ENTITIES) - z_user @ z_entity.t()
    want = paths_of(model, LISTENS)
    assert (want > 0).sum() > 6
    assert (direct[:, NUM_ITEMS:].abs() < 1e-12).all()
    assert_same(direct[:, :NUM_ITEMS], want, model.item_item.parameters())
    users = torch.tensor([2, 0, 2])
    assert_same(
        model.direct(users, model.paths(graph)), paths_of(model, LISTENS)[users], model.item_item.parameters()
    )
    shuffled = torch.randperm(len(user), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        model(user[shuffled], item[shuffled], graph), model(user, item, graph)[shuffled]
    )
    # A neighbour that too many items have, or a single one, leads nowhere.
    none = model.graph(LISTENS[:, :0], EDGES[:, :1], TYPES[:1], NUM_USERS)
    assert (model.direct(users, model.paths(none)) == 0).all()


def test_a_user_is_what_they_listened_to():
    model = make()
    # The same histories under other numbers, one of them twice, and a user without any.
    others = torch.tensor([[3, 3, 0, 1, 1, 1, 5, 5], [0, 1, 1, 0, 2, 3, 0, 1]])
    z_user, _ = model.encode(model.graph(others, EDGES, TYPES, 6))
    torch.testing.assert_close(z_user[3], z_user[5])
    assert not torch.allclose(z_user[3], z_user[0])
    assert (z_user[[2, 4], :-1] == 0).all()
    # Users without interactions change nothing for anybody.
    few = model.encode(model.graph(LISTENS, EDGES, TYPES, NUM_USERS))
    more = model.encode(model.graph(LISTENS, EDGES, TYPES, NUM_USERS + 3))
    torch.testing.assert_close(more[0][:NUM_USERS], few[0])
    torch.testing.assert_close(more[1], few[1])


def test_only_the_edges_of_the_graph_pass_messages():
    model = make()
    graph = model.graph(LISTENS[:, 1:], EDGES, TYPES, NUM_USERS)
    edge_index, edge_type = graph.to_edge_index()
    own = edge_type < NUM_RELATIONS
    assert sorted(zip(*edge_index[:, own].tolist(), edge_type[own].tolist(), strict=True)) == sorted(
        zip(*EDGES.tolist(), TYPES.tolist(), strict=True)
    )
    listens = edge_index[:, edge_type == NUM_RELATIONS]
    assert sorted(map(tuple, (listens.t() - torch.tensor([NUM_ENTITIES, 0])).tolist())) == sorted(
        map(tuple, LISTENS[:, 1:].t().tolist())
    )
    back = edge_index[:, edge_type == NUM_RELATIONS + 1]
    assert sorted(map(tuple, back.flip(0).t().tolist())) == sorted(map(tuple, listens.t().tolist()))
    # Left out, the interaction of user 0 and item 0 is seen nowhere: as if there had never been one.
    z_user, z_item, _ = naive(model, LISTENS[:, 1:])
    torch.testing.assert_close(model.encode(graph)[0][:, :-1], z_user)
    torch.testing.assert_close(model.encode(graph)[1][:, :-1], z_item)


def test_entity_features_count_users_and_triples():
    model = make()
    got = model.entity_features(model.graph(LISTENS, EDGES, TYPES, NUM_USERS))
    got = got.expm1()
    count = [[2, 1], [2, 1], [1, 0], [1, 0], [0, 1], [0, 2], [0, 2], [0, 0]]
    torch.testing.assert_close(got, torch.tensor(count, dtype=torch.double))


@pytest.mark.parametrize("item_item", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_ranking_is_by_the_scores_of_pairs(training, item_item):
    model = make(dropout=0.5, item_item=item_item)
    graph = model.graph(LISTENS, EDGES, TYPES, NUM_USERS)
    users = torch.tensor([2, 0, 2])
    item = torch.arange(NUM_ITEMS).repeat(3)
    score = model(users.repeat_interleave(NUM_ITEMS), item, graph).view(3, NUM_ITEMS)
    best = model.train(training).rank(users, 3, graph)
    assert model.training is training
    want = score.sort(dim=1, descending=True)
    torch.testing.assert_close(best.score, want.values[:, :3])
    assert torch.equal(best.item, want.indices[:, :3])

    best = model.rank(users, NUM_ITEMS, graph, exclude=LISTENS)
    assert (best.item[1] < NUM_ITEMS).sum() == 3
    assert not set(best.item[0].tolist()) & {0, 2, 3}
    assert (best.score[0, 2:] == -math.inf).all()


def test_dropout_is_for_training_only():
    model = make(dropout=0.5)
    graph = model.graph(LISTENS, EDGES, TYPES, NUM_USERS)
    torch.testing.assert_close(model.encode(graph), model.encode(graph))
    model.train()
    assert not torch.equal(model.encode(graph)[1], model.encode(graph)[1])


def test_reset_parameters_draws_all_anew():
    model = CollaborativeMGWA(NUM_ITEMS, NUM_ENTITIES, NUM_RELATIONS, channels=6)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 3.0)
    model.reset_parameters()
    for name, value in model.named_parameters():
        assert not (value == 3).any(), name
        zero = "bias" in name or ".fusion." in name or "entity_bias" in name
        assert torch.equal(value, before[name]) is zero, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_items": 9}, "num_items=9"),
        ({"num_items": 0}, "num_items=0"),
        ({"num_relations": -1}, "num_relations=-1"),
        ({"channels": 0}, "channels=0"),
        ({"num_layers": -1}, "num_layers=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"fusion": "mean"}, "fusion='mean' is unknown"),
    ],
)
def test_bad_options(options, message):
    sizes = {"num_items": NUM_ITEMS, "num_entities": NUM_ENTITIES, "num_relations": NUM_RELATIONS}
    with pytest.raises(ValueError, match=message):
        CollaborativeMGWA(**{**sizes, **options})


class Server(torch.nn.Module):
    def __init__(self, model, graph):
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self, users, exclude):
        return tuple(self.model.rank(users, 3, self.graph, exclude))


def test_ranking_exports_for_any_number_of_users_and_excluded_pairs():
    model = make(fusion="highway")
    server = Server(model, model.graph(LISTENS, EDGES, TYPES, NUM_USERS))
    shapes = {0: torch.export.Dim.DYNAMIC}, {1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(server, (torch.arange(3), LISTENS), dynamic_shapes=shapes)
    for users in (torch.arange(NUM_USERS), torch.tensor([2, 1])):
        got, want = (run(users, LISTENS[:, :4]) for run in (program.module(), server))
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_precision_counts_and_adds_beyond_what_it_holds(dtype):
    # Everybody listens to the first item, the first user to all: more than 65,504 either way.
    many = 70_000
    pairs = torch.stack([torch.arange(many), torch.zeros(many).long()])
    listens = torch.cat([pairs, pairs[:, 1:].flip(0)], dim=1)
    model = CollaborativeMGWA(many, many, 1, channels=2, num_layers=0).eval()
    torch.nn.init.ones_(model.history_emb.weight)
    none = torch.empty(2, 0).long()
    graph = model.graph(listens, none, none[0], many)
    model = model.to(dtype)
    count = model.entity_features(graph)[:, 0]
    assert count.dtype == dtype
    want = torch.tensor([math.log1p(many), math.log(2)])
    torch.testing.assert_close(count[:2].float(), want, rtol=0.01, atol=0)
    for state in (model.states(graph)[0][many], model.newcomer_states(torch.arange(many), [])[0][0]):
        assert state.dtype == dtype
        torch.testing.assert_close(state.float(), torch.full((2,), math.sqrt(many)), rtol=0.01, atol=0)


def test_bad_graphs():
    model = make()
    with pytest.raises(ValueError, match=r"interactions has shape \(3, 2\)"):
        model.graph(torch.zeros(3, 2, dtype=torch.long), EDGES, TYPES, NUM_USERS)
    with pytest.raises(IndexError, match=r"interactions\[0\]"):
        model.graph(LISTENS, EDGES, TYPES, 2)
    with pytest.raises(IndexError, match=r"interactions\[1\]"):
        model.graph(torch.tensor([[0], [NUM_ITEMS]]), EDGES, TYPES, NUM_USERS)
    with pytest.raises(IndexError, match="edge_type"):
        model.graph(LISTENS, EDGES, TYPES + 1, NUM_USERS)
    other = RelationCSR.from_edge_index(EDGES, TYPES, NUM_RELATIONS, (NUM_ENTITIES,) * 2)
    with pytest.raises(ValueError, match=r"made for 8 entities, users beside them, and 3 \+ 2 relations"):
        model.encode(other)
    with pytest.raises(ValueError, match="k=6"):
        model.rank(torch.tensor([0]), 6, model.graph(LISTENS, EDGES, TYPES, NUM_USERS))
    with pytest.raises(IndexError, match="users"):
        model.rank(torch.tensor([4]), 2, model.graph(LISTENS, EDGES, TYPES, NUM_USERS))
