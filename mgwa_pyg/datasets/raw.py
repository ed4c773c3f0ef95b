"""Raw files as columns, and the error that names the file and the line at fault."""

import codecs
import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]

REMEDY = "Delete the file and let the data set download it again, or restore it from its source."
CHUNK = 2**20  # Rows that are in memory at a time.
BLOCK = 2**20  # The bytes of text that are.


def index_type(size: int) -> type[np.signedinteger]:
    r"""Return the type that holds indices below :obj:`size` in the least memory: 32 or 64 bits."""
    return np.int32 if size <= 2**31 else np.int64


class RawDataError(ValueError):
    r"""A raw file does not hold what it should; the message names the file and the line."""


@dataclass(frozen=True)
class RawTable:
    r"""A file of columns, read whole or in parts.

    Args:
        path (Path): The file.
        columns (dict): The columns by name: an array of numbers, or a list of strings.
        first_line (int): The line of row 0, counted from 1.
        sha256 (str): The SHA-256 of the file as read, where it was read whole. (default: :obj:`""`)
        remedy (str): The way out of a fault in the file, in a sentence. (default: :obj:`REMEDY`)
        unit (str): What a message calls a line. (default: :obj:`"line"`)
    """

    path: Path
    columns: dict[str, Any]
    first_line: int
    sha256: str = ""
    remedy: str = REMEDY
    unit: str = "line"

    @classmethod
    def read(
        cls,
        path: Path,
        columns: Mapping[str, type | None],
        header: str | None = None,
        separator: str = "\t",
        remedy: str = REMEDY,
    ) -> "RawTable":
        r"""Read a table; lines end with LF or CRLF, and a byte order mark does not matter.

        Args:
            path (Path): The file.
            columns (Mapping[str, type or None]): For each column its name and either :obj:`int` (a
                non-negative integer), :obj:`float` (a number), :obj:`str` (a text that is not
                empty), :obj:`object` (any text), or :obj:`None` (not looked at).
            header (str, optional): The first line, which must be exactly this.
                (default: :obj:`None`)
            separator (str): What stands between two fields. (default: :obj:`"\\t"`)
            remedy (str): The way out of a fault in the file, in a sentence.
                (default: :obj:`REMEDY`)

        Raises:
            FileNotFoundError: If there is no such file.
            RawDataError: If the file is empty, is not UTF-8, has a NUL byte, or has a row that does
                not fit.
        """
        raw = path.read_bytes()
        text = decode(raw, path, 1, remedy)
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        if header is not None and lines[0] != header:
            raise_at(path, 1, f"the header is {_shorten(lines[0])}, not {header!r}", remedy)
        first_line = 1 if header is None else 2
        rows = lines[first_line - 1 :]
        if not rows:
            raise_at(path, None, "it has no row below its header", remedy)
        parsed = _parse(rows, columns, path, first_line, separator, remedy)
        return cls(path, parsed, first_line, hashlib.sha256(raw).hexdigest(), remedy)

    @classmethod
    def read_parts(
        cls, path: Path, columns: Mapping[str, type | None], separator: str = "\t", remedy: str = REMEDY
    ) -> "Iterator[RawTable]":
        r"""Read a table that is too large to be held as text, some rows at a time, without its header; see
        :meth:`read`.

        Raises:
            FileNotFoundError: If there is no such file.
            RawDataError: If the file has no rows, is not UTF-8, or has a row that does not fit.
        """
        with path.open("rb") as file:
            file.readline()
            first_line = 2
            while block := file.read(BLOCK):
                text = decode(block + file.readline(), path, first_line, remedy)
                rows = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
                parsed = _parse(rows, columns, path, first_line, separator, remedy)
                yield cls(path, parsed, first_line, remedy=remedy)
                first_line += len(rows)
        if first_line == 2:
            raise_at(path, None, "it has no row below its header", remedy)

    @classmethod
    def read_npy(cls, path: Path, columns: tuple[str, ...]) -> "RawTable":
        r"""Read an array of non-negative integers that NumPy saved.

        Args:
            path (Path): The file.
            columns (tuple[str]): The names of the array's columns.

        Raises:
            FileNotFoundError: If there is no such file.
            RawDataError: If the file is damaged, or holds anything else.
        """
        raw = path.read_bytes()
        try:
            # Unlike `np.load`, it never opens an archive.
            array = np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)
        except Exception as error:  # NumPy reads the header as Python, so that there is no end of them.
            raise_at(path, None, f"it is no array in NumPy's format ({error})")
        if array.dtype.kind not in "iu":
            raise_at(path, None, f"its numbers are of type {array.dtype}, not integers")
        if array.ndim != 2 or array.shape[1] != len(columns) or len(array) == 0:
            raise_at(
                path,
                None,
                f"its shape is {list(array.shape)} instead of [num_rows, {len(columns)}] "
                f"({', '.join(columns)})",
            )
        numbers = array.astype(np.int64)
        table = cls(
            path,
            {name: np.ascontiguousarray(numbers[:, i]) for i, name in enumerate(columns)},
            first_line=1,
            sha256=hashlib.sha256(raw).hexdigest(),
            unit="row",
        )
        for name in columns:
            table.fail_if(table[name] < 0, f"the {name} {{{name}}} is not a non-negative integer")
        return table

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def fail(self, row: int, problem: str) -> NoReturn:
        r"""Raise the :class:`RawDataError` that blames :obj:`row`."""
        raise_at(self.path, self.first_line + int(row), problem, self.remedy, self.unit)

    def fail_if(self, bad: npt.NDArray[np.bool_], problem: str) -> None:
        r"""Raise the :class:`RawDataError` that blames the first bad row, if there is one.

        Args:
            bad (np.ndarray): The bad rows' mask. [num_rows]
            problem (str): What is wrong; :obj:`"{artist}"` stands for that column's value.
        """
        if bad.any():
            row = int(bad.argmax())
            self.fail(row, problem.format_map({k: v[row] for k, v in self.columns.items()}))

    def fail_if_repeated(self, keys: npt.NDArray[Any], problem: str) -> None:
        r"""Blame the first row whose key an earlier row has."""
        self.fail_if(pd.Series(keys).duplicated().to_numpy(), problem)

    def verify(self, sha256: str | None) -> None:
        r"""Blame a file that has another SHA-256 than the one expected; :obj:`None` expects none."""
        if sha256 is not None and sha256 != self.sha256:
            problem = f"its SHA-256 is {self.sha256} instead of {sha256}"
            raise_at(self.path, None, problem, self.remedy)


