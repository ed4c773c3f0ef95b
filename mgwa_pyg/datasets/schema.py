"""`check_data`: whether data still have the schema of the data sets after transforms."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.base import KGRecDataset
from mgwa_pyg.utils.checks import check_range, check_tensors, form, forms, is_float

_KG = ("entity", "kg", "entity")
_PARTS = ("train", "val", "test")


def check_data(dataset: KGRecDataset, data: Any) -> None:
    r"""Raise an error if data are not what :class:`~mgwa_pyg.datasets.KGRecDataset` promises.

    Transforms may leave anything: :class:`~torch_geometric.transforms.ToUndirected`, for one, adds up the
    relations of edges that it merges. What is learned from such data looks right and is wrong.

    Args:
        dataset (KGRecDataset): The data set, which knows the sizes.
        data (HeteroData): What it gave, after its transforms.

    Raises:
        TypeError: If this is no :class:`~torch_geometric.data.HeteroData`.
        ValueError: If something is missing, has another shape or type, or contradicts something else.
        IndexError: If a user, an entity, an item or a relation is out of range.
    """
    if not isinstance(data, HeteroData):
        raise TypeError(f"the data are of the class {type(data).__name__}, but HeteroData are needed")
    for kind, size in (("user", dataset.num_users), ("entity", dataset.num_entities)):
        if data[kind].num_nodes != size:
            raise ValueError(f"data['{kind}'] has {data[kind].num_nodes} nodes, but the data set has {size}")
    _check_triples(dataset, data)
    _check_interactions(dataset, data)


def _check_triples(dataset: KGRecDataset, data: HeteroData) -> None:
    (name, edge_index), (type_name, rel_type) = (_get(data, _KG, key) for key in ("edge_index", "rel_type"))
    _check_form(name, edge_index, "index: 2 edges")
    check_range(name, edge_index, dataset.num_entities, "num_entities")
    _check_form(type_name, rel_type, "index: edges")
    _check_rows(type_name, rel_type, edge_index.size(1), name)
    num_relations = dataset.num_relations
    check_range(type_name, rel_type, 2 * num_relations, "the number of relations and inverses")

    half = rel_type.numel() // 2
    if (  # As a data set makes them: all triples, then all inverses.
        torch.equal(edge_index[0, :half], edge_index[1, half:])
        and torch.equal(edge_index[1, :half], edge_index[0, half:])
        and torch.equal(rel_type[:half] + num_relations, rel_type[half:])
    ):
        return
    is_inverse = rel_type >= num_relations
    source, target = edge_index.long()
    head, tail = torch.where(is_inverse, target, source), torch.where(is_inverse, source, target)
    key = (head * num_relations + rel_type % num_relations) * dataset.num_entities + tail
    lone = is_inverse & ~torch.isin(key, key[~is_inverse])
    if lone.any():
        edge = int(lone.int().argmax())
        raise ValueError(
            f"{name} holds the edge from {int(source[edge])} to {int(target[edge])} of the relation "
            f"{int(rel_type[edge])}, the inverse of relation {int(rel_type[edge]) - num_relations}, but not "
            f"the triple itself: the data set has all inverses, so leave out what adds or merges edges"
        )
    # Inverses may be left out, but then there is nothing more than the triples.
    lone = ~is_inverse & ~torch.isin(key, key[is_inverse])
    count = int((~is_inverse).sum())
    if lone.any() and count > dataset.num_triples:
        edge = int(lone.int().argmax())
        raise ValueError(
            f"{name} holds {count} edges of relations that are no inverses, but the data set has "
            f"{dataset.num_triples} triples: the edge from {int(source[edge])} to {int(target[edge])} of the "
            f"relation {int(rel_type[edge])}, for one, has no inverse, so leave out what adds or merges edges"
        )


def _check_interactions(dataset: KGRecDataset, data: HeteroData) -> None:
    links = ("user", dataset.interaction.edge, "entity")
    name, edge_index = _get(data, links, "edge_index")
    pairs_name, pairs = _get(data, links, "edge_label_index")
    label_name, label = _get(data, links, "edge_label")
    _check_form(name, edge_index, "index: 2 edges")
    _check_form(pairs_name, pairs, "index: 2 labels")
    if not is_float(label) or label.dim() != 1 or not ((label == 0) | (label == 1)).all():
        raise ValueError(f"{label_name} {form(label)}, but a vector of zeros and ones is needed, as floats")
    _check_rows(label_name, label, pairs.size(1), pairs_name)
    masks = []
    for part in _PARTS:
        mask_name, mask = _get(data, links, f"{part}_mask")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
            raise ValueError(f"{mask_name} {form(mask)}, but a vector of booleans is needed")
        _check_rows(mask_name, mask, pairs.size(1), pairs_name)
        masks.append(mask)
    count = torch.stack(masks).sum(dim=0)
    if (count > 1).any():
        row = int((count > 1).int().argmax())
        raise ValueError(f"row {row} of {pairs_name} is in several of train_mask, val_mask and test_mask")

    check_range(f"{name}[0]", edge_index[0], dataset.num_users, "num_users")
    check_range(f"{name}[1]", edge_index[1], dataset.num_items, "num_items")
    check_range(f"{pairs_name}[0]", pairs[0], dataset.num_users, "num_users")
    check_range(f"{pairs_name}[1]", pairs[1], dataset.num_entities, "num_entities")
    positive = label == 1
    check_range(f"{pairs_name}[1] of the positives", pairs[1, positive], dataset.num_items, "num_items")

    # An edge counts as a training positive: then no pair may be two things.
    used = count > 0
    meaning = sum(number * mask.int() for number, mask in enumerate(masks)) + len(masks) * positive.int()
    meaning = torch.cat([torch.full_like(edge_index[0], len(masks)), meaning[used].to(edge_index)])
    key = torch.cat(
        [user.long() * dataset.num_entities + item.long() for user, item in (edge_index, pairs[:, used])]
    )
    key, order = key.sort(stable=True)
    two = (key[1:] == key[:-1]) & (meaning[order[1:]] != meaning[order[:-1]])
    if two.any():
        place = int(two.int().argmax())
        user, item = divmod(int(key[place]), dataset.num_entities)
        one, other = (_meaning(int(meaning[order[at]])) for at in (place, place + 1))
        raise ValueError(
            f"user {user} and item {item} are both {one} and {other} in data{list(links)}: a pair has one "
            f"label and is in one part, and the edges are training positives"
        )


def _meaning(number: int) -> str:
    label, part = divmod(number, len(_PARTS))
    return f"a {('training', 'validation', 'test')[part]} {('negative', 'positive')[label]}"


def _get(data: HeteroData, store: tuple[str, str, str], key: str) -> tuple[str, Any]:
    name = f"data{list(store)}.{key}"
    if store not in data.edge_types or key not in data[store]:
        raise ValueError(f"the data have no {name}: leave out the transform that takes it away")
    return name, data[store][key]


def _check_form(name: str, value: Any, needed: str) -> None:
    check_tensors(forms(**{name: needed}), {name: value})


def _check_rows(name: str, value: Tensor, size: int, of: str) -> None:
    if value.numel() != size:
        raise ValueError(f"{name} {form(value)}, but {of} has {size} columns: one for each is needed")
