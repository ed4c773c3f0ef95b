"""The hot operation: attention-weighted aggregation over neighbourhoods, one implementation per backend."""

from mgwa_pyg.ops.backends import BACKENDS, SegmentOps, get_backend

__all__ = ["BACKENDS", "SegmentOps", "get_backend"]
