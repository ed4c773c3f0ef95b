"""`DataIds` and `Rows`: what is called alike in two data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
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
        item, entity = _rows(old.item, new.item), _rows(old.entity, new.entity)
        num_items = len(new.item)
        entity[:num_items] = torch.where(item >= 0, item, entity[:num_items])
        return cls(_rows(old.user, new.user), item, entity, _rows(old.relation, new.relation))


def _rows(old: Sequence[str], new: Sequence[str]) -> Tensor:
    """Return for each of the new ids the row of the same among the old ones, or -1. Of equal ids the last
    counts.
    """
    index = pd.Index(old, dtype=object)
    last = np.flatnonzero(~index.duplicated(keep="last"))
    place = index[last].get_indexer(pd.Index(new, dtype=object))
    rows = np.where(place >= 0, np.append(last, -1)[place], -1)
    rows[pd.Index(new, dtype=object).duplicated(keep="last")] = -1
    return torch.from_numpy(rows)
