"""Entities and triples of somebody's tables: the items first, then what is known of them."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mgwa_pyg.datasets.rdf import SUFFIXES, Triples, name_of, read_rdf
from mgwa_pyg.datasets.table import Column, Ids, Table, existing_file
from mgwa_pyg.datasets.tables import Numbering

#: A table: a frame of pandas, or the path of a file.
Source = pd.DataFrame | str | os.PathLike[str]

_FEW = 0.1  # The share of items with triples below which ids are probably written in two ways.
_FEW_NUMBERS = 20  # So many different numbers are categories in any case.


def read_triples(source: Any) -> Triples:
    """Return the triples of a table, or of a file in N-Triples or Turtle."""
    if isinstance(source, (str, os.PathLike)):
        path, suffix = existing_file("triples", source)
        if suffix in SUFFIXES:
            return read_rdf(path, suffix)
    read = _read("triples", source, {role: [role, f"{role}_id"] for role in ("head", "relation", "tail")})
    head, relation, tail = read.values()
    row_of, code = _joined(head, tail)
    return Triples(code[0], relation.code, code[1], list(row_of.values()), relation.written, {}, 0)


def read_pairs(
    what: str, source: Any, one: str, other: str, names: Iterable[str | int] = ()
) -> tuple[Ids, Ids]:
    """Return two columns of ids, of a table or of a mapping."""
    if isinstance(source, Mapping):
        source = pd.DataFrame({one: [*source.keys()], other: [*source.values()]}, dtype=object)
    read = _read(what, source, {one: [one, *names, f"{one}_id"], other: [other, f"{other}_id"]})
    return read[one], read[other]


def _read(what: str, source: Any, columns: dict[str, list[str | int]]) -> dict[str, Ids]:
    """Read columns of ids: by their names or, of a frame that has just as many, in their order."""
    table = Table(what, source)
    named = all(any(map(table.has, names)) for names in columns.values())
    if not named and table.path is None and len(table.names) == len(columns):
        columns = dict(zip(columns, ([name] for name in table.names), strict=True))
    return table.read({role: Column(names, "id") for role, names in columns.items()})


def _joined(*columns: Ids) -> tuple[dict[str, int | str], list[npt.NDArray[np.integer]]]:
    """Return the distinct ids of several columns, as they are by how they are written, and the columns."""
    ids: dict[str, int | str] = {}
    for column in columns:
        for written, value in zip(column.written, column.values, strict=True):
            ids.setdefault(written, value)
    index = pd.Index(list(ids), dtype=object)
    return ids, [index.get_indexer(column.written)[column.code] for column in columns]


class TableGraph:
    """The knowledge graph of a data set, as it is put together.

    Args:
        items (Ids): The items.
    """

    def __init__(self, items: Ids) -> None:
        self.num_items = len(items.values)
        #: The ids of entities, and what they are called.
        self.ids: list[int | str] = list(items.values)
        self.names: list[str] = items.written
        self.relations = Numbering()
        self.item_row = {written: row for row, written in enumerate(items.written)}
        # The entity of each id in the graph, as it is written.
        self._row = dict(self.item_row)
        self._parts: list[npt.NDArray[np.integer]] = [np.zeros((0, 3), dtype=np.int64)]

    @property
    def triples(self) -> npt.NDArray[np.integer]:
        """Head, relation and tail of each triple once, in the order of their first rows. [num_triples, 3]"""
        return pd.DataFrame(np.concatenate(self._parts)).drop_duplicates().to_numpy()

    def add(self, triples: Triples, links: Any, item: str | int) -> dict[str, int]:
        """Add triples, whose ends are items where their ids say so, or links; return what there was."""
        counts = {"ids of the graph": len(triples.ids)}
        if links is not None:
            counts |= self._link(triples, *read_pairs("links", links, "item", "entity", [item]))
        matched = {self._row[str(id_)] for id_ in triples.ids if str(id_) in self._row}
        counts["items with triples of the graph"] = len(matched)
        if triples.left_out:
            counts["triples left out, of numbers and dates"] = triples.left_out
        if len(matched) < _FEW * self.num_items:
            self._warn_of_few(triples, len(matched), links is None)
        rows = np.fromiter(map(self._entity, triples.ids), np.int64, len(triples.ids))
        self._add(rows[triples.head], triples.relations, triples.relation, rows[triples.tail])
        self.call((self._row[id_], name) for id_, name in triples.names.items() if id_ in self._row)
        return counts

    def call(self, names: Iterable[tuple[int, str]]) -> None:
        """Give entities other names than their ids."""
        for row, name in names:
            self.names[row] = name

    def call_by_id(self, ids: Ids, names: Ids) -> None:
        """Give entities names by their ids in the graph."""
        rows = np.array([self._row.get(written, -1) for written in ids.written])[ids.code]
        if (rows < 0).all():
            self._warn_of_strangers(
                "entity_names: it names none of the entities", next(iter(self._row)), ids.written[0]
            )
        self.call(
            (row, names.written[name])
            for row, name in zip(rows.tolist(), names.code.tolist(), strict=True)
            if row >= 0
        )

    def describe(
        self, table: Table, columns: Mapping[str, Ids], attributes: Mapping[str, str], separator: str | None
    ) -> None:
        """Add what a table says of items: their names, and triples of their attributes."""
        ids = columns["item"]
        rows = np.array([self.item_row.get(written, -1) for written in ids.written])[ids.code]
        count = len({*self.item_row} & {*ids.written})
        if count < _FEW * self.num_items:
            other = next((written for written in ids.written if written not in self.item_row), "")
            problem = f"{table.what}: only {count} of the {self.num_items} items are in it"
            self._warn_of_strangers(problem, next(iter(self.item_row)), other)
        if "name" in columns:
            self._name_items(rows, columns["name"])
        for role, column in attributes.items():
            values = columns[role]
            there = (rows >= 0) & (values.code >= 0)
            cells = pd.DataFrame({"item": rows[there], "code": values.code[there]}).drop_duplicates()
            _check_categories(table, column, values, len(cells))
            pieces = [
                (code, self._entity(f"{column}={piece.strip()}", piece.strip()))
                for code in cells["code"].unique().tolist()
                for value in [str(values.values[code])]
                for piece in ([value] if separator is None else value.split(separator))
                if piece.strip()
            ]
            entities = pd.DataFrame(pieces, columns=["code", "entity"], dtype=np.int64)
            found = cells.merge(entities, on="code")[["item", "entity"]].drop_duplicates().to_numpy()
            self._add(found[:, 0], [column], np.zeros(len(found), dtype=np.int64), found[:, 1])

    def _link(self, triples: Triples, items: Ids, entities: Ids) -> dict[str, int]:
        rows = np.array([self.item_row.get(written, -1) for written in items.written])[items.code]
        number = {str(id_): at for at, id_ in enumerate(triples.ids)}
        ends = np.array([number.get(written, -1) for written in entities.written])[entities.code]
        kept = (rows >= 0) & (ends >= 0)
        self._row = {}
        for row, end in zip(rows[kept].tolist(), ends[kept].tolist(), strict=True):
            id_ = triples.ids[end]
            self._row[str(id_)] = row  # Of several items the last.
        robbed = {*rows[kept].tolist()} - {*self._row.values()}
        if robbed:
            warnings.warn(
                f"links: {len(robbed)} items are linked to an entity that a later row links to another item "
                f"(the first is item {self.ids[min(robbed)]!r}): they stay without triples of the graph.",
                stacklevel=4,
            )
        for written, row in self._row.items():
            self.ids[row] = triples.ids[number[written]]
        lost = {
            "links of items without interactions": int((rows < 0).sum()),
            "links to ids that no triple has": int((ends < 0).sum()),
        }
        return {"links": len(rows), **{name: count for name, count in lost.items() if count}}

    def _warn_of_few(self, triples: Triples, count: int, by_id: bool) -> None:
        hints = ""
        if by_id:
            ends = [name_of(id_) for id_ in triples.ids]
            found = len({*ends} & self.item_row.keys())
            called = len({*triples.names.values()} & self.item_row.keys())
            if max(found, called) > count:
                what = "end of an IRI" if found >= called else "label"
                hints = f" {max(found, called)} items would be found by the {what}:"
        first = next((str(id_) for id_ in triples.ids if str(id_) not in self._row), "")
        warnings.warn(
            f"Only {count} of the {self.num_items} items have triples: the first item is "
            f"{next(iter(self.item_row))!r:.60}, and the first other id of the graph {first!r:.60}.{hints} "
            f"See whether both are written alike, or pass links=, a table of items' ids and the graph's.",
            stacklevel=4,
        )

    def _warn_of_strangers(self, problem: str, ours: str, other: str) -> None:
        warnings.warn(
            f"{problem}: the first there is {ours!r:.60}, and the first other id {other!r:.60}. See whether "
            f"both are written alike.",
            stacklevel=4,
        )

    def _entity(self, id_: int | str, name: str | None = None) -> int:
        """Return the row of an entity, which is a new one if its id is."""
        row = self._row.setdefault(str(id_), len(self.ids))
        if row == len(self.ids):
            self.ids.append(id_)
            self.names.append(name_of(id_) if name is None else name)
        return row

    def _add(
        self,
        head: npt.NDArray[np.integer],
        relations: Sequence[str],
        relation: npt.NDArray[np.integer],
        tail: npt.NDArray[np.integer],
    ) -> None:
        self._parts.append(np.stack([head, self.relations(relations)[relation], tail], axis=1))

    def _name_items(self, rows: npt.NDArray[np.integer], names: Ids) -> None:
        there = (rows >= 0) & (names.code >= 0)
        table = pd.DataFrame({"row": rows[there], "name": names.code[there]}).drop_duplicates()
        first = table.drop_duplicates("row")
        if len(first) < len(table):
            row = int(table["row"][table["row"].duplicated()].iloc[0])
            warnings.warn(
                f"{int(table['row'].duplicated().sum())} items have several names (the first is item "
                f"{self.ids[row]!r:.60}): they are called by the first.",
                stacklevel=4,
            )
        self.call((row, names.values[name]) for row, name in first.itertuples(index=False))


def _check_categories(table: Table, column: str, values: Ids, num_items: int) -> None:
    """Refuse numbers that measure something: no two items would share them."""
    numbers = pd.to_numeric(np.array(values.written, dtype=object), errors="coerce")
    are_whole = not (numbers % 1).any()
    if len(numbers) == 0 or np.isnan(numbers).any() or (are_whole and len(numbers) <= _FEW_NUMBERS):
        return
    if not are_whole or 2 * len(numbers) > num_items:
        table.fail(
            None,
            f"attribute {column!r} has {len(numbers)} different numbers for {num_items} items, which are no "
            f"categories",
            "Cut them into classes, as pandas.cut does, or leave the column out.",
        )
