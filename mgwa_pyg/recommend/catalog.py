"""`Catalog`: what items, entities, users and relations are called."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mgwa_pyg.datasets import KGRecDataset


class Catalog:
    """The names of a data set, and the numbers that they stand for.

    Args:
        dataset (KGRecDataset): The data set.
    """

    def __init__(self, dataset: KGRecDataset) -> None:
        self.num_users = dataset.num_users
        self.num_items = dataset.num_items
        self.num_relations = dataset.num_relations
        self._items: Sequence[str] = dataset.item_names
        self._relations: Sequence[str] = dataset.relation_names
        self._num_entities = dataset.num_entities

    def user(self, user: Any) -> int:
        """Return the number of a user.

        Raises:
            TypeError: If it is no whole number.
            IndexError: If there is no such user.
        """
        return _number("user", user, self.num_users)

    def item(self, item: Any) -> int:
        """Return the number of an item, given by its number or its name.

        A name is taken as it is written; if there is none like it, upper and lower case and spaces at its
        ends don't matter.

        Raises:
            TypeError: If it is neither a whole number nor a string.
            IndexError: If there is no item of this number.
            ValueError: If no item has this name, or several have.
        """
        if not isinstance(item, str):
            return _number("item", item, self.num_items)
        exact, folded = self._by_name
        found = exact.get(item) or folded.get(_fold(item), [])
        if len(found) > 1:
            raise ValueError(f"{len(found)} items are called {item!r}: choose one by its number, {found}")
        if not found:
            close = [
                self._items[folded[name][0]]
                for name in get_close_matches(_fold(item), folded, n=3, cutoff=0.7)
            ]
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "nor anything like it"
            raise ValueError(f"no item is called {item!r}: {hint}")
        return found[0]

    def items(self, items: Any) -> Tensor:
        """Return the distinct numbers of one or more items, each given by its number or its name, in order.

        Raises:
            TypeError: If they are no list, or one of them is neither a whole number nor a string.
            IndexError: If there is no item of a number.
            ValueError: If there is no item at all, or no item or several items have a name.
        """
        if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
            raise TypeError(f"items={items!r}: pass a list of names or numbers, such as [{items!r}]")
        numbers = sorted({self.item(item) for item in items})
        if not numbers:
            raise ValueError("items is empty: pass at least one item that the user listened to")
        return torch.tensor(numbers)

    def name(self, node: int) -> str:
        """Return what a node is called: an item, another entity, or, after the entities, a user."""
        if node < self.num_items:
            return str(self._items[node])
        return f"entity {node}" if node < self._num_entities else f"user {node - self._num_entities}"

    def relation(self, relation: int) -> str:
        """Return what a relation is called, whichever way it is followed; after those of the knowledge graph
        come the two directions of an interaction.
        """
        is_interaction = relation >= 2 * self.num_relations
        return "listens" if is_interaction else str(self._relations[relation % self.num_relations])

    @cached_property
    def _by_name(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        exact: dict[str, list[int]] = {}
        folded: dict[str, list[int]] = {}
        for number, name in enumerate(self._items):
            exact.setdefault(str(name), []).append(number)
            folded.setdefault(_fold(str(name)), []).append(number)
        return exact, folded


def _fold(name: str) -> str:
    return name.casefold().strip()


def _number(kind: str, value: Any, stop: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        wanted = "a name or a whole number" if kind == "item" else "a whole number"
        raise TypeError(f"{kind}={value!r}: {wanted} is needed") from None
    if not 0 <= number < stop:
        raise IndexError(f"{kind}={number}: whole numbers from 0 to {stop - 1} are needed")
    return number
