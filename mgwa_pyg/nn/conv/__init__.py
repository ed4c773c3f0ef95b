"""The layer and its fusions."""

from mgwa_pyg.nn.conv.fusion import FUSIONS, Fusion
from mgwa_pyg.nn.conv.gated_aggregation_conv import GatedAggregationConv

__all__ = ["FUSIONS", "Fusion", "GatedAggregationConv"]
