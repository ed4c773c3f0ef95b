"""`KGRecTables`: a data set as plain tables, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from mgwa_pyg.datasets.names import NumberedNames, checked_ids, checked_names
from mgwa_pyg.utils.checks import check_count, form

_Table = npt.NDArray[np.integer]


@dataclass(frozen=True)
class KGRecTables:
    r"""A data set as plain tables, before negatives are drawn and rows are split.

    Tables are arrays, or whatever NumPy makes one of, of whole numbers of any type.

    Args:
        positives (np.ndarray): The interactions as pairs of user and item, in any order; a pair that is
            repeated counts once. [num_interactions, 2]
        triples (np.ndarray): Head, relation and tail; the items are the first entities. [num_triples, 3]
        num_users (int): The number of users.
        num_entities (int): The number of entities, items included.
        item_names (sequence of str): The items' names, in the order of their indices.
        relation_names (sequence of str): The relations' names, in the order of their indices.
        negatives (np.ndarray, optional): The negatives where they are given, as pairs of user and entity, as
            many for each user as :obj:`positives`; none is a positive. :obj:`None` draws them.
            [num_interactions, 2] (default: :obj:`None`)
        positive_parts (np.ndarray, optional): The part of each positive where it is given: 0 for training, 1
            for validation and 2 for test. A user's :math:`k`-th negative follows the :math:`k`-th positive.
            :obj:`None` splits at random. [num_interactions] (default: :obj:`None`)
        user_ids (sequence of int or str, optional): What the users are called in the files, distinct
            also when written: :obj:`7` and :obj:`"7"` are the same. :obj:`None` takes the row numbers.
            (default: :obj:`None`)
        item_ids (sequence of int or str, optional): The same of the items. (default: :obj:`None`)
        entity_names (sequence of str, optional): The names of all entities, those of the items first;
            :obj:`None` takes the items' names, then :obj:`"entity N"`. (default: :obj:`None`)
        entity_ids (sequence of int or str, optional): What triples call all entities, the items first;
            :obj:`None` takes the items' ids, then the names of the others. (default: :obj:`None`)
        weights (np.ndarray, optional): How much each interaction weighs, such as a number of plays; those of
            a pair that is repeated add up. [num_interactions] (default: :obj:`None`)
        times (np.ndarray, optional): When each was; of a pair that is repeated the last counts.
            [num_interactions] (default: :obj:`None`)
    """

    positives: _Table
    triples: _Table
    num_users: int
    num_entities: int
    item_names: Sequence[str]
    relation_names: Sequence[str]
    negatives: _Table | None = None
    positive_parts: npt.NDArray[np.int8] | None = None
    user_ids: Sequence[int | str] | None = None
    item_ids: Sequence[int | str] | None = None
    entity_names: Sequence[str] | None = None
    entity_ids: Sequence[int | str] | None = None
    weights: npt.NDArray[Any] | None = None
    times: npt.NDArray[Any] | None = None

    @property
    def statistics(self) -> dict[str, int]:
        r"""The sizes by name."""
        return {
            "users": self.num_users,
            "items": len(self.item_names),
            "interactions": len(self.positives),
            "entities": self.num_entities,
            "relations": len(self.relation_names),
            "triples": len(self.triples),
        }

    def checked(self) -> "KGRecTables":
        r"""Return the same tables, with all ids and names, and with the positives distinct and sorted by
        user and then by item; their parts and negatives go with them.

        Raises:
            ValueError: If a table or a name is not what it should be. The message names the row.
        """
        num_users = check_count("num_users", self.num_users)
        num_entities = check_count("num_entities", self.num_entities)
        item_names = checked_names("item_names", self.item_names)
        relation_names = checked_names("relation_names", self.relation_names)
        num_items = check_count("the number of item_names", len(item_names))
        if num_items > num_entities:
            raise ValueError(f"num_entities={num_entities}: at least the {num_items} items are entities")
        entity_names = (
            NumberedNames("entity", num_entities, item_names)
            if self.entity_names is None
            else checked_names("entity_names", self.entity_names, num_entities)
        )
        if self.entity_names is not None and (others := _differing(item_names, entity_names)) is not None:
            raise ValueError(
                f"entity_names[{others}]={entity_names[others]!r:.60}, but the items come first, and "
                f"item_names[{others}]={item_names[others]!r:.60}"
            )
        entity = num_entities, "num_entities"
        ends = {"user": (num_users, "num_users"), "item": (num_items, "the number of item_names")}
        positives = _table("positives", self.positives, ends)
        if len(positives) == 0:
            raise ValueError("positives has no row: at least one interaction is needed")
        relation = len(relation_names), "the number of relation_names"
        triples = _table("triples", self.triples, {"head": entity, "relation": relation, "tail": entity})
        negatives = parts = None
        if self.negatives is not None:
            negatives = _table("negatives", self.negatives, {"user": ends["user"], "entity": entity})
            negatives = _beside(positives, negatives, num_users, num_entities)
        if self.positive_parts is not None:
            kinds = {"part (0 training, 1 validation, 2 test)": (3, "the number of parts")}
            parts = _table("positive_parts", self.positive_parts, kinds)[:, 0]
            if len(parts) != len(positives):
                raise ValueError(
                    f"positive_parts has {len(parts)} rows, but positives {len(positives)}: one for each is "
                    f"needed"
                )
        weights = _column("weights", self.weights, len(positives))
        times = _column("times", self.times, len(positives))
        item_ids = checked_ids("item_ids", self.item_ids, num_items)
        positives, negatives, parts, weights, times = _sorted(
            positives, negatives, parts, weights, times, num_items
        )
        return replace(
            self,
            positives=positives,
            triples=triples,
            num_users=num_users,
            num_entities=num_entities,
            item_names=item_names,
            relation_names=relation_names,
            negatives=negatives,
            positive_parts=parts,
            user_ids=checked_ids("user_ids", self.user_ids, num_users),
            item_ids=item_ids,
            entity_names=entity_names,
            entity_ids=_entity_ids(self.entity_ids, item_ids, entity_names),
            weights=weights,
            times=times,
        )


def _entity_ids(
    ids: Sequence[int | str] | None, item_ids: Sequence[int | str], names: Sequence[str]
) -> Sequence[int | str]:
    """Return the ids of all entities: those that are given, or the items' ids, then the others' names."""
    if ids is not None:
        return checked_ids("entity_ids", ids, len(names), distinct=False)
    if isinstance(item_ids, range) and isinstance(names, NumberedNames):
        return range(len(names))
    return [*item_ids, *(names[row] for row in range(len(item_ids), len(names)))]


def _column(name: str, value: Any, size: int) -> npt.NDArray[Any] | None:
    """Return finite numbers, one for each positive."""
    if value is None:
        return None
    column = _numbers(name, value)
    if column.shape != (size,):
        raise ValueError(f"{name} has shape {column.shape}, but ({size},) is needed: one for each positive")
    if not np.isfinite(column).all():
        row = int((~np.isfinite(column)).argmax())
        raise ValueError(f"{name}[{row}]={column[row]}: a finite number is needed")
    return column


def _differing(names: Sequence[str], others: Sequence[str]) -> int | None:
    """Return the first row in which names are not the beginning of others."""
    return next((row for row, name in enumerate(names) if name != others[row]), None)


def _table(name: str, value: Any, columns: dict[str, tuple[int, str]]) -> _Table:
    """Return a table of whole numbers below the size of their column; a size has a name."""
    table = _numbers(name, value)
    shape = table.shape
    if table.size == 0 and table.ndim < 2:
        table = table.reshape(0, len(columns))
    elif table.ndim == 1 and len(columns) == 1:
        table = table[:, None]
    if table.ndim != 2 or table.shape[1] != len(columns):
        wanted = "(num_rows,)" if len(columns) == 1 else f"(num_rows, {len(columns)})"
        raise ValueError(f"{name} has shape {shape}, but {wanted} is needed: {', '.join(columns)}")
    for (what, (size, size_name)), numbers in zip(columns.items(), table.T, strict=True):
        if table.dtype.kind == "f" and size > 2 ** (np.finfo(table.dtype).nmant + 1):
            raise ValueError(
                f"{name} has type {table.dtype}, which rounds whole numbers below {size} ({size_name}): pass "
                f"integers"
            )
        # NaN is on neither side. Floats are let pass where they are whole.
        in_range = len(numbers) == 0 or (numbers.min() >= 0 and numbers.max() < size)
        if not in_range or (table.dtype.kind == "f" and (numbers != np.floor(numbers)).any()):
            row = int((~((numbers >= 0) & (numbers < size) & (numbers == np.floor(numbers)))).argmax())
            raise ValueError(
                f"{name}[{row}] has the {what} {numbers[row]}, but a whole number from 0 to {size - 1} is "
                f"needed, as {size_name} is {size}"
            )
    return table if np.can_cast(table.dtype, np.int64) else table.astype(np.int64)


def _numbers(name: str, value: Any) -> npt.NDArray[Any]:
    """Return an array of integers or floats."""
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
        elif isinstance(value, np.ma.MaskedArray):  # NumPy would show what is masked.
            value = value.tolist()
        table = np.asarray(value)
        if table.dtype == object:
            table = np.array(table.tolist())
    except ValueError:  # Rows of several lengths.
        table = np.array(None)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} {form(value)}, of which NumPy makes no table: {error}") from error
    if table.dtype.kind in "iuf":
        return table
    if table.dtype.names is not None:
        raise ValueError(f"{name} has the fields {table.dtype.names}, but a table of whole numbers is needed")
    rows = np.asarray(value, dtype=object).tolist()
    for row, cells in enumerate(rows if isinstance(rows, list) else [rows]):
        for cell in cells if isinstance(cells, (list, tuple)) else [cells]:
            if isinstance(cell, bool) or not isinstance(cell, (int, float, np.number)):
                raise ValueError(f"{name}[{row}] has {cell!r:.60}, which is no whole number")
            if not -(2.0**63) <= cell < 2.0**64:
                raise ValueError(f"{name}[{row}] has {cell!r:.60}, which is beyond 64 bits")
    raise ValueError(f"{name} has rows of several lengths")


def _beside(positives: _Table, negatives: _Table, num_users: int, num_entities: int) -> _Table:
    """Return the negative that goes with each positive: a user's first with the first, and so on."""
    wanted, found = (np.bincount(table[:, 0], minlength=num_users) for table in (positives, negatives))
    if (wanted != found).any():
        user = int((wanted != found).argmax())
        raise ValueError(
            f"negatives has {found[user]} rows of user {user}, but positives {wanted[user]}: one for each is "
            f"needed"
        )
    key, positive = (
        user.astype(np.int64) * num_entities + other for user, other in (negatives.T, positives.T)
    )
    for bad, problem in (
        (np.isin(key, positive), "a positive of the user"),
        (pd.Series(key).duplicated().to_numpy(), "a negative of the user in an earlier row, too"),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"negatives[{row}] has the entity {negatives[row, 1]}, which is {problem}")
    beside = np.empty(len(positives), dtype=np.int64)
    beside[positives[:, 0].argsort(kind="stable")] = negatives[negatives[:, 0].argsort(kind="stable"), 1]
    return np.stack([positives[:, 0], beside], axis=1)


