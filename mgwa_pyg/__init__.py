"""Recommendation over knowledge graphs by gated aggregation, for PyTorch Geometric."""

from mgwa_pyg.version import __version__

__all__ = ["__version__"]
