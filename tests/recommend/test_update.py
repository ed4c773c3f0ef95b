"""Recommenders that take in what has happened since, against those that are made of all of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from torch_geometric.explain.algorithm import GNNExplainer

from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import grown, make_recommender
from mgwa_pyg.train import CollaborativeConfig, LightGCNConfig
from tests.nn.oracle import randomize
from tests.tables import OfTables, tables_of

PLAYS = pd.DataFrame({"user": ["new", "new", "u3", "new"], "item": ["i1", "i8", "i30", "i21"]})
FACTS = pd.DataFrame({"head": ["i30", "i31"], "relation": ["relation 1"] * 2, "tail": ["i2", "i2"]})
LIGHTGCN = LightGCNConfig(channels=8)


@pytest.fixture(scope="module")
def own(data):
    return OfTables(tables_of(data))


@pytest.mark.parametrize("kind", ["mgwa, ranking", "kgcn", "ripplenet", "collaborative"])
def test_what_is_new_is_known_seen_and_found(make_model_of, own, kind):
    recommender = Recommender(make_model_of(kind, own))
    before = recommender.recommend_for(["i1", "i8", "i21"], k=30)
    whole = recommender.recommend_batch()
    got = recommender.update(PLAYS, FACTS, items={"i30": "The thirtieth", "i31": "Like it"})
    assert got.to_dict() == {
        "users": 1, "items": 2, "entities": 0, "relations": 0, "interactions": 4, "triples": 2, "held out": 0
    }  # fmt: skip
    assert repr(recommender).endswith("users=21, items=32)")
    table = recommender.recommend("new", k=32)
    assert {*table["item"]} == {f"i{n}" for n in range(32)} - {"i1", "i8", "i21"}
    assert "i30" not in {*recommender.recommend("u3", k=32)["item"]}
    if kind in ("mgwa, ranking", "kgcn"):  # The new user is the newcomer, as the new graph has them.
        newcomer = recommender.recommend_for(["i1", "i8", "i21"], k=32)
        pd.testing.assert_frame_equal(table, newcomer, rtol=1e-3)
    assert len(before) == 27
    assert {*recommender.similar_items("The thirtieth", k=3)["item"]} <= {*recommender.dataset.item_ids}
    # Both share the tail, and nothing else: they are alike.
    if kind != "ripplenet" and "coll" not in kind:
        assert "i31" in {*recommender.similar_items("i30", k=2)["item"]}
    why = recommender.explain("new", "Like it")
    assert why.parts["neighbor"].tolist()[0] == own.item_names[2] or kind == "ripplenet"
    row = table[table["item"] == "i31"].index[0]
    assert why.parts["score"].sum() == pytest.approx(table["score"][row], rel=1e-6)
    assert len(recommender.recommend_batch()) >= len(whole)


def test_messages_of_collaborative_mgwa_are_those_of_the_whole_graph(make_model_of, own):
    """Users need no training: a model made of all the data with the same parameters says the same."""
    recommender = Recommender(make_model_of("collaborative", own))
    old = recommender._model
    recommender.update(PLAYS, FACTS)
    want = Recommender(grown(old, recommender.dataset))
    pd.testing.assert_frame_equal(recommender.recommend_batch(), want.recommend_batch())


def test_items_that_nobody_has_seen_are_placed_by_their_neighbors(make_model_of, own):
    """Where a regression puts items with such neighbours, from features that are made one by one."""
    old = make_model_of("collaborative", own)
    recommender = Recommender(old)
    recommender.update(PLAYS, FACTS)
    recommender.update(PLAYS.assign(user="another"))  # They stay new until training.
    model, data = recommender._model, recommender.dataset[0]
    assert model.untrained.nonzero().flatten().tolist() == [30, 31]
    emb = model.model.entity_emb.weight
    kg, seen = data["entity", "kg", "entity"], data["user", "listens", "entity"].edge_index
    features, places = [], []
    z = model.model.encode(model.plan)[1][:32, :-1]
    for item in range(32):
        into = kg.edge_index[1] == item
        near, number = emb[kg.edge_index[0, into]], max(int(into.sum()), 1)
        kinds = torch.bincount(kg.rel_type[into], minlength=2 * own.num_relations).double()
        total = near.sum(dim=0)
        parts = [total / number, total / number**0.5, into.sum().double().log1p().view(1), kinds.log1p()]
        features.append(torch.cat(parts).numpy())
        places.append(z[item].numpy())
    count = torch.bincount(seen[1], minlength=32).double()
    assert (count[30:] > 0).tolist() == [True, False]
    fitted = Ridge(5.0).fit(features[:30], places[:30], sample_weight=count[:30].sqrt() + 0.1)
    got = model.item_vectors().numpy()
    np.testing.assert_allclose(got[31], fitted.predict(features[31:])[0], rtol=1e-8)
    np.testing.assert_allclose(got[:31], places[:31], rtol=1e-12)
    why = recommender.explain("another", "i31", GNNExplainer(epochs=1))
    table = recommender.recommend("another", k=32).set_index("item")
    assert why.score == pytest.approx(table.loc["i31", "score"], rel=1e-9)
    assert why.history["score"].sum() == pytest.approx(why.score, rel=1e-9)


def test_what_a_model_cannot_know_is_refused_and_changes_nothing(own):
    for config in (LIGHTGCN, CollaborativeConfig(knowledge_graph=False)):
        model = make_recommender(own, config, seed=0)
        randomize(model.model, std=0.4)
        recommender = Recommender(model)
        before = recommender.recommend_batch()
        with pytest.raises(
            ValueError, match=r"by its interactions, of which 1 of the 2 new items have none, item 'i31'"
        ):
            recommender.update(PLAYS, FACTS)
        with pytest.raises(ValueError, match="nothing to add"):
            recommender.update()
        assert recommender.recommend_batch().equals(before)
        recommender.update(PLAYS, FACTS.iloc[:1])
        assert "i30" in {*recommender.recommend("new", k=31)["item"]}
        assert recommender.recommend("new", k=31)["score"].abs().max() > 0


@pytest.mark.parametrize("kind", ["mgwa"])
def test_an_item_of_which_nothing_is_said(make_model_of, own, kind):
    recommender = Recommender(make_model_of(kind, own))
    with pytest.raises(
        ValueError, match=r"knows an item by its triples, of which 1 of the 1 new items have none"
    ):
        recommender.update(PLAYS)


@pytest.mark.parametrize("kind", ["mgwa"])
def test_an_update_is_the_same_each_time(make_model_of, own, kind):
    tables = []
    for seed in (1, 2):
        recommender = Recommender(make_model_of(kind, own))
        torch.manual_seed(seed)
        recommender.update(PLAYS, FACTS)
        tables.append(recommender.recommend_batch())
        assert torch.initial_seed() == seed
    assert tables[0].equals(tables[1])
