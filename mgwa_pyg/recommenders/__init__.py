"""The recommenders that people pick by name, a file for each, and their checkpoints."""

from mgwa_pyg.recommenders.base import RECOMMENDERS, FitConfig, KGRecommender, make_recommender
from mgwa_pyg.recommenders.checkpoint import CheckpointError, read_checkpoint, restore
from mgwa_pyg.recommenders.collaborative import CollaborativeConfig, CollaborativeRecommender
from mgwa_pyg.recommenders.growth import grown
from mgwa_pyg.recommenders.kgcn import KGCNConfig, KGCNRecommender
from mgwa_pyg.recommenders.lightgcn import LightGCNConfig, LightGCNRecommender
from mgwa_pyg.recommenders.mgwa import MGWAConfig, MGWARecommender
from mgwa_pyg.recommenders.ripplenet import RippleNetConfig, RippleNetRecommender

RECOMMENDERS["mgwa"] = MGWARecommender
RECOMMENDERS["kgcn"] = KGCNRecommender
RECOMMENDERS["ripplenet"] = RippleNetRecommender
RECOMMENDERS["lightgcn"] = LightGCNRecommender
RECOMMENDERS["collaborative"] = CollaborativeRecommender

__all__ = [
    "RECOMMENDERS",
    "CheckpointError",
    "CollaborativeConfig",
    "CollaborativeRecommender",
    "FitConfig",
    "KGCNConfig",
    "KGCNRecommender",
    "KGRecommender",
    "LightGCNConfig",
    "LightGCNRecommender",
    "MGWAConfig",
    "MGWARecommender",
    "RippleNetConfig",
    "RippleNetRecommender",
    "grown",
    "make_recommender",
    "read_checkpoint",
    "restore",
]
