"""Drawn ripple sets against a walk over the triples, and against the chances that they should have."""

from collections import Counter
from itertools import combinations

import pytest
import torch

from mgwa_pyg.sampler.ripple_sets import ripple_sets


def candidates(entities, edge_index):
    """The triples at a list of entities, by a loop: an entity that stands there twice gives them twice."""
    heads = edge_index[0].tolist()
    return [triple for entity in entities for triple, head in enumerate(heads) if head == entity]


def chi_square(counts, expected):
    assert set(counts) == set(expected)
    return sum((counts[key] - expected[key]) ** 2 / expected[key] for key in expected)


@pytest.mark.parametrize("both_directions", [False, True])
@pytest.mark.parametrize("size", [1, 4, 60])
@pytest.mark.parametrize("num_hops", [1, 3])
def test_every_hop_leads_on_from_the_one_before(num_hops, size, both_directions):
    num_users, num_nodes = 30, 25
    # Entities 0 to 9 are heads, 5 to 23 are tails: many hops have no way on, and 24 stands alone.
    edge_index = torch.stack([torch.randint(10, (40,)), torch.randint(5, 24, (40,))])
    if both_directions:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    interaction = torch.stack([torch.randint(num_users - 2, (70,)), torch.randint(10, (70,))])
    interaction = torch.cat([interaction, torch.tensor([[num_users - 2], [24]])], dim=1)

    memory = ripple_sets(interaction, edge_index, num_users, num_nodes, num_hops, size)
    assert memory.shape == (num_users, num_hops, size)
    assert memory.dtype == torch.long
    seen = set()
    for user in range(num_users):
        entities = [v for u, v in zip(*interaction.tolist(), strict=True) if u == user]
        for hop in range(num_hops):
            drawn = memory[user, hop].tolist()
            choice = candidates(entities, edge_index)
            if not choice:
                seen.add("no way on" if hop else "no triples")
                assert drawn == (memory[user, hop - 1].tolist() if hop else [-1] * size)
            elif len(choice) >= size:
                seen.add("enough")
                assert Counter(drawn) <= Counter(choice)
            else:
                seen.add("few")
                assert set(drawn) <= set(choice)
            entities = [edge_index[1, triple].item() for triple in drawn if triple >= 0]
    assert memory[-2:].eq(-1).all()  # A user whose item stands alone, and one without items.
    assert "no triples" in seen
    assert ("few" if size == 60 else "enough") in seen
    assert num_hops == 1 or both_directions or "no way on" in seen


def test_exactly_enough_triples_are_all_taken():
    edge_index = torch.tensor([[0, 1, 0, 1, 2], [3, 3, 4, 4, 4]])
    memory = ripple_sets(torch.tensor([[0, 0], [1, 0]]), edge_index, 1, 5, 1, 4)
    assert sorted(memory.flatten().tolist()) == [0, 1, 2, 3]


def test_directions():
    triples = torch.tensor([[0, 2], [1, 1]])
    interaction = torch.tensor([[0], [0]])
    assert ripple_sets(interaction, triples, 1, 3, 3, 2).tolist() == [[[0, 0], [0, 0], [0, 0]]]
    both = torch.cat([triples, triples.flip(0)], dim=1)
    memory = ripple_sets(interaction, both, 1, 3, 2, 2)
    assert memory[0, 0].tolist() == [0, 0]
    assert set(memory[0, 1].tolist()) <= {2, 3}


# Bounds of the chi-square statistic that it passes once in a thousand, by degrees of freedom: 2: 13.8,
# 5: 20.5, 9: 27.9.
USERS = 20_000


def test_all_subsets_of_enough_triples_are_equally_likely():
    # Items of one and of four triples: what is drawn are triples, not items.
    edge_index = torch.tensor([[0, 1, 1, 1, 1], [2, 2, 2, 2, 2]])
    interaction = torch.cartesian_prod(torch.arange(USERS), torch.tensor([0, 1])).T
    memory = ripple_sets(interaction, edge_index, USERS, 3, 1, 2)
    counts = Counter(map(frozenset, memory[:, 0].tolist()))
    pairs = map(frozenset, combinations(range(5), 2))
    assert chi_square(counts, dict.fromkeys(pairs, USERS / 10)) < 27.9


def test_few_triples_are_drawn_with_equal_chances():
    edge_index = torch.tensor([[1, 0, 0, 0], [2, 2, 2, 2]])
    interaction = torch.stack([torch.arange(USERS), torch.zeros(USERS, dtype=torch.long)])
    memory = ripple_sets(interaction, edge_index, USERS, 3, 1, 4)
    counts = Counter(memory.flatten().tolist())
    assert chi_square(counts, dict.fromkeys((1, 2, 3), 4 * USERS / 3)) < 13.8


def test_a_tail_drawn_twice_offers_its_triples_twice():
    edge_index = torch.tensor([[0, 1, 1, 1], [1, 2, 3, 4]])
    interaction = torch.stack([torch.arange(USERS), torch.zeros(USERS, dtype=torch.long)])
    memory = ripple_sets(interaction, edge_index, USERS, 5, 2, 2)
    assert memory[:, 0].eq(0).all()
    # Two of the six entries a, b, c, a, b, c: fifteen pairs, one of them {a, a} and four {a, b}.
    counts = Counter(tuple(sorted(pair)) for pair in memory[:, 1].tolist())
    expected = {(a, b): USERS * (1 if a == b else 4) / 15 for a in (1, 2, 3) for b in (1, 2, 3) if a <= b}
    assert chi_square(counts, expected) < 20.5


def test_the_generator_decides():
    edge_index = torch.randint(10, (2, 80))
    interaction = torch.stack([torch.arange(5), torch.arange(5)])

    def draw(state):
        return ripple_sets(interaction, edge_index, 5, 10, 2, 3, torch.Generator().manual_seed(state))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_nothing_to_draw_from():
    empty = torch.empty(2, 0, dtype=torch.long)
    assert ripple_sets(empty, torch.tensor([[0], [1]]), 2, 2, 2, 3).eq(-1).all()
    assert ripple_sets(torch.tensor([[0], [1]]), empty, 2, 2, 2, 3).eq(-1).all()


def test_bad_arguments():
    interaction, edge_index = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0, 1], [2, 2]])
    with pytest.raises(ValueError, match="num_hops=0"):
        ripple_sets(interaction, edge_index, 2, 3, 0, 4)
    with pytest.raises(ValueError, match="size=0"):
        ripple_sets(interaction, edge_index, 2, 3, 1, 0)
    with pytest.raises(ValueError, match=r"interaction has shape \(2,\)"):
        ripple_sets(interaction[0], edge_index, 2, 3, 1, 4)
    with pytest.raises(ValueError, match=r"edge_index has shape \(2, 2\) and type torch.float32"):
        ripple_sets(interaction, edge_index.float(), 2, 3, 1, 4)
    with pytest.raises(IndexError, match=r"interaction\[0\] holds 1, .* \(num_users is 1\)"):
        ripple_sets(interaction, edge_index, 1, 3, 1, 4)
    with pytest.raises(IndexError, match=r"edge_index holds 2, .* \(num_nodes is 2\)"):
        ripple_sets(interaction[:, 1:], edge_index, 2, 2, 1, 4)
    with pytest.raises(IndexError, match="edge_index holds -1"):
        ripple_sets(interaction, edge_index - 1, 2, 3, 1, 4)
