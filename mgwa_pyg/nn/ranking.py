"""The path that `Ranking` and `rank_by_product` had in 0.1.0, for scripts that import them from here."""

from mgwa_pyg.ops.top_k import Ranking, rank_by_product

__all__ = ["Ranking", "rank_by_product"]
