"""Columns of files and frames: what is in them, and the row at fault."""

import gzip
import sys
import tracemalloc
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from mgwa_pyg.datasets import RawDataError, TableKG
from mgwa_pyg.datasets.table import Column, Table


def read(source, kind):
    return Table("plays", source).read({"x": Column(["x"], kind)})["x"]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["7", "10", "7"], [7, 10]),
        (["7", "010", "7"], ["7", "010"]),
        (["7", "-0", "x"], ["7", "-0", "x"]),
        (["9" * 19, "1", "1"], ["9" * 19, "1"]),
        ([str(2**63 - 1), str(-(2**63))], [2**63 - 1, -(2**63)]),
        ([str(2**63), "1"], [str(2**63), "1"]),
        (["-1", str(-(2**63) - 1)], ["-1", str(-(2**63) - 1)]),
        (["NA", "null", "NA"], ["NA", "null"]),
    ],
)
def test_ids_of_files_are_what_is_written(tmp_path, cells, values):
    (tmp_path / "plays.csv").write_text("\n".join(["x", *cells]))
    ids = read(tmp_path / "plays.csv", "id")
    assert ids.values == values
    assert [*map(type, ids.values)] == [*map(type, values)]
    assert [str(ids.values[code]) for code in ids.code] == cells


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([3, 1, 3], dtype="int8"),
        pd.Series([3, 1, 3], dtype="Int64"),
        pd.Series(["b", "a", "b"]),
        pd.Series(["b", "a", "b"], dtype=object),
        pd.Series(pd.Categorical(["b", "a", "b"], ["z", "a", "b"])),
        pd.Series(pd.Categorical([3, 1, 3])),
    ],
)
def test_ids_of_frames_come_in_the_order_of_their_first_rows(column):
    ids = read(pd.DataFrame({"x": column}), "id")
    assert ids.code.tolist() == [0, 1, 0]
    assert ids.values == column.iloc[:2].tolist()
    assert {*map(type, ids.values)} <= {int, str}


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pd.Series(["a", None]), r"plays.iloc\[1\]: the x is missing"),
        (pd.Series([1, None], dtype="Int64"), r"plays.iloc\[1\]: the x is missing"),
        (pd.Series(pd.Categorical(["a", None])), r"plays.iloc\[1\]: the x is missing"),
        (pd.Series([1, None]), r"plays.iloc\[1\]: the x is missing.*astype"),
        (pd.Series([True, False]), "of the type bool"),
        (pd.Series(["a", True]), r"plays.iloc\[1\]: the x True is of the type bool"),
        (pd.Series([uuid.UUID(int=7)]), r"the x UUID.* of the type UUID, .* as \.astype\(str\) does"),
        (pd.to_datetime(pd.Series(["2024-05-17"])), "of the type datetime64"),
        (pd.Series(["a", "\ud800"], dtype=object), r"plays.iloc\[1\]: .*UTF-8 cannot hold"),
    ],
)
def test_what_is_no_id_is_blamed_on_its_row(column, problem):
    with pytest.raises(RawDataError, match=problem):
        read(pd.DataFrame({"x": column}), "id")


@pytest.mark.parametrize(
    ("cells", "times"),
    [
        ([5, 7], [5, 7]),
        (["5", "7.5"], [5, 7.5]),
        (["2024-05-17", "2024-05-17T00:00:01Z"], [1715904000, 1715904001]),
        (["2024-05-17T02:00:00+02:00", "2024-05-17T00:00:00.5"], [1715904000, 1715904000.5]),
        (pd.to_datetime(["2024-05-17", "2024-05-18"]), [1715904000, 1715990400]),
        (
            pd.to_datetime(["2024-05-17 02:00", "2024-05-18 00:00"]).tz_localize("Europe/Rome"),
            [1715904000, 1715983200],
        ),
        ([pd.Timestamp("2024-05-17").date()] * 2, [1715904000, 1715904000]),
    ],
)
def test_times_are_numbers_or_seconds(tmp_path, cells, times):
    frame = pd.DataFrame({"x": cells})
    found = read(frame, "time").numbers
    assert found.tolist() == times
    assert (found.dtype.kind == "i") == all(time == int(time) for time in times)
    frame.to_csv(tmp_path / "plays.csv", index=False)
    assert read(tmp_path / "plays.csv", "time").numbers.tolist() == times


