"""The models: pure modules that read no file and sample nothing."""

from mgwa_pyg.nn.models.collaborative_mgwa import CollaborativeMGWA
from mgwa_pyg.nn.models.gated_aggregation_gnn import GatedAggregationGNN
from mgwa_pyg.nn.models.item_item import ItemItem, ItemPaths
from mgwa_pyg.nn.models.kgcn import KGCN
from mgwa_pyg.nn.models.mgwa import MGWA
from mgwa_pyg.nn.models.ripplenet import RippleNet

__all__ = ["KGCN", "MGWA", "CollaborativeMGWA", "GatedAggregationGNN", "ItemItem", "ItemPaths", "RippleNet"]
