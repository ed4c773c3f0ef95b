"""CollaborativeMGWA, our own model: users pass messages, and what is to be predicted passes none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from torch import Tensor

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.nn import CollaborativeMGWA, GatedAggregationConv
from mgwa_pyg.nn.models.item_item import ItemItem, ItemPaths
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, Trial, UserOrItems
from mgwa_pyg.recommenders.contributions import Contributions, Layers, LogitModel, contributions
from mgwa_pyg.recommenders.softmax import cross_entropy

# So often the largest directions of a table are multiplied by it.
_POWERS = 3
# How small the weights of the regression are kept that places items that nobody has seen, and how much items
# without users count in it. Chosen on training rows of items that were left out.
_RIDGE, _UNSEEN = 5.0, 0.1
# Into so many parts validation rows are cut: each is read by weights learned from the others.
_FOLDS = 5


@dataclass(frozen=True)
class CollaborativeConfig(FitConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.CollaborativeMGWA`.

    A step predicts a share of the training positives that is left out of its graph, against as many fresh
    negatives. Shares follow one another until all positives were predicted, :obj:`passes` times an epoch. The
    L2 regularisation is Adam's, on all parameters.

    Args:
        batch_size (int): So many of the positives that a step leaves out are predicted, at most.
        hold_out (float): The share of the training positives that a step predicts and leaves out of the
            graph; :obj:`0` predicts all of them at every step, and leaves all in.
        passes (int): How often an epoch predicts each training positive.
        fusion (str): The fusion of the layers.
        attention (bool): Whether relations are told apart.
        knowledge_graph (bool): Whether the triples are in the graph, or interactions alone.
        dropout (float): Dropout probability of what nodes start from.
        degree_power (float): The power of the number of edges that neighbourhoods are multiplied by.
        item_item (bool): Whether scores have the part of :class:`~mgwa_pyg.nn.ItemItem`, too.
        loss (str): :obj:`"click"`, binary cross-entropy, judged by the AUC on the validation rows; or
            :obj:`"ranking"`, the cross-entropy of a positive among all items, judged by Recall@10 of the
            validation positives.
    """

    model = "collaborative"
    draws_negatives = True
    needs_relations = False
    least_layers = 0

    num_layers: int = 3
    channels: int = 64
    lr: float = 1.2e-2
    weight_decay: float = 4e-5
    batch_size: int = 4096
    epochs: int = 30
    patience: int = 6
    hold_out: float = 0.3
    passes: int = 8
    fusion: str = "identity"
    attention: bool = False
    knowledge_graph: bool = True
    dropout: float = 0.2
    degree_power: float = 0.25
    item_item: bool = False

    @classmethod
    def for_ranking(cls) -> CollaborativeConfig:
        """Return the hyper-parameters for ranking."""
        return cls(
            loss="ranking",
            num_layers=2,
            lr=1e-2,
            weight_decay=2e-4,
            epochs=20,
            patience=4,
            hold_out=0.15,
            passes=4,
            attention=True,
            dropout=0.1,
            degree_power=0.3,
            item_item=True,
        )

    def suggested(self, trial: Trial) -> CollaborativeConfig:
        suggested: dict[str, Any] = {
            "knowledge_graph": trial.suggest_categorical("knowledge_graph", [False, True]),
            "attention": trial.suggest_categorical("attention", [False, True]),
            "item_item": trial.suggest_categorical("item_item", [False, True]),
            "num_layers": trial.suggest_int("num_layers", 0, 3),
            "channels": trial.suggest_categorical("channels", [16, 32, 64, 128]),
            "batch_size": trial.suggest_categorical("batch_size", [1024, 4096]),
            "lr": trial.suggest_float("lr", 5e-3, 4e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 3e-5, 2e-3, log=True),
            "hold_out": trial.suggest_float("hold_out", 0.1, 0.4),
            "dropout": trial.suggest_float("dropout", 0.0, 0.4),
            "degree_power": trial.suggest_float("degree_power", 0.1, 0.7),
        }
        return replace(self, **suggested)

    @property
    def least_seen(self) -> int:
        # An item is ranked for those of whom the graph shows another.
        return 2 if self.loss == "ranking" and self.hold_out > 0 else 1

    def deal(self, num_rows: int) -> tuple[int, int]:
        return math.ceil((self.hold_out or 1.0) * num_rows), self.passes

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out={self.hold_out}: a share in [0, 1) is needed")
        if self.item_item and self.hold_out == 0:
            raise ValueError(
                "item_item=True with hold_out=0: positives would predict themselves; leave a share out"
            )


