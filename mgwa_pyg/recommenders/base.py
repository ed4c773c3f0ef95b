"""What every recommender is: its hyper-parameters, and one interface in training, evaluation and use."""

from __future__ import annotations

import math
import numbers
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.datasets.ids import Rows
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.recommenders.contributions import Contributions, LogitModel
from mgwa_pyg.sampler import NegativeSampler
from mgwa_pyg.sampler.random_choice import derive_key
from mgwa_pyg.utils.checks import check_choice, check_count

if TYPE_CHECKING:
    from typing_extensions import Self

#: A user of the data by the row, or a newcomer by the rows of the seen items, :math:`(n)`.
UserOrItems = int | Tensor


class Trial(Protocol):
    """One try of a search, which suggests hyper-parameters: one of Optuna's, or what does the same."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number between these bounds, on a logarithmic scale if :obj:`log`."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number from the first to the last of these."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of these."""


@dataclass(frozen=True)
class FitConfig:
    r"""The hyper-parameters that every recommender has; each has a subclass of its own.

    The defaults of the subclasses were chosen on the validation rows of Last.FM by
    ``python -m benchmarks.search``, except where they say otherwise.

    Numbers of NumPy, decimals, fractions and tensors of one element become plain numbers of Python, as
    checkpoints keep them.

    Args:
        num_layers (int): The number of layers, or hops.
        channels (int): The size of the embeddings.
        lr (float): The learning rate of Adam.
        weight_decay (float): The weight :math:`\lambda` of the L2 regularisation.
        batch_size (int): Rows per step.
        epochs (int): Epochs at most; without validation rows, so many.
        patience (int): Training ends after so many epochs without a better figure of the validation rows.
        loss (str): :obj:`"click"`, the binary cross-entropy of labelled rows, judged by their AUC; or
            :obj:`"ranking"`, the loss of `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
            <https://arxiv.org/abs/1205.2618>`_, of training positives against fresh negatives, judged by
            Recall@10 of the validation positives.
        passes (int): How often an epoch takes each training row.

    Raises:
        ValueError: If a value is of another type than said above, or out of range.
    """

    #: The name of the recommender.
    model: ClassVar[str]
    #: Whether there is nothing to learn without a relation.
    needs_relations: ClassVar[bool] = True
    #: The least number of layers.
    least_layers: ClassVar[int] = 1
    #: The least and the greatest :obj:`weight_decay` that a search tries: each model sums up something else.
    weight_decays: ClassVar[tuple[float, float]] = (1e-6, 1e-3)

    num_layers: int = 1
    channels: int = 16
    lr: float = 1e-2
    weight_decay: float = 1e-4
    batch_size: int = 512
    epochs: int = 30
    patience: int = 5
    loss: str = "click"
    passes: int = 1

    @classmethod
    def for_ranking(cls) -> Self:
        """Return the hyper-parameters for ranking."""
        return cls(loss="ranking")

    def suggested(self, trial: Trial) -> Self:
        """Return these hyper-parameters with those that a trial tries in their place; they are the model's
        search space.
        """
        return replace(
            self,
            channels=trial.suggest_categorical("channels", [16, 32, 64]),
            lr=trial.suggest_float("lr", 1e-3, 3e-2, log=True),
            weight_decay=trial.suggest_float("weight_decay", *self.weight_decays, log=True),
        )

    @property
    def monitor(self) -> str:
        """The figure of the validation rows that a fit is judged by, ``"val_auc"`` or ``"val_recall"``."""
        return "val_auc" if self.loss == "click" else "val_recall"

    @property
    def draws_negatives(self) -> bool:
        """Whether a fit learns from the training positives alone, and the recommender draws the negatives."""
        return self.loss == "ranking"

    @property
    def least_seen(self) -> int:
        """How many training positives a user must have for a fit to learn anything of them."""
        return 1

    @property
    def from_transe(self) -> bool:
        """Whether the embeddings of entities and relations start from TransE."""
        return False

    def deal(self, num_rows: int) -> tuple[int, int]:
        """Return how many of the training rows a step takes, and how often an epoch takes each of them."""
        return self.batch_size, self.passes

    def __post_init__(self) -> None:
        for field in fields(self):
            least = self.least_layers if field.name == "num_layers" else 1
            value = _plain(field.name, getattr(self, field.name), str(field.type), least)
            object.__setattr__(self, field.name, value)
        if self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"lr={self.lr} and weight_decay={self.weight_decay}: the first must be positive, the "
                f"second not negative"
            )
        check_choice("loss", self.loss, ("click", "ranking"))

    def to_dict(self) -> dict[str, Any]:
        """Return the hyper-parameters with the name of the recommender, as plain values."""
        return {"model": self.model, **asdict(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> FitConfig:
        """Undo :meth:`to_dict`; what is missing takes the recommender's default.

        Raises:
            TypeError: If these are no hyper-parameters by name.
            ValueError: If the recommender or a hyper-parameter is unknown, or a value is not allowed.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values={values!r:.60}: hyper-parameters by name are needed, as to_dict() gives")
        values = dict(values)
        model = values.pop("model", None)
        check_choice("model", model, RECOMMENDERS)
        config_class = RECOMMENDERS[model].config_class
        known = [field.name for field in fields(config_class)]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"{', '.join(map(str, unknown))}: unknown to model={model!r}, whose hyper-parameters are "
                f"{', '.join(known)}"
            )
        return config_class(**values)


def _plain(name: str, value: Any, kind: str, least: int) -> Any:
    """Return a hyper-parameter as a plain value of the type that its annotation says, if it is one."""
    kind, _, optional = kind.partition(" | ")
    if isinstance(value, np.generic | np.ndarray | Tensor) and math.prod(value.shape) == 1:
        with suppress(RuntimeError):  # Some tensors have no values.
            value = value.item()
    if optional and value is None:
        return None
    if kind == "int":  # Numbers of something, all of them.
        count = check_count(name, value, least)
        if count > sys.maxsize:
            raise ValueError(f"{name}={value!r:.60}: a whole number of at most {sys.maxsize} is needed")
        return count
    if kind == "bool" and not isinstance(value, bool):
        raise ValueError(f"{name}={value!r:.60}: True or False is needed")
    if kind == "str":
        if not isinstance(value, str):
            raise ValueError(f"{name}={value!r:.60}: a word is needed")
        return str.__str__(value)
    if kind == "float":
        number = math.nan
        if not isinstance(value, bool) and isinstance(value, numbers.Number):
            with suppress(TypeError, ValueError, OverflowError):  # Complex ones, Decimal("sNaN"), 10**400.
                number = float(cast(Any, value))
        if not math.isfinite(number):
            raise ValueError(f"{name}={value!r:.60}: a finite number is needed")
        return number
    return value


class KGRecommender(ABC):
    """A model together with what it looks at: users and items go in, a loss or logits come out.

    A subclass sets :attr:`config_class`, makes :attr:`model` in its constructor, and defines
    :meth:`train_step` or :meth:`loss`, and :meth:`score`. With these it can be trained and evaluated; the
    methods of the last group are needed for use, each by the answers of
    :class:`~mgwa_pyg.recommend.Recommender` that it is named for.

    Where the rows of a batch have a ``key``, :math:`(B)`, that number alone decides what is drawn for a row,
    whatever the other rows or the process.

    Args:
        dataset (KGRecDataset): The data set. Its data are read once, so that a transform may draw at random.
        config (FitConfig): The hyper-parameters.
        seed (int): The seed of what is drawn once for all.
    """

    #: The class of the hyper-parameters, which has the recommender's name.
    config_class: ClassVar[type[FitConfig]]
    #: The parameters.
    model: torch.nn.Module
    #: Pairs scored at once outside training, where neighbourhoods are whole.
    eval_batch_size: ClassVar[int] = 2048
    #: Users whose items are scored at once in use.
    users_at_once: int = 64
    #: What the edges of an explanation are.
    edge_part: ClassVar[str] = "neighbor"
    #: Whether :meth:`prepare` was called.
    in_use: bool = False
    #: The items that have come since training, a mask, if any have.
    untrained: Tensor | None = None
    #: What the parameters started from, if they were not drawn.
    started_from: str | None = None
    #: The users and items of which the parameters have learned, :math:`(2, P)`, in runs that they started
    #: from, too; :obj:`None` stands for the training positives.
    learned: Tensor | None = None

    def __init__(self, dataset: KGRecDataset, config: FitConfig, seed: int) -> None:
        self.dataset = dataset = fixed(dataset)
        self.config, self.seed = config, seed
        self.num_items = dataset.num_items
        #: The training positives, user and item, :math:`(2, P)`.
        self.seen: Tensor = interactions(dataset[0]).edge_index

    @cached_property
    def _negatives(self) -> NegativeSampler:
        """What fresh negatives are drawn by, in training alone."""
        entities = self.config.loss == "click" and self.dataset.negatives == "entities"
        pool = self.dataset.num_entities if entities else self.num_items
        sampler = NegativeSampler(self.seen.cpu(), self.dataset.num_users, pool)
        return sampler.to(self.seen.device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> KGRecommender:
        """Move what the model looks at, but not the model, which belongs to its trainer."""
        self.seen = self.seen.to(device)
        if "_negatives" in vars(self):
            self._negatives.to(device)
        return self

    # In training

    def decayed(self) -> list[Tensor]:
        """Return the parameters whose squares the optimizer keeps small."""
        return []

    def start_from(self, entity: Tensor, relation: Tensor) -> None:
        r"""Start from other embeddings of entities, :math:`(N, d)`, and relations, :math:`(R, d)`."""
        raise NotImplementedError(f"{type(self.model).__name__} cannot start from other embeddings")

    def train_step(self, user: Tensor, item: Tensor, *key: Tensor) -> tuple[Tensor, Tensor | float]:
        r"""Return the logits in training, :math:`(B)`, and what is added to their loss."""
        raise NotImplementedError(f"model={self.config.model!r} defines neither train_step nor loss")

    def loss(self, user: Tensor, item: Tensor, label: Tensor, *key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of a batch, and logits and labels that show how it goes.

        The ranking loss is of training positives, and leaves out users who have seen all items.
        """
        if self.config.loss == "click":
            logit, penalty = self.train_step(user, item, *key)
            return F.binary_cross_entropy_with_logits(logit, label) + penalty, logit, label
        left = self._negatives.num_left[user] > 0
        user, item, key = user[left], item[left], tuple(number[left] for number in key)
        pairs = user.repeat(2), torch.cat([item, self._negatives.draw(user, None, *key)])
        part = torch.arange(2, device=user.device).unsqueeze(1)
        logit, penalty = self.train_step(*pairs, *(derive_key(number, part).flatten() for number in key))
        positive, negative = logit.chunk(2)
        loss = F.softplus(negative - positive).sum() / max(user.numel(), 1)
        return loss + penalty, logit, torch.cat([torch.ones_like(positive), torch.zeros_like(negative)])

    def calibrate(self, user: Tensor, item: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        """Learn from the validation rows, whose logits these are, what probabilities logits stand for, and
        return the calibrated logits. Most models are taken at their word.
        """
        return logit

    # Outside training

    def calibrated(self, item: Tensor, logit: Tensor) -> Tensor:
        """Return logits as :meth:`calibrate` came to read them."""
        return logit

    @abstractmethod
    def score(self, user: Tensor, item: Tensor, generator: torch.Generator, *key: Tensor) -> Tensor:
        r"""Return the logits of :math:`B` pairs outside training, :math:`(B)`."""

    def score_all(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""Return the logits of all :math:`M` items for :math:`n` users, :math:`(n, M)`."""
        item = torch.arange(self.num_items, device=user.device)
        pairs = user.repeat_interleave(self.num_items), item.repeat(user.numel())
        generator = generator or torch.Generator(user.device).manual_seed(self.seed)
        return self.score(*pairs, generator).view(user.numel(), self.num_items)

    @property
    def users_per_step(self) -> int:
        """How many users' items are scored at once outside training."""
        return max(64, self.eval_batch_size // self.num_items)

    def scorer(self, generator: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        """Return :meth:`score_all` for many calls with the same parameters, which may share work."""
        return partial(self.score_all, generator=generator)

    # On other data

    def tables(self) -> dict[str, tuple[str, ...]]:
        """Return what the rows of parameters stand for, by their names in the model's ``state_dict()``: one
        after the other the ``"user"``, ``"item"``, ``"entity"`` or ``"relation"`` of a row, the ``"inverse"``
        of a relation, and the ``"direction"`` of an interaction. A parameter of which no data set changes the
        shape is left out.
        """
        raise NotImplementedError(f"model={self.config.model!r} does not say what its parameters are of")

    def start_rows(self, rows: Rows) -> None:
        """Give those rows of tables a start that no other model has: here, entities the mean of their
        neighbours in the knowledge graph. What has none stays as it was drawn.

        Args:
            rows (Rows): The rows of the other model; -1 where it has none.
        """
        edge_index = self.dataset[0]["entity", "kg", "entity"].edge_index
        state = self.model.state_dict()
        for name, kinds in self.tables().items():
            if kinds == ("entity",):
                start_from_neighbors(state[name], edge_index.to(state[name].device), rows.entity < 0)

    @property
    def knows_items_by(self) -> tuple[str, ...]:
        """What an item must have one of to be known, ``"triples"`` or ``"interactions"``."""
        return ("triples",)

    def unknown_items(self) -> Tensor:
        """Return which items have nothing that the model could know them by, :math:`(M)`."""
        target = self.dataset[0]["entity", "kg", "entity"].edge_index[1]
        known_by = {"triples": target[target < self.num_items], "interactions": self.seen[1].cpu()}
        unknown = torch.ones(self.num_items, dtype=torch.bool)
        for kind in self.knows_items_by:
            unknown[known_by[kind]] = False
        return unknown

    # In use

    def prepare(self) -> None:
        """Prepare the model for use: in double precision, without gradients; what all answers share is
        computed once.
        """
        # In double precision rounding reorders nothing, and contributions add up.
        self.model.eval().requires_grad_(False).double()
        self.in_use = True

    def score_newcomer(self, items: Tensor) -> Tensor:
        r"""Return the logits of all items for a newcomer who has seen these, :math:`(M)`."""
        raise NotImplementedError(f"model={self.config.model!r} scores no items for newcomers")

    def item_vectors(self) -> Tensor:
        r"""Return the items as far as no user matters, :math:`(M, d)`."""
        raise NotImplementedError(f"model={self.config.model!r} has no vectors of items to compare")

    def similar(self, item: int) -> Tensor:
        r"""Return how like an item all items are, :math:`(M)`: the cosine of their vectors."""
        vector = F.normalize(self.item_vectors(), dim=1)
        return vector @ vector[item]

    def vectors(self, dimensions: int | None = None) -> tuple[Tensor, Tensor]:
        r"""Return users, :math:`(U, d)`, and items, :math:`(M, d)`, whose inner products are the scores.

        Args:
            dimensions (int, optional): With so many dimensions what is no inner product is approximated.
                (default: :obj:`None`)

        Raises:
            ValueError: If the scores are no inner products, or not without :obj:`dimensions`.
        """
        raise ValueError(
            f"model={self.config.model!r} has no vectors that could be exported: what an item is depends on "
            f"the user. Those of lightgcn and collaborative can be"
        )

    def explain(self, user: UserOrItems, item: int) -> tuple[Contributions, Contributions | None]:
        """Return what the score of an item comes from: its neighbourhood, and, if the model knows users by
        them, the items that the user has seen. Each adds up to the score.
        """
        raise NotImplementedError(f"model={self.config.model!r} does not explain its scores")

    def logit_model(self, user: UserOrItems, item: int) -> LogitModel:
        """Return the model as PyG's explainers take it, for one pair.

        Raises:
            ValueError: If the model passes no messages.
        """
        raise ValueError(
            f"{type(self.model).__name__} passes no messages along edges, which is what PyG's explainers "
            f"look at: leave `algorithm` out"
        )


def start_from_neighbors(table: Tensor, edge_index: Tensor, is_new: Tensor) -> None:
    r"""Give new rows of a table, :math:`(N, \ldots)`, the mean of those that edges lead from, or, where all
    of these are new, too, of what they become.
    """
    source, target = edge_index
    known = ~is_new.to(table.device)
    while (open_ := known[source] & ~known[target]).any():
        mean = scatter(table[source[open_]], target[open_], dim_size=len(table), reduce="mean")
        reached = torch.zeros_like(known).index_fill(0, target[open_], True)
        table[reached] = mean[reached]
        known = known | reached


#: The recommenders by name. A further one is known everywhere once it stands here.
RECOMMENDERS: dict[str, type[KGRecommender]] = {}


def make_recommender(dataset: KGRecDataset, config: FitConfig, seed: int) -> KGRecommender:
    """Return the recommender whose hyper-parameters these are; arguments as for :class:`KGRecommender`.

    Raises:
        ValueError: If no recommender of this name is registered.
    """
    check_choice("model", getattr(config, "model", None), RECOMMENDERS)
    return RECOMMENDERS[config.model](dataset, config, seed)
