"""Fresh negatives: what is never drawn, and that all else is drawn alike."""

import pytest
import torch

from mgwa_pyg.sampler import NegativeSampler

PAIRS = torch.tensor([[0, 0, 0, 1, 3], [0, 1, 2, 4, 7]])  # Entity 7 lies outside a pool of 5.


def test_known_pairs_are_never_drawn_and_all_others_alike():
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


def test_without_known_pairs_everything_is_drawn():
    sampler = NegativeSampler(torch.empty(2, 0, dtype=torch.long), num_users=1, pool=3)
    assert sampler.draw(torch.zeros(100, dtype=torch.long)).unique().tolist() == [0, 1, 2]
    assert sampler.draw(torch.empty(0, dtype=torch.long)).shape == (0,)


def test_a_user_who_knows_the_whole_pool_is_named():
    with pytest.raises(ValueError, match="user 0 knows the whole pool of 3"):
        NegativeSampler(PAIRS, num_users=4, pool=3)


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