def read_in_chunks(
    path: Path, columns: Mapping[str, type], header: str, separator: str, remedy: str = REMEDY
) -> Iterator[dict[str, Any]]:
    r"""Read a table of numbers that is too large to be read whole, :obj:`CHUNK` rows at a time.

    It lets whole numbers pass as integers however they are written, such as :obj:`7.0`.

    Args:
        path (Path): The file.
        columns (Mapping[str, type]): For each column its name and :obj:`int` or :obj:`float`; no
            number may be negative.
        header (str): The first line, which must be exactly this.
        separator (str): The character between two fields.
        remedy (str): The way out of a fault in the file, in a sentence. (default: :obj:`REMEDY`)

    Yields:
        dict[str, np.ndarray]: The columns of the next rows by name.

    Raises:
        FileNotFoundError: If there is no such file.
        RawDataError: If the file has another header, no row, or a row that does not fit.
    """
    with path.open("rb") as file:
        found = decode(file.readline(2**16), path, 1, remedy).rstrip("\r\n")
        has_nul = any(b"\0" in block for block in iter(partial(file.read, 2**20), b""))
    if found != header:
        raise_at(path, 1, f"the header is {_shorten(found)}, not {header!r}", remedy)
    if has_nul:  # There numbers end to pandas 2, whatever follows.
        _blame_row(path, columns, separator, remedy)

    num_rows = 0
    try:
        with pd.read_csv(
            path,
            sep=separator,
            header=0,
            names=list(columns),
            dtype={name: np.dtype(kind) for name, kind in columns.items()},
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            skip_blank_lines=False,
            chunksize=CHUNK,
            engine="c",
        ) as chunks:
            for chunk in chunks:
                # With a field too many in its first row, pandas takes the first one for an index.
                if not isinstance(chunk.index, pd.RangeIndex):
                    raise ValueError("it has rows with too many fields")
                parsed = {name: chunk[name].to_numpy() for name in columns}
                if not all((values >= 0).all() for values in parsed.values()):
                    raise ValueError("it has a negative number")
                num_rows += len(chunk)
                yield parsed
    except (ValueError, OverflowError) as error:
        _blame_row(path, columns, separator, remedy)
        raise_at(path, None, f"it cannot be read as a table of numbers ({error})", remedy)
    if num_rows == 0:
        raise_at(path, None, "it has no row below its header", remedy)


