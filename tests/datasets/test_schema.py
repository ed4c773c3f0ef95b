"""Data that a transform has changed: what is still right passes, what is wrong is named."""

import copy

import pytest
import torch
import torch_geometric.transforms as T

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.datasets.schema import check_data

SIZES = {"num_users": 12, "num_items": 20, "num_entities": 40, "num_triples": 60, "num_interactions": 48}
KG = ("entity", "kg", "entity")
LINKS = ("user", "listens", "entity")
PARTS = ("train_mask", "val_mask", "test_mask")


@pytest.fixture(scope="module")
def dataset():
    return SyntheticKG(**SIZES, num_relations=3, negatives="entities")


def shuffled(data):
    order = torch.randperm(data[KG].edge_index.size(1))
    data[KG].edge_index, data[KG].rel_type = data[KG].edge_index[:, order], data[KG].rel_type[order]
    order = torch.randperm(data[LINKS].edge_label.numel())
    for key in ("edge_label", *PARTS):
        data[LINKS][key] = data[LINKS][key][order]
    data[LINKS].edge_label_index = data[LINKS].edge_label_index[:, order]


def other_parts(data):
    links = data[LINKS]
    part = torch.randint(5, links.edge_label.shape)
    links.train_mask, links.val_mask, links.test_mask = part < 3, part == 3, part == 4
    links.edge_index = links.edge_label_index[:, links.train_mask & (links.edge_label == 1)]


def all_in_training(data):
    links = data[LINKS]
    links.edge_index = links.edge_label_index[:, links.edge_label == 1]
    links.train_mask = torch.ones_like(links.train_mask)
    links.val_mask = links.test_mask = torch.zeros_like(links.val_mask)


def without_inverses(data):
    half = data[KG].rel_type.numel() // 2
    data[KG].edge_index, data[KG].rel_type = data[KG].edge_index[:, :half], data[KG].rel_type[:half]


def without_triples(data):
    data[KG].edge_index, data[KG].rel_type = data[KG].edge_index[:, :0], data[KG].rel_type[:0]


def fewer_rows(data):
    keep = torch.rand(data[LINKS].edge_label.numel()) < 0.5
    for key in ("edge_label", *PARTS):
        data[LINKS][key] = data[LINKS][key][keep]
    data[LINKS].edge_label_index = data[LINKS].edge_label_index[:, keep]


def with_reverse(data):
    data["entity", "rev_listens", "user"].edge_index = data[LINKS].edge_index.flip(0)
    data["user"].x = torch.zeros(12, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: None, shuffled, other_parts, all_in_training, without_inverses, without_triples,
        fewer_rows, with_reverse,
    ],
)  # fmt: skip
def test_what_keeps_the_promise_passes(dataset, change):
    data = copy.copy(dataset[0])
    change(data)
    check_data(dataset, data)


@pytest.mark.parametrize("reduce", ["add", "mean", "max", "min"])
@pytest.mark.parametrize("num_relations", [1, 2, 3, 8])
def test_edges_that_were_merged(reduce, num_relations):
    dataset = SyntheticKG(**SIZES, num_relations=num_relations, transform=T.ToUndirected(reduce=reduce))
    with pytest.raises(
        (ValueError, IndexError), match=r"data\['entity', 'kg', 'entity'\]\.(rel_type|edge_index)"
    ):
        check_data(dataset, dataset[0])


def test_loops_that_were_added(dataset):
    with pytest.raises(ValueError, match=r"from (\d+) to \1 of the relation 1, for one, has no inverse"):
        check_data(dataset, T.AddSelfLoops(attr="rel_type")(dataset[0]))


def set_entry(store, key, value):
    def change(data):
        tensor = data[store][key].clone()
        tensor.view(-1)[-1] = value
        data[store][key] = tensor

    return change


def replace(store, key, function):
    def change(data):
        data[store][key] = function(data[store][key])

    return change


