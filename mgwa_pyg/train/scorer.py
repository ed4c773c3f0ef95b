"""The path that `make_recommender` had in 0.1.0, for scripts that import it from here."""

from mgwa_pyg.recommenders import make_recommender as make_scorer

__all__ = ["make_scorer"]
