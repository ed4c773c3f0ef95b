"""The heuristics that every table shows beside the models, so that an easy task is seen to be easy."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch_geometric.data import HeteroData


class Popularity:
    r"""Scores an item by how many users play it, the same for every user.

    The plays are the training positives. A logistic regression on the logarithm of the count, fitted on
    the validation rows, turns it into a probability: the training rows could not serve, as each of their
    positives is itself one of the plays that are counted.

    Args:
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
    """

    def __init__(self, data: HeteroData) -> None:
        listens = data["user", "listens", "entity"]
        self.count = torch.bincount(listens.edge_index[1], minlength=data["entity"].num_nodes)
        item = listens.edge_label_index[1, listens.val_mask]
        label = listens.edge_label[listens.val_mask]
        self._regression = LogisticRegression(C=np.inf).fit(self._features(item), label.numpy())

    def _features(self, item: Tensor) -> np.ndarray:
        return torch.log1p(self.count[item].double()).unsqueeze(1).numpy()

    def predict(self, item: Tensor) -> Tensor:
        r"""Return the probability that a user plays each of the items, :math:`(n)`."""
        probability = self._regression.predict_proba(self._features(item))[:, 1]
        return torch.from_numpy(probability).float()
