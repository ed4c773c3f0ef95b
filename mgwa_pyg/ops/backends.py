"""The two segment operations behind the attention, softmax and sum, as every backend implements them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

from torch import Tensor
from torch_geometric.utils import scatter, segment, softmax


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
    """PyG's own composition of softmax and scatter: the oracle that the other backends are held to."""

    def softmax(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        return softmax(src, index, ptr, num_nodes=dim_size, dim=0)

    def sum(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        if ptr is not None:
            return segment(src, ptr, reduce="sum")
        return scatter(src, index, dim=0, dim_size=dim_size, reduce="sum")


class ScatterOps:
    """The same by the kernels of torch_scatter, for setups that have standardised on them."""

    def __init__(self) -> None:
        if find_spec("torch_scatter") is None:
            raise ImportError(
                "backend='scatter' needs torch_scatter, which is not installed. Install it after "
                "torch with `pip install --no-build-isolation torch_scatter`, or choose "
                "backend='auto'."
            )

    def softmax(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        from torch_scatter import scatter_softmax

        return scatter_softmax(src, index, dim=0, dim_size=dim_size)

    def sum(self, src: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int | None) -> Tensor:
        from torch_scatter import scatter_sum, segment_csr

        if ptr is not None:
            return segment_csr(src, ptr, reduce="sum")
        return scatter_sum(src, index, dim=0, dim_size=dim_size)


# Every backend by name. "auto" is the fastest that needs no extension.
BACKENDS: dict[str, type[SegmentOps]] = {
    "auto": ReferenceOps,
    "reference": ReferenceOps,
    "scatter": ScatterOps,
}


def get_backend(name: str) -> SegmentOps:
    """Return the operations of the backend called ``name``.

    Raises:
        ValueError: If no backend has that name.
        ImportError: If the backend's package is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown: choose one of {sorted(BACKENDS)}")
    return BACKENDS[name]()
