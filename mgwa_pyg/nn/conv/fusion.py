"""Fusions: how a node and its aggregated neighbourhood become one vector."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.module import _has_any_global_hook
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import reset, zeros

from mgwa_pyg.utils.checks import check_choice, check_same_type


class HeadLinear(Linear):
    r"""One linear map per head, :math:`(N, H, F_{in}) \to (N, H, F_{out})`.

    ``in_channels=-1`` derives the width from the first call.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, bias: bool) -> None:
        self.heads = heads
        super().__init__(in_channels, heads * out_channels, bias=bias, weight_initializer="glorot")

    def forward(self, x: Tensor) -> Tensor:
        if self.heads == 1:
            return super().forward(x)
        weight = self.weight.view(self.heads, -1, self.in_channels)
        out = torch.einsum("nhf,hkf->nhk", x, weight)
        return out if self.bias is None else out + self.bias.view(self.heads, -1)


_MAPS = (Linear, HeadLinear, torch.nn.Embedding)


def is_plain(module: torch.nn.Module, types: Collection[type] = ()) -> bool:
    """Whether to call this linear map or embedding, or this module of one of ``types``, does what its class
    says and no more: nothing stands in its place (LoRA, quantisation, sharding, a parametrization), and no
    hook looks on or, as pruning does, makes the weight.
    """
    hooks = (
        getattr(module, f"_{when}_hooks") for when in ("forward_pre", "forward", "backward_pre", "backward")
    )
    is_own = type(module) in (types or _MAPS) and "forward" not in module.__dict__
    return is_own and not any(hooks) and not _has_any_global_hook()


def whole_table(embedding: torch.nn.Module, device: torch.device) -> Tensor:
    """All rows of an embedding on this device, which is called wherever that is more than to read them."""
    if is_plain(embedding):
        return cast(Tensor, embedding.weight)
    return cast(Tensor, embedding(torch.arange(cast(int, embedding.num_embeddings), device=device)))


def check_map(name: str, linear: torch.nn.Module, x: Tensor) -> None:
    """Raise a :class:`ValueError` if a linear map does not take ``x``, whose name is that of an argument."""
    in_channels, weight = getattr(linear, "in_channels", -1), getattr(linear, "weight", None)
    if in_channels > 0 and x.size(-1) != in_channels:
        raise ValueError(f"{name} has {x.size(-1)} channels, but in_channels={in_channels} are needed")
    if isinstance(weight, Tensor):
        check_same_type(name, x, "the layer's weight", weight)


def apply_map(name: str, linear: torch.nn.Module, x: Tensor) -> Tensor:
    """The linear map of ``x``; what it does not take is named as by :func:`check_map`."""
    try:
        return cast(Tensor, linear(x))
    except RuntimeError:  # Asked first, a parametrization would make its weight twice.
        check_map(name, linear, x)
        raise