@pytest.mark.parametrize(
    "cells",
    [
        pd.to_datetime([1_700_000_000_000_000_900 - 400 * n for n in range(3)]),
        [*pd.to_datetime([1_700_000_000_000_000_900 - 400 * n for n in range(3)])],
        [f"2024-05-17T00:00:00.000000{n}Z" for n in (900, 500, 100)],
        [2**62 + 2, 2**62 + 1, 2**62],
        pd.Series([2**62 + 2, 2**62 + 1, 2**62], dtype=object),
        np.array(["300000-01-03", "300000-01-02", "300000-01-01"], dtype="datetime64[s]"),
    ],
)
def test_times_go_by_their_full_value(cells):
    times = read(pd.DataFrame({"x": cells}), "time")
    assert times.order.tolist() == [2, 1, 0]
    if isinstance(cells, np.ndarray):
        assert times.numbers.tolist() == cells.astype("int64").tolist()


@pytest.mark.parametrize(
    ("cells", "kind", "problem"),
    [
        ([1, 1e-50], "weight", "1e-50 is too small for a number of 32 bits"),
        ([1, 1e39], "weight", r"1e\+39 is no finite number of 32 bits"),
        (pd.Series([1, 10**400], dtype=object), "weight", "10000.* is no finite number of 32 bits"),
        (pd.Series([1, 10**400], dtype=object), "time", "10000.* is no finite number"),
        (np.array([1, 2**64 - 1], dtype="uint64"), "time", "18446744073709551615 is too large for 64 bits"),
    ],
)
def test_numbers_that_do_not_fit_are_blamed_on_their_row(tmp_path, cells, kind, problem):
    with pytest.raises(RawDataError, match=rf"plays.iloc\[1\]: the x {problem}"):
        read(pd.DataFrame({"x": cells}), kind)
    (tmp_path / "plays.csv").write_text("\n".join(["x", *map(str, cells)]))
    with pytest.raises(RawDataError, match=r"plays.csv', line 3: the x '"):
        read(tmp_path / "plays.csv", kind)


@pytest.mark.tables
def test_dates_and_dictionaries_of_arrow_are_those_of_pandas():
    import pyarrow as pa

    dates = pd.Series([pd.Timestamp("2024-05-17").date()] * 2, dtype=pd.ArrowDtype(pa.date32()))
    assert read(dates.to_frame("x"), "time").numbers.tolist() == [1715904000] * 2
    words = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    frame = pd.Series(["b", "a", "b"], dtype=words).to_frame("x")
    assert read(frame, "id").values == read(frame, "category").values == ["b", "a"]


@pytest.mark.tables
def test_a_parquet_file_is_its_frame(tmp_path):
    frame = pd.DataFrame({"y": [1.5, 2.5], "x": ["b", "a"]})
    frame.to_parquet(tmp_path / "plays.parquet")
    assert read(tmp_path / "plays.parquet", "id").values == ["b", "a"]
    again = Table("plays", tmp_path / "plays.parquet").read({n: Column(["x"], "category") for n in "ab"})
    assert again["a"].values == again["b"].values == ["b", "a"]
    frame.set_index("x").to_parquet(tmp_path / "index.parquet")
    assert read(tmp_path / "index.parquet", "id").values == ["b", "a"]
    frame.assign(x=pd.Series([2**53 + 1, None], dtype="Int64")).to_parquet(tmp_path / "gap.parquet")
    assert read(tmp_path / "gap.parquet", "category").values == [str(2**53 + 1)]
    frame.assign(x=["b", None]).to_parquet(tmp_path / "plays.parquet")
    with pytest.raises(RawDataError, match=r"plays.parquet', row 2: the x is missing"):
        read(tmp_path / "plays.parquet", "id")
    with pytest.raises(RawDataError, match=r"has no column 'z' for the x. Its columns are 'y', 'x'"):
        Table("plays", tmp_path / "plays.parquet").read({"x": Column(["z"], "id")})
    (tmp_path / "plays.parquet").write_bytes(b"damaged")
    with pytest.raises(RawDataError, match=r"cannot be read as a Parquet file"):
        read(tmp_path / "plays.parquet", "id")


