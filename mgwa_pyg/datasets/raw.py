"""Raw text files as columns, and the error that names the file and the line at fault."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]


class RawDataError(ValueError):
    r"""A raw file does not hold what it should; the message names the file and the line."""


@dataclass(frozen=True)
class RawTable:
    r"""A file of tab-separated columns, read whole.

    Args:
        path (Path): The file.
        columns (dict): The columns by name: an integer array, or a list of strings.
        first_line (int): The line of row 0, counted from 1.
        sha256 (str): The SHA-256 of the file as read.
    """

    path: Path
    columns: dict[str, Any]
    first_line: int
    sha256: str

    @classmethod
    def read(
        cls,
        path: Path,
        columns: Mapping[str, type | None],
        header: str | None = None,
    ) -> "RawTable":
        r"""Reads a table; lines end with LF or CRLF.

        Args:
            path (Path): The file.
            columns (Mapping[str, type or None]): For each column its name and either :obj:`int` (a
                non-negative integer), :obj:`str` (a text that is not empty), or :obj:`None` (not
                looked at).
            header (str, optional): The first line, which must be exactly this.
                (default: :obj:`None`)

        Raises:
            FileNotFoundError: If there is no such file.
            RawDataError: If the file is empty, is not UTF-8, or has a row that does not fit.
        """
        raw = path.read_bytes()
        if not raw:
            raise_at(path, None, "it is empty")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise_at(path, line, f"byte {raw[error.start]:#04x} is not UTF-8")

        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        if header is not None and lines[0] != header:
            raise_at(path, 1, f"the header is {_shorten(lines[0])}, not {header!r}")
        first_line = 1 if header is None else 2
        rows = lines[first_line - 1 :]
        if not rows:
            raise_at(path, None, "it has no row below its header")

        width = np.fromiter((row.count("\t") for row in rows), np.int64, len(rows)) + 1
        if (width != len(columns)).any():
            row = int((width != len(columns)).argmax())
            raise_at(
                path,
                first_line + row,
                f"{_shorten(rows[row])} has {width[row]} fields instead of {len(columns)} "
                f"({', '.join(columns)})",
            )

        fields = "\t".join(rows).split("\t")
        parsed: dict[str, Any] = {}
        for index, (name, kind) in enumerate(columns.items()):
            values = fields[index :: len(columns)]
            if kind is int:
                # 18 digits always fit into 64 bits.
                _check_all(r"[0-9]{1,18}", values, path, first_line, name, "non-negative integer")
                parsed[name] = np.array(values, dtype=np.int64)
            elif kind is str:
                _check_all(r"[^\n]+", values, path, first_line, name, "text")
                parsed[name] = values
        return cls(path, parsed, first_line, hashlib.sha256(raw).hexdigest())

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def fail(self, row: int, problem: str) -> NoReturn:
        r"""Raises the :class:`RawDataError` that blames :obj:`row`."""
        raise_at(self.path, self.first_line + int(row), problem)

    def fail_if(self, bad: npt.NDArray[np.bool_], problem: str) -> None:
        r"""Blames the first bad row, if there is one.

        Args:
            bad (np.ndarray): The bad rows' mask. [num_rows]
            problem (str): What is wrong; :obj:`"{artist}"` stands for that column's value.
        """
        if bad.any():
            row = int(bad.argmax())
            self.fail(row, problem.format_map({k: v[row] for k, v in self.columns.items()}))

    def fail_if_repeated(self, keys: npt.NDArray[Any], problem: str) -> None:
        r"""Blames the first row whose key an earlier row has."""
        self.fail_if(pd.Series(keys).duplicated().to_numpy(), problem)

    def verify(self, sha256: str | None) -> None:
        r"""Compares the file's SHA-256 with the one expected, unless that is :obj:`None`."""
        if sha256 is not None and sha256 != self.sha256:
            raise_at(self.path, None, f"its SHA-256 is {self.sha256} instead of {sha256}")


def raise_at(path: Path, line: int | None, problem: str) -> NoReturn:
    r"""Raises a :class:`RawDataError` that names the file, the line and the way out."""
    where = f"'{path}'" if line is None else f"'{path}', line {line}"
    raise RawDataError(
        f"{where}: {problem}. Delete the file and let the data set download it again, or restore "
        f"it from its source."
    )


def _check_all(pattern: str, values: list[str], path: Path, first_line: int, name: str, wanted: str) -> None:
    # One match over the whole column; only when it fails is the culprit looked for.
    if re.fullmatch(f"(?:{pattern}\n)*", "\n".join(values) + "\n"):
        return
    for row, value in enumerate(values):
        if not value:
            raise_at(path, first_line + row, f"the {name} is missing")
        if not re.fullmatch(pattern, value):
            raise_at(path, first_line + row, f"the {name} {_shorten(value)} is not a {wanted}")


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
