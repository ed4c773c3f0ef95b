"""What a model looks at: neighbourhoods of items and ripple sets of users, sampled in pure torch."""

from mgwa_pyg.sampler.neighbor_sampler import Neighborhood, NeighborSampler
from mgwa_pyg.sampler.ripple_sets import ripple_sets

__all__ = ["NeighborSampler", "Neighborhood", "ripple_sets"]
