"""LightGCN is PyG's: the same scores and the same loss; what it cannot answer is said."""

import pytest
import torch
import torch_geometric.nn

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import LightGCNConfig, make_recommender
from mgwa_pyg.train import fit
from tests.graphs import SIZES


@pytest.fixture(params=["items", "entities"])
def data(request):
    return SyntheticKG(**SIZES, negatives=request.param)


def pygs_own(made, data):
    """PyG's model with the same parameters, and its graph: users after what may be a negative."""
    first = data.num_entities if data.negatives == "entities" else data.num_items
    config = made.config
    model = torch_geometric.nn.LightGCN(first + data.num_users, config.channels, config.num_layers)
    model.load_state_dict(made.model.state_dict())
    user, item = data[0]["user", "listens", "entity"].edge_index
    there = torch.stack([first + user, item])
    return model, torch.cat([there, there.flip(0)], dim=1), first


def test_scores_are_those_of_pygs_model(data):
    made = make_recommender(data, LightGCNConfig(num_layers=2, channels=8), 0)
    model, edge_index, first = pygs_own(made, data)
    user, item = data[0]["user", "listens", "entity"].edge_label_index
    want = model(edge_index, torch.stack([first + user, item]))
    torch.testing.assert_close(made.score(user, item), want)
    torch.testing.assert_close(made.train_step(user, item)[0], want)
    z = model.get_embedding(edge_index)
    users = torch.tensor([4, 0, 29])
    torch.testing.assert_close(made.score_all(users), z[first + users] @ z[: data.num_items].t())
    made.prepare()
    torch.testing.assert_close(made.score_all(users).float(), z[first + users] @ z[: data.num_items].t())
    torch.testing.assert_close(made.item_vectors().float(), z[: data.num_items])


def test_losses_are_those_of_pygs_model(data):
    user, item = data[0]["user", "listens", "entity"].edge_index[:, :50]
    made = make_recommender(data, LightGCNConfig(loss="ranking", weight_decay=0.3), 0)
    model, edge_index, first = pygs_own(made, data)
    torch.manual_seed(7)
    loss, *_ = made.loss(user, item, torch.ones(50))
    torch.manual_seed(7)
    negative = made._negatives.draw(user)
    nodes = torch.stack([(first + user).repeat(2), torch.cat([item, negative])])
    ranks = model(edge_index, nodes).chunk(2)
    # A positive and a negative are two pairs.
    want = model.recommendation_loss(*ranks, node_id=nodes.unique(), lambda_reg=0.3 / 2)
    torch.testing.assert_close(loss, want)

    label = (torch.arange(50) % 2).float()
    made = make_recommender(data, LightGCNConfig(weight_decay=0.3), 0)
    model, edge_index, first = pygs_own(made, data)
    loss, logit, _ = made.loss(user, item, label)
    nodes = torch.stack([first + user, item])
    squares = model.embedding(nodes.unique()).square().sum()
    torch.testing.assert_close(loss, model.link_pred_loss(logit, label) + 0.3 * squares / 50)


def test_what_it_answers_and_what_it_cannot(small, tmp_path):
    fit(small, LightGCNConfig(epochs=2, channels=8), tmp_path)
    recommender = Recommender.load(tmp_path, small)
    assert len(recommender.recommend(3, k=5)) == len(recommender.recommend_batch([3], k=5)) == 5
    assert len(recommender.similar_items(1, k=5)) == 5
    with pytest.raises(NotImplementedError, match="'lightgcn' scores no items for newcomers: it knows a"):
        recommender.recommend_for([1, 2])
    with pytest.raises(NotImplementedError, match="model='lightgcn' does not explain its scores"):
        recommender.explain(3, 4)
