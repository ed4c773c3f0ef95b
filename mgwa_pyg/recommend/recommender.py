"""`Recommender`: a trained model in use."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.explain import Explainer
from torch_geometric.explain.algorithm import ExplainerAlgorithm

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.nn.ranking import Pairs, Ranking, best_of
from mgwa_pyg.recommend.catalog import Catalog
from mgwa_pyg.recommend.explanation import Explanation, table_of
from mgwa_pyg.recommend.views import make_view
from mgwa_pyg.train import ClickModule
from mgwa_pyg.train.scorer import Scorer


class Recommender:
    """Recommends items to the users of a data set and to new ones, and says why.

    Users are whole numbers, items whole numbers or names. What a user *heard* are the training positives:
    that is all that the model knows of anybody, and it is never recommended to them. Validation and test
    positives count as unheard, so that recommendations can be judged by them.

    All answers are ranked by the model's logits, ``score``; of equal ones the item with the lower number
    comes first. The same question always has the same answer.

    Args:
        scorer (Scorer): The scorer of a trained model, as :class:`~mgwa_pyg.train.ClickModule` has it; its
            parameters are frozen. On the CPU.
        dataset (KGRecDataset): The data set that it was made for.
    """

    def __init__(self, scorer: Scorer, dataset: KGRecDataset) -> None:
        self.dataset = dataset
        self.catalog = Catalog(dataset)
        self.num_users = dataset.num_users
        self.num_items = dataset.num_items
        heard = dataset[0]["user", "listens", "entity"].edge_index
        self._heard = Pairs(heard, self.num_users, self.num_items)
        with torch.no_grad():
            self._view = make_view(scorer, dataset)

    @classmethod
    def load(cls, run_folder: Path | str, dataset: KGRecDataset | None = None) -> Recommender:
        """Return a recommender with the best checkpoint of a run.

        Args:
            run_folder (path): A folder with a ``best.ckpt``, as ``examples/lastfm_mgwa.py`` and
                :func:`mgwa_pyg.train.fit` leave one.
            dataset (KGRecDataset, optional): The data set that the model was trained on; by default it is
                opened where it was. (default: :obj:`None`)

        Raises:
            FileNotFoundError: If there is no checkpoint, or the data set is not where it was.
            CheckpointError: If the checkpoint cannot be used, or belongs to another data set.
        """
        checkpoint = Path(run_folder) / "best.ckpt"
        if not checkpoint.is_file():
            raise FileNotFoundError(
                f"{checkpoint} is missing: pass the folder of a run that has finished, such as "
                f"`make lastfm` leaves one"
            )
        module = ClickModule.restore(checkpoint, dataset)
        return cls(module.scorer, module.dataset)

    def recommend(self, user: int, k: int = 10) -> pd.DataFrame:
        """Return the best :math:`k` items for a user of the data set.

        Args:
            user (int): The user.
            k (int, optional): How many items; fewer are returned where the user heard nearly all.
                (default: :obj:`10`)

        Returns:
            DataFrame: The columns ``rank`` (from 1), ``item``, ``name`` and ``score``.

        Raises:
            TypeError: If an argument is no whole number.
            IndexError: If there is no such user.
            ValueError: If ``k`` is not between 1 and the number of items.
        """
        best = self._best(torch.tensor([self.catalog.user(user)]), self._k(k))
        return self._table(best)

    def recommend_batch(self, users: Iterable[int], k: int = 10) -> pd.DataFrame:
        """Return the best :math:`k` items for each of several users.

        Args:
            users (iterable of int): The users; one may stand there twice.
            k (int, optional): How many items for each. (default: :obj:`10`)

        Returns:
            DataFrame: The columns ``user``, ``rank``, ``item``, ``name`` and ``score``, the users in their
            order.

        Raises:
            TypeError: If an argument is no whole number, or ``users`` no list of them.
            IndexError: If there is no such user.
            ValueError: If ``k`` is not between 1 and the number of items.
        """
        if isinstance(users, str | bytes) or not isinstance(users, Iterable):
            raise TypeError(f"users={users!r}: pass a list of whole numbers")
        numbers = torch.tensor([self.catalog.user(user) for user in users], dtype=torch.long)
        k = self._k(k)
        parts = [self._best(part, k) for part in numbers.split(self._view.users_at_once)]
        best = Ranking(torch.cat([part.item for part in parts]), torch.cat([part.score for part in parts]))
        table = self._table(best)
        table.insert(0, "user", numbers.repeat_interleave((best.item < self.num_items).sum(dim=1)).numpy())
        return table

    @torch.no_grad()
    def recommend_for(self, items: Iterable[int | str], k: int = 10) -> pd.DataFrame:
        """Return the best :math:`k` items for somebody who is not in the data, but listened to ``items``.

        The model stays as it is. MGWA and KGCN fit one vector, that of the new user; ``CollaborativeMGWA``
        lets messages reach the new user; RippleNet draws a memory of triples.

        Args:
            items (iterable of int or str): What the new user listened to, by number or name; they are not
                recommended.
            k (int, optional): How many items. (default: :obj:`10`)

        Returns:
            DataFrame: The columns ``rank`` (from 1), ``item``, ``name`` and ``score``.

        Raises:
            TypeError: If an item is neither a whole number nor a string, or ``items`` no list of them.
            IndexError: If there is no item of a number.
            ValueError: If no item or several have a name, there is no item at all, or ``k`` is not between 1
                and the number of items.
        """
        heard, k = self.catalog.items(items), self._k(k)
        score = self._view.newcomer_scores(heard).unsqueeze(0)
        pairs = Pairs(torch.stack([torch.zeros_like(heard), heard]), 1, self.num_items)
        return self._table(best_of(score, torch.zeros(1, dtype=torch.long), k, 0, self.num_items, pairs))

    @torch.no_grad()
    def similar_items(self, item: int | str, k: int = 10) -> pd.DataFrame:
        """Return the :math:`k` items most like another.

        The score is the cosine of the items' vectors: as the average user sees them (MGWA, KGCN), as all
        messages leave them (``CollaborativeMGWA``), or as they are embedded (RippleNet).

        Args:
            item (int or str): The item, by number or name.
            k (int, optional): How many items. (default: :obj:`10`)

        Returns:
            DataFrame: The columns ``rank`` (from 1), ``item``, ``name`` and ``score``.

        Raises:
            TypeError: If an argument is of another type.
            IndexError: If there is no such item.
            ValueError: If no item or several have the name, or ``k`` is not between 1 and the number of
                items.
        """
        number, k = self.catalog.item(item), self._k(k)
        vector = torch.nn.functional.normalize(self._view.item_vectors(), dim=1)
        score = (vector @ vector[number]).unsqueeze(0)
        itself = Pairs(torch.tensor([[0], [number]]), 1, self.num_items)
        return self._table(best_of(score, torch.zeros(1, dtype=torch.long), k, 0, self.num_items, itself))

    def explain(
        self,
        user: int | Iterable[int | str],
        item: int | str,
        algorithm: ExplainerAlgorithm | None = None,
    ) -> Explanation:
        """Return what the score of an item for a user comes from.

        The parts add up to the score, exactly but for rounding: attention, gates and slopes of activations
        are taken as they are for this pair, and what is left is a sum.

        Args:
            user (int or iterable): A user of the data set, or the items that somebody else listened to, by
                number or name.
            item (int or str): The item, by number or name.
            algorithm (ExplainerAlgorithm, optional): An algorithm of :mod:`torch_geometric.explain`, such as
                :class:`~torch_geometric.explain.algorithm.GNNExplainer`, to weigh the edges of the same
                model; its mask of the edges into the item joins the table. (default: :obj:`None`)

        Raises:
            TypeError: If an argument is of another type.
            IndexError: If there is no such user or item.
            ValueError: If no item or several have a name, or the model passes no messages that an algorithm
                could explain (RippleNet).
        """
        number = self.catalog.item(item)
        who: int | Tensor
        if isinstance(user, Iterable):
            who = self.catalog.items(user)
            label = f"a new user who heard {_listed([self.catalog.name(heard) for heard in who.tolist()])}"
        else:
            who = self.catalog.user(user)
            label = f"user {who}"
        with torch.no_grad():
            neighbors, heard = self._view.explain(who, number)
        found = mask = None
        if algorithm is not None:
            stack = self._view.stack(who, number)
            explainer = Explainer(
                stack,
                algorithm,
                explanation_type="model",
                edge_mask_type="object",
                model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
            )
            with torch.enable_grad():
                found = explainer(stack.x, stack.edge_index, edge_type=stack.edge_type)
            mask = found.edge_mask[stack.edge_index[1] == stack.node]
        total = neighbors.own + neighbors.score.sum() + neighbors.constant + neighbors.bias
        return Explanation(
            user=label,
            item=number,
            name=self.catalog.name(number),
            score=float(total),
            parts=table_of(neighbors, self.catalog, self._view.edges, mask),
            history=None if heard is None else table_of(heard, self.catalog, "heard"),
            gate=neighbors.gate,
            pyg=found,
        )

    @torch.no_grad()
    def _best(self, users: Tensor, k: int) -> Ranking:
        return best_of(self._view.scores(users), users, k, 0, self.num_items, self._heard)

    def _k(self, k: Any) -> int:
        try:
            number = operator.index(k)
        except TypeError:
            raise TypeError(f"k={k!r}: a whole number is needed") from None
        if isinstance(k, bool) or not 1 <= number <= self.num_items:
            raise ValueError(f"k={k!r}: between 1 and {self.num_items} items can be ranked")
        return number

    def _table(self, best: Ranking) -> pd.DataFrame:
        there = best.item < self.num_items
        rank = torch.arange(1, best.item.size(1) + 1).expand_as(best.item)[there]
        item = best.item[there]
        return pd.DataFrame(
            {
                "rank": rank.numpy(),
                "item": item.numpy(),
                "name": [self.catalog.name(number) for number in item.tolist()],
                "score": best.score[there].double().numpy(),
            }
        )


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} more"]
    return " and ".join([", ".join(shown[:-1])] * (len(shown) > 1) + shown[-1:])
