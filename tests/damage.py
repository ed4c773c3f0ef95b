"""Inputs by the thousand: each ends in an error of ours that names an argument, or in the right answer."""

import re
import traceback
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mgwa_pyg

PACKAGE = Path(mgwa_pyg.__file__).parent
# How many examples each test takes.
EXAMPLES = {
    "layer": 1200,
    "layer options": 1000,
    "operation": 1800,
    "samplers": 600,
    "Last.FM's files": 600,
    "RecBole's files": 600,
    "Book-Crossing's files": 400,
    "SyntheticKG": 400,
    "models": 800,
}

#: What may become of a tensor.
TENSOR_FAULTS = [
    *("none", "text", "list", "float", "half", "double", "complex", "int", "byte", "bool"),
    *("short", "narrow", "longer", "flat", "deeper", "scalar", "empty", "strided"),
    *("nan", "inf", "high", "negative", "huge", "meta"),
]
#: What may stand in place of a number.
NUMBER_FAULTS = [None, -1, 0, 1, 2, 3, 5, -7, 1.5, 2.0, float("nan"), "2", True, [2], torch.tensor(2)]
#: What may stand in place of a word.
WORD_FAULTS = [None, "", "nothing", 1, ["gated"], {}, True]


def damage(value, fault):
    """The same tensor with a fault; where that makes no sense, as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    types = {"float": torch.float, "half": torch.half, "double": torch.double, "complex": torch.cfloat}
    types |= {"int": torch.int, "byte": torch.uint8, "bool": torch.bool}
    marks = {"nan": torch.nan, "inf": torch.inf, "high": 1000, "negative": -1, "huge": 2**40}
    if fault in types:
        return value.to(types[fault])
    if fault in marks:
        if value.numel() == 0 or (fault in ("nan", "inf") and not value.is_floating_point()):
            return value
        value = value.clone()
        value.view(-1)[value.numel() // 2] = marks[fault]
        return value
    if value.dim() == 0 and fault in ("short", "narrow", "longer", "empty", "strided"):
        return value
    return {
        "none": lambda: None,
        "text": lambda: "some text",
        "list": value.tolist,
        "short": lambda: value[:-1],
        "narrow": lambda: value[..., :-1],
        "longer": lambda: torch.cat([value, value[-1:]]),
        "flat": value.flatten,
        "deeper": lambda: value.unsqueeze(0),
        "scalar": lambda: value.sum(),
        "empty": lambda: value[:0],
        "strided": lambda: torch.stack([value, value], dim=-1)[..., 0],
        "meta": lambda: value.to("meta"),
    }[fault]()


def faults_of(tensors, numbers=(), words=(), max_size=2):
    """Up to so many of the arguments by name, with what is wrong with each."""
    kinds = {
        **dict.fromkeys(tensors, TENSOR_FAULTS),
        **dict.fromkeys(numbers, NUMBER_FAULTS),
        **dict.fromkeys(words, WORD_FAULTS),
    }
    fault = st.sampled_from([(name, kind) for name, faults in kinds.items() for kind in faults])
    return st.lists(fault, max_size=max_size, unique_by=lambda pair: pair[0]).map(dict)


def damaged(arguments, faults):
    """The arguments with these faults: those of tensors are names, others stand in their place."""
    return {
        name: damage(value, faults[name]) if faults.get(name) in TENSOR_FAULTS else faults.get(name, value)
        for name, value in arguments.items()
    }


def answer(names, call):
    """Return what ``call`` returns, or None if it refuses in words of ours that have one of these names."""
    try:
        return call()
    except (ValueError, TypeError, IndexError, FileNotFoundError) as error:
        where = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not where.is_relative_to(PACKAGE):
            raise AssertionError(f"raised in {where}: {error!r}") from error
        named = re.search("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names), str(error))
        if not named or not re.search(r"[0-9'=(\[]|None|True|meta|nan", str(error)):
            raise AssertionError(f"names no argument or no value: {error!r}") from error
        return None


def examples(part, /, **strategies):
    """Run a test on as many examples as stand under ``part``, from a fixed seed."""
    every = settings(
        max_examples=EXAMPLES[part],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: every(given(**strategies)(test))
