"""`Table`: columns of ids, categories, numbers and times of a file or a frame, and the row at fault."""

import csv
import gzip
import io
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from mgwa_pyg.datasets.raw import RawDataError, raise_at

REMEDY = "Correct the table, or leave the row out."
_CHUNK = 2**11  # Rows that are in memory at a time as text: Python's collector looks at all of them.
_SEPARATORS = {".csv": ",", **dict.fromkeys((".tsv", ".tab", ".txt", ".dat"), "\t")}
_RECBOLE = (".inter", ".kg", ".link", ".item", ".user")
_SEPARATORS |= dict.fromkeys(_RECBOLE, "\t")
_OTHER_SEPARATORS = ("::", ";", "\t", "|", ",")  # What other programs write, the likeliest first.
_PARQUET = (".parquet", ".pq")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_BOOLS = (bool, np.bool_)
_WHOLE = re.compile("0|-?[1-9][0-9]{0,18}")  # A number that reads as it was written.


class Column(NamedTuple):
    """What is wanted of a table: a column's names, of which it has one, and what is in it."""

    names: Sequence[str | int]
    kind: str
    """``"id"``, ``"category"``, ``"weight"`` or ``"time"``."""


@dataclass
class Ids:
    """A column of ids or categories."""

    code: npt.NDArray[np.integer]
    """The row of :attr:`values` for each row; -1 where a category is missing. [num_rows]"""
    values: list[int | str]
    """The distinct ids, in the order of their first rows."""

    @property
    def written(self) -> list[str]:
        """The ids as text, by which they are compared: 7 and ``"7"`` are the same."""
        return [*map(str, self.values)]


class Times(NamedTuple):
    """A column of times: numbers, or seconds since 1970."""

    whole: npt.NDArray[Any]
    """The numbers, or of dates the whole seconds, rounded down. [num_rows]"""
    nanoseconds: npt.NDArray[np.int32] | None
    """What comes on top, where a date is between two seconds. [num_rows]"""

    @property
    def order(self) -> npt.NDArray[np.integer]:
        """The rows from the first time to the last; of equal times, as they stand. [num_rows]"""
        if self.nanoseconds is None:
            return np.argsort(self.whole, kind="stable")
        return np.lexsort((self.nanoseconds, self.whole))

    @property
    def numbers(self) -> npt.NDArray[Any]:
        """The times: whole numbers where all of them are, or floats. [num_rows]"""
        return self.whole if self.nanoseconds is None else self.whole + self.nanoseconds / 1e9