class CollaborativeRecommender(KGRecommender):
    """:class:`~mgwa_pyg.nn.CollaborativeMGWA` on the graph of all training positives, in training without
    those to be predicted. A newcomer is a node that messages reach and that sends none.
    """

    config_class = CollaborativeConfig
    model_class: ClassVar[type[CollaborativeMGWA]] = CollaborativeMGWA
    model: CollaborativeMGWA
    config: CollaborativeConfig
    # Every call passes messages through the whole graph, however few its pairs are.
    eval_batch_size = 2**20

    def __init__(self, dataset: KGRecDataset, config: CollaborativeConfig, seed: int) -> None:
        super().__init__(dataset, config, seed)
        self.model = self.model_class(
            dataset.num_items,
            dataset.num_entities,
            2 * dataset.num_relations,
            channels=config.channels,
            num_layers=config.num_layers,
            fusion=config.fusion,
            attention=config.attention,
            dropout=config.dropout,
            degree_power=config.degree_power,
            item_item=config.item_item,
        )
        kg = self.dataset[0]["entity", "kg", "entity"]
        end = kg.rel_type.numel() if config.knowledge_graph else 0
        self._kg = kg.edge_index[:, :end], kg.rel_type[:end]
        self._num_users = dataset.num_users
        self._key = self._pair_key(*self.seen)
        self._plan: RelationCSR | None = None
        self._paths: ItemPaths | None = None
        self.users_at_once = max(1, 2**21 // self.num_items)

    def to(self, device: torch.device | str) -> CollaborativeRecommender:
        super().to(device)
        self._kg = self._kg[0].to(device), self._kg[1].to(device)
        self._key = self._key.to(device)
        self._plan = self._paths = None
        return self

    @property
    def plan(self) -> RelationCSR:
        """The graph of all training positives."""
        if self._plan is None:
            self._plan = self.model.graph(self.seen, *self._kg, self._num_users)
        return self._plan

    @property
    def paths(self) -> ItemPaths | None:
        """The paths between items in that graph, if scores have such a part."""
        if self._paths is None and self.config.item_item:
            self._paths = self.model.paths(self.plan)
        return self._paths

    # In training

    def decayed(self) -> list[Tensor]:
        item_item = self.model.item_item
        apart = [] if item_item is None else list(item_item.parameters())
        return [weight for weight in self.model.parameters() if all(weight is not other for other in apart)]

    def loss(self, user: Tensor, item: Tensor, label: Tensor, *key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.config.hold_out > 0:
            visible = self.seen[:, ~torch.isin(self._key, self._pair_key(user, item))]
            plan = self.model.graph(visible, *self._kg, self._num_users)
        else:
            visible = self.seen[:, :0]  # The graph shows what is to be predicted, a candidate all the same.
            plan = self.plan
        paths = self.model.paths(plan) if self.config.item_item else None
        if self.config.loss == "ranking" and self.config.hold_out > 0:
            # Of users of whom the graph shows nothing, popularity alone could be learned.
            known = torch.isin(user, visible[0])
            user, item, label = user[known], item[known], label[known]
        user, item, label = (rows[: self.config.batch_size] for rows in (user, item, label))
        z_user, z_item = self.model.encode(plan)
        other = user[self._negatives.num_left[user] > 0]  # Who has seen all has positives only.
        user, item = torch.cat([user, other]), torch.cat([item, self._negatives.draw(other)])
        num_positives = label.numel()
        label = torch.cat([label, label.new_zeros(other.numel())])
        if self.config.loss == "click":
            logit = (z_user[user] * z_item[item]).sum(dim=-1)
            if paths is not None:
                logit = logit + self.model.direct_pairs(user, item, paths)
            return F.binary_cross_entropy_with_logits(logit, label), logit, label
        distinct, row = user.unique(return_inverse=True)

        def scores(rows: Tensor, z_user: Tensor, z_item: Tensor) -> Tensor:
            product = (z_item @ z_user.t()).t()  # It lies in memory as the other part does.
            return product if paths is None else product + self.model.direct(distinct[rows], paths)

        # What the graph shows a user to have seen is no candidate, as it is none when recommending.
        seen, part = _cells(distinct, visible), self.model.item_item
        weights = [] if part is None else [*part.parameters()]
        z_item = z_item[: self.num_items]
        loss, logit = cross_entropy(
            scores, z_user[distinct], z_item, weights, (row, item), num_positives, seen
        )
        return loss, logit, label

    def calibrate(self, user: Tensor, item: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        # A held-out graph says less of an item than the whole one: how much a count is worth there is learned
        # from rows of neither. The user's count would do the same for users, but each user has as many
        # negatives as positives in all: it would tell how many are left.
        features = torch.column_stack([logit, self.model.entity_features(self.plan)[item]]).cpu().double()
        label = label.cpu()
        if torch.bincount(label.long(), minlength=2).min() < _FOLDS:
            return self.calibrated(item, logit)
        regression = LogisticRegression(C=100.0, max_iter=1000).fit(features, label)
        weight = torch.tensor([*regression.coef_[0], *regression.intercept_])
        self.model.calibration.copy_(weight)
        # What judges the epoch is read by weights that have not seen it.
        judged = cross_val_predict(regression, features, label, cv=_FOLDS, method="decision_function")
        return torch.from_numpy(judged).to(logit)

    def _pair_key(self, user: Tensor, item: Tensor) -> Tensor:
        return user * self.num_items + item

    # Outside training

    def calibrated(self, item: Tensor, logit: Tensor) -> Tensor:
        weight = self.model.calibration
        return weight[0] * logit + self.model.entity_features(self.plan)[item] @ weight[1:-1] + weight[-1]

    def score(
        self, user: Tensor, item: Tensor, generator: torch.Generator | None = None, *key: Tensor
    ) -> Tensor:
        z_user, z_entity = self.model.encode(self.plan)
        logit = (z_user[user] * z_entity[item]).sum(dim=-1)
        return logit if self.paths is None else logit + self.model.direct_pairs(user, item, self.paths)

    def scorer(self, generator: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        z_user, z_entity = self.model.encode(self.plan)
        z_item, paths = z_entity[: self.num_items].t(), self.paths

        def score(user: Tensor) -> Tensor:
            product = z_user[user] @ z_item
            return product if paths is None else product + self.model.direct(user, paths)

        return score

    def score_all(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if not self.in_use:
            return self.scorer(generator)(user)
        score = self._z[0][user] @ self._z[1].t()
        return score if self._paths is None else score + self.model.direct(user, self._paths)

    # On other data

    def tables(self) -> dict[str, tuple[str, ...]]:
        relations = "relation", "inverse"
        tables: dict[str, tuple[str, ...]] = {
            "entity_emb.weight": ("entity",),
            "history_emb.weight": ("item",),
        }
        if self.model.attention:
            layers = range(len(self.model.convs))
            tables |= {f"convs.{layer}.relation": (*relations, "direction") for layer in layers}
        return tables | ({"item_item.log_beta": relations} if self.config.item_item else {})

    @property
    def knows_items_by(self) -> tuple[str, ...]:
        return ("triples", "interactions") if self.config.knowledge_graph else ("interactions",)

    # In use

    def prepare(self) -> None:
        super().prepare()
        self._paths = self.model.paths(self.plan) if self.config.item_item else None  # In double precision.
        self._states = self.model.states(self.plan)
        z_user, z_entity = self.model.read_out(self._states, self.plan)
        self._z = z_user, z_entity[: self.num_items]
        self._shift = self._of_unseen_items()

    def _of_unseen_items(self) -> Tensor | None:
        r"""Move items that have come since training, and that nobody has seen, to where others with such
        neighbours are, by a regression, and return the moves, :math:`(M, d)`. As they are, they lack what
        messages of users make of the others.
        """
        if self.untrained is None or self._kg[1].numel() == 0:
            return None
        untrained, count = self.untrained.cpu(), torch.bincount(self.seen[1].cpu(), minlength=self.num_items)
        unseen = untrained & (count == 0)
        if not unseen.any() or untrained.all():
            return None
        x, z = self._neighbor_features().cpu().numpy(), self._z[1][:, :-1]
        regression = Ridge(_RIDGE).fit(
            x[~untrained], z.cpu().numpy()[~untrained], count[~untrained].double().sqrt() + _UNSEEN
        )
        shift = torch.zeros_like(z)
        shift[unseen] = torch.from_numpy(regression.predict(x[unseen])).to(z) - z[unseen]
        self._z[1][:, :-1] += shift
        return shift

    def _neighbor_features(self) -> Tensor:
        """What the neighbours of items in the knowledge graph say of them: the mean of their embeddings,
        their sum over the root of their number, and how many there are, also by relation.
        """
        (source, target), relation = self._kg
        of_item = target < self.num_items
        source, target, relation = source[of_item], target[of_item], relation[of_item]
        count = self._z[1].new_zeros(self.num_items, self.model.num_relations)
        count.index_put_((target, relation), count.new_ones(()), accumulate=True)
        number = count.sum(dim=1, keepdim=True)
        emb = self.model.entity_emb(source)
        total = emb.new_zeros(self.num_items, emb.size(1)).index_add_(0, target, emb)
        at_least = number.clamp(min=1)
        return torch.cat([total / at_least, total / at_least.sqrt(), number.log1p(), count.log1p()], dim=1)

    def score_newcomer(self, items: Tensor) -> Tensor:
        score = self._z[1] @ self._vector(items)
        return score if self.paths is None else score + self._direct(items)

    def item_vectors(self) -> Tensor:
        return self._z[1][:, :-1]

    def vectors(self, dimensions: int | None = None) -> tuple[Tensor, Tensor]:
        if self.paths is None:
            return self._z
        if dimensions is None:
            raise ValueError(
                "item_item=True: paths between items are no inner product. Pass dimensions=, such as 256, to "
                "have them approximated by so many more, or train with item_item=False"
            )
        user, item = self._direct_vectors(dimensions)
        return torch.cat([self._z[0], user], dim=1), torch.cat([self._z[1], item], dim=1)

    def _direct_vectors(self, dimensions: int) -> tuple[Tensor, Tensor]:
        r"""Users, :math:`(U, d)`, and items, :math:`(M, d)`, whose inner products are close to what is added
        directly: by the randomized range finder of `"Finding structure with randomness"
        <https://arxiv.org/abs/0909.4061>`_. The table of all scores is made in parts only.
        """
        users = torch.arange(self._num_users, device=self.device).split(self.users_at_once)
        paths = cast(ItemPaths, self.paths)
        generator = torch.Generator().manual_seed(self.seed)
        size = min(dimensions, self._num_users, self.num_items)
        item = torch.randn(self.num_items, size, generator=generator).to(self._z[1])
        for _ in range(_POWERS):
            item = torch.linalg.qr(item).Q
            user = torch.linalg.qr(torch.cat([self.model.direct(part, paths) @ item for part in users])).Q
            item = torch.zeros_like(item)
            for part in users:
                item += self.model.direct(part, paths).t() @ user[part]
        return user, item

    def similar(self, item: int) -> Tensor:
        # What somebody would be recommended who has seen this item alone, however well known the others are.
        only = torch.tensor([item], device=self.device)
        return self.score_newcomer(only) - self._z[1][:, -1]

    def explain(self, user: UserOrItems, item: int) -> tuple[Contributions, Contributions | None]:
        layers, depth = self._layers(), len(self._states)
        vector, bias = self._z[1][item].split([self.model.channels, 1])
        read = [self._vector(user)[:-1] / depth] * depth
        own = [state[item].unsqueeze(0) for state in self._states]
        neighbors = contributions(layers, self._states, own, layers.edges_into(item), read)
        if isinstance(user, int):
            node = self.model.num_entities + user
            own = [state[node].unsqueeze(0) for state in self._states]
            edges = layers.edges_into(node)
        else:
            own = self.model.newcomer_states(user, self._states)
            edges = user, torch.full_like(user, self.model.num_relations + 1)
        seen = contributions(layers, self._states, own, edges, [vector / depth] * depth)
        # What users start from is what they have seen.
        start = self.model.history_emb(seen.source) @ seen.weight / max(len(seen.source), 1) ** 0.5
        seen = seen._replace(own=seen.own - start.sum(), score=seen.score + start)
        if self.paths is not None:
            along_edges, of_seen = self._direct_parts(neighbors, seen.source, item)
            neighbors = neighbors._replace(score=neighbors.score + along_edges)
            seen = seen._replace(score=seen.score + of_seen)
        neighbors = neighbors._replace(own=neighbors.own + self._moved(user, item))
        return neighbors._replace(bias=bias[0]), seen._replace(bias=bias[0])

    def logit_model(self, user: UserOrItems, item: int) -> LogitModel:
        depth = len(self._states)
        read = [self._vector(user)[:-1] / depth] * depth
        bias = self._z[1][item, -1] + self._moved(user, item)
        if self.paths is not None:  # It passes no message along the layers.
            bias = bias + self._direct(self._seen_by(user))[item]
        return LogitModel(self._layers(), self._states[0], item, read, bias)

    def _moved(self, user: UserOrItems, item: int) -> Tensor:
        """What the move of an item that nobody has seen adds to its score."""
        vector = self._vector(user)[:-1]
        return vector.new_zeros(()) if self._shift is None else vector @ self._shift[item]

    def _layers(self) -> Layers:
        convs = [cast(GatedAggregationConv, conv) for conv in self.model.convs]
        return Layers(convs, self.plan, typed=self.model.attention)

    def _seen_by(self, user: UserOrItems) -> Tensor:
        return self.seen[1, self.seen[0] == user] if isinstance(user, int) else user

    def _column(self, items: Tensor) -> Tensor:
        """One where an item is among these, :math:`(M, 1)`."""
        column = self._z[1].new_zeros(self.num_items, 1)
        column[items] = 1.0
        return column

    def _direct(self, items: Tensor) -> Tensor:
        r"""What the items of one user add directly to the scores of all items, :math:`(M)`."""
        return cast(ItemItem, self.model.item_item)(cast(ItemPaths, self.paths), self._column(items))[0]

    def _direct_parts(self, neighbors: Contributions, seen: Tensor, item: int) -> tuple[Tensor, Tensor]:
        r"""What is added directly to the score of an item, along each edge into it and by each seen item."""
        part, paths = cast(ItemItem, self.model.item_item), cast(ItemPaths, self.paths)
        from_seen, from_item = self._column(seen), self._column(torch.tensor([item], device=self.device))
        along = paths.along(
            item,
            (neighbors.source, neighbors.relation),
            part.through_users(paths, from_seen)[:, 0],
            part.through_neighbors(paths, from_seen)[:, 0],
        )
        # Paths are the same from either end, but for how many there are of the starts.
        back = part(paths, from_item)[0, seen] * max(len(seen), 1) ** -0.5
        return along, back

    def _vector(self, user: UserOrItems) -> Tensor:
        if isinstance(user, int):
            return self._z[0][user]
        states = self.model.newcomer_states(user, self._states)
        z = sum(states[1:], states[0])[0] / len(states)
        return torch.cat([z, z.new_ones(1)])


def _cells(user: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return where what some users, ascending, have seen stands in a table of these users and all items."""
    seen = seen[:, torch.isin(seen[0], user)]
    return torch.searchsorted(user, seen[0]), seen[1]