def _sorted(
    positives: _Table,
    negatives: _Table | None,
    parts: _Table | None,
    weights: npt.NDArray[Any] | None,
    times: npt.NDArray[Any] | None,
    num_items: int,
) -> tuple[
    _Table,
    _Table | None,
    npt.NDArray[np.int8] | None,
    npt.NDArray[Any] | None,
    npt.NDArray[Any] | None,
]:
    """Return positives sorted by user and item, each once, and what goes with them."""
    key = positives[:, 0].astype(np.int64)
    key *= num_items
    key += positives[:, 1]
    if not (key[1:] > key[:-1]).all():
        order = key.argsort(kind="stable")
        is_first = np.diff(key[order], prepend=-1) > 0
        if parts is not None:
            strays = ~is_first & (np.diff(parts[order].astype(np.int64), prepend=0) != 0)
            if strays.any():
                at = int(strays.argmax())
                row, before = order[at], order[at - 1]
                raise ValueError(
                    f"positives[{row}] is user {positives[row, 0]} and item {positives[row, 1]}, as is row "
                    f"{before}, but positive_parts has {parts[row]} for one and {parts[before]} for the other"
                )
        first = np.flatnonzero(is_first)
        weights = None if weights is None else np.add.reduceat(weights[order], first)
        times = None if times is None else np.maximum.reduceat(times[order], first)
        order = order[first]
        positives = positives[order]
        negatives = None if negatives is None else negatives[order]
        parts = None if parts is None else parts[order]
    return positives, negatives, None if parts is None else parts.astype(np.int8), weights, times
