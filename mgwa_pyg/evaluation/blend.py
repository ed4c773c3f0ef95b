"""A model and the heuristics as one ranking, or as one probability, weighed on the validation rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation.heuristics import LogisticStack, logistic_regression
from mgwa_pyg.evaluation.metrics import as_array
from mgwa_pyg.evaluation.ranking import full_ranking

#: What a further part may weigh beside the first.
WEIGHTS = (0.0, 0.1, 0.3, 1.0)
# Single precision rounds a probability that is closer to 0 or 1.
_LEAST = 1e-7


def blend(
    parts: Mapping[str, Callable[[Tensor], Tensor]], data: HeteroData, num_items: int
) -> tuple[dict[str, float], Callable[[Tensor], Tensor]]:
    r"""Return the weights of several scores of all items, and their weighed sum.

    Each user's scores of a part count by how many standard deviations they lie above the user's mean. The
    first part has the weight one. The others follow in their order, each with what of 0, 0.1, 0.3 and 1 has
    the highest Recall@10 of :func:`full_ranking` on the validation positives, given those before it.

    Args:
        parts (mapping): The parts by name, each a function as :func:`full_ranking` takes it.
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        num_items (int): The number of items: the first entities.

    Raises:
        ValueError: If there is no part, or as :func:`full_ranking` raises it.
    """
    if not parts:
        raise ValueError("parts is empty: at least one function that scores all items is needed")
    links = interactions(data)
    users = links.edge_label_index[0, links.val_mask & (links.edge_label == 1)].unique()
    weights: dict[str, float] = {}
    total = torch.zeros(())
    for name, score_all in parts.items():
        table = torch.cat([_standard(score_all(part)) for part in users.split(64)])
        best = (-1.0, 1.0)
        for weight in WEIGHTS if weights else ():
            score = total + weight * table

            def of_users(user: Tensor, score: Tensor = score) -> Tensor:
                return score[torch.searchsorted(users, user)]

            recall = full_ranking(of_users, data, num_items, (10,), "val")["recall@10"]
            best = max(best, (recall, weight), key=lambda pair: pair[0])
        weights[name] = best[1]
        total = total + weights[name] * table

    def blended(user: Tensor) -> Tensor:
        weighed = (weights[name] * _standard(part(user)) for name, part in parts.items() if weights[name] > 0)
        return torch.stack(list(weighed)).sum(dim=0)

    return weights, blended


def blend_clicks(
    probability: tuple[Tensor, Tensor], data: HeteroData, num_items: int
) -> tuple[Tensor, Tensor]:
    r"""Return the probabilities of a model and the heuristics together for validation and test rows,
    :math:`(n_{\textrm{val}})` and :math:`(n_{\textrm{test}})`.

    They are those of a logistic regression on the model's logit and the features of
    :class:`~mgwa_pyg.evaluation.LogisticStack`, none of which has a negative weight. It is learned from the
    validation rows.

    Args:
        probability (tuple of torch.Tensor): The model's own probabilities for the same rows.
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        num_items (int): The number of items: the first entities.

    Raises:
        ValueError: If there is not one probability for each row, or as
            :class:`~mgwa_pyg.evaluation.Heuristic` raises it.
    """
    links, stack = interactions(data), LogisticStack(data, num_items)
    features = []
    for part, mask, ours in zip(("val", "test"), (links.val_mask, links.test_mask), probability, strict=True):
        rows = links.edge_label_index[:, mask]
        if ours.shape != rows.shape[1:]:
            raise ValueError(
                f"probability has {tuple(ours.shape)} for the {rows.size(1)} {part} rows: one each is needed"
            )
        logit = ours.detach().cpu().double().clamp(_LEAST, 1 - _LEAST).logit().unsqueeze(1)
        features.append(np.hstack([logit.numpy(), stack.features(*rows)]))
    label = as_array(links.edge_label[links.val_mask])
    weight, bias = logistic_regression(features[0], label, 0.0)
    val, test = (torch.from_numpy(part @ weight + bias).sigmoid().float() for part in features)
    return val, test


def _standard(score: Tensor) -> Tensor:
    """Scores in standard deviations above the mean of their row."""
    score = score.detach().float().cpu()
    deviation = score.std(dim=1, keepdim=True, correction=0).clamp(min=1e-12)
    return (score - score.mean(dim=1, keepdim=True)) / deviation
