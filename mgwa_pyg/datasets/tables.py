"""From raw columns to tables of indices: the steps that several data sets share."""

import warnings
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mgwa_pyg.datasets.raw import IntArray, RawTable, raise_at

_AROUND = " \"'\t\r\v\f\xa0\ufeff"  # What other programs leave around ids.


class Numbering:
    r"""Numbers tokens by first appearance; :obj:`number` holds what it gave."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}

    def __call__(self, tokens: Iterable[str]) -> npt.NDArray[np.int32]:
        number = self.number
        return np.fromiter((number.setdefault(token, len(number)) for token in tokens), np.int32)


def warn_of_twins(kind: str, ids: Collection[str], where: str) -> None:
    r"""Warn of ids that are one but for blanks around them, quotes, or the point of a whole number."""
    known = set(ids)
    twins = [id_ for id_ in ids if (plain := _plain(id_)) != id_ and plain in known]
    if twins:
        warnings.warn(
            f"{where} have {len(twins)} {kind} that are also written in another way (the first is "
            f"{twins[0]!r}, and {_plain(twins[0])!r}): they count as different. See whether all ids are "
            f"written alike.",
            stacklevel=3,
        )


def _plain(id_: str) -> str:
    id_ = id_.strip(_AROUND)
    return id_[:-2] if id_.endswith(".0") and id_[:-2].isdigit() else id_


def distinct_pairs(user: IntArray, item: IntArray, num_items: int) -> IntArray:
    r"""Return each pair once, sorted by user and then by item. [num_pairs, 2]"""
    return np.stack(np.divmod(np.unique(user * num_items + item), num_items), axis=1)


def index_pairs(pairs: IntArray, num_items: int) -> pd.Index:
    r"""Return the index that finds a pair's row by the key :obj:`user * num_items + item`."""
    return pd.Index(pairs[:, 0] * num_items + pairs[:, 1])


def number_triples(
    head: npt.NDArray[Any],
    relation: npt.NDArray[Any],
    tail: npt.NDArray[Any],
    first: npt.NDArray[Any],
    item_names: list[str],
) -> dict[str, Any]:
    r"""Give entities and relations their indices, by first appearance.

    Args:
        head (np.ndarray): The heads' ids. [num_triples]
        relation (np.ndarray): The relations' names. [num_triples]
        tail (np.ndarray): The tails' ids. [num_triples]
        first (np.ndarray): The ids of the items, which come first, distinct. [num_items]
        item_names (list of str): Their names; another entity is called by its id.

    Returns:
        dict: What :class:`KGRecTables` holds of triples, entities, relations and the items' names.
    """
    code, relation_names = pd.factorize(relation)
    ids = np.stack([head, tail], axis=1).ravel()
    entity = pd.Index(first).get_indexer(ids)
    other, others = pd.factorize(ids[entity < 0])
    entity[entity < 0] = len(first) + other
    return {
        "triples": np.stack([entity[::2], code, entity[1::2]], axis=1),
        "num_entities": len(first) + len(others),
        "item_names": item_names,
        "entity_names": [*item_names, *(f"entity {other}" for other in others.tolist())],
        "relation_names": [str(name) for name in relation_names],
    }


def frozen_negatives(
    table: RawTable, positives: IntArray, num_items: int, source: str, sha256: str | None
) -> IntArray:
    r"""Return the negatives of a published file of labelled pairs, which must hold exactly the
    positives and as many negatives for each user.

    Args:
        table (RawTable): The file, with columns :obj:`user`, :obj:`item` and :obj:`label`.
        positives (np.ndarray): The pairs of user and item, distinct. [num_positives, 2]
        num_items (int): The number of items.
        source (str): The name of the file that the positives come from.
        sha256 (str, optional): The SHA-256 of the file, if it is known.

    Returns:
        np.ndarray: The pairs of user and negative, sorted by user and in the file's order within a
        user. [num_positives, 2]

    Raises:
        RawDataError: If the file does not hold what it should.
    """
    num_users = int(positives[:, 0].max()) + 1
    user, item, label = table["user"], table["item"], table["label"]
    table.fail_if(label > 1, "the label is {label}, not 0 or 1")
    table.fail_if(user >= num_users, f"user {{user}} is none of the {num_users} users")
    table.fail_if(item >= num_items, f"item {{item}} is none of the {num_items} items")
    key = user * num_items + item
    pair = "user {user} and item {item}"
    table.fail_if_repeated(key, f"{pair} have an earlier {table.unit}")
    row = index_pairs(positives, num_items).get_indexer(key)
    table.fail_if((label == 1) & (row < 0), f"{pair} are no interaction in {source}")
    table.fail_if((label == 0) & (row >= 0), f"{pair} are an interaction in {source}")
    table.verify(sha256)

    count = np.bincount(positives[:, 0])
    for value, what in [(1, "positives"), (0, "negatives")]:
        found = np.bincount(user[label == value], minlength=num_users)
        if (found != count).any():
            bad = int((found != count).argmax())
            problem = f"user {bad} has {found[bad]} {what} instead of {count[bad]}"
            raise_at(table.path, None, problem, table.remedy)
    negatives = np.stack([user, item], axis=1)[label == 0]
    return negatives[np.argsort(negatives[:, 0], kind="stable")]
