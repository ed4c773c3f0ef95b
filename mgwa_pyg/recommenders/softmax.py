"""The cross-entropy of positives among all items, a part of the users at a time, with its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Takes rows, ascending, and the vectors of their users and of all items; returns their scores of all items.
Scores = Callable[[Tensor, Tensor, Tensor], Tensor]

# Scores that are in memory at once. Memory for more than these would be new from the system each time.
_CELLS = 2**22


def cross_entropy(
    scores: Scores,
    z_user: Tensor,
    z_item: Tensor,
    weights: Sequence[Tensor],
    pairs: tuple[Tensor, Tensor],
    num_positives: int,
    hidden: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    r"""Return the mean cross-entropy of positives among all items, :math:`()`, and the scores of pairs,
    :math:`(B)`, which get no gradients.

    The table of all scores is never there, only a part at a time. As the gradient by the scores is known, the
    softmax without the positives, all others are computed at once, and nothing is kept for later.

    Args:
        scores (callable): Returns the scores, :math:`(m, M)`, of rows, :math:`(m)`, by their users,
            :math:`(m, d)`, and all items, :math:`(M, d)`. No operation may need its result for the gradients.
        z_user (torch.Tensor): The users, :math:`(n, d)`.
        z_item (torch.Tensor): The items, :math:`(M, d)`.
        weights (sequence of torch.Tensor): The parameters that scores depend on besides.
        pairs (tuple): The row of each pair's user and its item, :math:`(B)`: the positives first.
        num_positives (int): How many of them are positives. Each user has one. Without any, the loss is zero.
        hidden (tuple): The rows of users and the items that are no candidates, and no positives.
    """
    return _CrossEntropy.apply(scores, pairs, num_positives, hidden, z_user, z_item, *weights)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Scores,
        pairs: tuple[Tensor, Tensor],
        num_positives: int,
        hidden: tuple[Tensor, Tensor],
        z_user: Tensor,
        z_item: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        size = max(1, _CELLS // len(z_item))
        z_user, z_item = z_user.detach().requires_grad_(), z_item.detach().requires_grad_()
        inputs = [z_user, z_item, *weights]
        gradients = [torch.zeros_like(one) for one in inputs]
        count = max(num_positives, 1)
        share = torch.bincount(pairs[0][:num_positives], minlength=len(z_user)).to(z_user) / count
        loss, logit = z_user.new_zeros(()), z_user.new_zeros(pairs[0].shape)
        of_part, hidden_of_part = pairs[0] // size, hidden[0] // size
        for number, rows in enumerate(torch.arange(len(z_user), device=z_user.device).split(size)):
            with torch.enable_grad():
                score = scores(rows, z_user[rows], z_item)
            table, start = score.detach(), number * size  # What follows is done in place.
            cells = [each[hidden_of_part == number] for each in hidden]
            table[cells[0] - start, cells[1]] = -torch.inf
            here = (of_part == number).nonzero().squeeze(1)
            row, item = pairs[0][here] - start, pairs[1][here]
            logit[here] = table[row, item]
            most, weight = table.amax(dim=1, keepdim=True), share[rows].unsqueeze(1)
            total = table.sub_(most).exp_().sum(dim=1, keepdim=True)
            loss += (weight * (total.log() + most)).sum()
            table.mul_(weight / total)
            positive = here < num_positives
            loss -= logit[here[positive]].sum() / count
            one = table.new_tensor(-1 / count)
            table.index_put_((row[positive], item[positive]), one, accumulate=True)
            for whole, part in zip(gradients, torch.autograd.grad(score, inputs, table), strict=True):
                whole += part
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(logit)
        return loss, logit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, *(gradient * saved for saved in ctx.saved_tensors)
