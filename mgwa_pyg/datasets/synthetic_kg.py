"""A generated data set of any size, with preferences that a good model can recover."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.base import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.names import NumberedNames
from mgwa_pyg.datasets.raw import IntArray, index_type
from mgwa_pyg.utils.checks import check_count, check_range, check_tensors, forms

FloatArray = npt.NDArray[np.floating]
AnyIntArray = npt.NDArray[np.integer]

NUM_TOPICS = 8
NUM_ASPECTS = 4
TASTE = 6.0  # The weight of the knowledge graph in a user's choices.
POPULARITY = 0.3  # The standard deviation of the items' popularity, on the same scale.
NOISE = 0.15  # The share of triples whose tail ignores the topic.
SLATE = 1024  # The items that a group of users chooses from.
GROUP = 256
CHUNK = 2**18  # The rows that are drawn at a time.


class SyntheticKG(KGRecDataset):
    r"""A random data set with planted preferences, in the schema of :class:`KGRecDataset`.

    Every entity beyond the items has a *topic*, and every relation speaks about one *aspect* of
    its head. An item has a topic for each aspect, to which most of its triples lead. A user likes
    some topics and cares for some aspects more than for others; the user's taste for an item is

    .. math::
        t(u, i) = \frac{\sum_{(i, r, e)} \textrm{care}_u(\textrm{aspect}(r)) \cdot
        \textrm{taste}_u(\textrm{topic}(e))}{\sum_{(i, r, e)} \textrm{care}_u(\textrm{aspect}(r))},

    a mean over the item's neighbourhood that depends on user and relation. Interactions are drawn
    without replacement from the softmax of the taste, scaled, plus a mild popularity of each item.
    Some items have no triple, some pairs of entities share several relations, and some entities are
    isolated.

    Any size will do that fits into memory: while they are made, 100 million triples and 20 million
    interactions take about a third more than the data themselves.

    Args:
        root (str, optional): The folder of the data set; :obj:`None` writes nothing to disk.
            (default: :obj:`None`)
        num_users (int): The number of users. (default: :obj:`400`)
        num_items (int): The number of items, at least 2. (default: :obj:`1000`)
        num_entities (int): The number of entities, items included. (default: :obj:`2500`)
        num_relations (int): The number of relations. (default: :obj:`12`)
        num_triples (int): The number of triples. (default: :obj:`6000`)
        num_interactions (int, optional): The number of interactions: at least one for each user,
            and on average at most half the items, as each asks for a negative. :obj:`None` takes
            50 for each user, or a quarter of the items if that is less. (default: :obj:`None`)
        seed (int): The seed of everything random. (default: :obj:`0`)

    Other arguments are those of :class:`KGRecDataset`.

    Raises:
        ValueError: If an argument is none of the allowed values, or the sizes contradict each
            other.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        num_users: int = 400,
        num_items: int = 1000,
        num_entities: int = 2500,
        num_relations: int = 12,
        num_triples: int = 6000,
        num_interactions: int | None = None,
        negatives: str = "items",
        seed: int = 0,
        split: str = "random",
        transform: Callable[[HeteroData], HeteroData] | None = None,
        pre_transform: Callable[[HeteroData], HeteroData] | None = None,
        force_reload: bool = False,
    ) -> None:
        users = check_count("num_users", num_users)
        items = check_count("num_items", num_items, minimum=2)
        if num_interactions is None:
            num_interactions = users * min(50, max(1, items // 4))
        self._sizes = _Sizes(
            users=users,
            items=items,
            entities=check_count("num_entities", num_entities),
            relations=check_count("num_relations", num_relations),
            triples=check_count("num_triples", num_triples),
            interactions=check_count("num_interactions", num_interactions),
        )
        self._sizes.check()
        self._preferences: _Preferences | None = None
        super().__init__(root, negatives, seed, split, transform, pre_transform, force_reload)

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), **{f"num_{name}": size for name, size in vars(self._sizes).items()}}

    def build(self) -> KGRecTables:
        sizes = self._sizes
        triples, self._preferences = self._plant()
        generator = np.random.default_rng([self.seed, 3])
        return KGRecTables(
            positives=_choose(self._preferences, sizes, generator),
            triples=triples,
            num_users=sizes.users,
            num_entities=sizes.entities,
            item_names=NumberedNames("item", sizes.items),
            relation_names=NumberedNames("relation", sizes.relations),
        )

    def planted_score(self, user: Tensor, item: Tensor) -> Tensor:
        r"""Return the planted preference of each user for the entity beside it: what the best
        possible model would rank by. It is :math:`-\infty` where the entity is no item.

        Args:
            user (torch.Tensor): The users. [num_pairs]
            item (torch.Tensor): The entities. [num_pairs]

        Raises:
            ValueError: If they are not as many whole numbers of each.
            IndexError: If a user or an entity is out of range.
        """
        check_tensors(forms(user="index: pairs", item="index: pairs"), {"user": user, "item": item})
        check_range("user", user, self.num_users, "num_users")
        check_range("item", item, self.num_entities, "num_entities")
        if self._preferences is None:
            _, self._preferences = self._plant()
        score = torch.full(user.shape, -torch.inf, device=user.device)
        is_item = item < self.num_items
        pairs = torch.stack([user[is_item], item[is_item]]).numpy()
        planted = np.empty(pairs.shape[1], dtype=np.float32)
        for chunk, _ in _chunks(len(planted)):
            planted[chunk] = self._preferences.of_pairs(*pairs[:, chunk])
        score[is_item] = torch.from_numpy(planted)
        return score

    def _plant(self) -> tuple[AnyIntArray, "_Preferences"]:
        return _plant(self._sizes, np.random.default_rng([self.seed, 2]))