class Table:
    """A table that somebody has: a frame of pandas, or a CSV, TSV, Parquet or atomic file of RecBole.

    Args:
        what (str): What messages call it, such as ``"interactions"``.
        source (DataFrame or path): The table.

    Raises:
        TypeError: If it is neither a frame nor a path.
        FileNotFoundError: If there is no such file.
        ValueError: If the end of the file's name is unknown.
        RawDataError: If the file cannot be read.
        ImportError: If pyarrow is needed and is not there.
    """

    def __init__(self, what: str, source: Any) -> None:
        self.what = what
        self.path: Path | None = None
        self._frame: pd.DataFrame | None = None
        if isinstance(source, pd.DataFrame):
            self._frame = source
            self.names: list[Any] = source.columns.tolist()
            return
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(f"{what}={source!r:.60}: a DataFrame of pandas or the path of a file is needed")
        self.path, suffix = existing_file(what, source)
        if suffix in _PARQUET:
            self.names = _parquet(self.path, None)
        elif suffix in _SEPARATORS:
            # Ids in files that are separated by tabs may begin with a quote.
            quoting = csv.QUOTE_MINIMAL if suffix == ".csv" else csv.QUOTE_NONE
            self._form: dict[str, Any] = {
                "delimiter": _SEPARATORS[suffix],
                "quoting": quoting,
                "strict": True,
            }
            self.names = next(self._records(), [])
            if not self.names:
                raise_at(self.path, None, "it is empty", REMEDY)
        else:
            ends = ", ".join([*_SEPARATORS, *_PARQUET])
            raise ValueError(
                f"{what}='{self.path}': a file whose name ends with one of {ends} is needed, or with one of "
                f"these and .gz. Read any other with pandas, and pass the DataFrame"
            )
        self._is_text = suffix in _SEPARATORS

    def has(self, name: str | int) -> bool:
        """Whether there is such a column."""
        return bool(self._places(name))

    def read(self, columns: Mapping[str, Column]) -> dict[str, Any]:
        """Return columns by what is in them.

        Args:
            columns (Mapping[str, Column]): What is wanted, by what messages call it.

        Returns:
            dict: For each an :class:`Ids`, an array of weights, or :class:`Times`.

        Raises:
            ValueError: If two roles of ids have the same column.
            RawDataError: If there is no such column or no row, or a row is not what it should be.
        """
        place = {role: self._place(role, column) for role, column in columns.items()}
        ids: dict[int, str] = {}
        for role, column in columns.items():
            if column.kind == "id" and ids.setdefault(place[role], role) != role:
                raise ValueError(
                    f"{self._name}: the column {self.names[place[role]]!r} cannot be both the "
                    f"{ids[place[role]]} and the {role}: name another one"
                )
        readers = {role: _READERS[column.kind](self, role) for role, column in columns.items()}
        num_rows = 0
        if self._frame is None and self._is_text:
            for cells in self._chunks():
                for role, reader in readers.items():
                    reader.add_text(cells[place[role]], num_rows)
                num_rows += len(cells[0])
        else:
            frame = self._frame
            if frame is None:
                assert self.path is not None
                needed = sorted({*place.values()})  # A column may be wanted for several things.
                frame = _parquet(self.path, [self.names[at] for at in needed])
                place = {role: needed.index(at) for role, at in place.items()}
            for role, reader in readers.items() if len(frame) else ():
                reader.add_series(_usual(frame.iloc[:, place[role]]))
            num_rows = len(frame)
        if num_rows == 0:
            self.fail(None, "it has no row")
        return {role: reader.result() for role, reader in readers.items()}

    def fail(self, row: int | None, problem: str, remedy: str = REMEDY) -> NoReturn:
        """Raise the :class:`RawDataError` that blames a row, counted from 0."""
        if self.path is None:
            where = self.what if row is None else f"{self.what}.iloc[{int(row)}]"
            raise RawDataError(f"{where}: {problem}. {remedy}")
        if row is None or not self._is_text:
            raise_at(self.path, None if row is None else int(row) + 1, problem, remedy, "row")
        lines: list[int] = []
        records = self._records(lines)
        for _ in islice(records, int(row) + 2):  # The header comes first.
            pass
        raise_at(self.path, lines[-1], problem, remedy)

    def _places(self, name: str | int) -> list[int]:
        found = [at for at, other in enumerate(self.names) if other == name]
        if not found and isinstance(name, str):  # RecBole writes the kind of a column behind its name.
            found = [
                at
                for at, other in enumerate(self.names)
                if isinstance(other, str) and ":" in other and other.partition(":")[0] == name
            ]
        return found

    def _place(self, role: str, column: Column) -> int:
        for name in column.names:
            if found := self._places(name):
                if len(found) > 1:
                    self.fail(None, f"it has {len(found)} columns '{name}'", "Give them different names.")
                return found[0]
        there = ", ".join(f"{name!r:.40}" for name in self.names[:30])
        wanted = " or ".join(map(repr, column.names))
        raise RawDataError(
            f"{self._name}: it has no column {wanted} for the {role}. Its columns are {there}"
            f"{', ...' if len(self.names) > 30 else ''}: {self._remedy_of_names(column.names)}."
        )

    def _remedy_of_names(self, wanted: Sequence[str | int]) -> str:
        if self._frame is not None:
            is_index = any(name in self._frame.index.names for name in wanted)
            return "make the index columns by .reset_index()" if is_index else "name the right one"
        if self._is_text and len(self.names) == 1:
            ours = self._form["delimiter"]
            other = next((sign for sign in _OTHER_SEPARATORS if sign in self.names[0] and sign != ours), None)
            if other is not None:
                return (
                    f"it seems to be separated by {other!r}, but in a file of this name it is {ours!r}: "
                    f"write it so, or read it with pandas, and pass the DataFrame"
                )
        return "name the right one, or give the file a header"

    @property
    def _name(self) -> str:
        return self.what if self.path is None else f"'{self.path}'"

    def _records(self, lines: list[int] | None = None) -> Iterator[list[str]]:
        """Yield the header and the rows that are not blank, and put down the lines that they begin in."""
        assert self.path is not None
        with opened(self.path) as file:
            reader = csv.reader(file, **self._form)
            while True:
                line = reader.line_num + 1
                try:
                    record = next(reader, None)
                except csv.Error as error:
                    raise_at(self.path, line, f"it cannot be read as a table ({error})", REMEDY)
                if record is None:
                    return
                if record:
                    if lines is not None:
                        lines.append(line)
                    yield record

    def _chunks(self) -> Iterator[list[tuple[str, ...]]]:
        """Yield the columns of some rows at a time."""
        assert self.path is not None
        start = 0
        with opened(self.path) as file:
            records = filter(None, csv.reader(file, **self._form))
            try:
                next(records)
                while rows := [*islice(records, _CHUNK)]:
                    if {*map(len, rows)} != {len(self.names)}:
                        row = next(row for row, cells in enumerate(rows) if len(cells) != len(self.names))
                        names = ", ".join(map(str, self.names))
                        self.fail(
                            start + row,
                            f"it has {len(rows[row])} fields instead of {len(self.names)} ({names:.80})",
                        )
                    yield [*zip(*rows, strict=True)]
                    start += len(rows)
            except csv.Error:
                for _ in self._records():  # It knows the line.
                    pass
                raise


