"""Small graphs and data that many tests are on, and the backends that they go through."""

import pytest
import torch

BACKENDS = ["torch", "reference", pytest.param("scatter", marks=pytest.mark.scatter)]
#: Of the data set `small`.
SIZES = {
    "num_users": 30, "num_items": 60, "num_entities": 120, "num_relations": 5, "num_triples": 400,
    "num_interactions": 300,
}  # fmt: skip


def random_edges(num_nodes, num_edges, num_relations, isolated=0):
    """Edges between all nodes but the last isolated ones, and the relation of each."""
    edge_index = torch.randint(num_nodes - isolated, (2, num_edges))
    return edge_index, torch.randint(num_relations, (num_edges,))


def multigraph(num_source=7, num_target=7, num_edges=30, num_relations=4, isolated=2):
    """Random edges, some of them parallel, that leave the last targets without neighbours."""
    source = torch.randint(num_source, (num_edges,))
    target = torch.randint(num_target - isolated, (num_edges,))
    edge_type = torch.randint(num_relations, (num_edges,))
    source[1], target[1] = source[0], target[0]  # Two relations between the same nodes …
    edge_type[1] = (edge_type[0] + 1) % num_relations
    source[2], target[2], edge_type[2] = source[0], target[0], edge_type[0]  # … and one twice.
    return torch.stack([source, target]), edge_type
