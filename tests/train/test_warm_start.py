"""Fits that start from a run on other data."""

import dataclasses
import warnings

import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import make_recommender, read_checkpoint, restore
from mgwa_pyg.train import CheckpointError, KGCNConfig, LightGCNConfig, MGWAConfig, evaluate, fit
from mgwa_pyg.utils.files import save_tensors
from tests.fits import interrupted
from tests.tables import OfTables, shuffled, tables_of

CONFIG = LightGCNConfig(epochs=2, channels=8)
SIZES = {"num_users": 20, "num_items": 30, "num_entities": 60, "num_relations": 4, "num_triples": 200}


@pytest.fixture(scope="module")
def tables():
    return tables_of(SyntheticKG(**SIZES))


@pytest.fixture(scope="module")
def run(tables, tmp_path_factory):
    """The folder of a run whose data set cannot be made again."""
    folder = tmp_path_factory.mktemp("run")
    fit(OfTables(tables), CONFIG, folder)
    return folder


def parameters(checkpoint):
    return read_checkpoint(checkpoint)["state_dict"]


def test_it_begins_where_the_run_has_ended(tables, run, tmp_path):
    """The rows follow their ids: training that hardly moves leaves them where they were."""
    data = OfTables(shuffled(tables))
    still = dataclasses.replace(CONFIG, lr=1e-9, epochs=1)
    result = fit(data, still, tmp_path, warm_start=run)
    got, want = (
        parameters(path)["model.embedding.weight"] for path in (result.checkpoint, run / "best.ckpt")
    )
    item = torch.tensor([tables.item_ids.index(id_) for id_ in data.item_ids])
    user = torch.tensor([tables.user_ids.index(id_) for id_ in data.user_ids])
    torch.testing.assert_close(got, want[torch.cat([item, 30 + user])], rtol=0, atol=1e-7)
    assert not torch.allclose(
        parameters(fit(data, still, tmp_path / "cold").checkpoint)["model.embedding.weight"], got
    )
    assert restore(result.checkpoint, data).started_from is not None


def test_in_one_folder_and_interrupted(tables, run, tmp_path):
    data = OfTables(tables)
    want = fit(data, CONFIG, tmp_path / "want", warm_start=run)
    with interrupted(epoch=1):
        fit(data, CONFIG, tmp_path / "a", warm_start=run)
    with pytest.raises(CheckpointError, match="is of another fit, with started_from='"):
        fit(data, CONFIG, tmp_path / "a")
    got = fit(data, CONFIG, tmp_path / "a", warm_start=run)
    assert torch.equal(got.score, want.score)
    # The run's own folder: its checkpoint is kept.
    first = fit(data, CONFIG, tmp_path / "b")
    before = parameters(first.checkpoint)
    with pytest.warns(UserWarning, match=r"it is kept as best-1.ckpt"):
        second = fit(data, CONFIG, tmp_path / "b", warm_start=tmp_path / "b")
    assert torch.equal(
        parameters(tmp_path / "b" / "best-1.ckpt")["model.embedding.weight"], before["model.embedding.weight"]
    )
    assert torch.equal(second.score, want.score)


