"""A small data set, and recommenders of every kind with random parameters."""

import dataclasses

import pytest
import torch

from mgwa_pyg import recommenders
from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.train import CollaborativeConfig, KGCNConfig, MGWAConfig, RippleNetConfig
from tests.nn.oracle import randomize

SIZES = {
    "num_users": 20,
    "num_items": 30,
    "num_entities": 60,
    "num_relations": 4,
    "num_triples": 400,
    "num_interactions": 160,
}
CONFIGS = {
    "mgwa": MGWAConfig(),
    "mgwa, 3 layers": MGWAConfig(num_layers=3, channels=6),
    "mgwa, highway": MGWAConfig(fusion="highway", num_layers=2),
    "mgwa, neighbor": MGWAConfig(fusion="neighbor", score_activation=None),
    "mgwa, ranking": MGWAConfig(loss="ranking"),
    "kgcn": KGCNConfig(num_layers=2),
    "kgcn, official": KGCNConfig(num_layers=2, fusion="concat", equations="official"),
    "ripplenet": RippleNetConfig(),
    "collaborative": CollaborativeConfig(),
    "collaborative, gated": CollaborativeConfig(fusion="gated", num_layers=3, channels=5),
    "collaborative, no attention": CollaborativeConfig(attention=False, degree_power=0.0),
    "collaborative, no triples": CollaborativeConfig(knowledge_graph=False, num_layers=1, degree_power=0.5),
}


def pytest_generate_tests(metafunc):
    chosen = any("kind" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "kind" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("kind", CONFIGS)


@pytest.fixture(scope="session")
def data():
    return SyntheticKG(**SIZES)


class OwnIds(SyntheticKG):
    """The same data; ids are those of a file in another order."""

    def build(self):
        tables = super().build()
        users = [str(user) for user in reversed(range(tables.num_users))]
        items = [(7 * item + 3) % 30 for item in range(30)]
        names = [*tables.item_names, *(f"band {number}" for number in range(30, tables.num_entities))]
        return dataclasses.replace(tables, user_ids=users, item_ids=items, entity_names=names)


@pytest.fixture(scope="session")
def own_data():
    return OwnIds(**SIZES)


@pytest.fixture(scope="session")
def make_model_of(data):
    """Makes a kind of model, with parameters large enough to make a difference."""

    def make(kind, data=data):
        torch.manual_seed(1)
        made = recommenders.make_recommender(data, CONFIGS[kind], seed=0)
        randomize(made.model, std=0.4)
        made.model.eval()
        return made

    return make


@pytest.fixture(scope="session")
def make_recommender(data, make_model_of):
    """Makes the recommender of a kind of model, each once."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = Recommender(make_model_of(kind))
        return made[kind]

    return make


@pytest.fixture
def recommender(kind, make_recommender):
    return make_recommender(kind)
