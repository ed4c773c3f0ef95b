"""A small recommender from outside the package: its file and one line of the registry are all it takes."""

from dataclasses import dataclass

import pandas as pd
import pytest
import torch

from mgwa_pyg.evaluation import full_ranking
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import (
    RECOMMENDERS,
    CheckpointError,
    FitConfig,
    KGRecommender,
    MGWAConfig,
    make_recommender,
    restore,
)
from mgwa_pyg.recommenders.contributions import Contributions
from mgwa_pyg.train import RunFolder, fit


@dataclass(frozen=True)
class FactorsConfig(FitConfig):
    """The hyper-parameters of matrix factorization."""

    model = "factors"
    needs_relations = False

    bias: bool = True


class FactorsRecommender(KGRecommender):
    """Matrix factorization: a newcomer is the mean of the seen items."""

    config_class = FactorsConfig

    def __init__(self, dataset, config, seed):
        super().__init__(dataset, config, seed)
        self.model = torch.nn.ModuleDict(
            {
                "user": torch.nn.Embedding(dataset.num_users, config.channels),
                "item": torch.nn.Embedding(dataset.num_entities, config.channels),
            }
        )

    def train_step(self, user, item):
        return self.score(user, item, None), 0.0

    def score(self, user, item, generator):
        return (self.model["user"](user) * self.model["item"](item)).sum(dim=1)

    def score_newcomer(self, items):
        return self.item_vectors() @ self.item_vectors()[items].mean(dim=0)

    def item_vectors(self):
        return self.model["item"].weight[: self.num_items]

    def explain(self, user, item):
        own = self.score(torch.tensor([user]), torch.tensor([item]), None)[0]
        none = torch.empty(0)
        return Contributions(own, none.long(), none.long(), none, none, own.new_zeros(())), None


class NoUseRecommender(FactorsRecommender):
    """What can only be trained and evaluated."""

    score_newcomer, item_vectors, explain = (
        getattr(KGRecommender, name) for name in ("score_newcomer", "item_vectors", "explain")
    )


@pytest.fixture(params=[FactorsRecommender, NoUseRecommender])
def registered(request, monkeypatch):
    monkeypatch.setitem(RECOMMENDERS, "factors", request.param)
    return request.param


def test_it_is_known_everywhere(synthetic, registered, tmp_path):
    config = FactorsConfig(epochs=2)
    assert FitConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="magic: unknown to model='factors'"):
        FitConfig.from_dict({"model": "factors", "magic": 1})
    settings = {"dataset": "S", "synthetic": True, "model": "factors", "protocols": ["items"], "seeds": [0]}
    run = RunFolder(tmp_path / "run", {**settings, "fit": config.to_dict()})
    result = fit(synthetic, config, run.fit_folder("items", 0))
    run.add(synthetic, "items", 0, result)
    assert {row["model"] for row in run.finish()["rows"]} > {"factors"}
    assert fit(synthetic, config, tmp_path / "again").score.equal(result.score)

    again = restore(result.checkpoint)
    links = synthetic[0]["user", "listens", "entity"]
    pairs = links.edge_label_index[:, links.test_mask]
    with torch.no_grad():
        torch.testing.assert_close(again.score(*pairs, None).sigmoid(), result.score)
        ranked = full_ranking(again.score_all, synthetic[0], synthetic.num_items, ks=(10,))
    assert 0 < ranked["recall@10"] < 1

    recommender = Recommender.load(tmp_path / "run")
    assert len(recommender.recommend(3, k=5)) == 5
    pd.testing.assert_frame_equal(
        recommender.recommend(3, k=5), recommender.recommend_batch([3], k=5).drop(columns="user")
    )
    if registered is FactorsRecommender:
        assert len(recommender.recommend_for([1, 2], k=5)) == 5
        assert len(recommender.similar_items(1, k=5)) == 5
        why = recommender.explain(3, 4)
        assert why.parts["score"].sum() == pytest.approx(why.score)


def test_a_model_that_is_not_registered(synthetic, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(RECOMMENDERS, "factors", FactorsRecommender)
        checkpoint = fit(synthetic, FactorsConfig(epochs=1), tmp_path).checkpoint
    with pytest.raises(CheckpointError, match=r"model='factors' is unknown.*register a model of your own"):
        restore(checkpoint)

    @dataclass(frozen=True)
    class OwnConfig(MGWAConfig):
        model = "own"

    for config in (FactorsConfig(), OwnConfig(), FitConfig()):
        with pytest.raises(ValueError, match=r"model=.* is unknown: choose one of \['mgwa', "):
            make_recommender(synthetic, config, 0)
    with pytest.raises(TypeError, match=r"one of MGWAConfig, .* or register the recommender first"):
        fit(synthetic, OwnConfig(), tmp_path / "own")


class PopularityRecommender(FactorsRecommender):
    """What was computed once is shown, not copied."""

    def __init__(self, dataset, config, seed):
        super().__init__(dataset, config, seed)
        self.shown = self.seen[1].bincount(minlength=dataset.num_entities)[: dataset.num_items]

    def score_all(self, user, generator=None):
        return self.shown.expand(len(user), -1)

    def score_newcomer(self, items):
        return self.shown


def test_scores_that_are_a_part_of_the_model(synthetic):
    model = PopularityRecommender(synthetic, FactorsConfig(), 0)
    shown, recommender = model.shown.clone(), Recommender(model)
    best = shown.argsort(descending=True, stable=True).tolist()
    first = best[:3]
    assert recommender.recommend_for(first, k=5)["item"].tolist() == best[3:8]
    table = recommender.recommend_batch(range(4), k=3)
    pd.testing.assert_frame_equal(
        table[table["user"] == 2].reset_index()[["item"]], recommender.recommend(2, 3)[["item"]]
    )
    assert model.shown.equal(shown)

    model.shown = torch.zeros(synthetic.num_entities)  # Not of the items alone.
    for ask in (lambda: recommender.recommend(2), lambda: recommender.recommend_for([1])):
        with pytest.raises(ValueError, match=r"model='factors' gives scores of the shape \(1, \d+\), but"):
            ask()


def test_a_model_without_a_loss(synthetic):
    class NoLossRecommender(FactorsRecommender):
        train_step = KGRecommender.train_step

    recommender = NoLossRecommender(synthetic, FactorsConfig(), 0)
    with pytest.raises(NotImplementedError, match="model='factors' defines neither train_step nor loss"):
        recommender.loss(*torch.zeros(3, 2))


@pytest.mark.parametrize("registered", [NoUseRecommender], indirect=True)
def test_what_it_lacks_is_said(synthetic, registered):
    recommender = Recommender(registered(synthetic, FactorsConfig(), 0))
    for ask in (
        lambda: recommender.recommend_for([1, 2]),
        lambda: recommender.similar_items(1),
        lambda: recommender.explain(3, 4),
    ):
        with pytest.raises(NotImplementedError, match="model='factors'"):
            ask()
