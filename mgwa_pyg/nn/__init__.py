"""The layer, its fusions and the models built from it."""

from mgwa_pyg.nn.conv import FUSIONS, Fusion, GatedAggregationConv
from mgwa_pyg.nn.models import (
    KGCN,
    MGWA,
    CollaborativeMGWA,
    GatedAggregationGNN,
    ItemItem,
    ItemPaths,
    RippleNet,
)

__all__ = [
    "FUSIONS",
    "KGCN",
    "MGWA",
    "CollaborativeMGWA",
    "Fusion",
    "GatedAggregationConv",
    "GatedAggregationGNN",
    "ItemItem",
    "ItemPaths",
    "RippleNet",
]