def existing_file(what: str, source: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return the path of a file and the end of its name in small letters, that of packed content."""
    path = Path(source).expanduser()
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{what}='{path}' {kind}: pass the path of a file, or a DataFrame")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return path, (suffixes or [""])[-1]


@contextmanager
def opened(path: Path) -> Iterator[Iterator[str]]:
    """Yield the lines of a text in UTF-8, packed by gzip or not, with their ends.

    What is not UTF-8, holds a NUL byte, or ends too early is a :class:`RawDataError`.
    """
    with _unpacked(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        yield _lines(path, text)


def _lines(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    try:
        for line in text:
            if "\0" in line:
                raise_at(path, _undecodable_line(path), "byte 0x00 is not text", REMEDY)
            yield line
    except UnicodeDecodeError as error:
        problem = f"byte {error.object[error.start]:#04x} is not UTF-8"
        raise_at(path, _undecodable_line(path), problem, f"{REMEDY} iconv makes UTF-8 of other encodings.")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise_at(path, None, f"it is a damaged archive ({error})", "Take another copy.")


def _unpacked(path: Path) -> Any:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _undecodable_line(path: Path) -> int:
    """Return the first line that is no text. It is looked for where there is one."""
    number = 0
    with _unpacked(path) as file:
        for number, line in enumerate(file, start=1):  # noqa: B007
            try:
                if "\0" in line.decode():
                    break
            except UnicodeDecodeError:
                break
    return number


def _parquet(path: Path, columns: list[str] | None) -> Any:
    """Return columns of a Parquet file as a frame, or, where none are named, their names."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            f"'{path}' is a Parquet file, which pyarrow reads: `pip install mgwa_pyg[tables]`"
        ) from error
    try:
        if columns is None:
            return pq.read_schema(path).names
        table = pq.read_table(path, columns=columns).select(columns)
        # An index of pandas is a column like the others, and whole numbers stay whole where some are missing.
        return table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (OSError, pa.ArrowException) as error:
        raise_at(path, None, f"it cannot be read as a Parquet file ({error})", "Take another copy.")


