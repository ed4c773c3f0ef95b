"""Exported vectors: their inner products rank like the model."""

import builtins
import json

import numpy as np
import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import TableKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import make_recommender
from mgwa_pyg.train import CollaborativeConfig, LightGCNConfig
from tests.nn.oracle import randomize

CONFIGS = {
    "lightgcn": LightGCNConfig(channels=8),
    "collaborative": CollaborativeConfig(channels=8),
    "item_item": CollaborativeConfig(channels=8, item_item=True),
}


@pytest.fixture(scope="module")
def made(own_data):
    def make(name):
        torch.manual_seed(0)
        model = make_recommender(own_data, CONFIGS[name], seed=0)
        randomize(model.model, std=0.4)
        return Recommender(model)

    return {name: make(name) for name in CONFIGS}


def ids_in(folder, kind):
    return json.loads((folder / f"{kind}.json").read_text())


def test_inner_products_are_the_scores(made, own_data, tmp_path):
    for name in ("lightgcn", "collaborative"):
        recommender, folder = made[name], tmp_path / name
        got = recommender.export(folder)
        assert got.drop("size").to_dict() == {"users": 20, "items": 30, "overlap@10": 1.0}
        users, items = (np.load(folder / f"{kind}.npy") for kind in ("users", "items"))
        assert users.dtype == np.float32
        assert users.shape == (20, got["size"])
        assert ids_in(folder, "users") == [*own_data.user_ids]
        assert ids_in(folder, "items") == [*own_data.item_ids]
        table = recommender.recommend_batch(k=30)
        rows = [ids_in(folder, "users").index(id_) for id_ in table["user"]]
        places = [ids_in(folder, "items").index(id_) for id_ in table["item"]]
        np.testing.assert_allclose((users @ items.T)[rows, places], table["score"], rtol=1e-4, atol=1e-4)


def test_paths_between_items_are_approximated(made, tmp_path):
    recommender = made["item_item"]
    with pytest.raises(ValueError, match=r"item_item=True: .* Pass dimensions="):
        recommender.export(tmp_path)
    few, all_ = (recommender.export(tmp_path / str(size), dimensions=size) for size in (1, 50))
    assert few["overlap@10"] <= all_["overlap@10"] == 1.0
    assert few["size"] + 19 == all_["size"]  # No more than there are users or items.
    model = recommender._model
    user, item = model.vectors(12)
    direct = model.model.direct(torch.arange(20), model.paths)
    error = torch.linalg.matrix_norm(direct - user[:, 9:] @ item[:, 9:].t())
    best = torch.linalg.svdvals(direct)[12:].square().sum().sqrt()
    assert error <= 1.05 * best  # Nothing of twelve dimensions is closer than the SVD.


@pytest.mark.parametrize("kind", ["mgwa", "kgcn", "ripplenet"])
def test_models_without_such_vectors_say_so(recommender, tmp_path, kind):
    with pytest.raises(ValueError, match=f"model='{kind}' has no vectors that could be exported"):
        recommender.export(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_unknown_formats_and_missing_packages_are_named(made, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="file_format='csv'"):
        made["lightgcn"].export(tmp_path, "csv")
    (tmp_path / "taken").touch()
    with pytest.raises(NotADirectoryError, match="taken is a file: choose a folder"):
        made["lightgcn"].export(tmp_path / "taken")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(("pyarrow", "safetensors")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for file_format in ("parquet", "safetensors"):
        with pytest.raises(ImportError, match=r"pip install mgwa_pyg\[export\]"):
            made["lightgcn"].export(tmp_path, file_format)


def test_other_formats_hold_the_same(made, own_data, tmp_path):
    parquet, safetensors = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("safetensors.numpy")
    for file_format in ("numpy", "parquet", "safetensors"):
        made["lightgcn"].export(tmp_path, file_format)
    vectors = safetensors.load_file(tmp_path / "vectors.safetensors")
    for kind, ids in (("users", own_data.user_ids), ("items", own_data.item_ids)):
        want = np.load(tmp_path / f"{kind}.npy")
        np.testing.assert_array_equal(vectors[kind], want)
        table = parquet.read_table(tmp_path / f"{kind}.parquet").to_pandas()
        assert table["id"].tolist() == [*ids]
        np.testing.assert_array_equal(np.stack(table["vector"]), want)


def test_ids_of_all_kinds_and_nothing_to_compare(tmp_path):
    """Everybody has seen everything."""
    parquet = pytest.importorskip("pyarrow.parquet")
    users, items = [2**64 - 1, 5, -(2**70)], [1, "b"]
    table = pd.DataFrame({"user": [*users, *users], "item": [*items * 3]}, dtype=object)
    with pytest.warns(UserWarning, match="negatives"):
        data = TableKG.from_tables(table, split="none")
    got = Recommender(make_recommender(data, CONFIGS["collaborative"], seed=0)).export(tmp_path, "parquet")
    assert got["overlap@10"] is None
    for kind, ids in (("users", users), ("items", items)):
        assert ids_in(tmp_path, kind) == ids
        assert parquet.read_table(tmp_path / f"{kind}.parquet")["id"].to_pylist() == [*map(str, ids)]


def test_faiss_finds_the_same(made, tmp_path):
    faiss = pytest.importorskip("faiss")
    recommender = made["collaborative"]
    recommender.export(tmp_path)
    users, items = (np.load(tmp_path / f"{kind}.npy") for kind in ("users", "items"))
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    found = index.search(users, 30)[1]
    best = recommender.recommend_batch(k=10)
    same = 0
    for row, (_, part) in enumerate(best.groupby("user", sort=False)):
        want = part["item"].tolist()
        seen = {*recommender.dataset.item_ids} - {*recommender.recommend(part["user"].iloc[0], 30)["item"]}
        got = [ids_in(tmp_path, "items")[place] for place in found[row]]
        same += len({*[item for item in got if item not in seen][:10]} & {*want})
    assert same >= 0.99 * len(best)
