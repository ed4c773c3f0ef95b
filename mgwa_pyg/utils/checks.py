"""Checks of arguments.

Those of the values in tensors cost a pass over them, and on an accelerator a wait for it.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from torch_geometric import EdgeIndex, Index, is_debug_enabled

# Torch cannot compare uint16, uint32 and uint64, nor index by them.
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_TracingMode = torch._C._TorchDispatchModeKey


class NaNError(ValueError):
    """A tensor holds values that are not a number."""


def form(value: Any) -> str:
    """What a message says of an argument: its shape and type, or what it is where it is no tensor."""
    if isinstance(value, Tensor):
        return f"has shape {tuple(value.shape)} and type {value.dtype}"
    return f"is {value!r:.60}"


def values_are_checked(device: torch.device) -> bool:
    """Whether values are looked at: on the CPU, and elsewhere under :class:`torch_geometric.debug`; never
    while a program is traced or transformed.
    """
    return not (_is_traced() or is_transformed()) and (device.type == "cpu" or is_debug_enabled())


def has_values(tensor: Tensor) -> bool:
    """Whether this holds values that a decision may be taken by: not while a program is traced, and none of a
    fake tensor or one that a transform has wrapped.
    """
    if _is_traced() or isinstance(tensor, FakeTensor):  # Of a mode under which it need not be used.
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_transformed() -> bool:
    """Whether a transform of :mod:`torch.func` or forward-mode differentiation is at work, which pass through
    torch's own operators only.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _is_traced() -> bool:
    """Whether shapes are all that is known: in :func:`torch.compile` and :func:`torch.jit.trace`, or under a
    mode that traces.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    if torch._C._len_torch_dispatch_stack() == 0:
        return False
    modes = (_TracingMode.FAKE, _TracingMode.PROXY, _TracingMode.FUNCTIONAL)
    return any(torch._C._get_dispatch_mode(mode) is not None for mode in modes)


def plain(value: Tensor) -> Tensor:
    """A tensor of one of PyG's own classes as what it wraps, any other as it is."""
    return value.as_tensor() if isinstance(value, (EdgeIndex, Index)) else value


def is_integer(value: Any) -> bool:
    """Whether this is a tensor whose elements are whole numbers of a type that torch computes with."""
    return isinstance(value, Tensor) and value.dtype in _INTEGERS


