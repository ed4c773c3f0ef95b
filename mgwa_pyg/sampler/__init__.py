"""What a model looks at: neighbourhoods, subgraphs, ripple sets and negatives, sampled in pure torch."""

from mgwa_pyg.sampler.k_hop_sampler import KHopSampler, k_hop_sampler
from mgwa_pyg.sampler.negatives import NegativeSampler
from mgwa_pyg.sampler.neighbor_sampler import Neighborhood, NeighborSampler
from mgwa_pyg.sampler.ripple_sets import ripple_sets

__all__ = [
    "KHopSampler",
    "NegativeSampler",
    "NeighborSampler",
    "Neighborhood",
    "k_hop_sampler",
    "ripple_sets",
]
