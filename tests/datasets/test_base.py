"""What all data sets do with their cache."""

import errno
import multiprocessing
import os
import pickle
import runpy
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData

from mgwa_pyg.datasets import KGRecDataset, KGRecTables, LastFMKG, SyntheticKG
from mgwa_pyg.datasets.download import RawFile

SIZES = {"num_users": 20, "num_items": 30, "num_entities": 50, "num_triples": 400, "num_interactions": 60}


class Note:
    """Something of a user's own."""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_the_cache_is_mapped_and_stays_as_it_is(tmp_path):
    built = SyntheticKG(tmp_path, **SIZES)[0]
    dataset = SyntheticKG(tmp_path, **SIZES)
    assert dataset.processed_paths[0] in Path("/proc/self/maps").read_text()
    kg = dataset[0]["entity", "kg", "entity"]
    assert torch.equal(kg.edge_index, built["entity", "kg", "entity"].edge_index)
    kg.edge_index.zero_()  # In this process alone.
    again = SyntheticKG(tmp_path, **SIZES)[0]["entity", "kg", "entity"]
    assert torch.equal(again.edge_index, built["entity", "kg", "entity"].edge_index)


def test_the_cache_may_be_replaced_while_it_is_mapped(tmp_path):
    first = SyntheticKG(tmp_path, **SIZES)[0]
    mapped = SyntheticKG(tmp_path, **SIZES)[0]
    SyntheticKG(tmp_path, **SIZES, force_reload=True)
    kg = ("entity", "kg", "entity")
    assert torch.equal(mapped[kg].edge_index, first[kg].edge_index)


KINDS = {
    "an object": lambda data: data["user"].update({"note": Note()}) or data,
    "an object of a local class": lambda data: data["user"].update({"note": type("Local", (), {})()}) or data,
    "a function": lambda data: data["user"].update({"note": lambda: None}) or data,
    "an array": lambda data: data["user"].update({"note": np.arange(3)}) or data,
    "data in data": lambda data: data["user"].update({"note": Data()}) or data,
}


@pytest.mark.parametrize("name", KINDS)
def test_what_cannot_be_kept_is_refused_before_it_is_written(tmp_path, name):
    message = "pre_transform left 'note' of the class .* in the data, but only tensors and plain values"
    with pytest.raises(TypeError, match=message):
        SyntheticKG(tmp_path, **SIZES, pre_transform=KINDS[name])
    assert not list(tmp_path.iterdir())
    assert "note" in SyntheticKG(**SIZES, pre_transform=KINDS[name])[0]["user"]  # Nothing is written here.


class OwnData(Data):
    """A kind of data of a user's own."""


@pytest.mark.parametrize("result", [None, [1], OwnData(), (HeteroData(), HeteroData())])
def test_a_pre_transform_that_returns_something_else(tmp_path, result):
    with pytest.raises(
        TypeError, match=r"pre_transform returned .*, but only HeteroData and Data can be kept"
    ):
        SyntheticKG(tmp_path, **SIZES, pre_transform=lambda data: result)
    assert not list(tmp_path.iterdir())


def with_many_kinds(data):
    kg = data["entity", "kg", "entity"]
    kg.adj_t = torch.sparse_coo_tensor(kg.edge_index, kg.rel_type, (50, 50)).to_sparse_csr()
    kg.checked_index = EdgeIndex(kg.edge_index, sparse_size=(50, 50))
    data.note = {"words": ["a", ("b", 3.5, None)], "size": torch.Size([2])}
    return data


@pytest.mark.filterwarnings("ignore:Sparse")
def test_what_a_pre_transform_may_leave(tmp_path):
    wanted = SyntheticKG(**SIZES, pre_transform=with_many_kinds)[0]
    for _ in range(2):
        data = SyntheticKG(tmp_path, **SIZES, pre_transform=with_many_kinds)[0]
        kg, expected = data["entity", "kg", "entity"], wanted["entity", "kg", "entity"]
        assert torch.equal(kg.adj_t.to_dense(), expected.adj_t.to_dense())
        assert isinstance(kg.checked_index, EdgeIndex)
        assert torch.equal(kg.checked_index.as_tensor(), expected.edge_index)
        assert data.note == wanted.note


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_pre_transform_to_data(tmp_path, in_memory):
    wanted = SyntheticKG(**SIZES)[0].to_homogeneous()
    for _ in range(2):
        root = None if in_memory else tmp_path
        data = SyntheticKG(root, **SIZES, pre_transform=lambda data: data.to_homogeneous())[0]
        assert type(data) is Data
        assert torch.equal(data.edge_index, wanted.edge_index)
        assert torch.equal(data.edge_type, wanted.edge_type)