def is_float(value: Any) -> bool:
    """Whether this is a tensor whose elements are real numbers by their type."""
    return isinstance(value, Tensor) and value.is_floating_point()


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return ``value`` as an integer, or raise a :class:`ValueError` if it is none or too small."""
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):  # Torch raises the second for a tensor without values.
        number = minimum - 1
    if isinstance(value, bool) or number < minimum:
        raise ValueError(f"{name}={value!r:.60}: a whole number of at least {minimum} is needed")
    return number


def check_choice(name: str, value: Any, allowed: Iterable[str | None]) -> Any:
    """Return ``value``, or raise a :class:`ValueError` if it is none of the words that are allowed."""
    if value not in [*allowed]:
        raise ValueError(f"{name}={value!r:.60} is unknown: choose one of {[*allowed]}")
    return value


def check_probability(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a :class:`ValueError` if it is no number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 <= float(value) < 1.0:
        raise ValueError(f"{name}={value!r:.60}: a probability in [0, 1) is needed")
    return float(value)


def check_number(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a :class:`ValueError` if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r:.60}: a finite number is needed")
    return float(value)


def optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """The check of an option that may be :obj:`None`, too."""
    return lambda name, value: None if value is None else check(name, value)


def check_options(owner: Any) -> None:
    """Check the options of an object, which are attributes of that name, by the table ``_constraints`` of its
    class: each has a function that returns the value to keep, or raises a :class:`ValueError`.
    """
    for name, check in owner._constraints.items():
        setattr(owner, name, check(name, getattr(owner, name)))


# An index and a long number have values, too, which a tensor on meta has not.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("whole numbers", is_integer),
    "index": ("whole numbers", is_integer),
    "long": ("torch.long numbers", lambda value: is_integer(value) and value.dtype == torch.long),
    "float": ("floating-point numbers", is_float),
    "real": ("real numbers", lambda value: isinstance(value, Tensor) and not value.is_complex()),
}


class Form(NamedTuple):
    """What a tensor has to be like."""

    kind: str
    shapes: list[list[int | str]]
    is_optional: bool


def forms(**table: str) -> dict[str, Form]:
    """Read the forms of tensors by name, for :func:`check_tensors`: a kind of numbers and the shapes that
    will do, as in ``"int: 2 edges"``, or ``"float: channels | rows channels | None"`` where none will, too.
    """
    parsed = {}
    for tensor, text in table.items():
        kind, _, rest = text.partition(": ")
        words = [shape.split() for shape in rest.split(" | ")]
        shapes = [[int(word) if word.isdigit() else word for word in shape] for shape in words]
        is_optional = shapes[-1] == ["None"]
        parsed[tensor] = Form(kind, shapes[:-1] if is_optional else shapes, is_optional)
    return parsed


def check_tensors(table: Mapping[str, Form], values: Mapping[str, Any], **sizes: int) -> None:
    """Raise a :class:`ValueError` if a value is no dense tensor of the form of that name, or if it is not on
    one device with the first.

    A name in a shape stands for one size: the given one, or that of the first tensor that has it. Messages
    write those of arguments, with an underscore, as ``edge_dim=3``, others as ``3 edges``.
    """
    first = None
    for name, value in values.items():
        kind, shapes, is_optional = table[name]
        if value is None and is_optional:
            continue
        what, is_kind = _KINDS[kind]
        bound = _bind(value, shapes, sizes) if is_kind(value) else None
        if bound is None:
            needed = " or ".join(_written(shape, sizes) for shape in shapes)
            raise ValueError(f"{name} {form(value)}, but {what} of shape {needed} are needed")
        if value.layout != torch.strided:
            raise ValueError(f"{name} is {value.layout}, but a dense tensor is needed: {name}.to_dense()")
        if kind in ("index", "long"):
            _check_not_meta(name, value)
        first = (name, value) if first is None else first
        check_same_device(name, value, *first)
        sizes = bound


def _bind(value: Tensor, shapes: list[list[int | str]], sizes: dict[str, int]) -> dict[str, int] | None:
    """The sizes and those that this tensor tells; :obj:`None` if it has none of the shapes."""
    for shape in shapes:
        if value.dim() != len(shape):
            continue
        bound = dict(sizes)
        for name, size in zip(shape, value.shape, strict=True):
            if size != (name if isinstance(name, int) else bound.setdefault(name, size)):
                break
        else:
            return bound
    return None


def _written(shape: list[int | str], sizes: dict[str, int]) -> str:
    """A shape as messages have it, with the sizes that are known."""
    dims = []
    for name in shape:
        if isinstance(name, int) or name not in sizes:
            dims.append(str(name))
        else:
            dims.append(f"{name}={sizes[name]}" if "_" in name else f"{sizes[name]} {name}")
    return " × ".join(dims)


def check_same_device(name: str, value: Any, other_name: str, other: Any) -> None:
    """Raise a :class:`ValueError` if two tensors are not on one device."""
    if value.device != other.device:
        raise ValueError(f"{name} is on {value.device}, but {other_name} on {other.device}")


def _check_not_meta(name: str, value: Tensor) -> None:
    if value.is_meta:
        raise ValueError(f"{name} is on {value.device}, where it has no values")


def check_same_type(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise a :class:`ValueError` if two tensors that are to be multiplied are not of one type."""
    if value.dtype != other.dtype and not torch.is_autocast_enabled(value.device.type):
        raise ValueError(f"{name} has type {value.dtype}, but {other_name} {other.dtype}: both need the same")


def check_range(name: str, value: Tensor | None, stop: int, stop_name: str) -> None:
    """Raise an :class:`IndexError` if an element of ``value`` is not in ``[0, stop)``, unless traced."""
    if value is None or not has_values(value) or value.numel() == 0:
        return
    _check_not_meta(name, value)
    low, high = (int(bound) for bound in torch.aminmax(value))
    if low < 0 or high >= stop:
        raise IndexError(
            f"{name} holds {low if low < 0 else high}, but whole numbers from 0 to {stop - 1} are needed "
            f"({stop_name} is {stop})"
        )


def check_no_nan(name: str, value: Tensor | None) -> None:
    """Raise a :class:`NaNError` if an element of ``value`` is NaN."""
    # The sum finds a suspicion in one pass; opposite infinities raise one, too.
    if value is None or isinstance(value, FakeTensor) or not math.isnan(value.detach().sum().item()):
        return
    count = int(value.isnan().sum())
    if count > 0:
        raise NaNError(f"{name} of shape {tuple(value.shape)} holds {count} values that are NaN")


def check_finite(name: str, value: Tensor | None, masks: bool = False) -> None:
    """Raise a :class:`ValueError` if an element of ``value`` is NaN or infinite; with ``masks`` it may be
    minus infinity.
    """
    if value is None or isinstance(value, FakeTensor) or math.isfinite(value.detach().sum().item()):
        return
    check_no_nan(name, value)
    count = int((value == torch.inf if masks else value.isinf()).sum())
    if count > 0:
        raise ValueError(f"{name} of shape {tuple(value.shape)} holds {count} values that are infinite")
