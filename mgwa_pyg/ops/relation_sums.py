"""`RelationSums`: the aggregation for queries by the thousand, sums over edges taken once for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from mgwa_pyg.ops.aggregate import relation_softmax_aggregate
from mgwa_pyg.ops.backends import fused_backend
from mgwa_pyg.ops.plan import RelationCSR

# Within this range of scores no weight is too small to count beside another in single precision.
_MAX_SPREAD = 60.0
# Sums of more edges than this are taken in double precision: each addition to a large sum is rounded.
_MAX_EDGES = 2**10


class RelationSums:
    r"""What :func:`relation_softmax_aggregate` gives for :math:`Q` tables of one row each, by two products of
    matrices.

    All edges of one relation into one target have the same weight, whatever the query. Hence with the sum
    :math:`\mathbf{A}_{v,r}` of the sources over these edges and their number :math:`n_{v,r}`,

    .. math::
        \mathbf{out}_{q,v} = \frac{\sum_r \exp(\mathbf{T}_{q,r}) \, \mathbf{A}_{v,r}}
        {\sum_r \exp(\mathbf{T}_{q,r}) \, n_{v,r}}

    and :math:`\mathbf{A}` and :math:`n` don't depend on the query. Both, and the products, are in single
    precision at least, whatever the features' type, and under autocast, too.

    Args:
        x (torch.Tensor): The features of the sources, :math:`(N_{src}, C)`, the same for all queries.
        plan (RelationCSR): The plan of the graph.
    """

    def __init__(self, x: Tensor, plan: RelationCSR) -> None:
        num_targets, num_relations = plan.size[1], plan.num_relations
        cell = plan.rel.long() * num_targets + plan.dst
        counts = torch.bincount(cell, minlength=num_relations * num_targets)
        dtype = _sum_type(x)
        exact = torch.float64 if plan.num_edges > _MAX_EDGES and counts.max() > _MAX_EDGES else dtype
        sums = x.new_zeros(num_relations * num_targets, x.size(1), dtype=exact)
        sums = sums.index_add(0, cell, x.index_select(0, plan.col).to(exact)).to(dtype)
        self._sums = sums.view(num_relations, num_targets, -1).transpose(1, 2).flatten(1)
        self._counts = counts.view(num_relations, num_targets).to(dtype)
        self._x, self._plan = x, plan

    @staticmethod
    def num_bytes(num_targets: int, num_relations: int, x: Tensor) -> int:
        """The memory that the sums of features like ``x`` take."""
        return num_targets * num_relations * (x.size(1) + 1) * _sum_type(x).itemsize

    def aggregate(self, table: Tensor) -> Tensor:
        r"""Return the aggregated features of all targets for each query, as columns,
        :math:`(Q, C, N_{dst})`.

        Args:
            table (torch.Tensor): The score of each query and relation, before the softmax, :math:`(Q, R)`.
        """
        table = table.to(torch.promote_types(table.dtype, torch.float32))
        highest = table.amax(dim=1, keepdim=True)
        spread = (highest - table.amin(dim=1, keepdim=True)).detach()
        if table.numel() > 0 and not float(spread.max()) <= _MAX_SPREAD:  # NaN where all are minus infinity.
            backend = fused_backend(table.device)
            out = relation_softmax_aggregate(self._x, table.unsqueeze(1), self._plan, backend=backend)
            return out.permute(1, 2, 0)
        weight = (table - highest).exp().to(self._sums.dtype)
        with torch.autocast(weight.device.type, enabled=False):
            total = (weight @ self._counts).clamp_(min=torch.finfo(weight.dtype).tiny)
            out = (weight @ self._sums).view(total.size(0), self._x.size(1), total.size(1))
        return out.div_(total.unsqueeze(1)).to(self._x.dtype)


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
