"""Names and ids: what users, items, entities and relations are called."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch


class NumberedNames(Sequence[str]):
    r"""Names that are made when they are asked for: a word and the number, after those that are given.

    Args:
        word (str): What all of them are.
        size (int): The number of names.
        first (sequence of str): The names that are given. (default: :obj:`()`)
    """

    def __init__(self, word: str, size: int, first: Sequence[str] = ()) -> None:
        self.word = word
        self.size = size
        self.first = first

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        number = range(self.size)[index]
        return [self._name(i) for i in number] if isinstance(number, range) else self._name(number)

    def _name(self, number: int) -> str:
        return self.first[number] if number < len(self.first) else f"{self.word} {number}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NumberedNames):
            return vars(self) == vars(other)
        return isinstance(other, list) and len(other) == len(self) and other == list(self)

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self[:3]))}{', ...' if len(self) > 3 else ''}]"


torch.serialization.add_safe_globals([NumberedNames, range])  # They go into the processed file.


def checked_names(name: str, value: Any, size: int | None = None) -> Sequence[str]:
    r"""Return names as a list of strings, or as they are if they are numbered.

    Raises:
        ValueError: If this is no sequence of strings, or not of the size that is needed.
    """
    if not isinstance(value, NumberedNames):
        value = _listed(name, value, "strings")
        for row, found in enumerate(value):
            if not isinstance(found, str):
                raise ValueError(f"{name}[{row}]={found!r:.60}: a string is needed")
            _check_text(name, row, found)
        value = [str(found) for found in value]
    _check_size(name, value, size)
    return value


def checked_ids(name: str, value: Any, size: int, distinct: bool = True) -> Sequence[int | str]:
    r"""Return ids as a list of integers and strings; none, or the row numbers, are a :obj:`range`.

    Raises:
        ValueError: If this is no sequence of whole numbers or strings, not of the size that is needed, or
            holds two that read alike.
    """
    if value is None:
        return range(size)
    ids = _listed(name, value, "whole numbers or strings")
    _check_size(name, ids, size)
    for row, found in enumerate(ids):
        if isinstance(found, (bool, np.bool_)) or not isinstance(found, (int, str, np.integer)):
            raise ValueError(f"{name}[{row}]={found!r:.60}: a whole number or a string is needed")
        if isinstance(found, str):
            _check_text(name, row, found)
    ids = [str(found) if isinstance(found, str) else int(found) for found in ids]
    # 7 and "7" would be one and the same to whoever asks for either.
    repeated = pd.Series(ids, dtype=object).map(str).duplicated().to_numpy()
    if distinct and repeated.any():
        row = int(repeated.argmax())
        raise ValueError(f"{name}[{row}]={ids[row]!r:.60} is the id of an earlier row, too: ids differ")
    return range(size) if ids == list(range(size)) else ids


def _check_text(name: str, row: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}[{row}]={text!r:.60}: text is needed that UTF-8 can hold ({error.reason})"
        ) from error


def _listed(name: str, value: Any, what: str) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ValueError(f"{name}={value!r:.60}: a sequence of {what} is needed")
    return list(value)


def _check_size(name: str, value: Sequence[Any], size: int | None) -> None:
    if size is not None and len(value) != size:
        raise ValueError(f"{name} has {len(value)} values, but {size} are needed, one for each row")