def leak(part, label):
    """Puts a labelled pair of a part among the edges."""

    def change(data):
        links = data[LINKS]
        row = int((links[part] & (links.edge_label == label) & (links.edge_label_index[1] < 20)).nonzero()[0])
        links.edge_index = torch.cat([links.edge_index, links.edge_label_index[:, row : row + 1]], dim=1)

    return change


def twice(data):
    """Labels a validation positive anew, as a training one."""
    links = data[LINKS]
    row = (links.val_mask & (links.edge_label == 1)).nonzero()[0]
    for key in ("edge_label", *PARTS):
        links[key] = torch.cat([links[key], links[key][row]])
    links.val_mask[-1], links.train_mask[-1] = False, True
    links.edge_label_index = torch.cat([links.edge_label_index, links.edge_label_index[:, row]], dim=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (set_entry(KG, "rel_type", 6), IndexError, r"rel_type holds 6, but .* 0 to 5"),
        (set_entry(KG, "rel_type", -1), IndexError, "rel_type holds -1"),
        (set_entry(KG, "edge_index", 40), IndexError, r"edge_index holds 40, but .* \(num_entities is 40\)"),
        (
            set_entry(LINKS, "edge_index", 20),
            IndexError,
            r"edge_index\[1\] holds 20, .* \(num_items is 20\)",
        ),
        (set_entry(LINKS, "edge_label_index", 40), IndexError, r"edge_label_index\[1\] holds 40"),
        (set_entry(LINKS, "edge_label", 2), ValueError, "a vector of zeros and ones is needed"),
        (set_entry(LINKS, "edge_label", float("nan")), ValueError, "zeros and ones"),
        (replace(KG, "rel_type", torch.Tensor.float), ValueError, "whole numbers of shape edges are needed"),
        (replace(KG, "rel_type", lambda x: x[:-1]), ValueError, "one for each is needed"),
        (replace(KG, "rel_type", lambda x: x[:, None]), ValueError, "whole numbers of shape edges"),
        (
            replace(KG, "rel_type", lambda x: x.where(x < 3, (x + 1) % 3 + 3)),
            ValueError,
            "but not the triple itself",
        ),
        (replace(KG, "edge_index", torch.t), ValueError, "whole numbers of shape 2 × edges"),
        (replace(LINKS, "edge_label", lambda x: x[1:]), ValueError, "one for each is needed"),
        (replace(LINKS, "edge_label", torch.Tensor.numpy), ValueError, "edge_label is array"),
        (
            replace(LINKS, "edge_label", torch.Tensor.long),
            ValueError,
            "zeros and ones is needed, as floats",
        ),
        (replace(LINKS, "val_mask", torch.Tensor.int), ValueError, "a vector of booleans is needed"),
        (replace(LINKS, "test_mask", lambda x: x[1:]), ValueError, "one for each is needed"),
        (replace(LINKS, "test_mask", torch.ones_like), ValueError, "is in several of train_mask"),
        (replace(LINKS, "edge_label", torch.ones_like), (ValueError, IndexError), "of the positives holds"),
        (lambda data: data[LINKS].pop("val_mask"), ValueError, r"the data have no .*val_mask"),
        (lambda data: data.__delitem__(KG), ValueError, r"no data\['entity', 'kg'"),
        (leak("val_mask", 1), ValueError, "both a training positive and a validation positive"),
        (leak("test_mask", 1), ValueError, "both a training positive and a test positive"),
        (leak("test_mask", 0), ValueError, "both a training positive and a test negative"),
        (leak("train_mask", 0), ValueError, "both a training positive and a training negative"),
        (twice, ValueError, "both a (training|validation) positive and a (training|validation) positive"),
        (
            lambda data: setattr(data["user"], "num_nodes", 13),
            ValueError,
            "has 13 nodes, but the data set has 12",
        ),
    ],
)
def test_what_breaks_the_promise_is_named(dataset, change, error, message):
    data = copy.copy(dataset[0])
    change(data)
    with pytest.raises(error, match=message):
        check_data(dataset, data)


def test_other_classes_are_refused(dataset):
    with pytest.raises(TypeError, match="the data are of the class Data, but HeteroData are needed"):
        check_data(dataset, dataset[0].to_homogeneous())
