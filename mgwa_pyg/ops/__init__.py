"""The hot operation: attention-weighted aggregation over neighbourhoods, one implementation per backend."""

from mgwa_pyg.ops.aggregate import relation_softmax_aggregate
from mgwa_pyg.ops.backends import BACKENDS, SegmentOps, get_backend
from mgwa_pyg.ops.plan import RelationCSR

__all__ = ["BACKENDS", "RelationCSR", "SegmentOps", "get_backend", "relation_softmax_aggregate"]
