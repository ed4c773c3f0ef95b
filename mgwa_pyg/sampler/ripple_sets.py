"""The ripple sets of all users at once: triples that lead away from their items, hop by hop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import index_sort
from torch_geometric.utils.sparse import index2ptr

from mgwa_pyg.sampler.random_choice import choose_distinct, uniform
from mgwa_pyg.utils.checks import check_count, check_range, check_tensors, forms

_FORMS = forms(interaction="long: 2 pairs", edge_index="long: 2 triples")


def ripple_sets(
    interaction: Tensor,
    edge_index: Tensor,
    num_users: int,
    num_nodes: int,
    num_hops: int,
    size: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw the ripple sets of the users, from `"RippleNet: Propagating User Preferences on the Knowledge
    Graph for Recommender Systems" <https://arxiv.org/abs/1803.03467>`_ (equations 2 and 3).

    The candidates of a user's first hop are the triples whose head is one of the user's items, those of
    every later hop the triples whose head is a tail that the hop before drew. As in the paper's released
    code, hops are walked as lists: a tail drawn twice offers its triples twice. Of at least ``size``
    candidates, ``size`` different entries of that list are drawn, all choices equally likely; of fewer,
    ``size`` with replacement. A hop without candidates repeats the hop before.

    A triple leads from its head to its tail only. To let preferences spread in both directions, pass the
    triples together with their inverses.

    Args:
        interaction (torch.Tensor): The users and items of the training positives, :math:`(2, P)`.
        edge_index (torch.Tensor): The heads and tails of the triples, :math:`(2, T)`.
        num_users (int): The number of users :math:`U`.
        num_nodes (int): The number of entities, items included.
        num_hops (int): The number of hops :math:`H`.
        size (int): The number of triples :math:`M` drawn for each hop.
        generator (torch.Generator, optional): The source of randomness, on the device of the triples.
            (default: :obj:`None`, torch's own)

    Returns:
        torch.Tensor: Positions in the triples, :math:`(U, H, M)`; those of a user whose first hop has no
        candidates are -1.

    Raises:
        ValueError: If ``num_hops`` or ``size`` is not positive, or a tensor is not two rows of
            :obj:`torch.long`.
        IndexError: If there are too few users or nodes for what the tensors hold.
    """
    num_users, num_nodes = check_count("num_users", num_users, 0), check_count("num_nodes", num_nodes, 0)
    num_hops, size = check_count("num_hops", num_hops), check_count("size", size)
    check_tensors(_FORMS, {"interaction": interaction, "edge_index": edge_index})
    check_range("interaction[0]", interaction[0], num_users, "num_users")
    check_range("interaction[1]", interaction[1], num_nodes, "num_nodes")
    check_range("edge_index", edge_index, num_nodes, "num_nodes")

    head, triple = index_sort(edge_index[0], max_value=num_nodes, stable=True)
    ptr = index2ptr(head, num_nodes)
    user, order = index_sort(interaction[0], max_value=num_users, stable=True)

    drawn, found = _draw_hop(interaction[1][order], index2ptr(user, num_users), ptr, size, generator)
    hops = [triple[drawn[found]]]
    # Each user with a first hop has `size` seeds from now on.
    seed_ptr = torch.arange(0, hops[0].numel() + 1, size, device=edge_index.device)
    for _ in range(1, num_hops):
        seed = edge_index[1][hops[-1]].flatten()
        drawn, more = _draw_hop(seed, seed_ptr, ptr, size, generator)
        hop = hops[-1].clone()
        hop[more] = triple[drawn[more]]
        hops.append(hop)

    memory = edge_index.new_full((num_users, num_hops, size), -1, dtype=torch.long)
    memory[found] = torch.stack(hops, dim=1)
    return memory


def _draw_hop(
    seed: Tensor, seed_ptr: Tensor, ptr: Tensor, size: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw ``size`` triples at each group of seeds, as positions in the triples sorted by head.

    Also tells which groups have triples at all; the rows of the others mean nothing.
    """
    degree = ptr[seed + 1] - ptr[seed]
    last = degree.cumsum(0)  # All lists of candidates laid end to end: where each seed's part stops.
    border = torch.cat([last.new_zeros(1), last])[seed_ptr]
    total = border.diff()

    chance = uniform(total.numel(), size, seed.device, generator)
    place = (chance * total.unsqueeze(1)).long()
    crowded = total >= size
    stop = total[crowded]
    place[crowded] = choose_distinct(stop, uniform(stop.numel(), size, seed.device, generator))
    place = place + border[:-1].unsqueeze(1)

    found = total > 0
    position = torch.searchsorted(last, place[found], right=True)
    drawn = torch.zeros_like(place)
    drawn[found] = (ptr[seed + 1] - last)[position] + place[found]
    return drawn, found
