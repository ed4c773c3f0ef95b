"""Parameters on other data: by their ids, whatever the order, and where rows that are new start."""

import dataclasses

import numpy as np
import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.datasets.ids import DataIds
from mgwa_pyg.recommenders import RECOMMENDERS, grown, make_recommender
from mgwa_pyg.recommenders.growth import carry_over
from mgwa_pyg.train import CollaborativeConfig, KGCNConfig, LightGCNConfig, MGWAConfig, RippleNetConfig
from tests.nn.oracle import randomize
from tests.tables import OfTables, shuffled, tables_of

CONFIGS = {
    "mgwa": MGWAConfig(fusion="highway", num_layers=2),
    "kgcn": KGCNConfig(),
    "ripplenet": RippleNetConfig(),
    "lightgcn": LightGCNConfig(),
    "lightgcn, entities": LightGCNConfig(),
    "collaborative": CollaborativeConfig(),
    "collaborative, ranking": CollaborativeConfig.for_ranking(),
}


@pytest.fixture(scope="module")
def tables():
    return tables_of(
        SyntheticKG(num_users=20, num_items=30, num_entities=60, num_relations=4, num_triples=200)
    )


def trained(kind, tables):
    torch.manual_seed(1)
    pool = "entities" if "entities" in kind else "items"
    made = make_recommender(OfTables(tables, negatives=pool), CONFIGS[kind], seed=0)
    randomize(made.model, std=0.4)
    made.model.eval()
    return made


def test_every_recommender_says_what_its_parameters_are_of():
    assert {config.model for config in CONFIGS.values()} == {*RECOMMENDERS}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_same_data_in_another_order(kind, tables):
    old = trained(kind, tables)
    pool = old.dataset.negatives
    before = {name: value.clone() for name, value in old.model.state_dict().items()}
    torch.manual_seed(2)
    new = grown(old, OfTables(shuffled(tables), negatives=pool))
    assert new.config == old.config
    assert not new.model.training
    if kind == "ripplenet":  # Memories are drawn: they are those of the old data, in new numbers.
        new.memory = old.memory[of_ids(new, old, "user_ids")]
        new.edge_index, new.edge_type = (
            entity_rows(new, old)[old.edge_index],
            relation_rows(new, old)[old.edge_type],
        )
    users, items = of_ids(new, old, "user_ids"), of_ids(new, old, "item_ids")
    with torch.no_grad():
        want = old.score_all(torch.arange(20))[users][:, items]
        torch.testing.assert_close(new.score_all(torch.arange(20)), want, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in old.model.state_dict().items())


def of_ids(new, old, name):
    """For each row of the new data the row of the old."""
    there = list(getattr(old.dataset, name))
    return torch.tensor([there.index(id_) for id_ in getattr(new.dataset, name)])


def entity_rows(new, old):
    """For each row of the old data the row of the new."""
    return of_ids(old, new, "entity_names")


def relation_rows(new, old):
    return of_ids(old, new, "relation_names")


@pytest.mark.parametrize("kind", CONFIGS)
def test_rows_that_are_new(kind, tables):
    more = larger(tables)
    old = trained(kind, tables)
    new = grown(old, OfTables(more, negatives=old.dataset.negatives))
    for name, kinds in new.tables().items():
        there, here = old.model.state_dict()[name], new.model.state_dict()[name]
        if kinds == ("entity",):
            mean = there[[3, 40]].mean(dim=0)
            torch.testing.assert_close(here[30], mean)  # The new item, between its neighbours.
            torch.testing.assert_close(here[61], mean)  # What is linked to the new item alone.
            assert torch.equal(here[31:61], there[30:])
            assert torch.equal(here[:30], there[:30])
        if "user" in kinds:
            assert torch.equal(here[-21:-1], there[-20:])
    if kind.startswith("lightgcn"):
        table = new.model.embedding.weight
        assert not table[[30, -1]].any()
        with torch.no_grad():  # Messages reach them.
            assert new.score_all(torch.tensor([20])).abs().max() > 0


def larger(tables):
    """The same with a user, an item, an entity and a relation more."""
    old = np.arange(tables.num_entities)
    entity = np.where(old < 30, old, old + 1)
    head, kind, tail = tables.triples.T
    triples = np.stack([entity[head], kind, entity[tail]], axis=1)
    return dataclasses.replace(
        tables,
        positives=np.concatenate([tables.positives, [[20, 30], [20, 4], [0, 30]]]),
        positive_parts=np.concatenate([tables.positive_parts, [0, 0, 0]]),
        triples=np.concatenate([triples, [[30, 1, 3], [41, 0, 30], [30, 4, 61]]]),
        num_users=21,
        num_entities=62,
        item_names=[*tables.item_names, "a new one"],
        relation_names=[*tables.relation_names, "a new relation"],
        user_ids=[*tables.user_ids, "new"],
        item_ids=[*tables.item_ids, "new"],
        entity_names=[*tables.item_names, "a new one", *tables.entity_names[30:], "a new end"],
    )


def test_other_hyper_parameters_are_refused(tables):
    old = trained("mgwa", tables)
    ids = DataIds.of(old.dataset)
    for config, problem in [
        (
            dataclasses.replace(old.config, channels=4),
            r"user_emb.weight has the shape \(20, 8\) there, but \(20, 4\)",
        ),
        (dataclasses.replace(old.config, num_layers=1), r"differ in their parameters convs.1"),
    ]:
        other = make_recommender(old.dataset, config, seed=0)
        with pytest.raises(ValueError, match=problem):
            carry_over(other, old.model.state_dict(), ids)