def raise_at(
    path: Path, line: int | None, problem: str, remedy: str = REMEDY, unit: str = "line"
) -> NoReturn:
    r"""Raise a :class:`RawDataError` that names the file, the line and the way out."""
    where = f"'{path}'" if line is None else f"'{path}', {unit} {line}"
    raise RawDataError(f"{where}: {problem}. {remedy}")


def _blame_row(path: Path, columns: Mapping[str, type], separator: str, remedy: str) -> None:
    """Blame the first row below the header that the strict parser rejects, if there is one."""
    for _ in RawTable.read_parts(path, columns, separator, remedy):
        pass


def decode(raw: bytes, path: Path, first_line: int, remedy: str) -> str:
    r"""Return the text of some lines, without a byte order mark, or raise a :class:`RawDataError`."""
    if not raw:
        raise_at(path, None, "it is empty", remedy)
    if first_line == 1:
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        raise_at(path, line, f"byte {raw[error.start]:#04x} is not UTF-8", remedy)
    if "\0" in text:  # To pandas 2, two names are one if they only differ after it.
        line = first_line + text.count("\n", 0, text.index("\0"))
        raise_at(path, line, "byte 0x00 is not text", remedy)
    return text


def _parse(
    rows: list[str],
    columns: Mapping[str, type | None],
    path: Path,
    first_line: int,
    separator: str,
    remedy: str,
) -> dict[str, Any]:
    """Return the typed columns of some rows."""
    width = np.fromiter((row.count(separator) for row in rows), np.int64, len(rows)) + 1
    if (width != len(columns)).any():
        row = int((width != len(columns)).argmax())
        raise_at(
            path,
            first_line + row,
            f"{_shorten(rows[row])} has {width[row]} fields instead of {len(columns)} ({', '.join(columns)})",
            remedy,
        )

    fields = separator.join(rows).split(separator)
    parsed: dict[str, Any] = {}
    for index, (name, kind) in enumerate(columns.items()):
        values = fields[index :: len(columns)]
        if kind is None:
            continue
        pattern, wanted = _KINDS[kind]
        # One match over the whole column; only when it fails is the culprit looked for.
        if not re.fullmatch(f"(?:{pattern}\n)*", "\n".join(values) + "\n"):
            for row, value in enumerate(values):
                if not value:
                    raise_at(path, first_line + row, f"the {name} is missing", remedy)
                if not re.fullmatch(pattern, value):
                    problem = f"the {name} {_shorten(value)} is not a {wanted}"
                    raise_at(path, first_line + row, problem, remedy)
        parsed[name] = values if kind in (str, object) else np.array(values, dtype=np.dtype(kind))
    return parsed


_KINDS = {
    int: (r"[0-9]{1,18}", "non-negative integer"),  # 18 digits always fit into 64 bits.
    float: (r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", "number"),
    str: (r"[^\n]+", "text"),
    object: (r"[^\n]*", "text"),
}


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
