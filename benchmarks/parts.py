"""Parts of a data set, as it was before users and items came, and what came as tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mgwa_pyg.datasets import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.datasets.splits import TEST, TRAIN, VAL


class Part(KGRecDataset):
    """A data set in memory, of tables.

    Args:
        whole (KGRecDataset): What it is a part of.
        tables (KGRecTables): Its tables.
    """

    def __init__(self, whole: KGRecDataset, tables: KGRecTables) -> None:
        self.interaction = whole.interaction
        self._tables = tables
        super().__init__(None)

    def build(self) -> KGRecTables:
        return self._tables


def positives(dataset: KGRecDataset) -> tuple[Tensor, np.ndarray]:
    """All positives, user and item, and the part of the split that each is in."""
    links = interactions(dataset[0])
    is_positive = links.edge_label == 1
    parts = np.select([links.val_mask, links.test_mask], [VAL, TEST], TRAIN).astype(np.int8)
    return links.edge_label_index[:, is_positive], parts[is_positive]


def part_of(
    whole: KGRecDataset,
    users: Tensor | None = None,
    items: Tensor | None = None,
    pairs: Tensor | None = None,
    keep_triples: bool = False,
) -> Part:
    """The data set without some users, without some items and all that only they lead to, or without some
    interactions. Items whose triples are kept stay, without interactions.

    Args:
        whole (KGRecDataset): The data set.
        users (torch.Tensor, optional): Which users are left out, a mask.
        items (torch.Tensor, optional): Which items are left out, a mask.
        pairs (torch.Tensor, optional): Which of :func:`positives` are left out, a mask.
        keep_triples (bool): Whether the items stay, and their triples.
    """
    (user, item), parts = positives(whole)
    no_user = torch.zeros(whole.num_users, dtype=torch.bool) if users is None else users
    no_item = torch.zeros(whole.num_items, dtype=torch.bool) if items is None else items
    kept = ~(no_user[user] | no_item[item])
    if pairs is not None:
        kept &= ~pairs
    head, relation, tail = triples(whole)
    gone = torch.zeros(whole.num_entities, dtype=torch.bool)
    if not keep_triples:
        gone[: whole.num_items] = no_item
        there = ~(gone[head] | gone[tail])
        before, after = gone.clone(), gone.clone()
        before[torch.cat([head, tail])] = True
        head, relation, tail = head[there], relation[there], tail[there]
        after[torch.cat([head, tail])] = True
        gone |= before & ~after
        gone[: whole.num_items] = no_item
    row, user_row = (~gone).cumsum(0) - 1, (~no_user).cumsum(0) - 1
    entities = (~gone).nonzero().squeeze(1).tolist()
    kept_items = [entity for entity in entities if entity < whole.num_items]
    tables = KGRecTables(
        positives=torch.stack([user_row[user[kept]], row[item[kept]]], dim=1).numpy(),
        triples=torch.stack([row[head], relation, row[tail]], dim=1).numpy(),
        num_users=int((~no_user).sum()),
        num_entities=len(entities),
        item_names=[whole.item_names[entity] for entity in kept_items],
        relation_names=[*whole.relation_names],
        positive_parts=parts[kept.numpy()],
        user_ids=[whole.user_ids[number] for number in (~no_user).nonzero().squeeze(1).tolist()],
        item_ids=[whole.item_ids[entity] for entity in kept_items],
        entity_names=[whole.entity_names[entity] for entity in entities],
        entity_ids=[whole.entity_ids[entity] for entity in entities],
    )
    return Part(whole, tables)


def triples(dataset: KGRecDataset) -> tuple[Tensor, Tensor, Tensor]:
    """Heads, relations and tails."""
    kg = dataset[0]["entity", "kg", "entity"]
    forward = kg.rel_type < dataset.num_relations
    return kg.edge_index[0, forward], kg.rel_type[forward], kg.edge_index[1, forward]


def plays_of(whole: KGRecDataset, users: Tensor) -> pd.DataFrame:
    """The training positives of some users, a mask, as a table."""
    user, item = interactions(whole[0]).edge_index
    chosen = users[user]
    return pd.DataFrame(
        {"user": _ids(whole.user_ids, user[chosen]), "item": _ids(whole.item_ids, item[chosen])}
    )


def triples_of(whole: KGRecDataset, items: Tensor) -> pd.DataFrame:
    """The triples of some items, a mask, as a table."""
    head, relation, tail = triples(whole)
    is_new = torch.zeros(whole.num_entities, dtype=torch.bool)
    is_new[: whole.num_items] = items
    chosen = is_new[head] | is_new[tail]
    return pd.DataFrame(
        {
            "head": _ids(whole.entity_ids, head[chosen]),
            "relation": _ids(whole.relation_names, relation[chosen]),
            "tail": _ids(whole.entity_ids, tail[chosen]),
        }
    ).astype(object)


def _ids(ids: Sequence[int | str], rows: Tensor) -> list[int | str]:
    return [ids[row] for row in rows.tolist()]


def one_of(size: int, parts: int, number: int) -> Tensor:
    """One of so many parts of the numbers below a size, drawn at random, as a mask."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=torch.Generator().manual_seed(0))[number::parts]] = True
    return mask
