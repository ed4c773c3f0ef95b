"""Fresh negatives: what is never drawn, and that all else is drawn alike."""

import random

import pytest
import torch

from mgwa_pyg.sampler import NegativeSampler, negatives
from mgwa_pyg.sampler.random_choice import uniform

PAIRS = torch.tensor([[0, 0, 0, 1, 3], [0, 1, 2, 4, 7]])  # Entity 7 lies outside a pool of 5.


@pytest.mark.parametrize("tries", [0, 16])  # Also where those that are left are counted at once.
def test_known_pairs_are_never_drawn_and_all_others_alike(tries, monkeypatch):
    monkeypatch.setattr(negatives, "_TRIES", tries)
    sampler = NegativeSampler(PAIRS, num_users=4, pool=5)
    user = torch.arange(4).repeat_interleave(20_000)
    drawn = sampler.draw(user, torch.Generator().manual_seed(0))
    share = torch.zeros(4, 5).index_put((user, drawn), torch.tensor(1.0), accumulate=True) / 20_000
    want = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).float()
    want = want / want.sum(dim=1, keepdim=True)
    assert (share[want == 0] == 0).all()
    torch.testing.assert_close(share, want, atol=0.015, rtol=0)


def test_draws_follow_from_the_generator():
    sampler = NegativeSampler(PAIRS, num_users=4, pool=5)
    user = torch.arange(4).repeat(50)
    first, second, other = (sampler.draw(user, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(sampler.to("cpu").draw(user), first)


def test_draws_follow_from_keys():
    sampler = NegativeSampler(PAIRS, num_users=4, pool=5)
    user, generator = torch.arange(4).repeat(5_000), torch.Generator().manual_seed(0)
    key = torch.randint(2**60, (20_000,), generator=generator)
    order = torch.randperm(20_000, generator=generator)
    drawn = sampler.draw(user, key=key)
    assert torch.equal(sampler.draw(user[order], key=key[order]), drawn[order])
    share = torch.zeros(4, 5).index_put((user, drawn), torch.tensor(1.0), accumulate=True) / 5_000
    want = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).float()
    want = want / want.sum(dim=1, keepdim=True)
    assert (share[want == 0] == 0).all()
    torch.testing.assert_close(share, want, atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="a generator or keys, not both"):
        sampler.draw(user, torch.Generator(), key)
    with pytest.raises(ValueError, match=r"key has shape \(3,\).*shape 20000 users"):
        sampler.draw(user, key=key[:3])


def test_where_most_is_left_known_entities_are_drawn_anew():
    """The figures of earlier fits follow from this order of draws."""
    known = {(user, (7 * user + k) % 50) for user in range(10) for k in range(5)}
    sampler = NegativeSampler(torch.tensor(sorted(known)).t(), num_users=10, pool=50)
    user = torch.arange(10).repeat(30)
    generator = torch.Generator().manual_seed(4)
    entity = [None] * 300
    rows = list(range(300))
    while rows:
        for row, drawn in zip(
            rows, torch.randint(50, (len(rows),), generator=generator).tolist(), strict=True
        ):
            entity[row] = drawn
        rows = [row for row in rows if (int(user[row]), entity[row]) in known]
    assert sampler.draw(user, torch.Generator().manual_seed(4)).tolist() == entity


def test_without_known_pairs_everything_is_drawn():
    sampler = NegativeSampler(torch.empty(2, 0, dtype=torch.long), num_users=1, pool=3)
    assert sampler.draw(torch.zeros(100, dtype=torch.long)).unique().tolist() == [0, 1, 2]
    assert sampler.draw(torch.empty(0, dtype=torch.long)).shape == (0,)


def test_a_user_who_knows_the_whole_pool_is_named():
    with pytest.warns(UserWarning, match="whole pool of 3, .*: 1 of 4, the first is user 0"):
        sampler = NegativeSampler(PAIRS, num_users=4, pool=3)
    with pytest.raises(ValueError, match="user 0 has seen the whole pool of 3"):
        sampler.draw(torch.tensor([1, 0, 2]))
    assert sampler.num_left.tolist() == [0, 3, 3, 3]
    user = torch.arange(4).repeat(100)
    user = user[sampler.num_left[user] > 0]
    generator = torch.Generator().manual_seed(0)
    pairs = set(zip(user.tolist(), sampler.draw(user, generator).tolist(), strict=True))
    assert pairs == {(u, e) for u in (1, 2, 3) for e in range(3)}


def test_the_last_one_left_is_drawn_at_once(monkeypatch):
    pool, left = 5_000, [0, 1234, 4_999]
    known = [(user, entity) for user, free in enumerate(left) for entity in range(pool) if entity != free]
    random.Random(0).shuffle(known)
    sampler = NegativeSampler(torch.tensor(known + known[:10]).t(), num_users=4, pool=pool)
    assert sampler.num_left.tolist() == [1, 1, 1, pool]

    calls = []

    def once(*args):
        calls.append(args)
        return uniform(*args)

    monkeypatch.setattr(negatives, "uniform", once)
    drawn = sampler.draw(torch.tensor([2, 0, 1, 1, 2, 0]))
    assert drawn.tolist() == [4_999, 0, 1234, 1234, 4_999, 0]  # As often as asked for.
    assert len(calls) == 1


@pytest.mark.parametrize("tries", [0, 2, 16])
@pytest.mark.parametrize("num_known", [0, 1, 7, 19])
def test_no_negative_is_a_positive(num_known, tries, monkeypatch):
    """Users with any number of known entities, and all that they can be given."""
    monkeypatch.setattr(negatives, "_TRIES", tries)
    rng = random.Random(num_known)
    known = {user: set(rng.sample(range(20), min(num_known + user, 19))) for user in range(3)}
    pairs = torch.tensor([(user, entity) for user in known for entity in known[user]]).reshape(-1, 2).t()
    sampler = NegativeSampler(pairs, num_users=3, pool=20)
    user = torch.arange(3).repeat(2_000)
    drawn = sampler.draw(user, torch.Generator().manual_seed(0))
    for one, taken in known.items():
        assert set(drawn[user == one].tolist()) == set(range(20)) - taken


def test_arguments_that_do_not_fit():
    pairs = torch.tensor([[0, 1], [2, 0]])
    with pytest.raises(IndexError, match=r"pairs\[1\] holds -1"):
        NegativeSampler(pairs - torch.tensor([[0], [1]]), 2, 3)
    with pytest.raises(IndexError, match=r"pairs\[0\] holds 1, .*num_users is 1"):
        NegativeSampler(pairs, 1, 3)
    with pytest.raises(ValueError, match=r"pairs has shape \(2,\)"):
        NegativeSampler(pairs[0], 2, 3)
    sampler = NegativeSampler(pairs, 2, 3)
    with pytest.raises(IndexError, match=r"user holds 2, .*num_users is 2"):
        sampler.draw(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"user has shape .* torch.float32"):
        sampler.draw(torch.zeros(2))
