"""Popularity, item-kNN, EASE, shared tails and mixtures of them, which a model must beat to be worth it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage

from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation.metrics import as_array
from mgwa_pyg.evaluation.ranking import full_ranking
from mgwa_pyg.utils.checks import check_tensors, forms

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating]
_FORMS = forms(user="index: pairs", item="index: pairs")

RIDGE = 1e-3  # On the weights of standardised features: it only keeps those of separable rows finite.
KNN_SCALE = 50.0  # Brings the kNN's scores, mostly below 0.1, to where a logarithm bends.
MAX_HOLDERS = 400  # A tail that more items hold than these says next to nothing about them.
_CELLS = 2**22  # Numbers of a table that are in memory at once.
CHUNK = 256  # Users that are scored at once against all items.
# What shared tails and item-kNN may weigh in a ranking, beside popularity: none, or powers of four.
TAIL_WEIGHTS = (0, 2, 8, 32)
KNN_WEIGHTS = (0, 16, 64, 256)


class Heuristic:
    r"""Base class of the heuristics: scores of user-item pairs from counts and closed forms.

    Nothing is learned but a logistic regression on a few features, and that on the validation rows. The
    training rows could not serve, as their positives are the interactions that the scores are made of.

    No feature knows how the rows were made. Data hold no item without any interaction, so one that has no
    training positive has its positives in validation or test: here it is an item that nothing is known of.

    A heuristic sets ``_scores`` and implements ``_of_scores``, or it implements ``_features`` and
    ``_score_all``.

    Args:
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        num_items (int): The number of items, which are the first entities.

    Raises:
        ValueError: If a training positive is no item.
    """

    _scores: _SeenScores | _ItemScores
    _least_weight = -np.inf  # Of a feature in the logistic regression.

    def __init__(self, data: HeteroData, num_items: int) -> None:
        user, item = interactions(data).edge_index.cpu()
        if (item >= num_items).any():
            raise ValueError(
                f"num_items={num_items}, but there are training positives of the entity {int(item.max())}: "
                f"pass the number of items of this data set"
            )
        self._data = data
        self.num_users = int(data["user"].num_nodes)
        self.num_items = num_items
        self.count = torch.bincount(item, minlength=data["entity"].num_nodes)
        self._seen = _incidence(user.numpy(), item.numpy(), (self.num_users, num_items))

    def features(self, user: Tensor, item: Tensor) -> FloatArray:
        r"""Return the features of each pair, :math:`(n, k)`.

        Args:
            user (torch.Tensor): The users, :math:`(n)`.
            item (torch.Tensor): The entities, items or not, :math:`(n)`.

        Raises:
            ValueError: If they are not as many whole numbers each, or an id is none of a user or an entity.
        """
        check_tensors(_FORMS, {"user": user, "item": item})
        _check_ids("user", user, self.num_users)
        _check_ids("item", item, len(self.count))
        return self._features(as_array(user), as_array(item))

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        r"""Return the probability that each user interacts with the entity beside it, :math:`(n)`.

        Arguments and errors are those of :meth:`features`; it is a :class:`ValueError`, too, if the
        validation rows, which probabilities are learned from, have one label only.
        """
        return torch.from_numpy(self._logit(self.features(user, item))).sigmoid().float()

    def score_all(self, user: Tensor) -> Tensor:
        r"""Return scores that rank all items for each user, :math:`(n, \textrm{num\_items})`.

        Args:
            user (torch.Tensor): The users, :math:`(n)`.

        Raises:
            ValueError: If an id is none of a user.
        """
        _check_ids("user", user, self.num_users)
        return torch.from_numpy(self._score_all(as_array(user))).float()

    def _features(self, user: IntArray, item: IntArray) -> FloatArray:
        return self._of_scores(self._scores.pairs(user, item))

    def _of_scores(self, score: FloatArray) -> FloatArray:
        """Return the features that scores stand for, in one more dimension."""
        raise NotImplementedError

    def _score_all(self, user: IntArray) -> FloatArray:
        return self._scores.all(user, self.num_items)

    def _logit(self, features: FloatArray) -> FloatArray:
        weight, bias = self._calibration
        return features @ weight + bias

    @cached_property
    def _calibration(self) -> tuple[FloatArray, np.floating]:
        """The logistic regression on the validation rows, once probabilities are asked for."""
        links = interactions(self._data)
        label = as_array(links.edge_label[links.val_mask])
        if len(np.unique(label)) != 2:
            raise ValueError(
                f"the {len(label)} validation rows have the labels {np.unique(label).tolist()}: rows of "
                f"both 0 and 1 are needed to turn scores into probabilities"
            )
        features = self.features(*links.edge_label_index[:, links.val_mask])
        return logistic_regression(features, label, self._least_weight)


class Popularity(Heuristic):
    r"""Scores an item by its popularity, which is the number of its training positives.

    The feature is :math:`\log(1 + \textrm{count})`. Arguments and errors are those of :class:`Heuristic`.
    """

    def __init__(self, data: HeteroData, num_items: int) -> None:
        super().__init__(data, num_items)
        self._scores = _ItemScores(np.log1p(self.count.numpy()))

    def _of_scores(self, score: FloatArray) -> FloatArray:
        return score[..., None]


class ItemKNN(Heuristic):
    r"""Scores an item by its similarity to the items that the user has seen, summed over them.

    With the training positives :math:`\mathbf{X}`, users by items, the similarity is the cosine, shrunk
    where counts are small:

    .. math::
        C_{ij} = \frac{(\mathbf{X}^{\top} \mathbf{X})_{ij}}
        {\sqrt{\textrm{count}_i \, \textrm{count}_j} + \textrm{shrink}}, \quad C_{ii} = 0.

    The scores are :math:`\mathbf{X} \mathbf{C}`, and the feature is :math:`\log(1 + 50 \cdot
    \textrm{score})`.

    Args:
        shrink (float, optional): What is added to the denominator. (default: :obj:`10`)

    The other arguments and the errors are those of :class:`Heuristic`.
    """

    def __init__(self, data: HeteroData, num_items: int, shrink: float = 10.0) -> None:
        super().__init__(data, num_items)
        both = _without_diagonal(self._seen.T @ self._seen).tocoo()
        count = self.count.numpy().astype(np.float32)
        both.data /= np.sqrt(count[both.row] * count[both.col]) + np.float32(shrink)
        #: The similarity of each pair of items, sparse, [num_items, num_items].
        self.similarity = both.tocsr()
        self._scores = _SeenScores(self._seen, self.similarity, np.arange(num_items))

    def _of_scores(self, score: FloatArray) -> FloatArray:
        return np.log1p(KNN_SCALE * score)[..., None]


class EASE(Heuristic):
    r"""Scores an item by the linear autoencoder EASE, in its exact closed form.

    It is the ridge regression of the training positives :math:`\mathbf{X}` on themselves in which no item
    predicts itself (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", arXiv:1905.03375, eq. 8):

    .. math::
        \mathbf{P} = (\mathbf{X}^{\top} \mathbf{X} + \lambda \mathbf{I})^{-1}, \quad
        B_{ij} = -P_{ij} / P_{jj}, \quad B_{ii} = 0.

    The scores are :math:`s = \mathbf{X} \mathbf{B}`, and the features are :math:`\sqrt{\max(s, 0)}` and
    :math:`s`. An item without training positive has a score of zero, so the matrices leave it out.

    Where users are fewer than items, a matrix of users serves: with :math:`\mathbf{K} = (\mathbf{X}
    \mathbf{X}^{\top} + \lambda \mathbf{I})^{-1}` the same scores are

    .. math::
        s_{uj} = X_{uj} - \lambda \frac{(\mathbf{K} \mathbf{X})_{uj}}{1 - (\mathbf{X}^{\top} \mathbf{K}
        \mathbf{X})_{jj}}.

    Args:
        l2 (float, optional): The ridge :math:`\lambda`. (default: :obj:`100`)

    The other arguments and the errors are those of :class:`Heuristic`.
    """

    def __init__(self, data: HeteroData, num_items: int, l2: float = 100.0) -> None:
        super().__init__(data, num_items)
        warm = self.count[:num_items].nonzero().squeeze(1).numpy()
        seen = self._seen[:, warm]
        if self.num_users < len(warm):
            self._scores = _RidgeScores(seen, _ridge_inverse(seen @ seen.T, l2), warm, l2)
            return
        inverse = _ridge_inverse(seen.T @ seen, l2)
        weight = (inverse / -inverse.diagonal()).fill_diagonal_(0)
        # LAPACK returns columns after columns: products would copy the matrix every time.
        self._scores = _SeenScores(seen, weight.contiguous().numpy(), warm)

    def _of_scores(self, score: FloatArray) -> FloatArray:
        return np.stack([np.sqrt(np.maximum(score, 0)), score], axis=-1)


class SharedTails(Heuristic):
    r"""Scores an item by the tails of triples that it shares with the items that the user has seen.

    Items that share tails are similar, the more, the fewer items hold the tail:

    .. math::
        S_{ij} = \sum_{t \in T_i \cap T_j} \frac{1}{\log(2 + n_t)}, \quad S_{ii} = 0,

    where :math:`T_i` are the tails of item :math:`i` and :math:`n_t` is the number of items that hold
    :math:`t`, from 2 to 400. The scores are :math:`\mathbf{X} \mathbf{S}`, with the training positives
    :math:`\mathbf{X}`, and the feature is :math:`\log(1 + \textrm{score})`. It alone tells items apart that
    have no training positive.

    Arguments and errors are those of :class:`Heuristic`.
    """

    def __init__(self, data: HeteroData, num_items: int) -> None:
        super().__init__(data, num_items)
        similarity = _shared_tails(_triples(data["entity", "kg", "entity"]), num_items)
        self._scores = _SeenScores(self._seen, similarity, np.arange(num_items))

    def _of_scores(self, score: FloatArray) -> FloatArray:
        return np.log1p(score)[..., None]


class Blend(Heuristic):
    r"""Ranks items by popularity, shared tails and item-kNN, weighed by what finds the validation positives.

    The scores are

    .. math::
        \log(1 + \textrm{count}) + w_1 \mathbf{X} \mathbf{S} + w_2 \mathbf{X} \mathbf{C},

    with the scores of :class:`SharedTails` and :class:`ItemKNN`. Of the 16 pairs of :math:`w_1` in 0, 2, 8,
    32 and :math:`w_2` in 0, 16, 64, 256, it is the first that has the highest Recall@10 of
    :func:`full_ranking` on the validation positives; it is looked for when scores of all items are first
    asked for. Probabilities are those of a logistic regression on the features of the three, none of which
    has a negative weight.

    Args:
        others (sequence of Heuristic, optional): Popularity, shared tails and item-kNN of the same data,
            where they were made before. (default: :obj:`None`)

    The other arguments and the errors are those of :class:`Heuristic`, and those of :func:`full_ranking`.
    """

    _least_weight = 0.0

    def __init__(self, data: HeteroData, num_items: int, others: Sequence[Heuristic] | None = None) -> None:
        super().__init__(data, num_items)
        self.others = others or [kind(data, num_items) for kind in (Popularity, SharedTails, ItemKNN)]

    @cached_property
    def ranking_weights(self) -> tuple[float, float]:
        r"""What shared tails and item-kNN weigh beside popularity, :math:`(w_1, w_2)`."""

        def recall(weights: tuple[float, float]) -> float:
            def score_all(user: Tensor) -> Tensor:
                return torch.from_numpy(self._weighed(as_array(user), weights))

            ranked = full_ranking(score_all, self._data, self.num_items, (10,), "val", CHUNK)
            return ranked["recall@10"]

        return max(product(TAIL_WEIGHTS, KNN_WEIGHTS), key=recall)

    def _features(self, user: IntArray, item: IntArray) -> FloatArray:
        return np.column_stack([other._features(user, item) for other in self.others])

    def _score_all(self, user: IntArray) -> FloatArray:
        return self._weighed(user, self.ranking_weights)

    def _weighed(self, user: IntArray, weights: tuple[float, float]) -> FloatArray:
        score, *more = (other._score_all(user) for other in self.others)
        for weight, part in zip(weights, more, strict=True):
            score += weight * part
        return score


class LogisticStack(Heuristic):
    r"""Logistic regression on the features of popularity, EASE, item-kNN and shared tails.

    No feature has a negative weight: an item that is better known or more similar never scores less for it.

    Args:
        protocol_flags (bool, optional): Whether there are two more features, which say that an entity has no
            training positive, and that it is an item. Both are knowledge of how the rows were made, and are
            there to show what that is worth: leave them out of any comparison. (default: :obj:`False`)

    The other arguments and the errors are those of :class:`Heuristic`.
    """

    _least_weight = 0.0

    def __init__(self, data: HeteroData, num_items: int, protocol_flags: bool = False) -> None:
        super().__init__(data, num_items)
        self.others = [kind(data, num_items) for kind in (Popularity, EASE, ItemKNN, SharedTails)]
        self.protocol_flags = protocol_flags

    def _features(self, user: IntArray, item: IntArray) -> FloatArray:
        flags = [self._flags(item)] if self.protocol_flags else []
        return np.column_stack([*(other._features(user, item) for other in self.others), *flags])

    def _score_all(self, user: IntArray) -> FloatArray:
        score = np.empty((len(user), self.num_items))
        for start in range(0, len(user), CHUNK):
            part = slice(start, start + CHUNK)
            features = [other._of_scores(other._score_all(user[part])) for other in self.others]
            if self.protocol_flags:
                flags = self._flags(np.arange(self.num_items))
                features.append(np.broadcast_to(flags, (*features[0].shape[:2], 2)))
            score[part] = self._logit(np.concatenate(features, axis=-1))
        return score

    def _flags(self, item: IntArray) -> FloatArray:
        return np.stack([self.count.numpy()[item] == 0, item < self.num_items], axis=1).astype(float)


#: The heuristics by the name that tables give them.
HEURISTICS: dict[str, type[Heuristic]] = {
    "popularity": Popularity,
    "item-knn": ItemKNN,
    "ease": EASE,
    "shared-tails": SharedTails,
    "tails+knn+pop": Blend,
    "stack": LogisticStack,
}


def fit_heuristics(data: HeteroData, num_items: int) -> dict[str, Heuristic]:
    r"""Return all of :obj:`HEURISTICS`, made of one data set; those that are mixtures share the others.

    Arguments and errors are those of :class:`Heuristic`.
    """
    stack = LogisticStack(data, num_items)
    popularity, ease, knn, tails = stack.others
    blend = Blend(data, num_items, [popularity, tails, knn])
    made = [popularity, knn, ease, tails, blend, stack]
    return dict(zip(HEURISTICS, made, strict=True))


def predict_heuristics(data: HeteroData, num_items: int) -> dict[str, tuple[Tensor, Tensor]]:
    r"""Return the probabilities that each of :obj:`HEURISTICS` gives the validation and the test rows.

    Arguments and errors are those of :func:`fit_heuristics`.
    """
    links = interactions(data)
    val, test = (links.edge_label_index[:, mask] for mask in (links.val_mask, links.test_mask))
    return {
        name: (heuristic.predict(*val), heuristic.predict(*test))
        for name, heuristic in fit_heuristics(data, num_items).items()
    }


class _ItemScores:
    """Scores of entities that are the same for all users."""

    def __init__(self, score: FloatArray) -> None:
        self._score = score

    def all(self, user: IntArray, num_items: int) -> FloatArray:
        """Return the scores of all items for each user, [n, num_items]."""
        return np.tile(self._score[:num_items], (len(user), 1))

    def pairs(self, user: IntArray, item: IntArray) -> FloatArray:
        """Return the score of each pair, [n]."""
        return self._score[item]


class _SeenScores:
    """The product of what users have seen and an item-item matrix, computed for the users asked for.

    Args:
        seen (csr_array): Users by source items.
        matrix (csr_array or np.ndarray): Source items by target items.
        target (np.ndarray): The ids of the target items, ascending; all other entities score zero.
    """

    def __init__(self, seen: sp.csr_array, matrix: sp.csr_array | FloatArray, target: IntArray) -> None:
        self._seen, self._matrix, self._target = seen, matrix, target

    def all(self, user: IntArray, num_items: int) -> FloatArray:
        """Return the scores of all items for each user, [n, num_items]."""
        score = np.zeros((len(user), num_items), dtype=np.float32)
        score[:, self._target] = self._of_targets(user)
        return score

    def pairs(self, user: IntArray, item: IntArray) -> FloatArray:
        """Return the score of each pair, [n]."""
        score = np.zeros(len(user), dtype=np.float32)
        row = np.flatnonzero(np.isin(item, self._target))
        row = row[np.argsort(user[row], kind="stable")]
        distinct, position = np.unique(user[row], return_inverse=True)
        column = np.searchsorted(self._target, item[row])
        for start in range(0, len(distinct), CHUNK):
            block = self._of_targets(distinct[start : start + CHUNK])
            here = slice(*np.searchsorted(position, [start, start + CHUNK]))
            score[row[here]] = block[position[here] - start, column[here]]
        return score

    def _of_targets(self, user: IntArray) -> FloatArray:
        block = self._seen[user] @ self._matrix
        return block.toarray() if sp.issparse(block) else block


class _RidgeScores(_SeenScores):
    """The scores of EASE by the inverse of users by users; see there."""

    def __init__(self, seen: sp.csr_array, inverse: Tensor, target: IntArray, l2: float) -> None:
        super().__init__(seen, inverse.contiguous().numpy(), target)
        # Differences of single precision would be multiplied.
        by_item, size = seen.astype(np.float64).tocsc(), max(1, _CELLS // max(1, seen.shape[0]))
        itself = [
            (part := by_item[:, start : start + size]).multiply(self._matrix @ part).sum(axis=0)
            for start in range(0, seen.shape[1], size)
        ]
        self._shrink = l2 / (1 - np.concatenate([np.zeros(0), *itself]))

    def _of_targets(self, user: IntArray) -> FloatArray:
        fitted = self._matrix[user].astype(np.float64) @ self._seen
        return self._seen[user].toarray() - fitted * self._shrink


def _ridge_inverse(gram: sp.csr_array, l2: float) -> Tensor:
    """Return the inverse of a matrix of products, sparse, with a ridge."""
    dense = torch.from_numpy(gram.toarray())
    dense.diagonal().add_(l2)
    return torch.cholesky_inverse(torch.linalg.cholesky(dense))


def logistic_regression(
    features: FloatArray, label: FloatArray, least: float
) -> tuple[FloatArray, np.floating]:
    """Return the weights of the features, none below the least, [k], and the bias.

    The ridge is on what standardised features weigh, and takes no notice of the bias.
    """
    scaler = StandardScaler().fit(features)
    standard, sign = scaler.transform(features), 2 * label - 1

    def loss(weight: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (standard @ weight[:-1] + weight[-1])
        error = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + RIDGE / 2 * (weight[:-1] ** 2).sum()
        return value, np.append(error @ standard + RIDGE * weight[:-1], error.sum())

    size = features.shape[1]
    bounds = [(least, None)] * size + [(None, None)]
    *found, bias = minimize(loss, np.zeros(size + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    weight = found / scaler.scale_
    return weight, bias - scaler.mean_ @ weight


def _triples(kg: EdgeStorage) -> IntArray:
    """Return heads and tails of the triples, [2, num_triples], without their inverses, in whatever order."""
    edge_index, relation = as_array(kg.edge_index), as_array(kg.rel_type)
    num_relations = (relation.max(initial=0) + 1) // 2  # If there are inverses.
    is_inverse = relation >= num_relations
    there = np.vstack([edge_index, relation])[:, ~is_inverse]
    back = np.vstack([edge_index[::-1], relation - num_relations])[:, is_inverse]
    if there.shape == back.shape and np.array_equal(there[:, np.lexsort(there)], back[:, np.lexsort(back)]):
        return there[:2]
    return edge_index


def _shared_tails(triples: IntArray, num_items: int) -> sp.csr_array:
    """Return how much the tails say that items share, [num_items, num_items]."""
    head, tail = triples
    is_item = head < num_items
    # Tails by number, as only few entities are one.
    tails, tail = np.unique(tail[is_item], return_inverse=True)
    holds = _incidence(head[is_item], tail, (num_items, len(tails)))
    holders = np.bincount(holds.indices, minlength=len(tails))
    kept = np.flatnonzero((holders >= 2) & (holders <= MAX_HOLDERS))
    holds = holds[:, kept]
    return _without_diagonal(holds @ sp.diags(1 / np.log(2 + holders[kept])) @ holds.T)


def _incidence(row: IntArray, column: IntArray, shape: tuple[int, int]) -> sp.csr_array:
    """Return the matrix that is 1 at the given places, however often they are given, and 0 elsewhere."""
    matrix = sp.csr_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=shape)
    matrix.data.fill(1)  # Repetitions have been summed up.
    return matrix


def _without_diagonal(matrix: sp.csr_array) -> sp.csr_array:
    return (matrix - sp.diags(matrix.diagonal())).tocsr()


def _check_ids(name: str, ids: Tensor, size: int) -> None:
    if len(ids) and (ids.min() < 0 or ids.max() >= size):
        raise ValueError(
            f"{name} holds ids from {int(ids.min())} to {int(ids.max())}, but the data set has {size} of "
            f"them: ids run from 0 to {size - 1}"
        )