class Fusion(torch.nn.Module):
    r"""What every fusion is: :math:`(N, F_{self})` and :math:`(N, H, F_{nbr})` to :math:`(N, H, F_{out})`.

    Args:
        in_self (int): Width of the node's own features, or :obj:`-1` to derive it.
        in_neighbor (int): Width of the aggregated neighbourhood, or :obj:`-1` to derive it.
        out_channels (int): Width of the result, per head.
        heads (int): Number of heads.
        bias (bool): Whether an additive bias is learned.
    """

    #: Whether the node's own features enter the result.
    uses_self: ClassVar[bool] = True

    def __init__(self, in_self: int, in_neighbor: int, out_channels: int, heads: int, bias: bool) -> None:
        super().__init__()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for module in self.children():
            reset(module)

    def forward(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        raise NotImplementedError

    def gate(self, x: Tensor | None, neighborhood: Tensor) -> Tensor | None:
        r"""How far the gate is open, between 0 and 1, :math:`(N, H, F_{out})` or :math:`(N, H, 1)`;
        :obj:`None` where there is none.
        """
        return None

    def linearized(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        """The same result, whose gradient takes the gate for a constant: an affine map of node and
        neighbourhood, so that the result can be split into what each adds.
        """
        return self(x, neighborhood)

    def columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        r"""The same for one head where nodes are columns: :math:`(F_{self}, N)` or
        :math:`(B, F_{self}, N)` and :math:`(B, F_{nbr}, N)` to :math:`(B, F_{out}, N)`.

        With many nodes and few features, whatever takes numbers one by one is several times faster on them.
        """
        if is_plain(self, FUSIONS.values()) and all(is_plain(module) for module in self.children()):
            return self._columns(x, neighborhood)
        # Whatever stands in the place of this or of a map takes rows.
        own = x.expand(neighborhood.size(0), -1, -1).transpose(1, 2)
        rows = neighborhood.transpose(1, 2)
        out = self(own.flatten(0, 1), rows.flatten(0, 1).unsqueeze(1))
        return cast(Tensor, out.view(*rows.shape[:2], -1).transpose(1, 2))

    def _columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        raise NotImplementedError


class ConcatFusion(Fusion):
    r""":math:`[\mathbf{e}_v \Vert \mathbf{e}_{N(v)}] \mathbf{W} + \mathbf{b}`, KGCN's *concat* aggregator.

    The product with the concatenation is taken as a sum of two, so that nothing is concatenated.
    """

    width: ClassVar[int] = 1

    def __init__(self, in_self: int, in_neighbor: int, out_channels: int, heads: int, bias: bool) -> None:
        super().__init__(in_self, in_neighbor, out_channels, heads, bias)
        out_channels = self.width * out_channels
        self.lin_self = Linear(in_self, heads * out_channels, bias=False, weight_initializer="glorot")
        self.lin_neighbor = HeadLinear(in_neighbor, out_channels, heads, bias)

    def forward(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        assert x is not None
        z = apply_map("x", self.lin_neighbor, neighborhood)
        return apply_map("x[1]", self.lin_self, x).view_as(z) + z

    def _columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        own = _map_columns(self.lin_self.weight, x, self.lin_neighbor.bias)
        return _map_columns(self.lin_neighbor.weight, neighborhood).add_(own)


class GatedFusion(ConcatFusion):
    r"""The gate of MGWA (eqs. 8--10):
    :math:`\sigma(\mathbf{z} \mathbf{W} + \mathbf{b}) \odot (\mathbf{z} \mathbf{V} + \mathbf{c})`
    with :math:`\mathbf{z} = [\mathbf{e}_v \Vert \mathbf{e}_{N(v)}]`.

    :math:`\mathbf{V}` and :math:`\mathbf{W}` are the first and the second half of one merged map.
    """

    width: ClassVar[int] = 2

    def forward(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        return F.glu(super().forward(x, neighborhood), dim=-1)

    def gate(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        return super().forward(x, neighborhood).chunk(2, dim=-1)[1].sigmoid()

    def linearized(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        value, gate = super().forward(x, neighborhood).chunk(2, dim=-1)
        return value * gate.sigmoid().detach()

    def _columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        return F.glu(super()._columns(x, neighborhood), dim=-2)


class SumFusion(Fusion):
    r""":math:`(\mathbf{e}_v + \mathbf{e}_{N(v)}) \mathbf{W} + \mathbf{b}`, KGCN's *sum* aggregator."""

    def __init__(self, in_self: int, in_neighbor: int, out_channels: int, heads: int, bias: bool) -> None:
        if in_self != in_neighbor:
            raise ValueError(
                f"fusion='sum' adds a node to its neighbourhood, so both need the same width, but "
                f"in_channels is {(in_neighbor, in_self)}; use fusion='concat' or 'gated'"
            )
        super().__init__(in_self, in_neighbor, out_channels, heads, bias)
        self.lin = HeadLinear(in_neighbor, out_channels, heads, bias)

    def forward(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        assert x is not None
        if x.size(-1) != neighborhood.size(-1):
            raise ValueError(
                f"x[1] has {x.size(-1)} channels, but x has {neighborhood.size(-1)}: both need the same"
            )
        return apply_map("x", self.lin, x.unsqueeze(1) + neighborhood)

    def _columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        return _map_columns(self.lin.weight, x + neighborhood, self.lin.bias)


class NeighborFusion(Fusion):
    r""":math:`\mathbf{e}_{N(v)} \mathbf{W} + \mathbf{b}`, KGCN's *neighbor* aggregator."""

    uses_self: ClassVar[bool] = False

    def __init__(self, in_self: int, in_neighbor: int, out_channels: int, heads: int, bias: bool) -> None:
        super().__init__(in_self, in_neighbor, out_channels, heads, bias)
        self.lin_neighbor = HeadLinear(in_neighbor, out_channels, heads, bias)

    def forward(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        return apply_map("x", self.lin_neighbor, neighborhood)

    def _columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        return _map_columns(self.lin_neighbor.weight, neighborhood, self.lin_neighbor.bias)


class IdentityFusion(Fusion):
    r""":math:`\mathbf{e}_{N(v)}`, the neighbourhood as it is, without parameters: as wide as the result."""

    uses_self: ClassVar[bool] = False

    def __init__(self, in_self: int, in_neighbor: int, out_channels: int, heads: int, bias: bool) -> None:
        _check_widths("identity", out_channels, in_neighbor=in_neighbor)
        super().__init__(in_self, in_neighbor, out_channels, heads, bias)
        self.out_channels = out_channels

    def forward(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        # A width of -1 is known only now.
        _check_widths("identity", self.out_channels, in_neighbor=neighborhood.size(-1))
        return neighborhood

    def _columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        return neighborhood


class HighwayFusion(Fusion):
    r""":math:`g \, \mathbf{e}_v + (1 - g) \, \mathbf{e}_{N(v)}` with
    :math:`g = \sigma([\mathbf{e}_v \Vert \mathbf{e}_{N(v)}] \, \mathbf{w} + b)`, one number for each node and
    head.

    The gate of the `"Highway Networks" <https://arxiv.org/abs/1505.00387>`_ paper, between a node and its
    neighbourhood, and for all channels at once. It starts half open everywhere; node, neighbourhood and
    result have the same width.
    """

    def __init__(self, in_self: int, in_neighbor: int, out_channels: int, heads: int, bias: bool) -> None:
        _check_widths("highway", out_channels, in_self=in_self, in_neighbor=in_neighbor)
        super().__init__(in_self, in_neighbor, out_channels, heads, bias)
        self.out_channels = out_channels
        self.lin_self = Linear(out_channels, heads, bias=False)
        self.lin_neighbor = HeadLinear(out_channels, 1, heads, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            zeros(parameter)

    def forward(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        assert x is not None
        return torch.lerp(neighborhood, x.unsqueeze(1), self.gate(x, neighborhood))

    def gate(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        assert x is not None
        # A width of -1 is known only now.
        _check_widths("highway", self.out_channels, in_self=x.size(-1), in_neighbor=neighborhood.size(-1))
        own = apply_map("x[1]", self.lin_self, x).unsqueeze(-1)
        gate = (own + apply_map("x", self.lin_neighbor, neighborhood)).sigmoid()
        # Under autocast the maps' results are in half precision, and lerp takes one type alone.
        return gate.to(neighborhood.dtype)

    def linearized(self, x: Tensor | None, neighborhood: Tensor) -> Tensor:
        assert x is not None
        return torch.lerp(neighborhood, x.unsqueeze(1), self.gate(x, neighborhood).detach())

    def _columns(self, x: Tensor, neighborhood: Tensor) -> Tensor:
        logit = _map_columns(self.lin_self.weight, x, self.lin_neighbor.bias)
        gate = torch.sigmoid(_map_columns(self.lin_neighbor.weight, neighborhood).add_(logit))
        return torch.lerp(neighborhood, x.expand_as(neighborhood), gate.to(neighborhood.dtype))


def _check_widths(fusion: str, out_channels: int, **widths: int) -> None:
    for name, width in widths.items():
        if width not in (-1, out_channels):
            raise ValueError(
                f"fusion={fusion!r} keeps the width, but in_channels has {name}={width} and "
                f"out_channels={out_channels}: they must be equal"
            )


def _map_columns(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear map where :func:`torch.nn.functional.linear` has rows."""
    # The product of a matrix with a batch of them copies the batch, that of two batches doesn't.
    out = weight @ x if x.dim() == 2 else torch.bmm(weight.expand(x.size(0), -1, -1), x)
    return out if bias is None else out.add_(bias.unsqueeze(1))


#: Every fusion by the name that ``GatedAggregationConv(fusion=...)`` takes.
FUSIONS: dict[str, type[Fusion]] = {
    "gated": GatedFusion,
    "sum": SumFusion,
    "concat": ConcatFusion,
    "neighbor": NeighborFusion,
    "highway": HighwayFusion,
    "identity": IdentityFusion,
}


def make_fusion(name: str, *args: Any) -> Fusion:
    """The fusion called ``name``, made from the arguments of :class:`Fusion`."""
    check_choice("fusion", name, FUSIONS)
    return FUSIONS[name](*args)
