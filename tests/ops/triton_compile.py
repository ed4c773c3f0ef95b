"""Every launch of Triton's kernels compiled for an H100, which takes no GPU: what `test_triton.py` starts."""

import re

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mgwa_pyg.ops import RelationCSR, triton_kernels
from mgwa_pyg.ops.aggregate import _aggregate, _aggregate_backward

POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
# The kernels of sums are launched for hubs first, then for all rows.
KERNELS = {
    ("forward_sums", True),
    ("forward_sums", False),
    ("forward_alpha", None),
    ("backward_delta", None),
    ("backward_sums", True),
    ("backward_sums", False),
}


def compile_launch(kernel, args, options):
    """Compile ``kernel`` for the types of the arguments that it was launched with, and return its PTX."""
    warps = {"num_warps": options.pop("num_warps")} if "num_warps" in options else {}
    values = dict(zip(kernel.arg_names, args, strict=False)) | options
    signature, constants, aligned = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        value = values[name]
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            aligned[index,] = [["tt.divisibility", 16]]
        elif name in options or value is None or value == 1:  # A launch makes ones constants, too.
            signature[name], constants[name] = "constexpr", value
        else:
            signature[name] = "i32"
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=warps).asm["ptx"]


@pytest.mark.parametrize(
    ("dtype", "C", "shape", "index", "scaled", "deterministic"),
    [
        (torch.float32, 24, (1, 1, 4), torch.int32, False, False),
        (torch.bfloat16, 64, (1, 3, 4), torch.int32, True, False),
        (torch.float16, 200, (1, 3, 4), torch.int64, False, True),
        (torch.float64, 64, (1, 1, 1), torch.int64, False, False),
        (torch.float32, 64, (9, 1, 4), torch.int32, True, False),
        (torch.bfloat16, 64, (2, 3, 4), torch.int32, False, False),
        (torch.bfloat16, 200, (9, 3, 4), torch.int64, True, True),
    ],
)
def test_every_launch_compiles(monkeypatch, dtype, C, shape, index, scaled, deterministic):
    compiled = {}

    def launch(kernel, grid, *args, **options):
        compiled[kernel.fn.__name__, options.get("HUBS")] = compile_launch(kernel, args, options)

    monkeypatch.setattr(triton_kernels, "_launch", launch)
    num_tables, num_queries, num_relations = shape
    edge_index = torch.randint(5, (2, 600))
    plan = RelationCSR.from_edge_index(
        edge_index, torch.randint(num_relations, (600,)), num_relations, (5, 5)
    )
    names = ("rowptr", "col", "dst", "rel", "colptr", "cdst", "csc")
    edges = [getattr(plan, name).to(index) for name in names]
    x = torch.randn(5, C, dtype=dtype)
    tables = torch.randn(shape, dtype=torch.promote_types(dtype, torch.float32))
    scale = torch.rand(num_tables, 600).to(tables) if scaled else None
    query_index = None if num_queries == 1 else torch.randint(num_queries, (5,), dtype=index)
    out, alpha = _aggregate(x, tables, scale, query_index, *edges, True)
    torch.use_deterministic_algorithms(deterministic)
    try:
        _aggregate_backward(out, x, out, alpha, scale, query_index, *edges, list(shape), True, True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert compiled.keys() == KERNELS
    for ptx in compiled.values():
        assert ".target sm_90" in ptx
    for hubs in (True, False):
        assert bool(re.search(r"\b(red|atom)\.", compiled["backward_sums", hubs])) != deterministic