class Code:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("place", ["all", "in the data", "plain pickle", "legacy"])
def test_nothing_in_a_processed_file_is_run(tmp_path, place):
    SyntheticKG(tmp_path / "data", **SIZES)
    (path,) = (tmp_path / "data" / "processed").iterdir()
    code = Code(str(tmp_path / "made"))
    if place == "all":
        torch.save(code, path)
    elif place == "in the data":
        content = torch.load(path, weights_only=True)
        content["data"]["user"]["code"] = code
        torch.save(content, path)
    elif place == "legacy":
        torch.save({"data": code}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(code))
    with pytest.raises(RuntimeError, match=r"pt' (holds more than tensors|is damaged).* `force_reload=True`"):
        SyntheticKG(tmp_path / "data", **SIZES)
    assert not (tmp_path / "made").exists()
    SyntheticKG(tmp_path / "data", **SIZES, force_reload=True)
    SyntheticKG(tmp_path / "data", **SIZES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("kind", "data", "statistics", "user_ids", "pre_transform", "origin")),
        ("origin", {}), ("item_names", ["one"]), ("entity_names", 3), ("data", [1]), ("statistics", {}),
    ],
)  # fmt: skip
def test_a_processed_file_of_something_else(tmp_path, name, value):
    SyntheticKG(tmp_path, **SIZES)
    (path,) = (tmp_path / "processed").iterdir()
    content = torch.load(path, weights_only=True)
    torch.save({**content, name: value}, path)
    with pytest.raises(RuntimeError, match=r"pt' is damaged \(.*\)\. Delete it, or pass `force_reload=True`"):
        SyntheticKG(tmp_path, **SIZES)


class FirstKG(KGRecDataset):
    """Three songs."""

    title = "song"

    def build(self):
        names = [f"{self.title} {i}" for i in range(3)]
        return KGRecTables(np.array([[0, 0], [1, 2]]), np.array([[0, 0, 3]]), 2, 4, names, ["of"])


class SecondKG(FirstKG):
    """Three films."""

    title = "film"


class MonthKG(FirstKG):
    """The songs of a month."""

    def __init__(self, root, **month):
        self.month = month
        self.title = str(month["name"])
        super().__init__(root)


def test_data_sets_of_several_classes_share_a_root(tmp_path):
    for _ in range(2):
        assert FirstKG(tmp_path).item_names[0] == "song 0"
        assert SecondKG(tmp_path).item_names[0] == "film 0"
        for month in ("jan", "feb"):
            assert MonthKG(tmp_path, name=month).item_names[0] == f"{month} 0"
        SyntheticKG(tmp_path, **SIZES)
    assert len(list((tmp_path / "processed").iterdir())) == 5


def test_arguments_of_any_kind_tell_data_sets_apart(tmp_path):
    arrays = [
        np.arange(4),
        np.arange(4.0),
        torch.arange(4),
        pd.Series(range(4)),
        pd.DataFrame({"a": range(4)}),
    ]
    values = [
        1,
        1.0,
        "1",
        True,
        None,
        (1,),
        [1],
        {1},
        {1: 1},
        Path("1"),
        *arrays,
        np.array(["a", None]),
        Note(),
    ]
    for _ in range(2):
        for value in values:
            MonthKG(tmp_path, name="a", more=value)
        assert len(list((tmp_path / "processed").iterdir())) == len(values)
    changed = np.arange(100_000)
    changed[50_000] = 0  # In the middle of what its text would show.
    MonthKG(tmp_path, name="a", more=np.arange(100_000))
    MonthKG(tmp_path, name="a", more=changed)
    assert len(list((tmp_path / "processed").iterdir())) == len(values) + 2


SCRIPT = """
from mgwa_pyg.datasets import KGRecDataset, KGRecTables
{helper}
class OwnKG(KGRecDataset):
    {attribute}
    def __init__(self, root):
        self.words = {{"some", "words", "in", "any", "order"}}
        super().__init__(root)
    def build(self):
        print("built")
        names = {names}
        return KGRecTables([[0, 0], [1, 2]], [[0, 0, 3]], 2, 4, names, ["of"])
"""
SCRIPTS = [
    {"helper": "", "attribute": "pass", "names": "['a', 'b', 'c']"},
    {"helper": "", "attribute": "pass", "names": "['a', 'b', 'd']"},
    {"helper": "def name(i): return f'a{i}'", "attribute": "pass", "names": "[name(i) for i in range(3)]"},
    {"helper": "def name(i): return f'b{i}'", "attribute": "pass", "names": "[name(i) for i in range(3)]"},
    {"helper": "WORD = 'x'", "attribute": "pass", "names": "[f'{WORD}{i}' for i in range(3)]"},
    {"helper": "WORD = 'y'", "attribute": "pass", "names": "[f'{WORD}{i}' for i in range(3)]"},
    {"helper": "", "attribute": "word = 'x'", "names": "[f'{self.word}{i}' for i in range(3)]"},
    {"helper": "", "attribute": "word = 'y'", "names": "[f'{self.word}{i}' for i in range(3)]"},
    {
        "helper": "",
        "attribute": "one = property(lambda self: 1)",
        "names": "[f'{self.one}{i}' for i in range(3)]",
    },
    {
        "helper": "",
        "attribute": "one = property(lambda self: 2)",
        "names": "[f'{self.one}{i}' for i in range(3)]",
    },
]


