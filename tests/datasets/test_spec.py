"""A data set says how it is made again, and is told apart from others."""

import json

import numpy as np
import pytest
import torch

from mgwa_pyg.datasets import KGRecDataset, KGRecTables, LastFMKG, RecBoleKG, SyntheticKG, from_spec

SIZES = {"num_users": 20, "num_items": 30, "num_entities": 50, "num_triples": 400, "num_interactions": 60}
LINKS, KG = ("user", "listens", "entity"), ("entity", "kg", "entity")


def same(first, second):
    one, two = first[0].to_dict(), second[0].to_dict()
    assert one.keys() == two.keys()
    return all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(two[store][name]))
        for store in (LINKS, KG, "user", "entity")
        for name, value in one[store].items()
    )


def test_a_synthetic_data_set_is_made_again(tmp_path):
    dataset = SyntheticKG(tmp_path, **SIZES, num_relations=7, negatives="entities", seed=4)
    spec = json.loads(json.dumps(dataset.spec))
    assert spec["class"] == "SyntheticKG"
    assert spec["arguments"] == {
        "root": str(tmp_path), **SIZES, "num_relations": 7, "negatives": "entities", "seed": 4,
        "split": "random",
    }  # fmt: skip
    assert SyntheticKG(**SIZES).spec["arguments"]["root"] is None
    (cache,) = (tmp_path / "processed").glob("*.pt")
    for _ in range(2):  # From the cache, and without it.
        again = from_spec(spec)
        assert type(again) is SyntheticKG
        assert same(again, dataset)
        assert again.fingerprint == dataset.fingerprint
        cache.unlink()


def test_recbole_data_are_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "toy"
    folder.mkdir()
    rows = "".join(f"u{i % 3}\ti{i}\t{i}\n" for i in range(12))
    (folder / "toy.inter").write_text("user_id:token\titem_id:token\trating:float\n" + rows)
    (folder / "toy.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\ne1\tr\te2\n")
    (folder / "toy.link").write_text("item_id:token\tentity_id:token\ni5\te1\n")
    monkeypatch.chdir(tmp_path)
    dataset = RecBoleKG(".", "toy", min_rating=2, seed=3)
    monkeypatch.chdir("/")  # The spec holds wherever one is.
    again = from_spec(json.loads(json.dumps(dataset.spec)))
    assert (again.name, again.min_rating, again.num_interactions) == ("toy", 2.0, 10)
    assert same(again, dataset)


@pytest.mark.real_data
def test_lastfm_is_made_again(lastfm_raw, tmp_path):
    dataset = LastFMKG(tmp_path, negatives="frozen", split="lightkg", seed=2)
    assert dataset.spec == {
        "class": "LastFMKG",
        "arguments": {"root": str(tmp_path), "negatives": "frozen", "seed": 2, "split": "lightkg"},
    }
    assert from_spec(dataset.spec).fingerprint == dataset.fingerprint


class FixedKG(KGRecDataset):
    """A data set in which nothing is computed."""

    def build(self):
        return KGRecTables(
            positives=np.array([[0, 0], [0, 1], [1, 2]], dtype=np.int32),
            triples=np.array([[0, 0, 4], [1, 1, 5]], dtype=np.int32),
            num_users=2,
            num_entities=6,
            item_names=["one", "two", "three", "Bj\u00f6rk"],
            relation_names=["of", "by"],
            negatives=np.array([[0, 2], [0, 3], [1, 0]]),
            positive_parts=np.array([0, 1, 2], dtype=np.int8),
        )


def test_the_fingerprint_is_what_it_was():
    # Checkpoints hold it: it is the same on every machine, and in every later version.
    assert FixedKG(None).fingerprint == "2f2db95a5c3c0e42850fb76b34980c4d8d54cc0a4664efc31b12369444a2af46"


def change(store, name):
    def transform(data):
        value = data[store][name].clone()
        value.view(-1)[-1] = ~value.view(-1)[-1] if value.dtype == torch.bool else 1 - value.view(-1)[-1]
        data[store][name] = value
        return data

    return transform


def test_the_fingerprint_sees_every_difference():
    datasets = [
        SyntheticKG(**SIZES),
        SyntheticKG(**SIZES, seed=1),
        SyntheticKG(**SIZES, negatives="entities"),
        SyntheticKG(**{**SIZES, "num_users": 21}),
    ]
    names = {
        LINKS: [
            "edge_index", "edge_label_index", "edge_label", "train_mask", "val_mask", "test_mask"
        ],
        KG: ["edge_index", "rel_type"],
    }  # fmt: skip
    datasets += [
        SyntheticKG(**SIZES, transform=change(store, name)) for store in names for name in names[store]
    ]
    renamed = SyntheticKG(**SIZES)
    renamed._names["item_names"] = ["another", *renamed.item_names[1:]]
    moved = [SyntheticKG(**SIZES) for _ in range(4)]
    moved[0]._names["user_ids"] = [1, 0, *range(2, 20)]
    moved[1]._names["item_ids"] = [1, 0, *range(2, 30)]
    moved[2]._names["item_ids"] = [str(i) for i in range(30)]
    moved[3]._names["entity_names"] = [*moved[3].entity_names[:49], "another"]
    fingerprints = [dataset.fingerprint for dataset in [*datasets, renamed, *moved]]
    assert len(set(fingerprints)) == len(fingerprints)


def test_classes_of_others_are_not_made():
    class OwnKG(SyntheticKG):
        pass

    assert issubclass(OwnKG, KGRecDataset)
    with pytest.raises(ValueError, match=r"OwnKG is none of .*LastFMKG.*: pass the data set itself"):
        from_spec(OwnKG(**SIZES).spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"class": ["SyntheticKG"], "arguments": {}}, r"\['SyntheticKG'\] is none of"),
        ({"class": "builtins.eval", "arguments": {}}, "builtins.eval is none of"),
        ({"class": "SyntheticKG"}, "a class and its arguments are needed"),
        ({"class": "SyntheticKG", "arguments": [1]}, "a class and its arguments are needed"),
        ("SyntheticKG", "a class and its arguments are needed"),
        ({"class": "SyntheticKG", "arguments": {"transform": "print"}}, "has no transform='print'"),
        ({"class": "SyntheticKG", "arguments": {"pre_transform": print}}, "has no pre_transform=<built-in"),
        ({"class": "SyntheticKG", "arguments": {"force_reload": True}}, "has no force_reload=True"),
        ({"class": "SyntheticKG", "arguments": {"self": 1}}, "has no self=1"),
        ({"class": "SyntheticKG", "arguments": {1: 2}}, "has no 1=2"),
        (
            {"class": "SyntheticKG", "arguments": {"num_users": torch.tensor(3)}},
            r"has no num_users=tensor\(3",
        ),
        ({"class": "LastFMKG", "arguments": {"root": ["a"]}}, r"has no root=\['a'\]"),
    ],
)
def test_a_spec_has_plain_arguments_only(tmp_path, monkeypatch, spec, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        from_spec(spec)
    assert not list(tmp_path.iterdir())
