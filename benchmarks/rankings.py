"""Rankings of all items: each user's first ones, as a file, and differences tested over users."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.evaluation import holm, paired_test, ranking_metrics, top_items
from mgwa_pyg.utils.files import whole_file

_KS = (10, 20)
#: What is measured of the first items, and what tables call it.
RANKING_METRICS = {
    f"{name}@{k}": f"{title}@{k}"
    for k in _KS
    for name, title in (("recall", "Recall"), ("ndcg", "NDCG"), ("mrr", "MRR"))
}
#: What is tested over users.
TESTED = ("recall@10", "mrr@10")
_LENGTH = 10  # Of the rankings in a file.
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Ranking:
    """The first items of all users with something to find, and how good they are."""

    model: str
    seed: int
    user: npt.NDArray[np.int64]
    """The users, [n]."""
    item: npt.NDArray[np.int64]
    """Their first items, the best first, [n, k]; -1 where none is left."""
    metrics: Mapping[str, npt.NDArray[np.floating]]
    """Each metric of each user, [n]."""

    def row(self) -> dict[str, float]:
        """The means over the users."""
        return {name: float(values.mean()) for name, values in self.metrics.items()}


def rank(
    model: str, seed: int, score_all: Callable[[Tensor], Tensor], data: HeteroData, num_items: int
) -> Ranking:
    """Rank all items but those of training and validation for each user with a test positive."""
    top = top_items(score_all, data, num_items, k=max(_KS))
    metrics = ranking_metrics(top, data, num_items, ks=_KS)
    return Ranking(model, seed, top.user.cpu().numpy(), top.item.cpu().numpy(), metrics)


def against_others(
    reference: str, values: Mapping[str, Any], test: Callable[[Any], dict[str, float]], **key: str
) -> list[dict[str, Any]]:
    """Test by their differences ``reference`` against each other model; the p values are adjusted after Holm.

    Without the reference there is no test.
    """
    if reference not in values:
        return []
    others = [model for model in values if model != reference]
    tests = [test(values[reference] - values[other]) for other in others]
    adjusted = holm([one["p"] for one in tests])
    return [
        {**key, "model": reference, "other": other, **one, "p_holm": float(p)}
        for other, one, p in zip(others, tests, adjusted, strict=True)
    ]


def over_users(difference: Any) -> dict[str, float]:
    """Test differences of users."""
    return paired_test(difference, _RESAMPLES, seed=0)


def differences_of_users(rankings: Sequence[Ranking], reference: str, **key: str) -> list[dict[str, Any]]:
    """Test ``reference`` against everything else over the users, each with the mean of its seeds.

    The p values are adjusted after Holm for all others within a metric.
    """
    of_model: dict[str, list[Ranking]] = {}
    for ranking in rankings:
        of_model.setdefault(ranking.model, []).append(ranking)
    results = []
    for metric in TESTED:
        means = {
            model: np.mean([one.metrics[metric] for one in of_seeds], axis=0)
            for model, of_seeds in of_model.items()
        }
        results += against_others(reference, means, over_users, **key, metric=metric)
    return results


@contextmanager
def recommendations_file(path: Path | None) -> Iterator[Callable[[KGRecDataset, Sequence[Ranking]], None]]:
    """Give what writes the first ten items of each ranking as CSV, by the ids of the raw files.

    The file is there, whole, once the block has ended; a place that cannot be written is an error at its
    beginning.
    """
    with nullcontext() if path is None else whole_file(path) as file:

        def write(dataset: KGRecDataset, rankings: Sequence[Ranking]) -> None:
            if path is None or file is None:
                return
            user_ids, item_ids = np.asarray(dataset.user_ids), np.asarray(dataset.item_ids)
            gzipped = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None
            frames = (_frame(one, user_ids, item_ids) for one in rankings)
            for number, frame in enumerate(frames):
                mode = "a" if number else "w"
                frame.to_csv(file, mode=mode, header=number == 0, index=False, compression=gzipped)

        yield write


def _frame(ranking: Ranking, user_ids: npt.NDArray[Any], item_ids: npt.NDArray[Any]) -> pd.DataFrame:
    first = ranking.item[:, :_LENGTH]
    row, place = np.nonzero(first >= 0)
    return pd.DataFrame(
        {
            "model": ranking.model,
            "seed": ranking.seed,
            "user": user_ids[ranking.user[row]],
            "item": item_ids[first[row, place]],
            "rank": place + 1,
        }
    )
