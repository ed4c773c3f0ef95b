"""What the knowledge graph is worth: what is changed, what is fitted, and how differences are judged."""

import collections
import copy
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.datasets.schema import check_data
from mgwa_pyg.evaluation import full_ranking, holm, paired_test, user_aucs
from mgwa_pyg.recommenders import restore
from mgwa_pyg.train import CollaborativeConfig, MGWAConfig, fit, kg_worth
from tests.graphs import SIZES

module = sys.modules["mgwa_pyg.train.kg_worth"]
CONFIG = CollaborativeConfig(epochs=2, passes=1, channels=4, num_layers=1)
OPTIONS = {"processes": 1, "device": "cpu", "progress": False}
KG = ("entity", "kg", "entity")


def triples_of(dataset):
    """The triples, and those that the inverses stand for."""
    (source, target), relation = dataset[0][KG].edge_index.tolist(), dataset[0][KG].rel_type.tolist()
    edges = list(zip(source, relation, target, strict=True))
    number = dataset.num_relations
    return [edge for edge in edges if edge[1] < number], [
        (t, r - number, s) for s, r, t in edges if r >= number
    ]


def variants(dataset, relations=True, max_relations=10):
    return list(module._variants(dataset, module._sizes(dataset), relations, max_relations))


def test_the_figures_are_those_of_fits_on_changed_data(small, tmp_path):
    table = kg_worth(small, CONFIG, tmp_path / "worth", seeds=2, relations=[3], seed=5, **OPTIONS)
    assert list(table["variant"]) == ["with it", "without", "tails shuffled", "without relation 3"]
    count = collections.Counter(relation for _, relation, _ in triples_of(small)[0])
    assert list(table["triples"]) == [400, 0, 400, 400 - count[3]]

    def without(relations):
        def transform(data):
            kg = data[KG]
            kept = torch.tensor([int(relation) % 5 not in relations for relation in kg.rel_type]).bool()
            kg.edge_index, kg.rel_type = kg.edge_index[:, kept], kg.rel_type[kept]
            return data

        return SyntheticKG(**SIZES, transform=transform)

    def of_users(number, dataset_of):
        values = []
        for seed in (5, 6):
            result = fit(dataset_of(seed), CONFIG, tmp_path / f"{number}-{seed}", seed=seed, device="cpu")
            links = result.data["user", "listens", "entity"]
            user = links.edge_label_index[0, links.val_mask]
            values.append(user_aucs(links.edge_label[links.val_mask], result.val_score, user)[1])
        return np.mean(values, axis=0)

    shuffle = module._Variant("", is_shuffled=True)
    nothing, most = without(range(5)), without([3])
    changes = [
        lambda seed: small,
        lambda seed: nothing,
        lambda seed: module._changed(small, shuffle, seed),
        lambda seed: most,
    ]
    values = [of_users(number, dataset_of) for number, dataset_of in enumerate(changes)]
    assert list(table["auc_user"]) == pytest.approx([value.mean() for value in values])
    tests = [paired_test(value - values[0]) for value in values[1:]]
    for column, key in (("difference", "mean"), ("low", "low"), ("high", "high")):
        assert list(table[column][1:]) == pytest.approx([test[key] for test in tests])
    assert list(table["p"][1:]) == pytest.approx(holm([test["p"] for test in tests]))
    assert table.loc[0, ["difference", "low", "high", "p"]].isna().all()

    kept = pd.read_csv(tmp_path / "worth" / "kg_worth.csv")
    pd.testing.assert_frame_equal(kept, table)
    assert (tmp_path / "worth" / "kg_worth.png").read_bytes().startswith(b"\x89PNG")


def test_rankings_are_measured_by_recall(small, tmp_path):
    config = replace(CONFIG, loss="ranking")
    for split in ("val", "test"):
        table = kg_worth(small, config, tmp_path, seeds=1, relations=False, split=split, **OPTIONS)
        result = fit(small, config, tmp_path / split, device="cpu")
        recommender = restore(result.checkpoint, small)
        known = full_ranking(recommender.score_all, small[0], small.num_items, ks=(10,), split=split)
        assert table["recall@10"][0] == pytest.approx(known["recall@10"])
        assert list(table["variant"]) == ["with it", "without", "tails shuffled"]


def test_shuffled_tails_keep_relations_and_degrees(small):
    before, _ = triples_of(small)
    shuffle = module._Variant("", is_shuffled=True)
    changed = [module._changed(small, shuffle, seed) for seed in (0, 0, 1)]
    after, inverses = triples_of(changed[0])
    assert after == inverses
    assert after == triples_of(changed[1])[0] != triples_of(changed[2])[0]
    assert [edge[:2] for edge in after] == [edge[:2] for edge in before]
    tails = [collections.Counter(edge[1:] for edge in edges) for edges in (before, after)]
    assert tails[0] == tails[1]
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert moved > 0.9 * len(before)
    check_data(changed[0], changed[0][0])


