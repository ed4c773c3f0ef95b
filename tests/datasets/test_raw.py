"""Readers of raw files: what they return, and whom they blame."""

import io

import numpy as np
import pytest

from mgwa_pyg.datasets import RawDataError, raw
from mgwa_pyg.datasets.raw import RawTable, read_in_chunks

HEADER = "a,b,c"
COLUMNS = {"a": int, "b": float, "c": int}


def read(path):
    chunks = list(read_in_chunks(path, COLUMNS, HEADER, ",", remedy="Mend it."))
    return {name: np.concatenate([chunk[name] for chunk in chunks]).tolist() for name in COLUMNS}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_chunks(tmp_path, monkeypatch, end, last):
    monkeypatch.setattr(raw, "CHUNK", 3)
    rows = [(i, i / 2, 10**17 + i) for i in range(10)]
    text = end.join([HEADER, *(",".join(map(str, row)) for row in rows)])
    path = tmp_path / "a.csv"
    path.write_bytes((text + (end if last else "")).encode())
    assert list(zip(*read(path).values(), strict=True)) == rows


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("7,1.5", "'7,1.5' has 2 fields instead of 3 (a, b, c)"),
        ("7,1.5,2,3", "'7,1.5,2,3' has 4 fields instead of 3"),
        ("7,1.5,2,", "has 4 fields"),
        ("", "'' has 1 fields"),
        ("x,1.5,2", "the a 'x' is not a non-negative integer"),
        ("-7,1.5,2", "the a '-7' is not a non-negative integer"),
        ("7.5,1.5,2", "the a '7.5' is not a non-negative integer"),
        ("9" * 30 + ",1.5,2", "the a '999"),
        (",1.5,2", "the a is missing"),
        ("7,,2", "the b is missing"),
        ("7,nan,2", "the b 'nan' is not a number"),
        ("7,1.5,2\ufffd", "the c '2\ufffd' is not"),
        ('"7",1.5,2', "the a '\"7\"' is not"),
    ],
)
@pytest.mark.parametrize("line", [2, 3, 9])
def test_chunks_blame_the_row(tmp_path, monkeypatch, row, problem, line):
    monkeypatch.setattr(raw, "CHUNK", 8)  # And one row at a time for the culprit.
    rows = [f"{i},0.5,{i}" for i in range(12)]
    rows[line - 2] = row
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *rows, ""]))
    with pytest.raises(RawDataError) as error:
        read(path)
    assert str(error.value).startswith(f"'{path}', line {line}: ")
    assert problem in str(error.value)
    assert str(error.value).endswith(". Mend it.")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "a.csv': it is empty. Mend it."),
        (b"\xff", "line 1: byte 0xff is not UTF-8"),
        (b"a,b\n1,2\n", "line 1: the header is 'a,b', not 'a,b,c'"),
        (b"a,b,c", "no row below its header"),
        (b"a,b,c\n", "no row below its header"),
        (b"a,b,c\n1,2,3\n1,\xff,3\n", "line 3: byte 0xff is not UTF-8"),
        (b"a,b\0,c\n1,2,3\n", "line 1: byte 0x00 is not text"),
        (b"a,b,c\n1,2,3\n1,2\x007,3\n", "line 3: byte 0x00 is not text"),  # 2 to pandas 2.
        (b"a,b,c\n1,2,3\n1,2,3\n" + bytes(2**21), "line 4: byte 0x00 is not text"),  # As after a crash.
        (b"a,b,c\n1,-2,3\n", "a.csv': it cannot be read as a table of numbers (it has a negative"),
    ],
)
def test_chunks_of_bad_files(tmp_path, content, problem):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(RawDataError) as error:
        read(path)
    assert problem in str(error.value)


def test_separator_and_numbers(tmp_path):
    path = tmp_path / "a.dat"
    path.write_text("1::x y::-2.5e1::\n2::z::.5::w\n")
    table = RawTable.read(path, {"a": int, "b": str, "c": float, "d": None}, separator="::")
    assert table["a"].tolist() == [1, 2]
    assert table["b"] == ["x y", "z"]
    assert table["c"].tolist() == [-25.0, 0.5]
    path.write_text("1::x::1_0::\n")
    with pytest.raises(RawDataError, match="line 1: the c '1_0' is not a number"):
        RawTable.read(path, {"a": int, "b": str, "c": float, "d": None}, separator="::")


def test_names_have_no_nul(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"1\tx\0y\n1\tx\0z\n")  # One name to pandas 2.
    with pytest.raises(RawDataError, match="line 1: byte 0x00 is not text"):
        RawTable.read(path, {"a": int, "b": str})


@pytest.mark.parametrize("dtype", ["int32", ">u2", "int64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, dtype, order):
    path = tmp_path / "a.npy"
    np.save(path, np.array([[1, 2], [3, 4], [5, 6]], dtype=dtype, order=order))
    table = RawTable.read_npy(path, ("x", "y"))
    assert table["x"].dtype == table["y"].dtype == np.int64
    assert (table["x"].tolist(), table["y"].tolist()) == ([1, 3, 5], [2, 4, 6])
    with pytest.raises(RawDataError, match=r"a.npy', row 2: y 4 is odd\. Delete the file"):
        table.fail_if(table["y"] == 4, "y {y} is odd")


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(array):
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


GOOD = npy(np.ones((4, 2), dtype=np.int32))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no array in NumPy's format"),
        (b"1\t2\n3\t4\n", "no array in NumPy's format"),
        (GOOD[:-1], "no array in NumPy's format"),
        (GOOD[:20], "no array in NumPy's format"),
        (GOOD.replace(b"}", b"("), "no array in NumPy's format"),
        (GOOD.replace(b"(4, 2)", b"(9**9,)"), "no array in NumPy's format"),
        (zipped(np.ones((4, 2), dtype=np.int32)), "no array in NumPy's format"),
        (npy(np.array([[1, 2], [3, None]])), "no array in NumPy's format (Object arrays cannot"),
        (npy(np.ones((4, 2))), "of type float64, not integers"),
        (npy(np.ones((4, 3), dtype=int)), "shape is [4, 3] instead of [num_rows, 2] (x, y)"),
        (npy(np.ones((0, 2), dtype=int)), "shape is [0, 2]"),
        (npy(np.ones(2, dtype=int)), "shape is [2]"),
        (npy(np.array([[1, 2], [3, -4]])), "a.npy', row 2: the y -4 is not a non-negative integer"),
    ],
)
def test_bad_npy(tmp_path, content, problem):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(RawDataError) as error:
        RawTable.read_npy(path, ("x", "y"))
    assert str(error.value).startswith(f"'{path}'")
    assert problem in str(error.value)
    assert "Delete the file and let the data set download it again" in str(error.value)