def _usual(series: pd.Series) -> pd.Series:
    """Return what pandas itself has for dates and dictionaries of Arrow."""
    if not isinstance(series.dtype, pd.ArrowDtype):
        return series
    import pyarrow as pa

    kind = series.dtype.pyarrow_dtype
    if pa.types.is_date(kind) or pa.types.is_dictionary(kind):
        return pa.array(series.array).to_pandas(date_as_object=False)
    return series


def _is_missing(cell: Any) -> bool:
    return cell is None or (pd.api.types.is_scalar(cell) and bool(pd.isna(cell)))


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (Real, Decimal)) and type(cell) not in _BOOLS


def _floats(cells: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return numbers as floats; what is too large for one is infinite."""

    def one(cell: Any) -> float:
        try:
            return float(cell)
        except OverflowError:
            return np.inf

    return np.fromiter(map(one, cells), np.float64, len(cells))


def _shown(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:60]}…"


class _Reader:
    """Takes the cells of one column."""

    def __init__(self, table: Table, role: str) -> None:
        self.table, self.role = table, role
        self.parts: list[npt.NDArray[Any]] = []

    def add_text(self, cells: Sequence[str], start: int) -> None:
        raise NotImplementedError

    def add_series(self, series: pd.Series) -> None:
        raise NotImplementedError

    def result(self) -> Any:
        raise NotImplementedError

    def fail(self, row: int, problem: str, remedy: str = REMEDY) -> NoReturn:
        self.table.fail(row, f"the {self.role} {problem}", remedy)

    def fail_if(self, bad: npt.NDArray[np.bool_], cells: Any, start: int, problem: str) -> None:
        """Blame the first bad row: its cell, or that there is none."""
        if bad.any():
            row = int(bad.argmax())
            cell = cells.iloc[row] if isinstance(cells, pd.Series) else cells[row]
            is_blank = _is_missing(cell) or (isinstance(cell, str) and not cell.strip())
            self.fail(start + row, "is missing" if is_blank else f"{_shown(cell)} {problem}")


class _Ids(_Reader):
    """Ids: whole numbers or strings, none missing."""

    may_lack = False

    def __init__(self, table: Table, role: str) -> None:
        super().__init__(table, role)
        # Whoever is new gets the next number.
        self.number: defaultdict[Any, int] = defaultdict()
        self.number.default_factory = self.number.__len__
        self.is_text = False

    def add_text(self, cells: Sequence[str], start: int) -> None:
        self.is_text = True
        self._number(cells)

    def add_series(self, series: pd.Series) -> None:
        dtype = series.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            code = series.cat.codes.to_numpy()
            self._number_codes(code, [*self._checked_categories(dtype.categories.tolist(), code), None])
        elif pd.api.types.is_bool_dtype(dtype):
            self.add_booleans(series)
        elif pd.api.types.is_integer_dtype(dtype):
            if series.isna().any():
                self._add_objects(series.astype(object).tolist(), 0)
                return
            code, values = pd.factorize(series.to_numpy())
            self._number_codes(code, values.tolist())
        elif pd.api.types.is_float_dtype(dtype):
            self.add_floats(series)
        elif (
            pd.api.types.is_object_dtype(dtype)
            or pd.api.types.is_string_dtype(dtype)
            or isinstance(dtype, pd.IntervalDtype)
        ):
            for start in range(0, len(series), _CHUNK):
                self._add_objects(series.iloc[start : start + _CHUNK].tolist(), start)
        else:
            self.fail(0, f"is of the type {dtype}, but ids are whole numbers or strings")

    def _checked_categories(self, cells: list[Any], code: npt.NDArray[np.integer]) -> list[Any]:
        """Return the categories of pandas as what they count as; one without a row does not count."""
        rows = (np.flatnonzero(code == at)[:1].tolist() for at in range(len(cells)))
        return [self._check(cell, row[0]) if row else None for cell, row in zip(cells, rows, strict=True)]

    def add_booleans(self, series: pd.Series) -> None:
        self.fail(0, f"is of the type {series.dtype}, but ids are whole numbers or strings")

    def add_floats(self, series: pd.Series) -> None:
        remedy = (
            "Ids are whole numbers or strings: pandas makes floats of whole numbers where some are missing, "
            'so leave those rows out and use .astype("int64").'
        )
        missing = series.isna().to_numpy()
        row = int(missing.argmax())
        problem = "is missing" if missing.any() else f"{_shown(series.iloc[0])} is of the type {series.dtype}"
        self.fail(row, problem, remedy)

    def _add_objects(self, cells: list[Any], start: int) -> None:
        kinds = {*map(type, cells)}
        strange = {
            kind for kind in kinds if not issubclass(kind, (str, int, np.integer)) or issubclass(kind, bool)
        }
        if strange:
            for row, cell in enumerate(cells):
                if type(cell) in strange:
                    cells[row] = self._check(cell, start + row)
        self._number(cells)

    def _check(self, cell: Any, row: int) -> Any:
        """Return what an odd cell counts as, or blame it."""
        if isinstance(cell, (str, int, np.integer)) and not isinstance(cell, bool):
            return cell
        if _is_missing(cell):
            return None
        self.fail(
            row,
            f"{_shown(cell)} is of the type {type(cell).__name__}, but ids are whole numbers or strings",
            "Make the column one of strings, as .astype(str) does.",
        )

    def _number(self, cells: Collection[Any]) -> None:
        self.parts.append(np.fromiter(map(self.number.__getitem__, cells), np.int32, len(cells)))

    def _number_codes(self, code: npt.NDArray[np.integer], values: Collection[Any]) -> None:
        self._number(values)
        self.parts[-1] = self.parts[-1][code]

    def result(self) -> Ids:
        code = np.concatenate(self.parts)
        self.parts.clear()
        values, number = [*self.number], self.number
        missing = [
            number[value]
            for value in values
            if value is None or (isinstance(value, str) and not value.strip())
        ]
        if missing and not self.may_lack:
            bad = np.isin(code, missing)
            if bad.any():  # Categories may be without a row.
                self.fail(int(bad.argmax()), "is missing")
        for value in values:
            if isinstance(value, str):
                self._check_text(value, code)
        # Which are there, by first row: categories need not be.
        order = pd.unique(code)
        kept = order[~np.isin(order, missing)] if missing else order
        place = np.full(len(values), -1, dtype=np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        if len(kept) != len(values) or (kept[1:] < kept[:-1]).any():
            code = place[code]
            values = [values[at] for at in kept.tolist()]
        if self.is_text and all(map(_WHOLE.fullmatch, values)):
            numbers = [*map(int, values)]
            if min(numbers) >= -(2**63) and max(numbers) < 2**63:
                values = numbers
        plain = [str(value) if isinstance(value, str) else int(value) for value in values]
        ids = Ids(code, plain)
        self._check_twins(ids)
        return ids

    def _check_text(self, value: str, code: npt.NDArray[np.integer]) -> None:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            row = int((code == self.number[value]).argmax())
            self.fail(row, f"{_shown(value)} is text that UTF-8 cannot hold ({error.reason})")

    def _check_twins(self, ids: Ids) -> None:
        if {*map(type, ids.values)} != {int, str}:
            return
        repeated = pd.Series(ids.written, dtype=object).duplicated().to_numpy()
        if repeated.any():
            value = ids.values[int(repeated.argmax())]
            row = int((ids.code == int(repeated.argmax())).argmax())
            other = str(value) if isinstance(value, int) else int(value)
            self.fail(
                row,
                f"{value!r} is also written {other!r}: both read alike",
                "Make all ids of the column strings, or whole numbers.",
            )


class _Categories(_Ids):
    """Categories, which are written as text; some may be missing."""

    may_lack = True

    def add_booleans(self, series: pd.Series) -> None:
        self._add_objects(series.astype(object).tolist(), 0)

    def add_floats(self, series: pd.Series) -> None:
        self._add_objects(series.astype(object).tolist(), 0)

    def _check(self, cell: Any, row: int) -> Any:
        if isinstance(cell, str):
            return cell
        if _is_missing(cell):
            return None
        if isinstance(cell, (pd.Interval, bool, np.bool_, int, np.integer)):
            return str(cell)
        if isinstance(cell, (float, np.floating)) and np.isfinite(cell):
            return str(int(cell)) if cell == int(cell) else repr(float(cell))
        self.fail(
            row,
            f"{_shown(cell)} is of the type {type(cell).__name__}, but categories are words",
            "Write several words as text, and say by separator= what stands between them.",
        )

    def _add_objects(self, cells: list[Any], start: int) -> None:
        if {*map(type, cells)} != {str}:
            cells = [self._check(cell, start + row) for row, cell in enumerate(cells)]
        self._number(cells)

    def result(self) -> Ids:
        self.is_text = False
        ids = super().result()
        ids.values = [*map(str, ids.values)]
        return ids


class _Weights(_Reader):
    """Positive numbers that 32 bits can hold."""

    def add_text(self, cells: Sequence[str], start: int) -> None:
        numbers = _numbers(cells).astype(np.float64, copy=False)
        self._add(numbers, cells, start)

    def add_series(self, series: pd.Series) -> None:
        dtype = series.dtype
        if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
            if not pd.api.types.is_complex_dtype(dtype):
                self._add(series.to_numpy(np.float64, na_value=np.nan), series, 0)
                return
        elif pd.api.types.is_object_dtype(dtype):
            cells = series.tolist()
            self.fail_if(np.array([not _is_number(cell) for cell in cells]), cells, 0, "is no number")
            self._add(_floats(cells), cells, 0)
            return
        elif pd.api.types.is_string_dtype(dtype):
            self.fail(
                0, f"{_shown(series.iloc[0])} is text, but numbers are needed" if len(series) else "is text"
            )
        self.fail(0, f"is of the type {dtype}, but numbers are needed")

    def _add(self, numbers: npt.NDArray[Any], cells: Any, start: int) -> None:
        problem = "is no finite number of 32 bits"
        self.fail_if(~(np.abs(numbers) <= np.finfo(np.float32).max), cells, start, problem)
        problem = "is not positive: a row without weight is no interaction"
        self.fail_if(numbers <= 0, cells, start, problem)
        problem = "is too small for a number of 32 bits: multiply all weights by a number"
        self.fail_if(numbers < np.finfo(np.float32).tiny, cells, start, problem)
        self.parts.append(numbers)

    def result(self) -> npt.NDArray[np.float64]:
        return np.concatenate(self.parts)


class _Times(_Reader):
    """Times: numbers, which stay as they are, or dates, which become seconds and nanoseconds."""

    def __init__(self, table: Table, role: str) -> None:
        super().__init__(table, role)
        self.are_dates: bool | None = None
        self.nanoseconds: list[npt.NDArray[np.int32]] = []

    def add_text(self, cells: Sequence[str], start: int) -> None:
        array, numbers = np.array(cells, dtype=object), _numbers(cells)
        is_number = np.isfinite(numbers)
        if self.are_dates is None:
            self.are_dates = not is_number[0]
            if self.are_dates:  # The first one may be neither.
                self._check_dates(_dates(array[:1]), cells, start)
        if not self.are_dates:
            self.fail_if(~is_number, cells, start, "is no number, as the times before it are")
            self._add_numbers(numbers, cells, start)
            return
        self.fail_if(is_number, cells, start, "is a number, but the times before it are dates")
        self._add_dates(_dates(array), cells, start)

    def add_series(self, series: pd.Series) -> None:
        dtype = series.dtype
        if len(series) == 0:
            return
        if pd.api.types.is_datetime64_any_dtype(dtype):
            self.are_dates = True
            dates = series.dt.tz_convert("UTC") if series.dt.tz is not None else series
            self._add_dates(pd.DatetimeIndex(dates), series, 0)
        elif pd.api.types.is_integer_dtype(dtype) or pd.api.types.is_float_dtype(dtype):
            self.are_dates = False
            self.fail_if(series.isna().to_numpy(), series, 0, "is no finite number")
            kind: Any = np.float64
            if pd.api.types.is_integer_dtype(dtype):
                kind = np.uint64 if pd.api.types.is_unsigned_integer_dtype(dtype) else np.int64
            self._add_numbers(series.to_numpy(kind), series, 0)
        elif pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
            cells = series.tolist()
            if isinstance(cells[0], str):
                is_text = np.array([isinstance(cell, str) for cell in cells])
                self.add_text(cells[: len(cells) if is_text.all() else 1], 0)  # The first one may be neither.
                self.fail_if(~is_text, cells, 0, "is no text, as the first time is")
                return
            self.are_dates = isinstance(cells[0], (date, np.datetime64))
            kinds: tuple[type, ...] = (date, np.datetime64) if self.are_dates else (Real,)
            bad = [type(cell) in _BOOLS or not isinstance(cell, kinds) or _is_missing(cell) for cell in cells]
            self.fail_if(np.array(bad), cells, 0, "is no time as the first one is")
            if self.are_dates:
                self._add_dates(pd.to_datetime(array_of(cells), utc=True, errors="coerce"), cells, 0)
            else:
                are_whole = all(isinstance(cell, (int, np.integer)) and abs(cell) < 2**63 for cell in cells)
                self._add_numbers(np.array(cells, np.int64) if are_whole else _floats(cells), cells, 0)
        else:
            self.fail(0, f"is of the type {dtype}, but dates or numbers are needed")

    def _add_numbers(self, numbers: npt.NDArray[Any], cells: Any, start: int) -> None:
        self.fail_if(~np.isfinite(numbers), cells, start, "is no finite number")
        if numbers.dtype.kind == "u":
            self.fail_if(
                numbers > np.iinfo(np.int64).max, cells, start, "is too large for 64 bits with a sign"
            )
            numbers = numbers.astype(np.int64)
        self.parts.append(numbers)

    def _check_dates(self, dates: pd.DatetimeIndex, cells: Any, start: int) -> None:
        problem = "is no date: ISO 8601, such as 2024-05-17 or 2024-05-17T20:15:00Z, or a number is needed"
        self.fail_if(dates.isna(), cells, start, problem)

    def _add_dates(self, dates: pd.DatetimeIndex, cells: Any, start: int) -> None:
        self._check_dates(dates, cells, start)
        per_second = _PER_SECOND[dates.unit]
        seconds, rest = np.divmod(dates.asi8, per_second)
        self.parts.append(seconds)
        self.nanoseconds.append((rest * (10**9 // per_second)).astype(np.int32))

    def result(self) -> Times:
        times = np.concatenate(self.parts)
        self.parts.clear()
        if self.are_dates:
            nanoseconds = np.concatenate(self.nanoseconds)
            return Times(times, nanoseconds if nanoseconds.any() else None)
        if times.dtype.kind == "f" and not (times % 1).any() and np.abs(times).max(initial=0) < 2**53:
            times = times.astype(np.int64)
        return Times(times, None)


def _numbers(cells: Sequence[str]) -> npt.NDArray[Any]:
    """Return cells as numbers; what is none is NaN."""
    try:
        return pd.to_numeric(np.array(cells, dtype=object), errors="coerce")
    except OverflowError:  # Before pandas 3: a whole number is larger than all floats.
        return _numbers(["inf" if len(cell) > 308 else cell for cell in cells])


def _dates(cells: npt.NDArray[np.object_]) -> pd.DatetimeIndex:
    """Return dates in ISO 8601; what is none is missing."""
    return pd.to_datetime(cells, format="ISO8601", utc=True, errors="coerce")


def array_of(cells: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Return an array of objects, one for each cell."""
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


_READERS: dict[str, type[_Reader]] = {
    "id": _Ids,
    "category": _Categories,
    "weight": _Weights,
    "time": _Times,
}
