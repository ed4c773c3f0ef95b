"""What all data sets do with their cache."""

from pathlib import Path

import pytest
import torch

from mgwa_pyg.datasets import LastFMKG, SyntheticKG

SIZES = {"num_users": 20, "num_items": 30, "num_entities": 50, "num_triples": 400, "num_interactions": 60}


class Note:
    """Something of a user's own."""


def add_note(data):
    data.note = Note()
    return data


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


@pytest.mark.filterwarnings("ignore:Weights only load failed")
def test_a_pre_transform_may_leave_anything(tmp_path):
    SyntheticKG(tmp_path, **SIZES, pre_transform=add_note)
    assert isinstance(SyntheticKG(tmp_path, **SIZES, pre_transform=add_note)[0].note, Note)


def test_files_need_a_folder():
    with pytest.raises(TypeError, match="LastFMKG needs a folder for its files, but root is None"):
        LastFMKG(None)