def test_what_pyarrow_is_needed_for_says_so(tmp_path, monkeypatch):
    (tmp_path / "plays.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install mgwa_pyg\[tables\]"):
        read(tmp_path / "plays.parquet", "id")


@pytest.mark.parametrize(
    ("name", "header", "problem"),
    [
        ("plays.csv", "x;y", "it seems to be separated by ';', but in a file of this name it is ',': write"),
        ("plays.csv", "x\ty", r"by '\\t', but in a file of this name it is ','"),
        ("plays.tsv", "x,y", r"by ',', but in a file of this name it is '\\t'"),
        ("plays.dat", "1::2", "by '::', but"),
        ("plays.csv", "y", "Its columns are 'y': name the right one, or give the file a header"),
    ],
)
def test_columns_that_are_not_there_are_looked_for(tmp_path, name, header, problem):
    (tmp_path / name).write_text(header)
    with pytest.raises(RawDataError, match=problem):
        read(tmp_path / name, "id")


def test_columns_may_be_the_index():
    frame = pd.DataFrame({"x": [1], "y": [2]})
    with pytest.raises(RawDataError, match=r"make the index columns by \.reset_index\(\)\."):
        read(frame.set_index("x"), "id")
    with pytest.raises(RawDataError, match="'y': name the right one\\."):
        read(frame[["y"]], "id")


def test_decimals_are_weights():
    cells = [Decimal("1.50"), 2, Decimal("Infinity")]
    assert read(pd.DataFrame({"x": cells[:2]}, dtype=object), "weight").tolist() == [1.5, 2.0]
    with pytest.raises(RawDataError, match=r"plays.iloc\[2\]: the x Decimal.* is no finite number"):
        read(pd.DataFrame({"x": cells}, dtype=object), "weight")


def test_cells_of_several_words_say_what_stands_between():
    for cell in (["a", "b"], np.array(["a", "b"])):
        with pytest.raises(RawDataError, match=r"but categories are words. Write .* separator="):
            read(pd.DataFrame({"x": [cell]}), "category")


def test_a_table_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "plays.xlsx").touch()
    with pytest.raises(ValueError, match="Read any other with pandas"):
        read(tmp_path / "plays.xlsx", "id")
    with pytest.raises(FileNotFoundError, match=r"plays='.*none.csv' does not exist"):
        read(tmp_path / "none.csv", "id")
    with pytest.raises(TypeError, match="a DataFrame of pandas or the path of a file"):
        read([1, 2], "id")


def test_memory_of_a_large_table(tmp_path):
    rows = 20_000
    rng = np.random.default_rng(0)
    with gzip.open(tmp_path / "plays.csv.gz", "wt", compresslevel=1) as file:
        file.write("user,item,plays,when\n")
        pairs = zip(rng.integers(0, 1_000, rows).tolist(), rng.integers(0, 400, rows).tolist(), strict=True)
        file.writelines(f"user{user},item{item},3,{1_600_000_000 + item}\n" for user, item in pairs)
    tracemalloc.start()
    dataset = TableKG.from_tables(tmp_path / "plays.csv.gz", weight="plays", time="when", split="time")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.summary()["rows"] == rows
    assert peak <= 150 * rows
