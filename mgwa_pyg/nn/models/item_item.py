"""`ItemItem`: what the items that a user has seen say of others directly, without embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.utils.ranges import ranges

#: What is added to an item's number of users, so that rare items are no one's neighbours by chance.
SHRINK = 3.0
#: Neighbours in the knowledge graph that more items have than these say next to nothing about them.
MAX_HOLDERS = 400
#: What is added to an item's neighbours, so that one with a single common neighbour is not like any other.
LEAST_LENGTH = 0.1
#: So many times as far as embeddings the logarithms of the weights move in a step: they have further to go.
PACE = 4.0
# So many terms of the sums that pairs need are in memory at once, but for those of one pair.
_AT_ONCE = 2**22


class ItemItem(torch.nn.Module):
    r"""The item-item part of a score: paths from what a user has seen, through users and through the
    knowledge graph.

    Of the items :math:`\mathcal{H}_u` that a user has seen, each is a start. Paths lead over other users to
    the items that these have seen, and over a neighbour in the knowledge graph to the items that have it by
    the same relation:

    .. math::
        s_{ui} = \alpha \sum_{j \in \mathcal{H}_u} \sum_v
        \frac{x_{vj} \, x_{vi}}{\sqrt{|\mathcal{H}_u| \, |\mathcal{H}_v| \, (n_j + 3)(n_i + 3)}}
        + \sum_{j \in \mathcal{H}_u} \sum_{(r, t)}
        \frac{\beta_r \, k_{jrt} \, k_{irt}}{n_{rt} \sqrt{|\mathcal{H}_u| \, d_j \, d_i}}, \quad
        d_i = \tfrac{1}{10} + \sum_{(r, t)} \frac{k_{irt}}{n_{rt}},

    where :math:`x_{vi}` says whether user :math:`v` has seen item :math:`i`, :math:`n_i` is the number of its
    users, :math:`k_{irt}` says whether an edge of relation :math:`r` leads from entity :math:`t` to item
    :math:`i`, and :math:`n_{rt}` is the number of items where it does, from 2 to 400. Without weights, what
    two items share is a cosine, for items of any number of triples. Learned are :math:`\alpha` and a
    :math:`\beta_r` for each relation, all of them positive.

    Args:
        num_relations (int): The number of relations of the knowledge graph, inverses counted.
    """

    def __init__(self, num_relations: int) -> None:
        super().__init__()
        self.log_alpha = torch.nn.Parameter(torch.empty(()))
        self.log_beta = torch.nn.Parameter(torch.empty(num_relations))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start where both kinds of paths count alike, about as far as popularity does."""
        torch.nn.init.constant_(self.log_alpha, 2.0 / PACE)
        torch.nn.init.constant_(self.log_beta, 2.0 / PACE)

    @property
    def alpha(self) -> Tensor:
        r"""The weight of paths through users, :math:`()`."""
        return (PACE * self.log_alpha).exp()

    @property
    def beta(self) -> Tensor:
        r"""The weights of paths through the knowledge graph by relation, :math:`(R)`."""
        return (PACE * self.log_beta).exp()

    def forward(self, paths: ItemPaths, seen: Tensor) -> Tensor:
        r"""Return the scores of all :math:`M` items for :math:`n` users, :math:`(n, M)`.

        Args:
            paths (ItemPaths): The paths.
            seen (torch.Tensor): One where a user has seen an item and else zero, :math:`(M, n)`. It gets no
                gradient.
        """
        at_users, at_neighbors = _halfway(paths, seen)
        with torch.no_grad():
            through_users = paths.items_of(at_users)
        beta = self.beta[paths.relation].unsqueeze(1)
        return (self.alpha * through_users + paths.items_with(beta * at_neighbors)).t()

    def pairs(self, paths: ItemPaths, seen: Tensor, row: Tensor, item: Tensor) -> Tensor:
        r"""Return the scores of :math:`B` pairs, :math:`(B)`: those that :meth:`forward` has in some cells.

        Args:
            paths (ItemPaths): The paths.
            seen (torch.Tensor): As for :meth:`forward`, :math:`(M, n)`.
            row (torch.Tensor): The row of each pair's user, :math:`(B)`.
            item (torch.Tensor): The item of each pair, :math:`(B)`.
        """
        at_users, at_neighbors = _halfway(paths, seen)
        through_users = paths.items_of_pairs(at_users, item, row)
        return self.alpha * through_users + paths.items_with_pairs(at_neighbors, item, row, self.beta)

    def through_users(self, paths: ItemPaths, seen: Tensor) -> Tensor:
        r"""Return what each of :math:`U` users passes on to the items they have seen, :math:`(U, n)`."""
        return paths.users_of(seen) * (self.alpha * _per_root(seen))

    def through_neighbors(self, paths: ItemPaths, seen: Tensor) -> Tensor:
        r"""Return what each pair of a relation and a neighbour passes on to the items that have it,
        :math:`(K, n)`.
        """
        return paths.neighbors_of(seen) * (self.beta[paths.relation].unsqueeze(1) * _per_root(seen))


