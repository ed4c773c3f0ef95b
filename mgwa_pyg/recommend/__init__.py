"""A checkpoint in use: the best items for users old and new, similar items, and why."""

from mgwa_pyg.recommend.catalog import ItemId
from mgwa_pyg.recommend.explanation import Explanation
from mgwa_pyg.recommend.recommender import Recommender

__all__ = ["Explanation", "ItemId", "Recommender"]
