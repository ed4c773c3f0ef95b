"""`KGCN`: knowledge graph convolutional networks, with the aggregators of their paper or of their code."""

from __future__ import annotations

from torch import Tensor

from mgwa_pyg.nn.models.neighborhood_model import NeighborhoodModel
from mgwa_pyg.utils.checks import check_choice, check_count

EQUATIONS = ("paper", "official")


class KGCN(NeighborhoodModel):
    r"""The recommender of the `"Knowledge Graph Convolutional Networks for Recommender Systems"
    <https://arxiv.org/abs/1904.12575>`_ paper.

    Attention and neighbourhood are (eqs. 1--3 of that paper)

    .. math::
        \pi^u_r = g(\mathbf{u}, \mathbf{r}), \quad
        \mathbf{v}^u_{N(v)} = \sum_{e \in N(v)} \tilde{\pi}^u_{r_{v,e}} \mathbf{e}

    with the softmax :math:`\tilde{\pi}` of :math:`\pi` over the neighbourhood; one of the three aggregators
    (eqs. 4--6) follows, then ReLU, or :math:`\tanh` after the last layer. The published equations and the
    official code differ in two places, which :obj:`equations` chooses between:

    ============================= =============================== =====================================
    \                             :obj:`"paper"`                  :obj:`"official"`
    ============================= =============================== =====================================
    :math:`g`                     inner product, a sum over       mean over the :math:`d` channels
                                  the :math:`d` channels
    neighbourhood                 weighted sum over neighbours    that sum divided by :math:`K`: the mean
                                                                  of the weighted neighbours
    ============================= =============================== =====================================

    Args:
        num_users, num_entities, num_relations, channels, num_layers, dropout, backend, sparse: As in
            :class:`~mgwa_pyg.nn.MGWA`; :obj:`channels` are :math:`d`.
        fusion (str, optional): The aggregator: :obj:`"sum"`, :obj:`"concat"` or :obj:`"neighbor"`.
            (default: :obj:`"sum"`)
        equations (str, optional): :obj:`"paper"` or :obj:`"official"`. (default: :obj:`"paper"`)
        num_neighbors (int, optional): The :math:`K` of the official code, the neighbours that it samples
            for every entity; nothing else depends on it. (default: :obj:`8`)

    Raises:
        ValueError: If :obj:`equations` is unknown, :obj:`num_neighbors` not positive, there is no layer,
            or the layer rejects an argument.
    """

    def __init__(
        self,
        num_users: int,
        num_entities: int,
        num_relations: int,
        channels: int = 16,
        num_layers: int = 1,
        fusion: str = "sum",
        equations: str = "paper",
        num_neighbors: int = 8,
        dropout: float = 0.0,
        backend: str = "auto",
        sparse: bool = False,
    ) -> None:
        check_choice("equations", equations, EQUATIONS)
        num_neighbors = check_count("num_neighbors", num_neighbors)
        super().__init__(
            num_users,
            num_entities,
            num_relations,
            channels,
            num_layers,
            fusion,
            score_activation=None,
            dropout=dropout,
            backend=backend,
            sparse=sparse,
        )
        if equations == "official":
            self.query_scale = 1 / self.channels
            self.neighbor_scale = 1 / num_neighbors

    def activate(self, x: Tensor, layer: int) -> Tensor:
        return x.tanh() if layer == self.num_layers - 1 else x.relu()
