"""The hyper-parameters of one fit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FitConfig:
    r"""What a fit needs to know beside the data.

    The defaults were chosen on the validation rows of Last.FM by ``benchmarks/mgwa_search.py``.

    Args:
        model (str): The model, ``"mgwa"``.
        fusion (str): The fusion of its layers.
        num_layers (int): The number of layers.
        channels (int): The size of the embeddings.
        fanout (int, optional): Neighbours kept per hop in training; :obj:`None` keeps all.
        lr (float): The learning rate of Adam.
        weight_decay (float): The weight :math:`\lambda` of
            :math:`\frac{\lambda}{2} \Vert \mathbf{E} \Vert^2`, the L2 regularisation of the embeddings
            of all users, entities and relations.
        batch_size (int): Rows per step.
        epochs (int): Epochs at most.
        patience (int): Training ends after so many epochs without a better AUC on the validation rows.
    """

    model: str = "mgwa"
    fusion: str = "gated"
    num_layers: int = 1
    channels: int = 8
    fanout: int | None = 8
    lr: float = 1e-2
    weight_decay: float = 3e-4
    batch_size: int = 512
    epochs: int = 30
    patience: int = 5

    def __post_init__(self) -> None:
        if self.model != "mgwa":
            raise ValueError(f"model={self.model!r} is unknown: choose 'mgwa'")
        for name in ("num_layers", "channels", "batch_size", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"lr={self.lr} and weight_decay={self.weight_decay}: the first must be positive, the "
                f"second not negative"
            )
