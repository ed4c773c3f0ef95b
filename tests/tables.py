"""Data sets made of given tables, and the same data in another order."""

import dataclasses

import numpy as np

from mgwa_pyg.datasets import KGRecDataset, KGRecTables


class OfTables(KGRecDataset):
    """A data set of given tables."""

    def __init__(self, tables, **options):
        self._tables = tables
        super().__init__(None, **options)

    def build(self):
        return self._tables


def tables_of(dataset):
    """The tables of a data set, its ids and names written out."""
    data = dataset[0]
    links, kg = data["user", dataset.interaction.edge, "entity"], data["entity", "kg", "entity"]
    positive, forward = links.edge_label == 1, kg.rel_type < dataset.num_relations
    head, tail = kg.edge_index[:, forward]
    return KGRecTables(
        positives=links.edge_label_index[:, positive].t().numpy(),
        triples=np.stack([head, kg.rel_type[forward], tail], axis=1),
        num_users=dataset.num_users,
        num_entities=dataset.num_entities,
        item_names=[*dataset.item_names],
        relation_names=[*dataset.relation_names],
        positive_parts=(links.val_mask + 2 * links.test_mask.int())[positive].numpy(),
        user_ids=[f"u{id_}" for id_ in dataset.user_ids],
        item_ids=[f"i{id_}" for id_ in dataset.item_ids],
        entity_names=[*dataset.entity_names],
    )


def shuffled(tables, seed=0):
    """The same tables, in which users, items, other entities and relations stand in another order."""
    generator = np.random.default_rng(seed)
    num_items = len(tables.item_names)
    user, item = generator.permutation(tables.num_users), generator.permutation(num_items)
    others = num_items + generator.permutation(tables.num_entities - num_items)
    entity, relation = np.concatenate([item, others]), generator.permutation(len(tables.relation_names))
    # The row that stood at `order[n]` stands at `n`: its new number is the inverse.
    new_user, new_entity, new_relation = np.argsort(user), np.argsort(entity), np.argsort(relation)
    head, kind, tail = tables.triples.T
    pairs = tables.positives
    return dataclasses.replace(
        tables,
        positives=np.stack([new_user[pairs[:, 0]], new_entity[pairs[:, 1]]], axis=1),
        triples=np.stack([new_entity[head], new_relation[kind], new_entity[tail]], axis=1),
        item_names=[tables.item_names[row] for row in item],
        relation_names=[tables.relation_names[row] for row in relation],
        user_ids=[tables.user_ids[row] for row in user],
        item_ids=[tables.item_ids[row] for row in item],
        entity_names=[tables.entity_names[row] for row in entity],
    )
