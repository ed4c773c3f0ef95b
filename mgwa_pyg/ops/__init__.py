"""The hot operation: attention-weighted aggregation over neighbourhoods, one implementation per backend."""

from mgwa_pyg.ops.aggregate import relation_softmax_aggregate
from mgwa_pyg.ops.backends import BACKENDS, SEGMENT_OPS, SegmentOps, choose_backend, segment_ops
from mgwa_pyg.ops.plan import RelationCSR

__all__ = [
    "BACKENDS",
    "SEGMENT_OPS",
    "RelationCSR",
    "SegmentOps",
    "choose_backend",
    "relation_softmax_aggregate",
    "segment_ops",
]
