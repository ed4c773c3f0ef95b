"""What each model looks at: neighbourhoods and ripple sets, in training and outside."""

import copy

import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.recommenders import RECOMMENDERS, make_recommender
from mgwa_pyg.sampler import ripple_sets
from mgwa_pyg.train import KGCNConfig, MGWAConfig, RippleNetConfig
from tests.nn.oracle import randomize


@pytest.fixture(scope="module")
def dataset():
    sizes = {"num_users": 20, "num_items": 30, "num_entities": 50, "num_relations": 4, "num_triples": 400}
    return SyntheticKG(**sizes, num_interactions=120)


def make(dataset, config, seed=0):
    torch.manual_seed(seed)
    made = make_recommender(dataset, config, seed)
    randomize(made.model, std=0.5)
    made.model.eval()
    return made


@pytest.mark.parametrize(
    "config",
    [
        *(kind.config_class() for kind in RECOMMENDERS.values()),
        MGWAConfig(resample=False),
        KGCNConfig(equations="official", fusion="concat"),
        RippleNetConfig(directed=False),
    ],
    ids=str,
)
@torch.no_grad()
def test_ranking_scores_are_those_of_the_pairs(dataset, config):
    made = make(dataset, config)
    user = torch.tensor([3, 0, 19])
    generator = torch.Generator()
    got = made.score_all(user, generator)
    assert got.shape == (3, dataset.num_items)
    for u, row in zip(user, got, strict=True):
        for item in range(dataset.num_items):
            pair = made.score(u.view(1), torch.tensor([item]), generator)
            torch.testing.assert_close(row[item], pair.squeeze(), atol=1e-5, rtol=1e-4)


def heard(model, made, item):
    """The neighbourhoods that reach the model in a training step."""
    calls = []
    hook = model.register_forward_pre_hook(lambda module, args: calls.append(args[1:]))
    made.train_step(torch.zeros_like(item), item)
    hook.remove()
    return calls[0]


def test_neighbours_are_drawn_anew_or_once(dataset):
    item = torch.arange(dataset.num_items)
    for resample in (True, False):
        made = make(dataset, MGWAConfig(fanout=2, resample=resample))
        (first, edges, *_), (second, _, *_) = heard(made.model, made, item), heard(made.model, made, item)
        assert torch.equal(first, second) is not resample
        assert torch.bincount(edges[1]).max() == 2
        calls = []
        made.model.register_forward_pre_hook(lambda module, args, calls=calls: calls.append(args[1:]))
        made.score(torch.zeros_like(item), item, torch.Generator())
        # Drawn once they are the same in evaluation; else evaluation sees all of them.
        assert torch.equal(calls[0][0], first) is not resample
        kg = dataset[0]["entity", "kg", "entity"]
        whole = torch.bincount(kg.edge_index[1], minlength=dataset.num_entities)[item].sum().item()
        assert (calls[0][1].size(1) == whole) is resample
    other = make(dataset, MGWAConfig(fanout=2, resample=False), seed=1)
    assert not torch.equal(heard(other.model, other, item)[0], first)


@pytest.mark.parametrize("config", [MGWAConfig(), KGCNConfig(), RippleNetConfig(directed=False)])
def test_an_inverse_relation_counts_as_the_relation(dataset, config):
    made = make(dataset, config)
    if isinstance(config, RippleNetConfig):
        edge_type, num_relations = made.edge_type, made.model.relation.size(0)
    else:
        edge_type = heard(made.model, made, torch.arange(dataset.num_items))[2]
        num_relations = made.model.relation_emb.num_embeddings
    assert num_relations == dataset.num_relations
    assert edge_type.max() < dataset.num_relations


def test_ripples_follow_triples_from_head_to_tail_or_both_ways(dataset):
    data = dataset[0]
    kg, listens = data["entity", "kg", "entity"], data["user", "listens", "entity"]
    for directed in (True, False):
        config = RippleNetConfig(directed=directed, memory_size=5, num_layers=2)
        made = make(dataset, config, seed=3)
        edge_index = kg.edge_index[:, : dataset.num_triples] if directed else kg.edge_index
        want = ripple_sets(listens.edge_index, edge_index, 20, 50, 2, 5, torch.Generator().manual_seed(3))
        assert torch.equal(made.memory, want)
        assert made.edge_index.size(1) == edge_index.size(1)


@pytest.mark.parametrize("directed", [True, False])
def test_ripples_follow_triples_in_any_order(dataset, directed):
    def turn(data):
        kg = data["entity", "kg", "entity"]
        kg.edge_index, kg.rel_type = kg.edge_index.flip(1), kg.rel_type.flip(0)
        return data

    turned = copy.copy(dataset)
    turned.transform = turn
    config = RippleNetConfig(directed=directed)
    edges, turned_edges = (
        sorted(zip(*made.edge_index.tolist(), made.edge_type.tolist(), strict=True))
        for made in (make(dataset, config), make(turned, config))
    )
    assert edges == turned_edges


def test_the_ripples_loss_has_both_terms(dataset):
    user, item = torch.tensor([0, 5, 5]), torch.tensor([1, 2, 3])
    made = make(dataset, RippleNetConfig(kge_weight=0.3, weight_decay=0.2))
    logit, penalty = made.train_step(user, item)
    seen = made.memory[user], made.edge_index, made.edge_type
    want = 0.3 * made.model.kge_loss(*seen) + 0.2 * made.model.embedding_penalty(*seen)
    torch.testing.assert_close(penalty, want)
    torch.testing.assert_close(logit, made.score(user, item, torch.Generator()))


def test_other_embeddings_to_start_from(dataset):
    entity, relation = torch.randn(50, 8), torch.randn(4, 8)
    made = make(dataset, MGWAConfig())
    made.start_from(entity, relation)
    assert torch.equal(made.model.entity_emb.weight, entity)
    assert torch.equal(made.model.relation_emb.weight, relation)
    with pytest.raises(NotImplementedError, match="RippleNet cannot start"):
        make(dataset, RippleNetConfig()).start_from(entity, relation)
