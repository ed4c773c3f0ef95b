"""The hyper-parameters of one fit, a class for each model."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor

from mgwa_pyg.utils.checks import check_choice, check_count


@dataclass(frozen=True)
class FitConfig:
    r"""What every fit needs to know beside the data; each model has a subclass of its own.

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
        patience (int): Training ends after so many epochs without a better AUC on the validation rows.

    Raises:
        ValueError: If a value is of another type than said above, or out of range.
    """

    #: The name of the model.
    model: ClassVar[str]

    num_layers: int = 1
    channels: int = 16
    lr: float = 1e-2
    weight_decay: float = 1e-4
    batch_size: int = 512
    epochs: int = 30
    patience: int = 5

    @property
    def monitor(self) -> str:
        """What a fit is judged by on the validation rows."""
        return "val_auc"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _plain(field.name, getattr(self, field.name), str(field.type))
            object.__setattr__(self, field.name, value)
        if self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"lr={self.lr} and weight_decay={self.weight_decay}: the first must be positive, the "
                f"second not negative"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the hyper-parameters with the name of the model, as plain values."""
        return {"model": self.model, **asdict(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> FitConfig:
        """Undo :meth:`to_dict`; what is missing takes the default of the model.

        Raises:
            TypeError: If these are no hyper-parameters by name.
            ValueError: If the model or a hyper-parameter is unknown, or a value is not allowed.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values={values!r:.60}: hyper-parameters by name are needed, as to_dict() gives")
        values = dict(values)
        model = values.pop("model", None)
        check_choice("model", model, CONFIGS)
        known = [field.name for field in fields(CONFIGS[model])]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"{', '.join(map(str, unknown))}: unknown to model={model!r}, whose hyper-parameters are "
                f"{', '.join(known)}"
            )
        return CONFIGS[model](**values)


def _plain(name: str, value: Any, kind: str) -> Any:
    """Return a hyper-parameter as a plain value of the type that its annotation says, if it is one."""
    kind, _, optional = kind.partition(" | ")
    if isinstance(value, np.generic | np.ndarray | Tensor) and math.prod(value.shape) == 1:
        with suppress(RuntimeError):  # Some tensors have no values.
            value = value.item()
    if optional and value is None:
        return None
    if kind == "int":  # Numbers of something, all of them.
        count = check_count(name, value)
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


@dataclass(frozen=True)
class NeighborhoodConfig(FitConfig):
    r"""What the models that look at an item's neighbourhood have in common.

    Args:
        fusion (str): The fusion of the layers.
        fanout (int, optional): Neighbours kept per hop in training; :obj:`None` keeps all.
        resample (bool): Whether the neighbours are drawn anew at every step, or once for all, as in KGCN's
            official code; then they are the same in evaluation, too.
        transe (bool): Whether the embeddings of entities and relations start from TransE.
    """

    fusion: str = "gated"
    fanout: int | None = 8
    resample: bool = True
    transe: bool = False


@dataclass(frozen=True)
class MGWAConfig(NeighborhoodConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.MGWA`.

    Its L2 regularisation is :math:`\frac{\lambda}{2} \Vert \mathbf{E} \Vert^2` over the embeddings of all
    users, entities and relations.

    Args:
        score_activation (str, optional): The activation of the attention's scores.
    """

    model = "mgwa"

    channels: int = 8
    weight_decay: float = 3e-4
    score_activation: str | None = "sigmoid"


@dataclass(frozen=True)
class KGCNConfig(NeighborhoodConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.KGCN`.

    Its L2 regularisation covers all embeddings, as MGWA's does, and the matrices of the layers.

    Args:
        equations (str): Whether the published equations are followed or the official code:
            :obj:`"paper"` or :obj:`"official"`.
    """

    model = "kgcn"

    fusion: str = "sum"
    equations: str = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.equations == "official" and self.fanout is None:
            raise ValueError(
                "fanout=None keeps all neighbours, but equations='official' divides by their number: "
                "choose a fanout, or equations='paper'"
            )


@dataclass(frozen=True)
class RippleNetConfig(FitConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.RippleNet`.

    Size, hops, memory and :obj:`kge_weight` are those published for Last.FM; published with them are
    :obj:`lr=5e-3` and :obj:`weight_decay=1e-5`, which do worse on validation rows than the defaults. The L2
    regularisation is that of the official code: :math:`\lambda` times the sum of squares of all that a
    batch's ripple sets hold.

    Args:
        memory_size (int): Triples in each ripple set.
        item_update (str): How an item changes from hop to hop.
        kge_weight (float): The weight of the loss that fits the triples.
        directed (bool): Whether ripples follow triples from head to tail alone, as in the official code.
    """

    model = "ripplenet"

    num_layers: int = 3
    lr: float = 2e-3
    weight_decay: float = 1e-7
    memory_size: int = 32
    item_update: str = "plus_transform"
    kge_weight: float = 0.02
    directed: bool = True


@dataclass(frozen=True)
class CollaborativeConfig(FitConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.CollaborativeMGWA`.

    A step predicts a share of the training positives that is left out of its graph, against as many fresh
    negatives. Shares follow one another until all positives were predicted, :obj:`passes` times an epoch. The
    L2 regularisation is Adam's, on all parameters.

    Args:
        hold_out (float): The share of the training positives that a step predicts and leaves out of the
            graph; :obj:`0` predicts all of them at every step, and leaves all in.
        passes (int): How often an epoch predicts each training positive.
        fusion (str): The fusion of the layers.
        attention (bool): Whether relations are told apart.
        knowledge_graph (bool): Whether the triples are in the graph, or interactions alone.
        dropout (float): Dropout probability of what nodes start from.
        degree_power (float): The power of the number of edges that neighbourhoods are multiplied by.
        loss (str): :obj:`"click"`, binary cross-entropy, judged by the AUC on the validation rows; or
            :obj:`"ranking"`, the cross-entropy of a positive among all items, judged by Recall@10 of the
            validation positives.
    """

    model = "collaborative"

    num_layers: int = 2
    channels: int = 32
    lr: float = 2.6e-2
    weight_decay: float = 5.8e-5
    epochs: int = 30
    patience: int = 6
    hold_out: float = 0.28
    passes: int = 8
    fusion: str = "identity"
    attention: bool = True
    knowledge_graph: bool = True
    dropout: float = 0.18
    degree_power: float = 0.5
    loss: str = "click"

    @classmethod
    def for_ranking(cls) -> CollaborativeConfig:
        """The setting for ranking."""
        return cls(
            loss="ranking",
            channels=64,
            lr=1e-2,
            weight_decay=2e-4,
            hold_out=0.15,
            passes=4,
            dropout=0.1,
            degree_power=0.3,
        )

    @property
    def monitor(self) -> str:
        return "val_auc" if self.loss == "click" else "val_recall"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out={self.hold_out}: a share in [0, 1) is needed")
        check_choice("loss", self.loss, ("click", "ranking"))


#: The hyper-parameters' class for each model by its name.
CONFIGS: dict[str, type[FitConfig]] = {
    config.model: config for config in (MGWAConfig, KGCNConfig, RippleNetConfig, CollaborativeConfig)
}