def test_a_change_leaves_the_data_set_and_its_sizes_as_they_are(small):
    before = copy.deepcopy(small[0][KG].to_dict())
    changed = module._changed(small, module._Variant("", (0, 1, 2, 3, 4)), 0)
    assert changed[0][KG].edge_index.shape == (2, 0)
    for name in ("num_relations", "num_entities", "num_triples", "num_items", "num_users"):
        assert getattr(changed, name) == getattr(small, name)
    assert changed.fingerprint != small.fingerprint
    assert all(torch.equal(value, before[name]) for name, value in small[0][KG].to_dict().items())
    assert torch.equal(
        changed[0]["user", "listens", "entity"].edge_label_index,
        small[0]["user", "listens", "entity"].edge_label_index,
    )


def test_inverses_may_be_left_out(small):
    def halved(data):
        kg = data[KG]
        kg.edge_index, kg.rel_type = kg.edge_index[:, :400], kg.rel_type[:400]
        return data

    def mixed(data):
        kg = data[KG]
        kg.edge_index, kg.rel_type = kg.edge_index[:, :600], kg.rel_type[:600]
        return data

    dataset = module.fixed(SyntheticKG(**SIZES, transform=halved))
    shuffle = module._Variant("", is_shuffled=True)
    after, inverses = triples_of(module._changed(dataset, shuffle, 0))
    assert after == triples_of(module._changed(small, shuffle, 0))[0]
    assert inverses == []
    with pytest.raises(ValueError, match="some are left out"):
        module._changed(module.fixed(SyntheticKG(**SIZES, transform=mixed)), shuffle, 0)


def test_relations_are_left_out_the_largest_first(small):
    count = collections.Counter(relation for _, relation, _ in triples_of(small)[0])
    order = [number for number, _ in sorted(count.items(), key=lambda one: (-one[1], one[0]))]
    first, *others = [variant.left_out for variant in variants(small) if variant.left_out]
    assert first == (0, 1, 2, 3, 4)
    assert others == [(number,) for number in order]
    few = variants(small, max_relations=2)
    assert [variant.left_out for variant in few[3:]] == [(order[0],), (order[1],), tuple(order[2:])]
    assert few[-1].name == "without the rest (3 relations)"
    # One that would be the rest alone has its own name.
    assert [variant.left_out for variant in variants(small, max_relations=4)[3:]] == others
    assert len(variants(small, relations=False)) == 3
    listed = variants(small, relations=["relation 4", 0], max_relations=0)[3:]
    assert [variant.left_out for variant in listed] == [(4,), (0,)]
    # A single relation is the whole.
    assert len(variants(SyntheticKG(**{**SIZES, "num_relations": 1}))) == 3


def test_a_model_that_needs_triples_is_not_fitted_without_any(small, tmp_path):
    config = MGWAConfig(epochs=1)
    with pytest.warns(UserWarning, match="model='mgwa' cannot do without any triple: 'without' is left out"):
        table = kg_worth(small, config, tmp_path, seeds=1, relations=[1], **OPTIONS)
    assert list(table["variant"]) == ["with it", "tails shuffled", "without relation 1"]


def test_progress_has_a_line_for_each_fit(small, tmp_path, capsys):
    options = {**OPTIONS, "progress": True}
    table = kg_worth(small, replace(CONFIG, epochs=1), tmp_path, seeds=2, relations=False, **options)
    lines = capsys.readouterr().err.splitlines()
    values = [
        float(re.fullmatch(r"fit \d of 6: .*, seed [01]: AUC per user (.*)", line)[1]) for line in lines
    ]
    assert len(values) == 6
    assert np.mean(values[:2]) == pytest.approx(table["auc_user"][0], abs=1e-4)


def test_mistakes_are_named(small, tmp_path):
    for relations in ([5], ["nothing"], [-1], [True]):
        with pytest.raises(ValueError, match="relations"):
            kg_worth(small, CONFIG, tmp_path, relations=relations, **OPTIONS)
    with pytest.raises(ValueError, match="split"):
        kg_worth(small, CONFIG, tmp_path, split="train", **OPTIONS)
    with pytest.raises(ValueError, match=r"knowledge_graph=False: .* set it to True"):
        kg_worth(small, replace(CONFIG, knowledge_graph=False), tmp_path, **OPTIONS)
    nothing = module._changed(small, module._Variant("", tuple(range(5))), 0)
    with pytest.raises(ValueError, match="no triples"):
        kg_worth(nothing, CONFIG, tmp_path, **OPTIONS)
    with pytest.raises(TypeError, match="folder"):
        kg_worth(small, CONFIG, None, **OPTIONS)
