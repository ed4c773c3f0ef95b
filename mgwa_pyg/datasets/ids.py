"""`DataIds` and `Rows`: what is called alike in two data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from mgwa_pyg.datasets.base import KGRecDataset


class DataIds(NamedTuple):
    """What users, items, entities and relations of a data set are called, as it is written."""

    user: Sequence[str]
    item: Sequence[str]
    entity: Sequence[str]
    """The items first, as triples call them."""
    relation: Sequence[str]

    @classmethod
    def of(cls, dataset: KGRecDataset) -> DataIds:
        """Return those of a data set."""
        kinds = dataset.user_ids, dataset.item_ids, dataset.entity_ids, dataset.relation_names
        return cls(*([*map(str, ids)] for ids in kinds))

    def packed(self) -> dict[str, str]:
        """Return them as text that a checkpoint may hold."""
        return {kind: json.dumps(ids) for kind, ids in self._asdict().items()}

    @classmethod
    def unpacked(cls, text: Mapping[str, str]) -> DataIds:
        """Undo :meth:`packed`.

        Raises:
            ValueError: If it is no such text.
        """
        return cls(*(json.loads(text[kind]) for kind in cls._fields))


class Rows(NamedTuple):
    """For each row of a new data set the row of an old one that has its id, or -1."""

    user: Tensor
    item: Tensor
    entity: Tensor
    relation: Tensor

    @classmethod
    def between(cls, old: DataIds, new: DataIds) -> Rows:
        """Return the rows of two data sets.

        An item is the item of its id or, where there was none, the entity of its id: what others were linked
        to may have become an item.
        """
        item = _rows(old.item, new.item)
        entity = _rows(old.entity, new.entity, by_entity_id(*old[1:3]), by_entity_id(*new[1:3]))
        num_items = len(new.item)
        entity[:num_items] = torch.where(item >= 0, item, entity[:num_items])
        return cls(_rows(old.user, new.user), item, entity, _rows(old.relation, new.relation))


def by_entity_id(item: Sequence[int | str], entity: Sequence[int | str]) -> npt.NDArray[np.int64]:
    """Return the rows that the ids of entities mean, each id once.

    Items that the graph does not know are in the list of entities by their own ids, which may be those of
    something else in the graph: that counts then, and otherwise the last of equal ids.

    Args:
        item (sequence): The ids of items.
        entity (sequence): The ids of all entities, the items first.
    """
    own = np.zeros(len(entity), dtype=bool)
    own[: len(item)] = [str(id_) == str(of_graph) for id_, of_graph in zip(item, entity, strict=False)]
    order = np.argsort(~own, kind="stable")
    ids = pd.Index([str(entity[row]) for row in order.tolist()], dtype=object)
    return np.sort(order[~ids.duplicated(keep="last")])


def _rows(
    old: Sequence[str],
    new: Sequence[str],
    old_rows: npt.NDArray[np.int64] | None = None,
    new_rows: npt.NDArray[np.int64] | None = None,
) -> Tensor:
    """Return for each of the new ids the row of the same among the old ones, or -1; only some rows count if
    that is said, and otherwise of equal ids the last.
    """
    index, wanted = pd.Index(old, dtype=object), pd.Index(new, dtype=object)
    known = np.flatnonzero(~index.duplicated(keep="last")) if old_rows is None else old_rows
    asked = np.flatnonzero(~wanted.duplicated(keep="last")) if new_rows is None else new_rows
    rows = np.full(len(new), -1)
    rows[asked] = np.append(known, -1)[index[known].get_indexer(wanted[asked])]
    return torch.from_numpy(rows)
