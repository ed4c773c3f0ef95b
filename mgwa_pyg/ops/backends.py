"""The backends: which one a name stands for, and softmax and sum of those that compose the two."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from mgwa_pyg.ops.hubs import is_long, spread
from mgwa_pyg.utils.checks import check_choice, has_values, is_transformed


class SegmentOps(Protocol):
    """What a backend provides: both operations reduce over dimension 0, grouped by target.

    ``src`` has shape :math:`(E, *)`, ``index`` :math:`(E)` names each row's target, ``ptr``
    :math:`(N + 1)` delimits the targets where the rows are sorted by them (else :obj:`None`), and
    ``dim_size`` is :math:`N`.
    """

    def softmax(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        """The softmax of ``src`` within each target, of the shape of ``src``."""

    def sum(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        """The sum of ``src`` over each target, :math:`(N, *)`; zero for targets without rows."""


class ReferenceOps:
    """PyG's own composition of softmax and scatter: the oracle that the other backends are held to.

    Sums are taken in single precision at least.
    """

    def softmax(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        # In double where a row may be long: the gradient of each total is a sum over its row, too.
        wide = src.double() if is_long(index) else src
        highest = self._max(wide.detach(), index, dim_size).clamp(min=torch.finfo(wide.dtype).min)
        weight = (wide - highest.index_select(0, index)).exp()
        # One at least, but where all scores are minus infinity: nothing is divided by zero there.
        total = self._sum(weight, index, ptr, dim_size).clamp(min=1)
        return (weight / total.index_select(0, index)).to(src.dtype)

    def sum(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        wide, pieces = src.to(torch.promote_types(src.dtype, torch.float32)), spread(index)
        if pieces is None:
            out = self._sum(wide, index, ptr, dim_size)
        else:
            piece, owner = pieces
            out = self._sum(wide, piece, None, owner.numel())
            out = self._sum(out.double(), owner, None, dim_size)
        return out.to(src.dtype)

    def _max(self, src: Tensor, index: Tensor, dim_size: int | None) -> Tensor:
        return scatter(src, index, dim=0, dim_size=dim_size, reduce="max")

    def _sum(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        return scatter(src, index, dim=0, dim_size=dim_size, reduce="sum")


class ScatterOps(ReferenceOps):
    """The same by the kernels of torch_scatter, for setups that have standardised on them.

    Its kernels can be neither traced nor transformed: there, PyG's take their place.
    """

    def __init__(self) -> None:
        if find_spec("torch_scatter") is None:
            raise ImportError(
                "backend='scatter' needs torch_scatter, which is not installed. Install it after "
                "torch with `pip install --no-build-isolation torch_scatter`, or choose "
                "backend='auto'."
            )

    def _max(self, src: Tensor, index: Tensor, dim_size: int | None) -> Tensor:
        if is_transformed() or not has_values(src):
            return super()._max(src, index, dim_size)
        from torch_scatter import scatter_max

        return scatter_max(src, index, dim=0, dim_size=dim_size)[0]

    def _sum(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        if is_transformed() or not has_values(src):
            return super()._sum(src, index, ptr, dim_size)
        from torch_scatter import scatter_sum, segment_csr

        if ptr is not None:
            return segment_csr(src, ptr, reduce="sum")
        return scatter_sum(src, index, dim=0, dim_size=dim_size)


#: What composes softmax and sum, with a message for each edge in between.
SEGMENT_OPS: dict[str, type[SegmentOps]] = {"reference": ReferenceOps, "scatter": ScatterOps}
#: Every backend by name; those not above make no messages.
BACKENDS = ("auto", "torch", "triton", "scatter", "reference")

_HAS_TRITON = find_spec("triton") is not None

# From how many elements of messages on "auto" makes none, as measured: with a plan at hand, and if edges come
# in any order. Below, on other devices, on CUDA without triton, and where torch.compile meets edges in any
# order, it composes.
_AUTO = {"cpu": (2**14, 2**18), "cuda": (2**23, 2**24)}


def segment_ops(name: str) -> SegmentOps:
    """Return what the backend called ``name`` composes from where messages cannot be avoided.

    Raises:
        ValueError: If no backend has that name.
        ImportError: If the backend's package is not installed.
    """
    check_choice("backend", name, BACKENDS)
    return SEGMENT_OPS.get(name, ReferenceOps)()


def choose_backend(name: str, device: torch.device, num_elements: int, ordered: bool = True) -> str:
    """Return what the backend called ``name`` stands for on ``device``, another name than "auto".

    Under the transforms of :mod:`torch.func` and in forward mode, that is one that composes.

    Args:
        name (str): One of :obj:`BACKENDS`.
        device (torch.device): Where the features are.
        num_elements (int): How many numbers all messages would hold together.
        ordered (bool, optional): Whether the edges are in the order of a plan already. (default: :obj:`True`)

    Raises:
        ValueError: If no backend has that name, or it is not for that device.
        ImportError: If the backend's package is not installed.
    """
    check_choice("backend", name, BACKENDS)
    if name == "triton":
        _check_triton(device)
    # A TorchScript file is to be of torch's operators, too, as others open it without this package.
    if (is_transformed() or torch.jit.is_tracing()) and name not in SEGMENT_OPS:
        return "reference"
    if name != "auto":
        return name
    fused = fused_backend(device)
    if device.type not in _AUTO or (device.type == "cuda" and fused == "torch"):
        return "reference"
    if torch.compiler.is_compiling():
        return fused if ordered else "reference"
    return fused if num_elements >= _AUTO[device.type][0 if ordered else 1] else "reference"


def fused_backend(device: torch.device) -> str:
    """Return the backend that makes no messages on ``device``, for what memory would not hold otherwise."""
    return "triton" if device.type == "cuda" and _HAS_TRITON else "torch"


def _check_triton(device: torch.device) -> None:
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"backend='triton' is for CUDA, but x is on {device}: choose backend='auto', or set "
            f"TRITON_INTERPRET=1 before Python starts to interpret the kernels, slowly"
        )
    if not _HAS_TRITON:
        raise ImportError(
            "backend='triton' needs triton, which is not installed. Install it with `pip install "
            "mgwa_pyg[triton]`, or choose backend='auto'."
        )
