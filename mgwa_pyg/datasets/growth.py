"""`grow`: a data set with more interactions, users, items and triples, in memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.base import KGRecDataset
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.datasets.ids import by_entity_id
from mgwa_pyg.datasets.interactions import interactions as links_of
from mgwa_pyg.datasets.names import checked_ids
from mgwa_pyg.datasets.rdf import Triples
from mgwa_pyg.datasets.table import Column, Ids, Table
from mgwa_pyg.datasets.table_graph import Source, read_pairs, read_triples
from mgwa_pyg.datasets.table_kg import TableKG

_KG = ("entity", "kg", "entity")
_Rows = npt.NDArray[np.int64]


class Growth(NamedTuple):
    """A data set that has grown, and what is new in it."""

    dataset: TableKG
    users: list[int | str]
    """The ids of new users, who are the last ones."""
    items: list[int | str]
    """The ids of new items, which are the last ones."""
    entities: list[int | str]
    """The ids of new entities that are no items; they are the last ones."""
    relations: list[str]
    """The names of new relations, which are the last ones."""
    num_interactions: int
    """How many interactions are new; they are training positives."""
    num_held_out: int
    """How many were there as validation or test positives, and stay there."""
    num_triples: int
    """How many triples are new."""


def grow(
    dataset: KGRecDataset,
    interactions: Source | None = None,
    triples: Source | None = None,
    items: Source | Mapping[Any, Any] | Iterable[int | str] | None = None,
) -> Growth:
    r"""Return a data set with more interactions and triples, and the users, items, entities and relations
    that come with them, as a :class:`TableKG`. What was there keeps its split and its order; interactions and
    triples that were there are passed over.

    Ids are those of the data set. In triples, an entity is called by :obj:`entity_ids`, an item also by its
    :obj:`item_ids` where the graph has nothing else of that id. An entity of which there are interactions
    becomes an item, unless the graph calls items by other ids than their own.

    Args:
        dataset (KGRecDataset): The data set. It stays as it is.
        interactions (DataFrame or path, optional): A table with the columns :obj:`user` and :obj:`item` (or
            :obj:`user_id` and :obj:`item_id`). (default: :obj:`None`)
        triples (DataFrame or path, optional): As for :meth:`TableKG.from_tables`. (default: :obj:`None`)
        items (list, mapping, DataFrame or path, optional): The new items among the heads of the triples: ids,
            names by ids, or a table of both (:obj:`item` and :obj:`name`). :obj:`None` takes every new head
            for an item. Those with interactions are items in any case. Items that were there are called by
            the names that are given. (default: :obj:`None`)

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If there is nothing to add, or a new id is the head of one triple and the tail of another
            and nothing says whether it is an item, or an id may be an item's or that of something else in
            the graph.
        FileNotFoundError: If there is no such file.
        RawDataError: If a table has no such column, or a row is not what it should be.
        ImportError: If a file needs the extra :obj:`tables`.
    """
    if interactions is None and triples is None:
        raise ValueError("there is nothing to add: pass interactions= or triples=")
    dataset = fixed(dataset)
    plays = _read_interactions(interactions)
    graph = _NO_TRIPLES if triples is None else read_triples(triples)
    users, relations = _Numbers(dataset.user_ids), _Numbers(dataset.relation_names)
    user = users.of(plays["user"].values)[plays["user"].code]
    relation = relations.of(graph.relations)[graph.relation]

    entities = _Entities(dataset)
    names = entities.add_items(plays["item"].values, graph, items)
    item = entities.item_rows(plays["item"].values)[plays["item"].code]
    ends = entities.entity_rows(graph.ids)
    triple = np.stack([ends[graph.head], relation, ends[graph.tail]], axis=1)

    data = copy.copy(dataset[0])
    data["user"].num_nodes, data["entity"].num_nodes = len(users.ids), len(entities.ids)
    num_triples = _add_triples(data, dataset.num_relations, len(relations.ids), entities.new_row, triple)
    num_interactions, num_held_out = _add_interactions(data, entities.new_row, user, item)

    grown = TableKG.like(dataset)  # The files of the data set would make it as it was.
    grown.data = data
    num_items = len(entities.item_ids)
    entity_names = entities.names(names, graph.names)
    grown._names = {
        "user_ids": users.ids,
        "item_ids": entities.item_ids,
        "item_names": entity_names[:num_items],
        "entity_names": entity_names,
        "entity_ids": entities.ids,
        "relation_names": relations.ids,
    }
    grown._statistics = {
        "users": len(users.ids),
        "items": num_items,
        "interactions": dataset.num_interactions + num_interactions,
        "entities": len(entities.ids),
        "relations": len(relations.ids),
        "triples": dataset.num_triples + num_triples,
    }
    return Growth(
        grown,
        users.ids[dataset.num_users :],
        entities.item_ids[dataset.num_items :],
        entities.others,
        relations.ids[dataset.num_relations :],
        num_interactions,
        num_held_out,
        num_triples,
    )


class _Numbers:
    """The rows of ids: those that are there, and one more for each that is not.

    Args:
        ids (sequence): Those that are there.
    """

    def __init__(self, ids: Sequence[int | str]) -> None:
        self.ids: list[Any] = [*ids]
        # Of equal ids the last counts.
        self._row = {str(id_): row for row, id_ in enumerate(self.ids)}

    def of(self, ids: Iterable[int | str]) -> _Rows:
        return np.array([self._number(id_) for id_ in ids], dtype=np.int64)

    def _number(self, id_: int | str) -> int:
        row = self._row.setdefault(str(id_), len(self.ids))
        if row == len(self.ids):
            self.ids.append(id_)
        return row


class _Entities:
    """Items and other entities, in whose rows those that are new find a place.

    Args:
        dataset (KGRecDataset): The data set.
    """

    def __init__(self, dataset: KGRecDataset) -> None:
        self._num_items, self._names = dataset.num_items, dataset.entity_names
        self.ids = [*dataset.entity_ids]
        self.item_ids = [*dataset.item_ids]
        self._item_row = {str(id_): row for row, id_ in enumerate(self.item_ids)}
        self._entity_row = self._rows_of_graph()
        #: Whether the graph calls items otherwise: ids of items say nothing of its entities then.
        self._is_linked = any(str(id_) != str(self.ids[row]) for row, id_ in enumerate(self.item_ids))
        #: Whether the id of an item is that of something else in the graph.
        self._overlaps = any(self._entity_row.get(id_, row) != row for id_, row in self._item_row.items())
        #: For each old row the new one.
        self.new_row = np.arange(len(self.ids))
        #: The ids of new entities that are no items.
        self.others: list[int | str] = []
        self._old_row = self.new_row

    def add_items(self, played: Sequence[int | str], graph: Triples, items: Any) -> dict[str, str]:
        """Take in the items that are new, and return the names that are given."""
        named = None if items is None else _named(items)
        new = {str(id_): id_ for id_ in [*played, *(named or {})] if str(id_) not in self._item_row}
        if named is None:
            is_tail = np.isin(np.arange(len(graph.ids)), graph.tail)
            for at in pd.unique(graph.head).tolist():
                id_ = graph.ids[at]
                if str(id_) in new or str(id_) in self._entity_row or str(id_) in self._item_row:
                    continue
                if is_tail[at]:
                    raise ValueError(
                        f"{id_!r:.60} is new, and the head of one triple and the tail of another: pass the "
                        f"new items among the heads as items=, or [] if none is"
                    )
                new[str(id_)] = id_
        of_graph = [id_ for written, id_ in new.items() if written in self._entity_row]
        if self._is_linked and of_graph:
            raise ValueError(
                f"item {of_graph[0]!r:.60} is new, and the knowledge graph has an entity of this id, but it "
                f"calls items by other ids, so that they may be two things: give the item an id that the "
                f"graph does not have, or make the data set anew with the item in its links"
            )
        # An entity that has become an item leaves its row.
        first, num_old = self._num_items, len(self.ids)
        before = [row if (row := self._entity_row.get(written, -1)) >= first else -1 for written in new]
        leaves = np.zeros(num_old, dtype=bool)
        leaves[[row for row in before if row >= 0]] = True
        stays = np.flatnonzero(~leaves[first:]) + first
        self._old_row = np.concatenate([np.arange(first), before, stays]).astype(np.int64)
        self.new_row[self._old_row[self._old_row >= 0]] = np.flatnonzero(self._old_row >= 0)
        self.item_ids += new.values()
        self._item_row |= {written: first + at for at, written in enumerate(new)}
        self.ids = [*self.ids[:first], *new.values(), *(self.ids[row] for row in stays.tolist())]
        self._entity_row = self._rows_of_graph()
        return {str(id_): name for id_, name in (named or {}).items() if name is not None}

    def _rows_of_graph(self) -> dict[str, int]:
        return {str(self.ids[row]): row for row in by_entity_id(self.item_ids, self.ids).tolist()}

    def item_rows(self, ids: Sequence[int | str]) -> _Rows:
        return np.array([self._item_row[str(id_)] for id_ in ids], dtype=np.int64)

    def entity_rows(self, ids: Sequence[int | str]) -> _Rows:
        """Return the rows of what triples call so; what is new comes last."""
        return np.array([self._entity(id_) for id_ in ids], dtype=np.int64)

    def _entity(self, id_: int | str) -> int:
        written = str(id_)
        row = self._entity_row.get(written)
        if row is None and (item := self._item_row.get(written)) is not None:
            if self._overlaps:
                raise ValueError(
                    f"triples: {id_!r:.60} may be a new entity or item {id_!r:.60}, which the graph "
                    f"calls {self.ids[item]!r:.60}, as ids of items are ids of other things in the graph, "
                    f"too: call the item {self.ids[item]!r:.60}, or a new entity otherwise"
                )
            row = item
        if row is None:
            row = self._entity_row[written] = len(self.ids)
            self.ids.append(id_)
            self.others.append(id_)
        return row

    def names(self, of_items: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
        """Return the names of all entities: those given for items, that they have, that are given, or their
        ids.
        """
        old = [*self._old_row.tolist(), *[-1] * len(self.others)]
        names = [
            self._names[row] if row >= 0 else given.get(str(id_), str(id_))
            for row, id_ in zip(old, self.ids, strict=True)
        ]
        names[: len(self.item_ids)] = [
            of_items.get(str(id_), name) for id_, name in zip(self.item_ids, names, strict=False)
        ]
        return names


def _read_interactions(source: Any) -> dict[str, Ids]:
    if source is None:
        return dict.fromkeys(("user", "item"), Ids(np.zeros(0, dtype=np.int64), []))
    columns = {kind: Column([kind, f"{kind}_id"], "id") for kind in ("user", "item")}
    return Table("interactions", source).read(columns)


def _named(items: Any) -> dict[int | str, str | None]:
    """Return ids, each with a name if it is given."""
    if isinstance(items, (pd.DataFrame, Mapping, str, os.PathLike)):
        ids, names = read_pairs("items", items, "item", "name")
        return {
            ids.values[row]: names.written[name]
            for row, name in zip(ids.code.tolist(), names.code.tolist(), strict=True)
        }
    if not isinstance(items, Iterable):
        raise TypeError(f"items={items!r:.60}: a list of ids, names by ids or a table of both is needed")
    values = [*items]
    return dict.fromkeys(checked_ids("items", values, len(values)))


_NO_TRIPLES = Triples(*(np.zeros(0, dtype=np.int64),) * 3, ids=[], relations=[], names={}, left_out=0)


def _add_triples(data: HeteroData, num_old: int, num_relations: int, new_row: _Rows, triple: _Rows) -> int:
    """Add those that are not there, behind the triples and behind their inverses; return how many."""
    kg = data[_KG]
    edge_index = torch.from_numpy(new_row)[kg.edge_index.long()]
    is_inverse = kg.rel_type >= num_old
    rel_type = torch.where(is_inverse, kg.rel_type + num_relations - num_old, kg.rel_type)
    ends = torch.cat([edge_index, rel_type.unsqueeze(0)])[:, ~is_inverse]
    num_nodes = data["entity"].num_nodes

    def key(head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        return (head * num_relations + relation) * num_nodes + tail

    found = torch.from_numpy(triple).t()
    value, first = np.unique(key(*found).numpy(), return_index=True)
    is_new = ~np.isin(value, key(ends[0], ends[2], ends[1]).numpy())
    head, relation, tail = found[:, np.sort(first[is_new])]
    edges = [edge_index[:, ~is_inverse], torch.stack([head, tail]), edge_index[:, is_inverse]]
    types = [rel_type[~is_inverse], relation, rel_type[is_inverse]]
    if is_inverse.any() or not rel_type.numel():  # A transform may have left them out.
        edges.append(torch.stack([tail, head]))
        types.append(relation + num_relations)
    kg.edge_index, kg.rel_type = torch.cat(edges, dim=1), torch.cat(types)
    return head.numel()


def _add_interactions(data: HeteroData, new_row: _Rows, user: _Rows, item: _Rows) -> tuple[int, int]:
    """Add those that are not there to the training positives; return how many, and how many are held out."""
    links, num_nodes = links_of(data), data["entity"].num_nodes
    move = torch.from_numpy(new_row)
    for name in ("edge_index", "edge_label_index"):
        pairs = links[name].long()
        links[name] = torch.stack([pairs[0], move[pairs[1]]])
    known = torch.cat([links.edge_index, links.edge_label_index[:, links.edge_label == 1]], dim=1)
    key = torch.from_numpy(user * num_nodes + item).unique()
    seen, known_key = links.edge_index[0] * num_nodes + links.edge_index[1], known[0] * num_nodes + known[1]
    num_held_out = int((torch.isin(key, known_key) & ~torch.isin(key, seen)).sum())
    key = key[~torch.isin(key, known_key)]
    new = torch.stack([key // num_nodes, key % num_nodes])
    # What was drawn as a negative may have become a positive.
    labelled = links.edge_label_index
    kept = ~torch.isin(labelled[0] * num_nodes + labelled[1], key)
    links.edge_index = torch.cat([links.edge_index, new], dim=1)
    links.edge_label_index = torch.cat([new, labelled[:, kept]], dim=1)
    links.edge_label = torch.cat([links.edge_label.new_ones(key.numel()), links.edge_label[kept]])
    for part in ("train", "val", "test"):
        mask = links[f"{part}_mask"][kept]
        links[f"{part}_mask"] = torch.cat([torch.full_like(key, part == "train", dtype=torch.bool), mask])
    for name in ("edge_weight", "edge_time"):  # Of the new ones nothing is known.
        if name in links:
            del links[name]
    return key.numel(), num_held_out