@torch.no_grad()
def _halfway(paths: ItemPaths, seen: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return what arrives at users, :math:`(U, n)`, and at neighbours, :math:`(K, n)`, before any weight,
    over the root of the number of what a user has seen.
    """
    per_root = _per_root(seen)
    return paths.users_of(seen) * per_root, paths.neighbors_of(seen) * per_root


class ItemPaths:
    r"""The ways between items in the plan of a collaborative knowledge graph: sparse matrices.

    Args:
        plan (RelationCSR): As :meth:`CollaborativeMGWA.graph` returns it.
        num_items (int): Number of items, which are the first nodes.
        num_entities (int): Number of entities, after which the users come.
        dtype (torch.dtype, optional): The type of the numbers. (default: :obj:`torch.float`)
    """

    def __init__(
        self, plan: RelationCSR, num_items: int, num_entities: int, dtype: torch.dtype = torch.float
    ) -> None:
        into_item = plan.dst < num_items
        item, source, relation = (t[into_item].long() for t in (plan.dst, plan.col, plan.rel))
        is_user = source >= num_entities
        num_users = plan.size[0] - num_entities

        user, seen = source[is_user] - num_entities, item[is_user]
        count = torch.bincount(seen, minlength=num_items).to(dtype)
        activity = torch.bincount(user, minlength=num_users).to(dtype)
        value = ((count + SHRINK).rsqrt())[seen] * activity.clamp(min=1).pow(-0.25)[user]
        self._users_of_items = _matrix(user, seen, value, (num_users, num_items))
        self._items_of_users = _matrix(seen, user, value, (num_items, num_users))
        #: The row of each interaction's user, and its item.
        self.seen = user, seen

        item, source, relation = item[~is_user], source[~is_user], relation[~is_user]
        pair, column = (relation * num_entities + source).unique(return_inverse=True)
        cell = (item * max(pair.numel(), 1) + column).unique()  # The same triple may stand there twice.
        item, column = cell // max(pair.numel(), 1), cell % max(pair.numel(), 1)
        holders = torch.bincount(column, minlength=pair.numel())
        kept = (holders >= 2) & (holders <= MAX_HOLDERS)
        number = kept.cumsum(0) - 1
        item, column = item[kept[column]], number[column[kept[column]]]
        self._num_entities, self._pair = num_entities, pair[kept]
        #: The relation of each neighbour.
        self.relation = self._pair // num_entities
        share = holders[kept].to(dtype).reciprocal()[column]
        length = share.new_full((num_items,), LEAST_LENGTH).index_add(0, item, share)
        value, num_neighbors = (share / length[item]).sqrt(), self.relation.numel()
        self._neighbors_of_items = _matrix(column, item, value, (num_neighbors, num_items))
        self._items_of_neighbors = _matrix(item, column, value, (num_items, num_neighbors))

    def history(self, users: Tensor) -> Tensor:
        r"""Return what users have seen, all different and ascending, :math:`(M, n)`."""
        user, item = self.seen
        here = torch.isin(user, users)
        seen = self._users_of_items.values().new_zeros(self._items_of_users.size(0), users.numel())
        seen[item[here], torch.searchsorted(users, user[here])] = 1.0
        return seen

    def users_of(self, x: Tensor) -> Tensor:
        r"""Sum what stands at items, :math:`(M, n)`, over what each user has seen, :math:`(U, n)`."""
        return torch.sparse.mm(self._users_of_items, x)

    def items_of(self, x: Tensor) -> Tensor:
        r"""Sum what stands at users, :math:`(U, n)`, over each item's users, :math:`(M, n)`."""
        return torch.sparse.mm(self._items_of_users, x)

    def neighbors_of(self, x: Tensor) -> Tensor:
        r"""Sum what stands at items, :math:`(M, n)`, over those that have a neighbour, :math:`(K, n)`."""
        return torch.sparse.mm(self._neighbors_of_items, x)

    def items_with(self, x: Tensor) -> Tensor:
        r"""Sum what stands at neighbours, :math:`(K, n)`, over those of each item, :math:`(M, n)`."""
        return torch.sparse.mm(self._items_of_neighbors, x)

    def items_of_pairs(self, x: Tensor, item: Tensor, column: Tensor) -> Tensor:
        r"""Return the cells of :meth:`items_of` of some items and columns, :math:`(B)`."""
        return _cells(self._items_of_users, x, item, column)

    def items_with_pairs(self, x: Tensor, item: Tensor, column: Tensor, weight: Tensor) -> Tensor:
        r"""Return the cells of :meth:`items_with` of some items and columns, :math:`(B)`, where relations
        have weights, :math:`(R)`.
        """
        return _cells(self._items_of_neighbors, x, item, column, weight[self.relation])

    def along(
        self, item: int, edges: tuple[Tensor, Tensor], through_users: Tensor, through_neighbors: Tensor
    ) -> Tensor:
        r"""Return what reaches an item along each of the edges into it.

        Args:
            item (int): The item.
            edges (tuple): The source and the relation of each edge, :math:`(E)`.
            through_users (torch.Tensor): What stands at users, :math:`(U)`.
            through_neighbors (torch.Tensor): What stands at neighbours, :math:`(K)`.
        """
        source, relation = edges
        of_users = self._items_of_users[item].to_dense() * through_users
        of_entities = source.new_zeros(source.numel(), dtype=of_users.dtype)
        if self._pair.numel() > 0:
            key, place, count = (relation * self._num_entities + source).unique(
                return_inverse=True, return_counts=True
            )
            number = torch.searchsorted(self._pair, key).clamp(max=self._pair.numel() - 1)
            found = (self._pair[number] == key) / count  # An edge may stand there twice.
            of_neighbors = self._items_of_neighbors[item].to_dense() * through_neighbors
            of_entities = (of_neighbors[number] * found)[place]
        is_user = source >= self._num_entities
        user = (source - self._num_entities).clamp(min=0)
        return torch.where(is_user, of_users[user], of_entities)


def _per_root(seen: Tensor) -> Tensor:
    """Over the root of the number of what each user has seen."""
    return seen.sum(dim=0).clamp(min=1).rsqrt()


def _cells(matrix: Tensor, x: Tensor, row: Tensor, column: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return cells of the product of a sparse and a dense matrix, whose rows may be weighed, without the
    others.
    """
    (entry_row, entry_column), value = matrix.indices(), matrix.values()
    count = torch.bincount(entry_row, minlength=matrix.size(0))
    begin, count = (count.cumsum(0) - count)[row], count[row]
    parts = (count.cumsum(0) // _AT_ONCE).unique_consecutive(return_counts=True)[1].tolist()
    cells = [x.new_zeros(0)]
    for start, size, columns in zip(begin.split(parts), count.split(parts), column.split(parts), strict=True):
        cell, entry = ranges(start, size)
        source = entry_column[entry]
        term = value[entry] * x[source, columns[cell]]
        if weight is not None:
            term = term * weight[source]
        cells.append(term.new_zeros(len(size)).index_add(0, cell, term))
    return torch.cat(cells)


def _matrix(row: Tensor, column: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(torch.stack([row, column]), value, size, check_invariants=False).coalesce()
