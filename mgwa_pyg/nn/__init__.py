"""The layer, its fusions and the models built from it."""

from mgwa_pyg.nn.collaborative_mgwa import CollaborativeMGWA
from mgwa_pyg.nn.fusion import FUSIONS, Fusion
from mgwa_pyg.nn.gated_aggregation_conv import GatedAggregationConv
from mgwa_pyg.nn.gated_aggregation_gnn import GatedAggregationGNN
from mgwa_pyg.nn.kgcn import KGCN
from mgwa_pyg.nn.mgwa import MGWA
from mgwa_pyg.nn.ripplenet import RippleNet

__all__ = [
    "FUSIONS",
    "KGCN",
    "MGWA",
    "CollaborativeMGWA",
    "Fusion",
    "GatedAggregationConv",
    "GatedAggregationGNN",
    "RippleNet",
]
