"""`evaluate`: a run's model and the heuristics on its test rows, by metrics and by tests over users."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredHitRatio,
    LinkPredMAP,
    LinkPredMetricCollection,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredPersonalization,
    LinkPredPrecision,
    LinkPredRecall,
)

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import HEURISTICS, TopItems, holm, paired_test, ranking_metrics, top_items
from mgwa_pyg.recommenders import KGRecommender, restore
from mgwa_pyg.recommenders.checkpoint import checkpoint_of
from mgwa_pyg.recommenders.growth import held_out_but_learned
from mgwa_pyg.train.plots import plot_evaluation
from mgwa_pyg.utils.checks import check_choice, check_count
from mgwa_pyg.utils.files import whole_file
from mgwa_pyg.utils.looks import shortened
from mgwa_pyg.utils.modes import chosen_device

# What the plot is of.
_SHOWN = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "coverage": "coverage"}
_LARGEST = 20_000  # Users or items, whichever are fewer, for whom EASE has a matrix: 1.6 GB, twice.


def evaluate(
    folder: Path | str,
    dataset: KGRecDataset | None = None,
    k: int = 10,
    beside: Sequence[str] | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    r"""Measure the model of a run on its test rows, and heuristics beside it.

    Each ranks all items for the users that have a test positive, without those of training and validation,
    and is judged by the first :math:`k`. The metrics are those of :mod:`torch_geometric.metrics`:
    ``recall@k``, ``ndcg@k``, ``mrr@k``, ``hit_rate@k``, ``precision@k`` and ``map@k`` of what is found;
    ``coverage@k``, the share of the items that anybody is recommended; ``personalization@k``, how little
    users' lists have in common; ``popularity@k``, how many training positives the recommended items have;
    and ``novelty@k``, the bits of :math:`-\log_2` of the share of users who have seen them.

    It writes into ``folder`` the table, ``evaluation.csv``; a plot of four of the metrics, with 95 %
    intervals of the means over users, ``evaluation.png``; and what the model recommends,
    ``recommendations.csv``, in the columns ``user``, ``item``, ``rank`` (from 1) and ``score``, with the ids
    of the data's own files. Those of another :math:`k` are replaced, with a warning.

    Args:
        folder (path): A run folder: what :func:`fit` left.
        dataset (KGRecDataset, optional): The data set of the run; by default it is opened where it was.
            (default: :obj:`None`)
        k (int, optional): The length of the rankings. (default: :obj:`10`)
        beside (sequence of str, optional): The heuristics, of :obj:`~mgwa_pyg.evaluation.HEURISTICS`, with
            their default parameters. :obj:`None` takes ``"popularity"``, ``"item-knn"``, ``"ease"``, unless
            there are more than 20,000 users and items, and, if there are triples, ``"shared-tails"``.
            (default: :obj:`None`)
        device (str, optional): Where the model ranks, ``"auto"``, ``"cpu"`` or ``"cuda"``. (default:
            ``"auto"``)

    Returns:
        DataFrame: A row for the model, then one for each heuristic, with the columns ``model``, those of the
        metrics, ``difference``, by how much Recall\@k of the model is above that of the row, as a mean over
        users, the ends ``low`` and ``high`` of its 95 % interval, and ``p`` of
        :func:`~mgwa_pyg.evaluation.paired_test`, adjusted after Holm. The last four are missing in the
        model's own row.

    Raises:
        TypeError: If an argument is of another type.
        FileNotFoundError: If there is no checkpoint.
        CheckpointError: If it cannot be used, or its data set cannot be opened.
        ValueError: If there are no test positives, fewer than :math:`k` items are left to recommend to a
            user, or an argument is out of range.
    """
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder={folder!r:.60}: a path is needed")
    k, device = check_count("k", k), chosen_device(device)
    if isinstance(beside, str):
        raise TypeError(f"beside={beside!r:.60}: a list of heuristics is needed, such as [{beside!r:.60}]")
    for other in beside or ():
        check_choice("beside", other, HEURISTICS)
    folder = Path(folder).expanduser().absolute()
    recommender = restore(checkpoint_of(folder), dataset, device)
    dataset, name = recommender.dataset, recommender.config.model
    data, num_items = dataset[0], dataset.num_items
    links = interactions(data)
    if not (links.test_mask & (links.edge_label == 1)).any():
        raise ValueError(
            f"the data of {folder} have no test rows to judge by: fit, into another folder, with a split "
            f"that holds some out, such as split='per_user'"
        )
    known, number = held_out_but_learned(recommender, "test")
    if known:
        warnings.warn(
            f"the run started from one that had learned from {known} of the {number} test positives: the "
            f"model's figures are better than it is. Fit without warm_start to compare, or with a split that "
            f"keeps them among the training rows, such as split='time'",
            stacklevel=2,
        )
    ranked = partial(top_items, data=data, num_items=num_items, k=k)
    top = ranked(scorer_of(recommender), users_per_step=recommender.users_per_step)
    left = (top.item >= 0).sum(dim=1)
    if (least := int(left.min())) < k:
        user = dataset.user_ids[int(top.user[left.argmin()])]
        raise ValueError(
            f"k={k}: for user {user!r} only {least} items are left that could be recommended; take k={least}"
        )
    rankings = {name: top}
    for other in _fitting(dataset) if beside is None else beside:
        rankings[other] = ranked(HEURISTICS[other](data, num_items).score_all)

    of_users = [ranking_metrics(ranking, data, num_items, ks=(k,)) for ranking in rankings.values()]
    recalls = [users[f"recall@{k}"] for users in of_users]
    tests = [_tested(recalls[0] - others) for others in recalls[1:]]
    table = pd.DataFrame(
        [{"model": model, **_figures(ranking, data, num_items, k)} for model, ranking in rankings.items()]
    )
    for column, key in (("difference", "mean"), ("low", "low"), ("high", "high")):
        table[column] = [np.nan, *(test[key] for test in tests)]
    table["p"] = [np.nan, *holm([test["p"] for test in tests])]
    if (former := _k_of(folder / "evaluation.csv")) not in (None, k):
        warnings.warn(
            f"evaluation.csv, evaluation.png and recommendations.csv in {folder} were those of k={former}, "
            f"and are those of k={k} now: evaluate with k={former} makes the former again",
            stacklevel=2,
        )
    with whole_file(folder / "evaluation.csv") as file:
        table.to_csv(file, index=False)
    with whole_file(folder / "evaluation.png") as file:
        title = f"{shortened(name, 30)} and heuristics, test rows"
        note = f"lines: 95 % intervals of the means, bootstrap over users (n = {len(top.user):,})"
        note = note if len(top.user) > 1 else "one user alone has test rows: there are no intervals"
        plot_evaluation(_shown(table, of_users, k), title, note, file)
    with whole_file(folder / "recommendations.csv") as file:
        _recommendations(dataset, top).to_csv(file, index=False)
    return table


def scorer_of(recommender: KGRecommender) -> Callable[[Tensor], Tensor]:
    """Return what scores all items for users, as :func:`~mgwa_pyg.evaluation.top_items` takes it."""
    device = recommender.device
    with torch.no_grad():
        score_all = recommender.scorer(torch.Generator(device).manual_seed(recommender.seed))
    return lambda user: score_all(user.to(device))


def _fitting(dataset: KGRecDataset) -> Iterator[str]:
    """The heuristics that have something to go by, and room."""
    yield from ("popularity", "item-knn")
    if min(dataset.num_users, dataset.num_items) <= _LARGEST:
        yield "ease"
    else:
        warnings.warn(
            f"ease is left out, as there are more than {_LARGEST:,} users and items: name it in `beside` if "
            f"there is memory for a table of the fewer by themselves",
            stacklevel=3,
        )
    if dataset.num_triples > 0:
        yield "shared-tails"


def _k_of(table: Path) -> int | None:
    """The length of the rankings that a table in a run folder is of, if there is one."""
    if not table.exists():
        return None
    with table.open(encoding="utf-8", errors="replace") as file:
        found = re.search(r"recall@(\d+)", file.readline())
    return int(found[1]) if found else None


def _shown(
    table: pd.DataFrame, of_users: Sequence[dict[str, npt.NDArray[np.float64]]], k: int
) -> pd.DataFrame:
    """What the plot is of. Where users have values of their own, their mean has an interval: that of the test
    beside a model that finds nothing.
    """
    rows = []
    for metric, title in _SHOWN.items():
        name = f"{metric}@{k}"
        for model, value, users in zip(table["model"], table[name], of_users, strict=True):
            ends = _tested(users[name], num_resamples=1000) if name in users else {}
            row = {"metric": f"{title}@{k}", "model": model, "value": value}
            rows.append({**row, "low": ends.get("low", np.nan), "high": ends.get("high", np.nan)})
    return pd.DataFrame(rows)


def _tested(difference: npt.NDArray[np.float64], **options: int) -> dict[str, float]:
    if len(difference) > 1:
        return paired_test(difference, **options)
    return {"mean": float(difference.mean()), "low": np.nan, "high": np.nan, "p": 1.0}


def _figures(top: TopItems, data: HeteroData, num_items: int, k: int) -> dict[str, float]:
    """The metrics of a ranking."""
    links = interactions(data)
    pairs = links.edge_label_index[:, links.test_mask & (links.edge_label == 1)]
    row = torch.searchsorted(top.user, pairs[0].contiguous())
    count = torch.bincount(links.edge_index[1], minlength=num_items)
    bits = -(count.clamp(min=1) / data["user"].num_nodes).log2()
    metrics = LinkPredMetricCollection(
        {
            f"recall@{k}": LinkPredRecall(k),
            f"ndcg@{k}": LinkPredNDCG(k),
            f"mrr@{k}": LinkPredMRR(k),
            f"hit_rate@{k}": LinkPredHitRatio(k),
            f"precision@{k}": LinkPredPrecision(k),
            f"map@{k}": LinkPredMAP(k),
            f"coverage@{k}": LinkPredCoverage(k, num_items),
            f"personalization@{k}": LinkPredPersonalization(k),
            f"popularity@{k}": LinkPredAveragePopularity(k, count),
            f"novelty@{k}": LinkPredAveragePopularity(k, bits),
        }
    )
    metrics.update(top.item, torch.stack([row, pairs[1]]))
    return {name: float(value) for name, value in metrics.compute().items()}


def _recommendations(dataset: KGRecDataset, top: TopItems) -> pd.DataFrame:
    """What is recommended, by the ids of the data's files."""
    k = top.item.size(1)
    users, items = pd.Index(dataset.user_ids), pd.Index(dataset.item_ids)
    return pd.DataFrame(
        {
            "user": users.take(top.user.repeat_interleave(k).numpy()),
            "item": items.take(top.item.flatten().numpy()),
            "rank": np.tile(np.arange(1, k + 1), len(top.user)),
            "score": top.score.flatten().numpy(),
        }
    )