def test_rows_to_judge_by_that_were_learned_from_are_told(tables, run, tmp_path):
    """By sets of ids; a run in between forgets nothing."""

    def pairs(data, part):
        links = data[0]["user", "listens", "entity"]
        chosen = links.edge_label_index[:, links[f"{part}_mask"] & (links.edge_label == 1)]
        return {(data.user_ids[user], data.item_ids[item]) for user, item in chosen.t().tolist()}

    old, drawn = OfTables(tables), OfTables(dataclasses.replace(shuffled(tables), positive_parts=None))
    known = {part: pairs(drawn, part) & pairs(old, "train") for part in ("val", "test")}
    assert all(known.values())
    counts = [f"{len(known[part])} of the {len(pairs(drawn, part))}" for part in known]
    told = f"learned from {counts[0]} validation and {counts[1]} test positives"
    once = dataclasses.replace(CONFIG, epochs=1)
    with pytest.warns(UserWarning, match=told):
        fit(drawn, once, tmp_path / "a", warm_start=run)
    with pytest.warns(UserWarning, match=f"had learned from {counts[1]} test positives"):
        evaluate(tmp_path / "a", drawn, beside=[])
    with pytest.warns(UserWarning, match=told):
        fit(drawn, once, tmp_path / "b", warm_start=tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(old, once, tmp_path / "c", warm_start=run)
        evaluate(tmp_path / "c", old, beside=[])


def test_data_that_have_grown_are_kept_in_the_run_folder(tmp_path):
    recommender = Recommender(make_recommender(SyntheticKG(**SIZES), CONFIG, 0))
    recommender.update(pd.DataFrame({"user": ["Ada", "Ada", 3], "item": [3, 14, "single"]}))
    grown = recommender.dataset
    fit(grown, dataclasses.replace(CONFIG, epochs=1), tmp_path)
    opened = Recommender.load(tmp_path)
    assert opened.dataset.fingerprint == grown.fingerprint
    assert (opened.dataset.user_ids, opened.dataset.item_ids) == ([*range(20), "Ada"], [*range(30), "single"])
    assert {3, 14}.isdisjoint(opened.recommend("Ada", k=31)["item"])


def test_a_run_with_no_id_in_common_is_told(tables, run, tmp_path):
    others = {
        f"{kind}_ids": [f"other {at}" for at in range(size)] for kind, size in (("user", 20), ("item", 30))
    }
    others["entity_names"] = others["item_names"] = None
    names = [f"thing {at}" for at in range(60)]
    data = OfTables(dataclasses.replace(tables, **others | {"entity_names": names, "item_names": names[:30]}))
    with pytest.warns(UserWarning, match="no user, item or entity in common"):
        fit(data, CONFIG, tmp_path, warm_start=run)


def test_a_checkpoint_without_ids_makes_its_data_again(tmp_path):
    data = SyntheticKG(**SIZES)
    config = KGCNConfig(epochs=1)
    result = fit(data, config, tmp_path / "run")
    want = fit(data, config, tmp_path / "want", warm_start=tmp_path / "run")
    content = read_checkpoint(result.checkpoint)
    del content["ids"]
    save_tensors(tmp_path / "old.ckpt", content)
    got = fit(data, config, tmp_path / "got", warm_start=tmp_path / "old.ckpt")
    assert torch.equal(got.score, want.score)


def test_transe_is_for_those_that_start_from_nothing(tmp_path):
    data, config = SyntheticKG(**SIZES), MGWAConfig(epochs=1, transe=True)
    assert fit(data, config, tmp_path / "run").transe is not None
    assert fit(data, config, tmp_path / "warm", warm_start=tmp_path / "run").transe is None


def test_wrong_runs_are_refused(tables, run, tmp_path):
    data = OfTables(tables)
    with pytest.raises(FileNotFoundError):
        fit(data, CONFIG, tmp_path / "fit", warm_start=tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="model='lightgcn', which cannot start a fit of 'kgcn'"):
        fit(data, KGCNConfig(), tmp_path / "fit", warm_start=run)
    with pytest.raises(
        ValueError, match=r"embedding.weight has the shape \(50, 8\) there, but \(50, 4\) is needed"
    ):
        fit(data, dataclasses.replace(CONFIG, channels=4), tmp_path / "fit", warm_start=run)
    assert not (tmp_path / "fit").exists()
    content = read_checkpoint(run / "best.ckpt")
    save_tensors(tmp_path / "bad.ckpt", {**content, "ids": {"user": "[]"}})
    with pytest.raises(CheckpointError, match="does not hold ids as they are written"):
        fit(data, CONFIG, tmp_path / "fit", warm_start=tmp_path / "bad.ckpt")
