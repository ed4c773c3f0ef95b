"""The interactions in the data: edges from users to entities, and the words that a data set has for them."""

from typing import NamedTuple

from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage


class Interaction(NamedTuple):
    """What users do with items, as edges and sentences say it.

    Example: ``Interaction("plays", "played", "players")``.
    """

    edge: str
    """The name of the edges, as in ``("user", "listens", "entity")``."""
    done: str
    """What a user did, as in "listened to an item"."""
    people: str
    """The users of an item, as in "its listeners"."""


LISTENS = Interaction("listens", "listened to", "listeners")
READS = Interaction("reads", "read", "readers")
WATCHES = Interaction("watches", "watched", "viewers")
INTERACTS = Interaction("interacts", "interacted with", "users")
#: Those that data sets are asked for by the name of their edges.
INTERACTIONS = {word.edge: word for word in (LISTENS, READS, WATCHES, INTERACTS)}


def interactions(data: HeteroData) -> EdgeStorage:
    """Return the edges from users to items: the training positives as ``edge_index``, the labelled rows as
    ``edge_label_index``.

    Raises:
        ValueError: If there is no such type of edges, or there are several.
    """
    types = [kind for kind in data.edge_types if (kind[0], kind[2]) == ("user", "entity")]
    for key in ("edge_label_index", "train_mask"):  # Of several, those that a data set has split.
        types = [kind for kind in types if key in data[kind]] or types
    if len(types) != 1:
        raise ValueError(
            f"the data have {types or 'no'} edges from users to entities, but one type of them is needed, "
            f"such as ('user', 'listens', 'entity')"
        )
    return data[types[0]]