def test_code_that_changed_is_run_anew(tmp_path, capsys):
    for script in SCRIPTS:
        (tmp_path / "own.py").write_text(SCRIPT.format(**script))
        for expected in ("built", "cached"):
            kind = runpy.run_path(str(tmp_path / "own.py"), run_name="own")["OwnKG"]
            names = kind(tmp_path).item_names
            assert capsys.readouterr().out == ("built\n" if expected == "built" else "")
            assert names == kind(None).item_names
            capsys.readouterr()
    assert len(list((tmp_path / "processed").iterdir())) == 1


def own(names):
    class OwnKG(KGRecDataset):
        def build(self):
            return KGRecTables([[0, 0], [1, 2]], [[0, 0, 3]], 2, 4, names, ["of"])

    return OwnKG


def test_what_a_class_is_bound_to_counts(tmp_path):
    for _ in range(2):
        for names in (["a", "b", "c"], ["d", "e", "f"]):
            assert own(names)(tmp_path).item_names == names


def test_a_lambda_that_changed_is_told(tmp_path):
    SyntheticKG(tmp_path, **SIZES, pre_transform=lambda data: data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SyntheticKG(tmp_path, **SIZES, pre_transform=lambda data: data)
    with pytest.warns(UserWarning, match="not with .*lambda.* as it is now. Pass `force_reload=True`"):
        SyntheticKG(tmp_path, **SIZES, pre_transform=lambda data: data.coalesce())


class FileKG(KGRecDataset):
    """Three songs by the names in a file."""

    raw_files: ClassVar = {"names.txt": RawFile()}
    raw_folder = "own"

    def build(self):
        names = Path(self.raw_dir, "names.txt").read_text().split()
        return KGRecTables([[0, 0], [1, 2]], [[0, 0, 3]], 2, 4, names, ["of"])


def test_raw_files_that_changed_are_read_anew(tmp_path, monkeypatch):
    monkeypatch.delenv("MGWA_PYG_RAW", raising=False)
    path = tmp_path / "raw" / "names.txt"
    path.parent.mkdir()
    path.write_text("a b c")
    assert FileKG(tmp_path).item_names == ["a", "b", "c"]
    stat = path.stat()
    path.write_text("a b d")  # Of the same size, and then as old as before.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    monkeypatch.chdir(tmp_path.parent)
    assert FileKG(tmp_path.name).item_names == ["a", "b", "d"]

    processed = Path(FileKG(tmp_path).processed_paths[0])
    written = processed.stat().st_mtime_ns
    os.utime(path)  # The same content is not read as a table again.
    assert FileKG(tmp_path).item_names == ["a", "b", "d"]
    assert processed.stat().st_mtime_ns == written
    shared = tmp_path / "shared"
    (shared / "own").mkdir(parents=True)
    (shared / "own" / "names.txt").write_text("x y z")
    monkeypatch.setenv("MGWA_PYG_RAW", str(shared))
    assert FileKG(tmp_path).item_names == ["x", "y", "z"]
    (shared / "own" / "names.txt").unlink()
    assert FileKG(tmp_path).item_names == ["x", "y", "z"]  # What was built needs no raw files.
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert FileKG(tmp_path / "link").item_names == ["x", "y", "z"]


def test_the_processed_file_lies_where_it_is_told(tmp_path):
    dataset = FirstKG(tmp_path / "root", processed=tmp_path / "mine")
    assert [path.parent for path in map(Path, dataset.processed_paths)] == [tmp_path / "mine"]
    assert not (tmp_path / "root").exists()
    assert dataset.spec["arguments"]["processed"] == str(tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_place_that_cannot_be_written(tmp_path, monkeypatch, number):
    def refuse(path, content, **options):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("mgwa_pyg.datasets.base.save_tensors", refuse)
    with pytest.raises(OSError, match=r"may only be read, pass a folder of yours as `processed=`") as error:
        SyntheticKG(tmp_path, **SIZES)
    assert error.value.errno == number
    assert error.value.filename.endswith(".pt")


@pytest.mark.skipif(sys.platform == "win32", reason="processes are no copies of this one there")
def test_two_processes_build_at_once(tmp_path):
    def build():
        barrier.wait()
        SyntheticKG(tmp_path, **SIZES)

    context = multiprocessing.get_context("fork")  # Such import nothing again.
    barrier = context.Barrier(2)
    processes = [context.Process(target=build) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert SyntheticKG(tmp_path, **SIZES).fingerprint == SyntheticKG(**SIZES).fingerprint
    assert len(list((tmp_path / "processed").iterdir())) == 1


def test_files_need_a_folder():
    with pytest.raises(TypeError, match="LastFMKG needs a folder for its files, but root is None"):
        LastFMKG(None)

    with pytest.raises(TypeError, match="3 is no folder: a path is needed"):
        SyntheticKG(3)
