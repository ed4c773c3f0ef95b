"""Sums over the edges of hubs, rows of so many that single precision would lose digits: a millionth of
one a million times comes to 1 % too much.

The edges of a hub are summed in pieces, and the pieces in double. A graph without hubs costs a look at the
length of its rows. Nothing is cut where nobody knows the length: while a program is traced, and on
accelerators, which would have to be waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mgwa_pyg.utils.checks import has_values
from mgwa_pyg.utils.ranges import ranges

# With a row of more than HUB edges, all rows of more than LONG_ROW are cut into pieces of PIECE. In other
# graphs the error is 1e-4 at worst, where all terms are equal, and cutting would double the time of some.
HUB, LONG_ROW, PIECE = 8192, 512, 256


def is_long(index: Tensor) -> bool:
    """Whether so many edges are known that a row can be a hub; ``index`` has an entry for each edge."""
    return has_values(index) and index.device.type == "cpu" and index.numel() > HUB


@dataclass(frozen=True)
class Hubs:
    """The edges of all long rows, one row after the other, cut into pieces."""

    row: Tensor
    """The long rows."""
    edge: Tensor
    """Their edges."""
    begin: Tensor
    """Where each piece begins in ``edge``, and its end."""
    first: Tensor
    """The first piece of each row, and the number of pieces."""

    @classmethod
    def of(cls, ptr: Tensor, index: Tensor) -> Hubs | None:
        """Those of the rows that begin at ``ptr``, if one is a hub; ``index`` has an entry for each edge."""
        if not is_long(index) or int((length := ptr.diff()).max()) <= HUB:
            return None
        row = (length > LONG_ROW).nonzero().squeeze(1)
        length = length[row]
        count = _num_pieces(length)
        end, first = length.cumsum(0), F.pad(count.cumsum(0), (1, 0))
        _, edge = ranges(ptr[row], length)
        owner, piece = ranges(torch.zeros_like(count), count)
        begin = (end - length)[owner] + PIECE * piece
        return cls(row, edge, torch.cat([begin, end[-1:]]), first)

    def join(self, out: Tensor, parts: Tensor, first: Tensor) -> None:
        """Put the sums of all parts of each row into ``out``, given the first of each and their number."""
        sums = torch.segment_reduce(parts.double(), "sum", offsets=first)
        out.index_copy_(0, self.row, sums.to(out.dtype))


def spread(index: Tensor) -> tuple[Tensor, Tensor] | None:
    """The piece of each edge and the row of each piece, for rows in any order; :obj:`None` without hubs."""
    if not is_long(index):
        return None
    length = index.bincount()
    if int(length.max()) <= HUB:
        return None
    count = _num_pieces(length)
    first = count.cumsum(0) - count
    # Edges of a hub take turns, so that nothing has to be sorted.
    turn = torch.arange(index.numel(), device=index.device) % count.index_select(0, index)
    return first.index_select(0, index) + turn, torch.repeat_interleave(count)


def lift(x: Tensor, index: Tensor) -> Tensor:
    """The rows of ``x`` that ``index`` names: their gradient is a sum over the edges of each row."""
    pieces = spread(index)
    if pieces is None:
        return x.index_select(0, index)
    piece, owner = pieces
    return x.double().index_select(0, owner).to(x.dtype).index_select(0, piece)


def _num_pieces(length: Tensor) -> Tensor:
    return torch.where(length > LONG_ROW, (length + PIECE - 1) // PIECE, 1)