@dataclass(frozen=True)
class _Sizes:
    users: int
    items: int
    entities: int
    relations: int
    triples: int
    interactions: int

    def check(self) -> None:
        if self.items > self.entities:
            raise ValueError(
                f"num_items={self.items}: at most num_entities={self.entities} are needed, as items are "
                f"entities"
            )
        most = self.users * (self.items // 2)
        if not self.users <= self.interactions <= most:
            raise ValueError(
                f"num_interactions={self.interactions}: from {self.users} to {most} are needed, one to half "
                f"the number of items for each user"
            )


@dataclass(frozen=True)
class _Preferences:
    taste: FloatArray  # [num_users, topics]
    care: FloatArray  # [num_users, aspects]
    popularity: FloatArray  # [num_items]
    triples: FloatArray  # The number of an item's triples. [num_items, aspects, topics]

    def of_all(self, user: IntArray, item: IntArray) -> FloatArray:
        """Return every user's score for every item. [len(user), len(item)]"""
        care, taste, triples = self.care[user], self.taste[user], self.triples[item]
        both = (care[:, :, None] * taste[:, None, :]).reshape(len(user), -1)
        total = both @ triples.reshape(len(item), -1).T
        return self._score(total, care @ triples.sum(axis=2).T, item)

    def of_pairs(self, user: IntArray, item: IntArray) -> FloatArray:
        """Return each user's score for the item beside it. [len(user)]"""
        care, taste, triples = self.care[user], self.taste[user], self.triples[item]
        total = np.einsum("na,nk,nak->n", care, taste, triples)
        return self._score(total, np.einsum("na,nak->n", care, triples), item)

    def _score(self, total: FloatArray, weight: FloatArray, item: IntArray) -> FloatArray:
        # Without a triple, both sums are zero, and so is the taste.
        return TASTE * total / np.where(weight > 0, weight, 1) + self.popularity[item]


class _Lottery:
    """A draw of numbers with given weights, as NumPy's :obj:`choice` does, in constant time each."""

    def __init__(self, weight: FloatArray) -> None:
        total = (weight / weight.sum()).cumsum()
        self.total = total / total[-1]
        # Where the search begins for a value between k / size and (k + 1) / size. Powers of two
        # multiply without rounding.
        self.size = 2 ** len(weight).bit_length()
        self.start = self.total.searchsorted(np.arange(self.size) / self.size, side="right")

    def draw(self, count: int, generator: np.random.Generator) -> IntArray:
        value = generator.random(count)
        number = self.start[(self.size * value).astype(np.int64)]
        behind = np.flatnonzero(self.total[number] <= value)
        while len(behind):
            number[behind] += 1
            behind = behind[self.total[number[behind]] <= value[behind]]
        return number


def _chunks(num_rows: int) -> Iterator[tuple[slice, int]]:
    """Yield slices of bounded size that cover all rows, each with its size."""
    for start in range(0, num_rows, CHUNK):
        stop = min(start + CHUNK, num_rows)
        yield slice(start, stop), stop - start


def _plant(sizes: _Sizes, generator: np.random.Generator) -> tuple[AnyIntArray, _Preferences]:
    """Draw the knowledge graph and the preferences that go with it."""
    # Where all entities are items, they are each other's neighbours.
    first = sizes.items if sizes.entities > sizes.items else 0
    num_carriers = sizes.entities - first
    topics = min(NUM_TOPICS, num_carriers)
    aspects = min(NUM_ASPECTS, sizes.relations)

    num_copies = sizes.triples // 20
    num_between_carriers = sizes.triples // 5
    num_base = sizes.triples - num_copies
    num_of_items = num_base - num_between_carriers

    # Everything is drawn column by column, in chunks, into the memory where it stays.
    dtype = index_type(max(sizes.entities, 2 * sizes.relations))
    triples = np.empty((3, sizes.triples), dtype=dtype)
    base, copies = triples[:, :num_base], triples[:, num_base:]
    head, relation, tail = base
    topic = np.empty(num_base, dtype=np.int8)
    is_noise = np.empty(num_base, dtype=bool)

    item_topic = generator.integers(topics, size=(sizes.items, aspects)).astype(np.int8)

    lottery = _Lottery(0.25 + generator.exponential(size=sizes.items))
    of_item, of_carrier = head[:num_of_items], head[num_of_items:]
    for chunk, size in _chunks(num_of_items):
        of_item[chunk] = lottery.draw(size, generator)
    for chunk, size in _chunks(num_between_carriers):
        of_carrier[chunk] = first + generator.integers(num_carriers, size=size)
    for chunk, size in _chunks(num_base):
        relation[chunk] = generator.integers(sizes.relations, size=size)

    # Carrier number c has topic c % topics.
    for chunk, _ in _chunks(num_of_items):
        topic[chunk] = item_topic[of_item[chunk], relation[chunk] % aspects]
    for chunk, _ in _chunks(num_between_carriers):
        topic[num_of_items:][chunk] = (of_carrier[chunk] - first) % topics
    for chunk, size in _chunks(num_base):
        is_noise[chunk] = generator.random(size) < NOISE
    for chunk, size in _chunks(num_base):
        np.copyto(topic[chunk], generator.integers(topics, size=size), "same_kind", where=is_noise[chunk])
    num_choices = (num_carriers - 1 - np.arange(topics)) // topics + 1
    for chunk, size in _chunks(num_base):
        # The square makes some carriers hubs.
        choice = (num_choices[topic[chunk]] * generator.random(size) ** 2).astype(np.int64)
        tail[chunk] = topics * choice + topic[chunk] + first

    for chunk, size in _chunks(num_copies):
        copies[:, chunk] = base[:, generator.integers(num_base, size=size)]
    if sizes.relations > 1:
        for chunk, size in _chunks(num_copies):
            copies[1, chunk] += generator.integers(1, sizes.relations, size=size)
            copies[1, chunk] %= sizes.relations

    counts = torch.zeros(sizes.items * aspects * topics, dtype=torch.int32, device="cpu")
    for chunk, _ in _chunks(sizes.triples):
        head, relation, tail = triples[:, chunk].astype(np.int64)
        cell = (head * aspects + relation % aspects) * topics + (tail - first) % topics
        cell = torch.from_numpy(cell[head < sizes.items])
        counts.index_add_(0, cell, torch.ones_like(cell, dtype=torch.int32))

    taste = 0.2 * generator.standard_normal((sizes.users, topics))
    liked = generator.integers(topics, size=(sizes.users, 2))
    np.put_along_axis(taste, liked, 1.0, axis=1)
    care = np.exp(2.5 * generator.standard_normal((sizes.users, aspects)))
    popularity = POPULARITY * generator.standard_normal(sizes.items)
    return triples.T, _Preferences(
        taste=(taste - taste.mean(axis=1, keepdims=True)).astype(np.float32),
        care=(care / care.sum(axis=1, keepdims=True)).astype(np.float32),
        popularity=popularity.astype(np.float32),
        triples=counts.float().view(sizes.items, aspects, topics).numpy(),
    )


def _choose(preferences: _Preferences, sizes: _Sizes, generator: np.random.Generator) -> AnyIntArray:
    """Draw every user's interactions."""
    # One each; the others are shared out with weights around 1, no more than half the items each.
    others = sizes.interactions - sizes.users
    spread = min(0.5, max(0.0, (sizes.items // 2 - 2) * sizes.users / max(others, 1) - 1))
    share = generator.permutation(np.linspace(1 - spread, 1 + spread, sizes.users)).cumsum()
    count = 1 + np.diff(np.rint(others * share / share[-1]).astype(np.int64), prepend=0)

    # In groups, as all users times all items do not fit in memory at large sizes.
    slate_size = min(sizes.items, max(SLATE, 4 * int(count.max())))
    pairs = np.empty((2, sizes.interactions), dtype=index_type(max(sizes.users, sizes.items)))
    done = 0
    for start in range(0, sizes.users, GROUP):
        user = np.arange(start, min(start + GROUP, sizes.users))
        slate = np.sort(generator.choice(sizes.items, size=slate_size, replace=False))
        score = preferences.of_all(user, slate)
        # The largest scores with Gumbel noise are a draw without replacement from the softmax.
        noise = generator.standard_exponential(score.shape, dtype=np.float32)
        noisy = torch.from_numpy(score - np.log(np.maximum(noise, np.float32(1e-30))))
        choice = noisy.topk(int(count[user].max())).indices.numpy()
        taken = np.arange(choice.shape[1]) < count[user, None]
        choice = np.sort(np.where(taken, choice, slate_size), axis=1)
        part = pairs[:, done : done + count[user].sum()]
        part[0], part[1] = np.repeat(user, count[user]), slate[choice[taken]]
        done += part.shape[1]
    return pairs.T
