"""The layer, its fusions and the models built from it."""

from mgwa_pyg.nn.fusion import FUSIONS, Fusion
from mgwa_pyg.nn.gated_aggregation_conv import GatedAggregationConv
from mgwa_pyg.nn.gated_aggregation_gnn import GatedAggregationGNN
from mgwa_pyg.nn.mgwa import MGWA

__all__ = ["FUSIONS", "MGWA", "Fusion", "GatedAggregationConv", "GatedAggregationGNN"]
