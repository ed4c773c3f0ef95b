"""Neighbour sampling in pure torch."""

from mgwa_pyg.sampler.neighbor_sampler import Neighborhood, NeighborSampler

__all__ = ["NeighborSampler", "Neighborhood"]
