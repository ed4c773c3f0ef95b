"""What a model looks at: neighbourhoods, k-hop subgraphs and ripple sets, sampled in pure torch."""

from mgwa_pyg.sampler.k_hop_sampler import KHopSampler, k_hop_sampler
from mgwa_pyg.sampler.neighbor_sampler import Neighborhood, NeighborSampler
from mgwa_pyg.sampler.ripple_sets import ripple_sets

__all__ = ["KHopSampler", "NeighborSampler", "Neighborhood", "k_hop_sampler", "ripple_sets"]
