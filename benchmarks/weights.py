"""What weights and times of interactions are worth to item-kNN, where a user's history is weighed by them."""

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import full_ranking
from mgwa_pyg.evaluation.heuristics import ItemKNN

_DAY = 86_400.0
_HALF_LIVES = (1, 30, 180)  # In days.


def worth(dataset: KGRecDataset) -> dict[str, float]:
    """Recall@10 on validation rows, by how the interactions of a history are weighed.

    Neighbours are the same throughout; only what each of a user's items counts in the sum differs. Ages are
    counted back from a user's last interaction.
    """
    links, shape = interactions(dataset[0]), (dataset.num_users, dataset.num_items)
    user, item = links.edge_index.numpy()
    weighed = {"equal": np.ones(len(user))}
    if "edge_weight" in links:
        weight = links.edge_weight.numpy().astype(float)
        weighed |= {"by weight": weight, "by its logarithm": np.log1p(weight)}
    if "edge_time" in links:
        time, last = links.edge_time.numpy(), np.full(dataset.num_users, -np.inf)
        np.maximum.at(last, user, time)
        days = (last[user] - time) / _DAY
        weighed |= {f"by age, halved in {half} d": 0.5 ** (days / half) for half in _HALF_LIVES}
    neighbors = ItemKNN(dataset[0], dataset.num_items).similarity
    found = {}
    for how, values in weighed.items():
        history = sp.csr_matrix((values, (user, item)), shape=shape)

        def score(users: Tensor, history: sp.csr_matrix = history) -> Tensor:
            return torch.from_numpy((history[users.numpy()] @ neighbors).toarray()).float()

        ranked = full_ranking(score, dataset[0], dataset.num_items, ks=(10,), split="val")
        found[how] = ranked["recall@10"]
    return found
