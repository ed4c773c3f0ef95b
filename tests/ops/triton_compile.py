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
KERNELS = {
    "forward_hubs",
    "forward_rows",
    "forward_alpha",
    "backward_delta",
    "backward_hubs",
    "backward_rows",
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
    ("dtype", "C", "num_queries", "num_relations", "index", "deterministic"),
    [
        (torch.float32, 24, 1, 4, torch.int32, False),
        (torch.bfloat16, 64, 3, 4, torch.int32, False),
        (torch.float16, 200, 3, 4, torch.int64, True),
        (torch.float64, 64, 1, 1, torch.int64, False),
    ],
)
def test_every_launch_compiles(monkeypatch, dtype, C, num_queries, num_relations, index, deterministic):
    compiled = {}

    def launch(kernel, grid, *args, **options):
        compiled[kernel.fn.__name__] = compile_launch(kernel, args, options)

    monkeypatch.setattr(triton_kernels, "_launch", launch)
    edge_index = torch.randint(5, (2, 600))
    plan = RelationCSR.from_edge_index(
        edge_index, torch.randint(num_relations, (600,)), num_relations, (5, 5)
    )
    names = ("rowptr", "col", "dst", "rel", "colptr", "cdst", "csc")
    edges = [getattr(plan, name).to(index) for name in names]
    x = torch.randn(5, C, dtype=dtype)
    table = torch.randn(num_queries, num_relations, dtype=torch.promote_types(dtype, torch.float32))
    query_index = None if num_queries == 1 else torch.randint(num_queries, (5,), dtype=index)
    out, alpha = _aggregate(x, table, query_index, *edges, True)
    torch.use_deterministic_algorithms(deterministic)
    try:
        _aggregate_backward(out, x, out, alpha, query_index, *edges, list(table.shape), True, True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert compiled.keys() == KERNELS
    for ptx in compiled.values():
        assert ".target sm_90" in ptx
    for name in ("backward_hubs", "backward_rows"):
        assert bool(re.search(r"\b(red|atom)\.", compiled[name])) != deterministic
