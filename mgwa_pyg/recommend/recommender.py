"""`Recommender`: a trained model in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.explain import Explainer
from torch_geometric.explain.algorithm import ExplainerAlgorithm

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.growth import grow
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.datasets.table_graph import Source
from mgwa_pyg.ops.top_k import Pairs, Ranking, top_k
from mgwa_pyg.recommend.catalog import Catalog, is_one, listed, one_line, whole_number
from mgwa_pyg.recommend.explanation import Explanation, table_of
from mgwa_pyg.recommend.export import FORMATS, write_vectors
from mgwa_pyg.recommenders import KGRecommender, grown, restore
from mgwa_pyg.recommenders.checkpoint import checkpoint_of
from mgwa_pyg.utils.checks import check_choice, check_count
from mgwa_pyg.utils.modes import chosen_device, plain_modes

#: Some items: their ids or names, or a mask over all of them.
Items = Iterable[int | str] | Tensor | NDArray[np.bool_]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _asked(method: _Method) -> _Method:
    """No gradients of the model, and room for those that answers need, in whatever mode this is called."""
    return plain_modes()(torch.no_grad()(method))


class Recommender:
    """Recommends items to the users of a data set and to new ones, and says why.

    Users and items go by the ids of the data set's own files (:attr:`KGRecDataset.user_ids
    <mgwa_pyg.datasets.KGRecDataset.user_ids>`, :attr:`item_ids
    <mgwa_pyg.datasets.KGRecDataset.item_ids>`), as whole numbers or strings, whichever they are there: 196
    and ``"196"`` are the same user. Items also go by their names; where a string is the id of one and the
    name of another, :class:`ItemId` says which is meant. A whole number may be one of NumPy or an element of
    a tensor. Tables have ids in the columns ``user`` and ``item``, and no value is missing.

    Nobody is recommended an item that they have seen: all their positives, those of validation and test
    included. The model has learned from the training positives alone.

    All answers are ranked by the model's logits, ``score``; of equal ones the item that is first in the data
    set comes first. The same question always has the same answer.

    Args:
        recommender (KGRecommender): A trained recommender, as :func:`mgwa_pyg.recommenders.restore` returns
            it. It is prepared for use: its parameters become doubles that need no gradients.
    """

    @_asked
    def __init__(self, recommender: KGRecommender) -> None:
        self.dataset = dataset = recommender.dataset
        self.catalog = Catalog(dataset)
        self.num_users, self.num_items = dataset.num_users, dataset.num_items
        links, device = interactions(dataset[0]), recommender.device
        positives = links.edge_label_index[:, links.edge_label == 1]
        seen = torch.cat([recommender.seen, positives.to(device)], dim=1).unique(dim=1)
        self._seen_in_training = Pairs(recommender.seen, self.num_users, self.num_items)
        self._seen = Pairs(seen, self.num_users, self.num_items)
        recommender.prepare()
        self._model, self._device = recommender, device
        self._run: Path | None = None  # The folder that it was loaded from.

    @classmethod
    @_asked
    def load(
        cls, run_folder: Path | str, dataset: KGRecDataset | None = None, device: str = "cpu"
    ) -> Recommender:
        """Return a recommender with the best checkpoint of a run.

        Args:
            run_folder (path): A folder with a ``best.ckpt``, as ``examples/lastfm_mgwa.py`` and
                :func:`mgwa_pyg.train.fit` leave one.
            dataset (KGRecDataset, optional): The data set that the model was trained on; by default it is
                opened where it was. (default: :obj:`None`)
            device (str, optional): ``"cpu"``, ``"cuda"`` or ``"auto"``. (default: ``"cpu"``)

        Raises:
            FileNotFoundError: If there is no checkpoint, or the data set is not where it was.
            ValueError: If the device is unknown or not there.
            CheckpointError: If the checkpoint cannot be used, or belongs to another data set.
        """
        device = chosen_device(device)
        checkpoint = checkpoint_of(run_folder)
        recommender = cls(restore(checkpoint, dataset, device))
        recommender._run = checkpoint.parent
        return recommender

    def __repr__(self) -> str:
        model, run = self._model.config.model, "" if self._run is None else f", run={str(self._run)!r}"
        return f"Recommender(model={model!r}, users={self.num_users}, items={self.num_items}{run})"

    @_asked
    def recommend(
        self,
        user: int | str,
        k: int = 10,
        *,
        candidates: Items | None = None,
        exclude: Items | None = None,
        include_held_out: bool = False,
    ) -> pd.DataFrame:
        """Return the best :math:`k` items for a user of the data set.

        Args:
            user (int or str): The user's id.
            k (int, optional): How many items; fewer are returned where fewer are left.
                (default: :obj:`10`)
            candidates (iterable or mask, optional): The items that may be recommended, such as those in
                stock: ids or names; an array or a tensor of truth values, one for each item in the order
                of :attr:`KGRecDataset.item_ids <mgwa_pyg.datasets.KGRecDataset.item_ids>`; or a series of
                truth values, whose index has the ids. What the user has seen is left out all the same.
                :obj:`None` takes all. (default: :obj:`None`)
            exclude (iterable or mask, optional): Items that may not, in the same forms.
                (default: :obj:`None`)
            include_held_out (bool, optional): Whether the user's validation and test positives, which were
                held out from training, may be recommended, so that they can be found again: for an
                evaluation. (default: :obj:`False`)

        Returns:
            DataFrame: The columns ``rank`` (from 1), ``item``, ``name`` and ``score``.

        Raises:
            TypeError: If an argument is of another type.
            IndexError: If there is no user of this number.
            ValueError: If there is no user of this string, ``k`` is less than 1, or a mask has another size.
                Errors of the candidates are those of :meth:`recommend_for`'s items, too.
        """
        hidden = self._hidden(candidates, exclude)
        best = self._best(torch.tensor([self.catalog.user(user)]), self._k(k), hidden, include_held_out)
        return self._table(best)

    @_asked
    def recommend_batch(
        self,
        users: Iterable[int | str] | None = None,
        k: int = 10,
        *,
        candidates: Items | None = None,
        exclude: Items | None = None,
        include_held_out: bool = False,
    ) -> pd.DataFrame:
        """Return the best :math:`k` items for each of several users.

        Args:
            users (iterable of int or str, optional): The users' ids; one may stand there twice. :obj:`None`
                takes everybody, in the order of the data set. (default: :obj:`None`)
            k (int, optional): How many items for each. (default: :obj:`10`)
            candidates (iterable or mask, optional): As for :meth:`recommend`. (default: :obj:`None`)
            exclude (iterable or mask, optional): As for :meth:`recommend`. (default: :obj:`None`)
            include_held_out (bool, optional): As for :meth:`recommend`. (default: :obj:`False`)

        Returns:
            DataFrame: The columns ``user``, ``rank``, ``item``, ``name`` and ``score``, the users in their
            order.

        Errors are those of :meth:`recommend`; ``users`` that are no list are a :class:`TypeError`, too.
        """
        if users is None:
            rows = torch.arange(self.num_users)
        else:
            rows = torch.tensor(
                [self.catalog.user(user) for user in listed("users", users)], dtype=torch.long
            )
        k, hidden = self._k(k), self._hidden(candidates, exclude)
        parts = [
            self._best(part, k, hidden, include_held_out) for part in rows.split(self._model.users_at_once)
        ]
        best = Ranking(torch.cat([part.item for part in parts]), torch.cat([part.score for part in parts]))
        table = self._table(best)
        counts = (best.item < self.num_items).sum(dim=1).cpu()
        table.insert(0, "user", self.catalog.user_ids(rows.repeat_interleave(counts)))
        return table

    @_asked
    def recommend_for(
        self,
        items: Iterable[int | str],
        k: int = 10,
        *,
        candidates: Items | None = None,
        exclude: Items | None = None,
    ) -> pd.DataFrame:
        """Return the best :math:`k` items for a newcomer, who is not in the data, but has seen ``items``.

        The columns are those of :meth:`recommend`. The model stays as it is: MGWA and KGCN fit one vector,
        that of the new user; ``CollaborativeMGWA`` lets messages reach the new user; RippleNet draws a memory
        of triples.

        Args:
            items (iterable of int or str): What the newcomer has seen, by id or name; none of it is
                recommended.
            k (int, optional): How many items. (default: :obj:`10`)
            candidates (iterable or mask, optional): As for :meth:`recommend`. (default: :obj:`None`)
            exclude (iterable or mask, optional): As for :meth:`recommend`. (default: :obj:`None`)

        Raises:
            TypeError: If an item is neither a whole number nor a string, or ``items`` no list of them.
            IndexError: If there is no item of a number.
            ValueError: If no item or several have a name, there is no item at all, or ``k`` is less than 1.
        """
        seen, k = self.catalog.items(items).to(self._device), self._k(k)
        hidden = self._hidden(candidates, exclude)
        return self._table(self._best_of_one(self._model.score_newcomer(seen), k, seen, hidden))

    @_asked
    def similar_items(
        self,
        item: int | str,
        k: int = 10,
        *,
        candidates: Items | None = None,
        exclude: Items | None = None,
    ) -> pd.DataFrame:
        """Return the :math:`k` items most like another, in the columns of :meth:`recommend`.

        The score is the cosine of the items' vectors, as the average user sees them (MGWA, KGCN) or as they
        are embedded (RippleNet, LightGCN); of ``CollaborativeMGWA`` it is what somebody who has seen the item
        alone would be recommended, popularity left out.

        Args:
            item (int or str): The item, by id or name.
            k (int, optional): How many items. (default: :obj:`10`)
            candidates (iterable or mask, optional): As for :meth:`recommend`. (default: :obj:`None`)
            exclude (iterable or mask, optional): As for :meth:`recommend`. (default: :obj:`None`)

        Raises:
            TypeError: If an argument is of another type.
            IndexError: If there is no such item.
            ValueError: If no item or several have the name, or ``k`` is less than 1.
        """
        number, k = self.catalog.item(item), self._k(k)
        hidden = self._hidden(candidates, exclude)
        score = self._model.similar(number)
        own = torch.tensor([number], device=score.device)
        return self._table(self._best_of_one(score, k, own, hidden))

    @_asked
    def update(
        self,
        interactions: Source | None = None,
        triples: Source | None = None,
        items: Source | Mapping[Any, Any] | Iterable[int | str] | None = None,
    ) -> pd.Series:
        """Take in what has happened since the model was trained: new interactions of users old and new, and
        new items and entities with their triples. Nothing is trained.

        Afterwards all methods know what is new by its ids, and new interactions are seen, and left out. A new
        user is known by what they have seen, as for :meth:`recommend_for`; a new entity starts from its
        neighbours in the knowledge graph, and a new item is found by what it shares with others.
        MGWA and KGCN keep the vectors of users whom they know, and RippleNet draws all memories again. If an
        error is raised, everything stays as it was. :func:`mgwa_pyg.train.fit` with ``warm_start`` is the way
        to learn from what is new.

        Args:
            interactions (DataFrame or path, optional): A table with the columns ``user`` and ``item``.
                (default: :obj:`None`)
            triples (DataFrame or path, optional): A table with the columns ``head``, ``relation`` and
                ``tail``, or a file, as for :meth:`TableKG.from_tables
                <mgwa_pyg.datasets.TableKG.from_tables>`. (default: :obj:`None`)
            items (list, mapping, DataFrame or path, optional): The new items among the heads of the triples:
                ids, names by ids, or a table with the columns ``item`` and ``name``. :obj:`None` takes every
                new head for an item. Items that were there take the names. (default: :obj:`None`)

        Returns:
            Series: How many users, items, entities (that are no items), relations, interactions and triples
            were new; and ``held out``, how many interactions are validation or test positives of the data
            set, which they stay, so that they change nothing.

        Raises:
            TypeError: If an argument is of another type.
            ValueError: If there is nothing to add, a new id is the head of one triple and the tail of another
                and nothing says whether it is an item, an id may be an item's or that of something else in
                the graph, or the model can know nothing of a new item.
            FileNotFoundError: If there is no such file.
            RawDataError: If a table has no such column, or a row is not what it should be.
            ImportError: If a file needs the extra ``tables``.
        """
        growth = grow(self.dataset, interactions, triples, items)
        model = grown(self._model, growth.dataset)
        unknown = model.unknown_items()[self.num_items :]
        if unknown.any():
            first, by = growth.items[int(unknown.int().argmax())], " or ".join(model.knows_items_by)
            raise ValueError(
                f"model={model.config.model!r} knows an item by its {by}, of which {int(unknown.sum())} of "
                f"the {len(growth.items)} new items have none, item {first!r} for one: pass some, or leave "
                f"these items out"
            )
        updated = Recommender(model)
        updated._run = self._run
        self.__dict__ = updated.__dict__
        counts = {kind: len(getattr(growth, kind)) for kind in ("users", "items", "entities", "relations")}
        counts |= {"interactions": growth.num_interactions, "triples": growth.num_triples}
        counts |= {"held out": growth.num_held_out}
        return pd.Series(counts, name="new")

    @_asked
    def export(
        self, folder: Path | str, file_format: str = "numpy", *, dimensions: int | None = None
    ) -> pd.Series:
        """Write vectors of users and items whose inner products rank like the model, for an index.

        Those of ``lightgcn`` and of ``collaborative`` with ``item_item=False`` are exact but for rounding to
        single precision; popularity is one more coordinate. With ``item_item=True`` a part of the scores is
        no inner product, and is approximated by ``dimensions`` more. What an item is to MGWA, KGCN and
        RippleNet depends on the user: they have no such vectors. Whoever searches leaves out what a user has
        seen.

        Args:
            folder (path): Where ``users.json`` and ``items.json`` are written, the ids in the order of the
                vectors, and beside them the vectors.
            file_format (str, optional): ``"numpy"``, which is ``users.npy`` and ``items.npy``; ``"parquet"``,
                ``users.parquet`` and ``items.parquet`` with the columns ``id``, text where not all ids are
                whole numbers of 64 bits, and ``vector``; or
                ``"safetensors"``, ``vectors.safetensors`` with ``users`` and ``items``.
                (default: :obj:`"numpy"`)
            dimensions (int, optional): How many dimensions approximate what is no inner product.
                (default: :obj:`None`)

        Returns:
            Series: The numbers of ``users`` and ``items``, the ``size`` of the vectors, and the measured
            ``overlap@10``: the share of the model's ten best items of a user, those seen left out, that are
            among the ten best by the vectors, of at most 1000 users; :obj:`None` if these have seen all
            items.

        Raises:
            ValueError: If the model has no such vectors, or not without ``dimensions``, or the format is
                unknown.
            ImportError: If the format's package is not installed; the extra ``export`` brings it.
            OSError: If the folder is a file, or a file cannot be written.
        """
        check_choice("file_format", file_format, FORMATS)
        if dimensions is not None:
            dimensions = check_count("dimensions", dimensions)
        folder = Path(folder).expanduser()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file: choose a folder")
        pair = [table.float().cpu() for table in self._model.vectors(dimensions)]
        user, item = (table.contiguous().numpy() for table in pair)
        ids = {"users": self.dataset.user_ids, "items": self.dataset.item_ids}
        write_vectors(folder, file_format, {"users": user, "items": item}, ids)
        some = torch.arange(self.num_users)[:: max(1, self.num_users // 1000)][:1000]
        shared = total = 0
        for part in some.split(self._model.users_at_once):
            want = self._best(part, min(10, self.num_items), None, False).item.cpu()
            score = (pair[0][part] @ pair[1].t()).to(self._device)
            rows = part.to(self._device)
            got = self._ranked(score, rows, want.size(1), self._seen, None).item.cpu()
            there = want < self.num_items
            shared += int((want.unsqueeze(2) == got.unsqueeze(1)).any(dim=2)[there].sum())
            total += int(there.sum())
        counts = {"users": len(user), "items": len(item), "size": user.shape[1]}
        return pd.Series(
            {**counts, "overlap@10": shared / total if total else None}, dtype=object, name="exported"
        )

    @_asked
    def explain(
        self,
        user: int | str | Iterable[int | str],
        item: int | str,
        algorithm: ExplainerAlgorithm | None = None,
    ) -> Explanation:
        """Return what the score of an item for a user comes from.

        The parts add up to the score, exactly but for rounding: attention, gates and slopes of activations
        are taken as they are for this pair, and what is left is a sum.

        Args:
            user (int, str or iterable): The id of a user of the data set, or the items that a newcomer has
                seen, by id or name.
            item (int or str): The item, by id or name.
            algorithm (ExplainerAlgorithm, optional): An algorithm of :mod:`torch_geometric.explain`, such as
                :class:`~torch_geometric.explain.algorithm.GNNExplainer`, to weigh the edges of the same
                model; its mask of the edges into the item joins the table. (default: :obj:`None`)

        Raises:
            TypeError: If an argument is of another type.
            IndexError: If there is no user or item of a number.
            ValueError: If no user has a string, no item or several have a name, or the model passes no
                messages that an algorithm could explain (RippleNet).
        """
        number = self.catalog.item(item)
        row: int | Tensor
        if is_one(user):
            row = self.catalog.user(user)
            label = self.catalog.name(self.dataset.num_entities + row)
            is_seen = self._seen.has(row, number)
        else:
            row = self.catalog.items(user).to(self._device)
            names = [self.catalog.name(item) for item in row.tolist()]
            label = f"a new user who {self.catalog.interaction.done} {_and(names)}"
            is_seen = number in row
        neighbors, seen = self._model.explain(row, number)
        found = mask = None
        if algorithm is not None:
            if not isinstance(algorithm, ExplainerAlgorithm):
                raise TypeError(
                    f"algorithm is {algorithm!r:.60}, but one of torch_geometric.explain is needed, such as "
                    f"GNNExplainer()"
                )
            # Some algorithms make parameters of their own in single precision.
            model = self._model.logit_model(row, number).float()
            explainer = Explainer(
                model,
                algorithm,
                explanation_type="model",
                edge_mask_type="object",
                model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
            )
            with torch.enable_grad():
                found = explainer(model.x, model.edge_index, edge_type=model.edge_type)
            mask = found.edge_mask[model.edge_index[1] == model.node]
        return Explanation(
            user=one_line(label),
            item=self.catalog.item_id(number),
            name=self.catalog.name(number),
            score=float(neighbors.total),
            parts=table_of(neighbors, self.catalog, self._model.edge_part, mask),
            history=None if seen is None else table_of(seen, self.catalog, "seen"),
            interaction=self.catalog.interaction,
            gate=neighbors.gate,
            pyg=found,
            is_seen=is_seen,
        )

    def _hidden(self, candidates: Items | None, exclude: Items | None) -> Tensor | None:
        r"""Which items nobody is to be recommended, :math:`(M)`; none if nothing was asked."""
        if candidates is None and exclude is None:
            return None
        hidden = torch.zeros(self.num_items, dtype=torch.bool)
        if candidates is not None:
            hidden |= ~self.catalog.some_items("candidates", candidates)
        if exclude is not None:
            hidden |= self.catalog.some_items("exclude", exclude)
        return hidden.to(self._device)

    def _best(self, users: Tensor, k: int, hidden: Tensor | None, include_held_out: bool) -> Ranking:
        users, seen = users.to(self._device), self._seen_in_training if include_held_out else self._seen
        return self._ranked(self._model.score_all(users), users, k, seen, hidden)

    def _best_of_one(self, score: Tensor, k: int, without: Tensor, hidden: Tensor | None) -> Ranking:
        """The best items by one vector of scores, without some of them."""
        pairs = Pairs(torch.stack([torch.zeros_like(without), without]), 1, self.num_items)
        return self._ranked(score.unsqueeze(0), without.new_zeros(1), k, pairs, hidden)

    def _ranked(self, score: Tensor, users: Tensor, k: int, seen: Pairs, hidden: Tensor | None) -> Ranking:
        if score.shape != (len(users), self.num_items):
            raise ValueError(
                f"model={self._model.config.model!r} gives scores of the shape {tuple(score.shape)}, but "
                f"{(len(users), self.num_items)} is needed: one row a user, one column an item"
            )
        # The scores may be a part of the model, and what was seen is masked in place.
        score = score.to(torch.double, copy=True)
        if hidden is not None:
            score[:, hidden] = -torch.inf
        return top_k(score, users, k, 0, self.num_items, seen)

    def _k(self, k: Any) -> int:
        number = whole_number(k)
        if number is None:
            raise TypeError(f"k={k!r:.60}: a whole number is needed")
        if number < 1:
            raise ValueError(f"k={number}: at least 1 is needed")
        return min(number, self.num_items)

    def _table(self, best: Ranking) -> pd.DataFrame:
        item, score = best.item.cpu(), best.score.cpu()
        there = item < self.num_items
        rank = torch.arange(1, item.size(1) + 1).expand_as(item)[there]
        rows = item[there]
        return pd.DataFrame(
            {
                "rank": rank.numpy(),
                "item": self.catalog.item_ids(rows),
                "name": self.catalog.item_names(rows),
                "score": score[there].double().numpy(),
            }
        )


def _and(names: list[str]) -> str:
    shown = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} more"]
    return " and ".join([", ".join(shown[:-1])] * (len(shown) > 1) + shown[-1:])
