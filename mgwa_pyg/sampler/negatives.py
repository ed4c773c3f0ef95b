"""Fresh negatives for training: entities that a user has not been seen with."""

from __future__ import annotations

import torch
from torch import Tensor

from mgwa_pyg.checks import check_count, check_edges, check_indices, check_range, values_are_checked


class NegativeSampler:
    r"""Draws entities uniformly from a pool, but none that stands in a known pair with the user.

    Give it the training positives alone: one that spares the positives of validation or test tells a model
    which they are.

    Args:
        pairs (torch.Tensor): The known pairs of user and entity, :math:`(2, P)`.
        num_users (int): The number of users.
        pool (int): What is drawn from: the first entities.

    Raises:
        ValueError: If a user stands in a pair with the whole pool, or an argument has another shape or type.
        IndexError: If a user or an entity is out of range.
    """

    def __init__(self, pairs: Tensor, num_users: int, pool: int) -> None:
        check_edges("pairs", pairs, "num_pairs")
        self.num_users = check_count("num_users", num_users, 0)
        self.pool = pool = check_count("pool", pool)
        check_range("pairs[0]", pairs[0], self.num_users, "num_users")
        # Entities beyond the pool do no harm.
        check_range("pairs[1]", pairs[1].clamp(max=pool - 1), pool, "pool")
        user, entity = pairs[:, pairs[1] < pool].long()
        self._known = (user * pool + entity).unique()
        count = torch.bincount(self._known // pool, minlength=num_users)
        if (count >= pool).any():
            raise ValueError(
                f"user {int(count.argmax())} knows the whole pool of {pool}: no negative is left to draw"
            )

    def to(self, device: torch.device | str) -> NegativeSampler:
        """Move to ``device``."""
        self._known = self._known.to(device)
        return self

    def draw(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""Return an entity for each user, :math:`(n)`; from torch's own generator unless one is given."""
        check_indices("user", user)
        if values_are_checked(user.device):
            check_range("user", user, self.num_users, "num_users")
        user = user.long()
        entity = torch.empty_like(user)
        row = torch.arange(user.numel(), device=user.device)
        while row.numel():
            drawn = torch.randint(self.pool, (row.numel(),), device=user.device, generator=generator)
            entity[row] = drawn
            row = row[self._is_known(user[row] * self.pool + drawn)]
        return entity

    def _is_known(self, key: Tensor) -> Tensor:
        if self._known.numel() == 0:
            return torch.zeros_like(key, dtype=torch.bool)
        place = torch.searchsorted(self._known, key).clamp_(max=self._known.numel() - 1)
        return self._known[place] == key
