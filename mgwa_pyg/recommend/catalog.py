"""`Catalog`: what items, entities, users and relations are called."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import LISTENS, Interaction

# What is typed in many ways: quotes and dashes.
_ALIKE = str.maketrans(
    dict.fromkeys("‘’‚‛′´`ʼ", "'") | dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")
)
# Letters of no width, and how emoji are to be drawn.
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff]")
# What would break a line, or change how the rest of it is shown.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


class ItemId(str):
    """The id of an item, and not the name of another that reads the same. Ids in tables are such."""

    __slots__ = ()


class Catalog:
    """The ids and names of a data set, and the rows that they stand for.

    Ids are those of the files that the data set was made from. They are compared as they are written, so that
    196 and ``"196"`` are the same id.

    Args:
        dataset (KGRecDataset): The data set.
    """

    def __init__(self, dataset: KGRecDataset) -> None:
        self.num_users = dataset.num_users
        self.num_items = dataset.num_items
        self.num_relations = dataset.num_relations
        #: What users do with items. No relation of the knowledge graph has its name.
        self.interaction: Interaction = getattr(dataset, "interaction", LISTENS)
        self._num_entities = dataset.num_entities
        self._users: Sequence[int | str] = dataset.user_ids
        ids: Sequence[int | str] = dataset.item_ids
        self._items = ids if isinstance(ids, range) else [ItemId(i) if isinstance(i, str) else i for i in ids]
        self._names: Sequence[str] = dataset.entity_names
        self._relations: Sequence[str] = dataset.relation_names

    def user(self, user: Any) -> int:
        """Return the row of a user, given by its id.

        Raises:
            TypeError: If it is neither a whole number nor a string.
            IndexError: If there is no user of this number.
            ValueError: If there is no user of this string.
        """
        row = self._user_rows.get(_written("user", user))
        if row is None:
            raise _unknown("user", user, self._users, {str(id_).casefold(): id_ for id_ in self._users})
        return row

    def item(self, item: Any) -> int:
        """Return the row of an item, given by its id or its name: a whole number and an :class:`ItemId` are
        ids, another string is either.

        A name is taken as it is written; if there is none like it, upper and lower case, blanks, the forms of
        quotes and dashes and ways to encode the same letter don't matter.

        Raises:
            TypeError: If it is neither a whole number nor a string.
            IndexError: If there is no item of this number.
            ValueError: If no item has this id or name, or several have.
        """
        found = self._found(item)
        if len(found) > 1:
            ids = {row: self._items[row] for row in sorted(found)[:5]}
            some = [
                f"{f'ItemId({id_!r})' if isinstance(id_, str) else id_} ({self.name(row)!r})"
                for row, id_ in ids.items()
            ]
            raise ValueError(
                f"the item {item!r:.60} may be one of {len(found)} items: choose one by its id, from "
                f"{', '.join(some)}{', ...' if len(found) > 5 else ''}"
            )
        if not found:
            known: dict[str, int | str] = {str(id_).casefold(): id_ for id_ in self._items}
            if _may_be_a_name(item):
                known |= {name: self.name(rows[0]) for name, rows in self._by_name[1].items()}
            raise _unknown("item", item, self._items, known)
        return found.pop()

    def _found(self, item: Any) -> set[int]:
        """Return the rows that an id or a name may mean."""
        written = _written("item", item)
        found = {self._item_rows[written]} if written in self._item_rows else set()
        if _may_be_a_name(item):
            exact, folded = self._by_name
            found = found.union(exact.get(written, [])) or set(folded.get(_fold(written), []))
        return found

    def items(self, items: Any) -> Tensor:
        """Return the distinct rows of one or more items, each given by its id or its name, in order.

        Errors are those of :meth:`item`; it is a :class:`TypeError`, too, if they are no list, and a
        :class:`ValueError` if there is none.
        """
        rows = sorted({self.item(item) for item in listed("items", items)})
        if not rows:
            raise ValueError("items is empty: pass at least one item that the newcomer has seen")
        return torch.tensor(rows)

    def some_items(self, name: str, items: Any) -> Tensor:
        r"""Return which items are meant, :math:`(M)`, by their ids and names, or as truth values: a mask over
        all of them, an array or a tensor in the order of the data set; or a series, which goes by its index,
        the items' ids.

        Args:
            name (str): What the argument is called.
            items (iterable or mask): The items; there may be none.

        Raises:
            TypeError: If they are no list, or one is neither a whole number nor a string.
            IndexError: If there is no item of a number.
            ValueError: If no item or several have a name, a mask is of another size, or a truth value is
                missing.
        """
        by_index = isinstance(items, pd.Series) and pd.api.types.is_bool_dtype(items.dtype)
        if by_index:
            if missing := items.index[items.isna()].tolist():
                raise ValueError(f"{name}[{missing[0]!r:.60}] is missing: True or False is needed")
            items = items.index[items.to_numpy(bool)]
        elif getattr(items, "dtype", None) in (torch.bool, bool):
            if tuple(items.shape) != (self.num_items,):
                raise ValueError(
                    f"{name} is a mask of the shape {tuple(items.shape)}, but {(self.num_items,)} is needed: "
                    f"one value for each item, in the order of item_ids"
                )
            return torch.tensor(items.tolist(), dtype=torch.bool)
        mask, items = torch.zeros(self.num_items, dtype=torch.bool), listed(name, items)
        try:
            mask[[self.item(item) for item in items]] = True
        except (IndexError, ValueError) as error:
            by = f"{name}.index, by which a series of truth values goes" if by_index else name
            count = sum(not self._found(item) for item in items)
            more = f". {count} of the {len(items)} are no items of the data: leave them out" * (count > 1)
            raise type(error)(f"{by}: {error}{more}") from None
        return mask

    def user_ids(self, rows: Tensor) -> pd.Index:
        """Return the ids of these rows, :math:`(n)`."""
        return self._user_index.take(rows.numpy())

    def item_id(self, row: int) -> int | ItemId:
        """Return the id of a row."""
        return self._items[row]

    def item_ids(self, rows: Tensor) -> pd.Index:
        """Return the ids of these rows, :math:`(n)`."""
        return self._item_index.take(rows.numpy())

    def item_names(self, rows: Tensor) -> pd.Series:
        """Return the names of the items of these rows, :math:`(n)`."""
        distinct, place = rows.unique(return_inverse=True)
        names = pd.Series([self.name(row) for row in distinct.tolist()], dtype=str)
        return names.take(place.numpy()).reset_index(drop=True)

    def name(self, node: int) -> str:
        """Return what a row of the graph is called: an item, another entity, or, after these, a user."""
        if node < self._num_entities:
            return str(self._names[node])
        return f"user {self._users[node - self._num_entities]}"

    def relation(self, relation: int) -> str:
        """Return what a relation is called, whichever way it is followed; after those of the knowledge graph
        come the two directions of an interaction.
        """
        if relation >= 2 * self.num_relations:
            return self.interaction.edge
        name = str(self._relations[relation % self.num_relations])
        return f"{name} (of entities)" if name == self.interaction.edge else name

    @cached_property
    def _user_rows(self) -> dict[str, int]:
        return {str(id_): row for row, id_ in enumerate(self._users)}

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {str(id_): row for row, id_ in enumerate(self._items)}

    # They have a type that is right for tables without rows, too.
    @cached_property
    def _user_index(self) -> pd.Index:
        return pd.Index(self._users)

    @cached_property
    def _item_index(self) -> pd.Index:
        # As objects strings stay what they are.
        return pd.Index(self._items, dtype=object if isinstance(self._items[0], str) else None)

    @cached_property
    def _by_name(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        exact: dict[str, list[int]] = {}
        folded: dict[str, list[int]] = {}
        for row in range(self.num_items):
            exact.setdefault(self.name(row), []).append(row)
            folded.setdefault(_fold(self.name(row)), []).append(row)
        return exact, folded


def _may_be_a_name(item: Any) -> bool:
    return isinstance(item, str) and not isinstance(item, ItemId)


def is_one(value: Any) -> bool:
    """Whether this is a single value, not several: an element of a tensor is one, a string, too."""
    return isinstance(value, str) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0


def listed(name: str, values: Any) -> list[Any]:
    """Return several values as a list, or raise a :class:`TypeError` if it is one, or a table."""
    if isinstance(values, Mapping | pd.DataFrame):
        raise TypeError(f"{name} is a {type(values).__name__}: pass a list, such as one of its columns")
    if is_one(values) or isinstance(values, bytes | bytearray | memoryview):
        raise TypeError(f"{name}={values!r:.60}: pass a list, such as [{values!r:.60}]")
    return list(values)


def whole_number(value: Any) -> int | None:
    """Return a whole number as an integer, also an element of an array or a tensor; else nothing."""
    dtype = getattr(value, "dtype", None)
    is_truth = isinstance(value, bool) or dtype is torch.bool or getattr(dtype, "kind", "") == "b"
    if is_truth or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):  # Torch raises the second for a tensor without values.
        return None


def one_line(text: str) -> str:
    """Text of which nothing steers a terminal or breaks a line."""
    return _CONTROLS.sub(" ", text)


def _written(kind: str, value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    number = whole_number(value)
    if number is None:
        wanted = "an id or a name" if kind == "item" else "an id"
        raise TypeError(f"{kind}={value!r:.60}: {wanted} is needed, a whole number or a string")
    return str(number)


def _fold(name: str) -> str:
    """What is left of a name where the ways to type it don't matter."""
    name = unicodedata.normalize("NFKC", one_line(name).translate(_ALIKE)).casefold()
    return " ".join(unicodedata.normalize("NFKC", _UNSEEN.sub("", name)).split())


def _unknown(kind: str, value: Any, ids: Sequence[int | str], known: Mapping[str, int | str]) -> Exception:
    """The error for what is not ``known``: what is asked for, and what it means."""
    is_name = isinstance(value, str)
    if not is_name and isinstance(ids, range):
        return IndexError(f"{kind}={value}: whole numbers from 0 to {len(ids) - 1} are needed")
    called = "is called" if kind == "item" and is_name and not isinstance(value, ItemId) else "has the id"
    text = _fold(str(value))[:60]
    # A slip leaves the beginning or the end of a name as it is.
    near = [name for name in known if name[:1] == text[:1] or name[-2:] == text[-2:]]
    close = [repr(known[name]) for name in get_close_matches(text, near, n=3, cutoff=0.7)]
    hint = f": did you mean {' or '.join(close)}?" if close else ", nor anything like it"
    error = ValueError if is_name else IndexError
    return error(f"no {kind} {called} {value!r:.60}{hint}")
