"""`NegativeSampler`: fresh negatives for training, entities that a user has not seen."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from mgwa_pyg.sampler.random_choice import uniform
from mgwa_pyg.utils.checks import check_count, check_range, check_tensors, forms, values_are_checked

# So often an entity that the user has seen is drawn anew before those that are left are counted: where most
# are left, hardly ever all in vain.
_TRIES = 16

_FORMS = forms(pairs="index: 2 pairs", user="index: users", key="long: users | None")


class NegativeSampler:
    r"""Draws entities uniformly from a pool, but none that the user has seen.

    All negatives are independent: a user who has fewer entities left than are drawn gets some of them more
    than once. What a negative costs does not depend on how many are left.

    Give it the training positives alone: one that spares the positives of validation or test tells a model
    which they are.

    Args:
        pairs (torch.Tensor): The interactions, user and entity, :math:`(2, P)`.
        num_users (int): The number of users.
        pool (int): What is drawn from: the first entities.

    Raises:
        ValueError: If an argument has another shape or type.
        IndexError: If a user or an entity is out of range.

    Warns if a user has seen the whole pool: :meth:`draw` then refuses that user.
    """

    num_left: Tensor
    r"""How many entities of the pool are left to be drawn for each user, :math:`(U)`."""

    def __init__(self, pairs: Tensor, num_users: int, pool: int) -> None:
        check_tensors(_FORMS, {"pairs": pairs})
        self.num_users = check_count("num_users", num_users, 0)
        self.pool = pool = check_count("pool", pool)
        check_range("pairs[0]", pairs[0], self.num_users, "num_users")
        # Entities beyond the pool do no harm.
        check_range("pairs[1]", pairs[1].clamp(max=pool - 1), pool, "pool")
        user, entity = pairs[:, pairs[1] < pool].long()
        self._seen = seen = (user * pool + entity).unique()
        owner = seen // pool
        count = torch.bincount(owner, minlength=self.num_users)
        self.num_left = pool - count
        # The interactions are in order: where those of each user begin, and, for each, how many entities
        # that are left to its user stand before it, beside the user's own offset.
        self._begin = count.cumsum(0) - count
        self._left_before = seen - torch.arange(seen.numel(), device=seen.device) + self._begin[owner]
        saw_all = (self.num_left == 0).nonzero().flatten()
        self._some_saw_all = saw_all.numel() > 0
        if self._some_saw_all:
            warnings.warn(
                f"users who have seen the whole pool of {pool}, for whom no negative is left to draw: "
                f"{saw_all.numel()} of {self.num_users}, the first is user {int(saw_all[0])}, by row",
                stacklevel=2,
            )

    def to(self, device: torch.device | str) -> NegativeSampler:
        """Move to ``device``."""
        self.num_left, self._begin = self.num_left.to(device), self._begin.to(device)
        self._seen, self._left_before = self._seen.to(device), self._left_before.to(device)
        return self

    def draw(
        self, user: Tensor, generator: torch.Generator | None = None, key: Tensor | None = None
    ) -> Tensor:
        r"""Return an entity for each user, :math:`(n)`.

        Args:
            user (torch.Tensor): The users, :math:`(n)`; one may stand there several times.
            generator (torch.Generator, optional): The source of randomness. (default: :obj:`None`, torch's
                own)
            key (torch.Tensor, optional): In its place, a :obj:`torch.long` for each user, :math:`(n)`, that
                alone decides what is drawn. (default: :obj:`None`)

        Raises:
            ValueError: If there is a generator as well as keys, an argument has another shape or type, or one
                of the users has seen the whole pool.
            IndexError: If a user is out of range; on an accelerator, looked at only under
                :class:`torch_geometric.debug`.
        """
        check_tensors(_FORMS, {"user": user, "key": key})
        if key is not None and generator is not None:
            raise ValueError("pass a generator or keys, not both")
        if values_are_checked(user.device):
            check_range("user", user, self.num_users, "num_users")
        user = user.long()
        if self._some_saw_all and not bool((self.num_left[user] > 0).all()):
            raise ValueError(
                f"user {int(user[self.num_left[user] == 0][0])} has seen the whole pool of {self.pool}: no "
                f"negative is left to draw; keep only users with num_left > 0"
            )
        if key is not None:
            return self._draw_left(user, key=key)
        entity = torch.empty_like(user)
        row = torch.arange(user.numel(), device=user.device)
        for _ in range(_TRIES):
            if row.numel() == 0:
                return entity
            drawn = torch.randint(self.pool, (row.numel(),), device=user.device, generator=generator)
            entity[row] = drawn
            row = row[self._is_seen(user[row] * self.pool + drawn)]
        entity[row] = self._draw_left(user[row], generator)
        return entity

    def _is_seen(self, key: Tensor) -> Tensor:
        if self._seen.numel() == 0:
            return torch.zeros_like(key, dtype=torch.bool)
        place = torch.searchsorted(self._seen, key).clamp_(max=self._seen.numel() - 1)
        return self._seen[place] == key

    def _draw_left(
        self, user: Tensor, generator: torch.Generator | None = None, key: Tensor | None = None
    ) -> Tensor:
        """Draw the number of an entity among those that are left; before it stand seen ones, too."""
        chance = uniform(user.numel(), 1, user.device, generator, key).squeeze(1)
        number = (chance * self.num_left[user]).long()
        end = torch.searchsorted(self._left_before, user * self.pool + number, right=True)
        return number + end - self._begin[user]
