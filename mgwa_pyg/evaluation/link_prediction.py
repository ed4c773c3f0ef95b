"""Filtered ranks and their metrics: how well a model completes a knowledge graph."""

from __future__ import annotations

import torch
from torch import Tensor


def filtered_ranks(score: Tensor, target: Tensor, known: Tensor) -> Tensor:
    r"""Return the rank of each query's target among the candidates not known to be true, :math:`(B)`.

    The filtered setting of `Bordes et al., "Translating Embeddings for Modeling Multi-relational Data"
    (2013) <https://papers.nips.cc/paper/5071>`_: a candidate that answers the query as truly as the target
    does is no error, and is left out. The best rank is 1. Candidates tied with the target are taken to be
    in random order, so that it gets the mean rank of the tie and equal scores are worth nothing.

    Args:
        score (torch.Tensor): The candidates' scores, the higher the better, :math:`(B, N)`.
        target (torch.Tensor): The candidate that is asked for, :math:`(B)`.
        known (torch.Tensor): Pairs of a query and a candidate known to be true, :math:`(2, K)`, the targets
            among them or not.

    Raises:
        ValueError: If shapes do not fit, an index is out of range, or a score is not finite.
    """
    if score.dim() != 2 or target.shape != score.shape[:1] or known.dim() != 2 or len(known) != 2:
        raise ValueError(
            f"score, target and known have the shapes {tuple(score.shape)}, {tuple(target.shape)} and "
            f"{tuple(known.shape)}, but [B, N], [B] and [2, K] are needed"
        )
    if not score.isfinite().all():
        raise ValueError(f"score holds {int((~score.isfinite()).sum())} values that are not finite")
    for name, index, size in (
        ("target", target, score.size(1)),
        ("known[0]", known[0], score.size(0)),
        ("known[1]", known[1], score.size(1)),
    ):
        if ((index < 0) | (index >= size)).any():
            raise ValueError(
                f"{name} spans {int(index.min())} to {int(index.max())}, but must lie in [0, {size})"
            )
    own = score.gather(1, target.unsqueeze(1))
    rival = torch.ones_like(score, dtype=torch.bool)
    rival[known[0], known[1]] = False
    rival.scatter_(1, target.unsqueeze(1), False)
    better = ((score > own) & rival).sum(dim=1)
    tied = ((score == own) & rival).sum(dim=1)
    return 1 + better + tied / 2


def link_prediction_metrics(ranks: Tensor) -> dict[str, float]:
    r"""Return the mean reciprocal rank, ``mrr``, and the share of ranks up to ten, ``hits@10``.

    Args:
        ranks (torch.Tensor): Ranks from 1 on, of any shape.

    Raises:
        ValueError: If there is no rank, or one that is less than 1 or not finite.
    """
    if ranks.numel() == 0:
        raise ValueError(f"ranks has shape {tuple(ranks.shape)}: there is nothing to take the mean of")
    valid = ranks.isfinite() & (ranks >= 1)
    if not valid.all():
        raise ValueError(f"ranks holds {ranks[~valid][0].item()}, but ranks are finite and begin at 1")
    ranks = ranks.double()
    return {"mrr": float((1 / ranks).mean()), "hits@10": float((ranks <= 10).double().mean())}
