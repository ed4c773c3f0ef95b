"""`MGWA`: the paper's recommender, N gated aggregation layers over a knowledge graph, seen by a user."""

from __future__ import annotations

from mgwa_pyg.nn.models.neighborhood_model import NeighborhoodModel


class MGWA(NeighborhoodModel):
    r"""The recommender of the `"Music Recommendation Model Based on Graph Neural Network with Weighted
    Aggregation" <https://doi.org/10.12677/SEA.2024.131010>`_ paper.

    Each item is represented by its neighbourhood in the knowledge graph as one user sees it: the user's
    embedding is the query of every :class:`GatedAggregationConv`, the relations' embeddings are shared by
    the layers, and the click is predicted by the inner product (eq. 11)

    .. math::
        \hat{y}_{uv} = \sigma(\mathbf{e}_u^{\top} \mathbf{e}_v[N]).

    The users' embeddings take part in no message, so no interaction does.

    Args:
        num_users (int): Number of users.
        num_entities (int): Number of entities, the items among them.
        num_relations (int): Number of relations.
        channels (int, optional): Size of all embeddings. (default: :obj:`16`)
        num_layers (int, optional): Number of layers, each looking one hop further. (default: :obj:`1`)
        fusion (str, optional): The fusion of the layers; :obj:`"gated"` is the paper's.
            (default: :obj:`"gated"`)
        score_activation (str, optional): The activation of the attention's scores.
            (default: :obj:`"sigmoid"`)
        dropout (float, optional): Dropout probability of the attention. (default: :obj:`0`)
        backend (str, optional): The backend of the layers. (default: :obj:`"auto"`)
        sparse (bool, optional): Whether the gradients of users' and entities' embeddings are sparse, for
            tables much larger than what a batch touches; they need an optimizer that takes them, such as
            :class:`torch.optim.Adagrad`. (default: :obj:`False`)

    Raises:
        ValueError: If there is no layer, or the layer rejects an argument.
    """
