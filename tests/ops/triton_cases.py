"""The cases of Triton's kernels that `test_triton.py` starts, interpreted if there is no GPU."""

import pytest
import torch
import torch.nn.functional as F

from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate, triton_kernels
from mgwa_pyg.ops.aggregate import _aggregate, _aggregate_backward

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    # Interpreted programs are slow: hubs are rows of more than 32 edges here, parts merged 16 at a time.
    monkeypatch.setattr(triton_kernels, "CHUNK", 32)
    monkeypatch.setattr(triton_kernels, "TABLE_COPIES", 3)


@pytest.fixture(autouse=True)
def _same_dropout(monkeypatch):
    # On CUDA, what a seed drops depends on the type.
    dropout = F.dropout
    monkeypatch.setattr(F, "dropout", lambda ones, p: dropout(torch.ones(ones.shape), p).to(ones))


class Case:
    """A random multigraph of hubs and others, on both sides, whose last nodes have no edges."""

    def __init__(
        self,
        num_edges=200,
        num_queries=1,
        num_relations=5,
        C=24,
        dtype=torch.float,
        size=(12, 10),
        wide=False,
        num_tables=None,
        dropout=0.0,
    ):
        ends = [(torch.rand(num_edges) ** 3 * (n - 2)).long() for n in size]
        self.edges = torch.stack(ends), torch.randint(num_relations, (num_edges,))
        self.num_relations, self.size, self.dropout = num_relations, size, dropout
        self.plan = self.make_plan()
        if wide:
            for field in ("rowptr", "col", "dst", "rel", "colptr", "cdst", "csc"):
                object.__setattr__(self.plan, field, getattr(self.plan, field).long())
        self.x = torch.randn(size[0], C).to(DEVICE, dtype).requires_grad_()
        table_dtype = torch.promote_types(dtype, torch.float)
        shape = (
            (num_queries, num_relations) if num_tables is None else (num_tables, num_queries, num_relations)
        )
        self.table = torch.randn(shape).mul_(3).to(DEVICE, table_dtype).requires_grad_()
        self.query_index = None if num_queries == 1 else torch.randint(num_queries, (size[1],)).to(DEVICE)

    def make_plan(self):
        return RelationCSR.from_edge_index(*self.edges, self.num_relations, self.size).to(DEVICE)

    def run(self, backend="triton", double=False):
        x, table = (self.x.double(), self.table.double()) if double else (self.x, self.table)
        torch.manual_seed(1)  # The same edges are dropped each time.
        return relation_softmax_aggregate(x, table, self.plan, self.query_index, backend, self.dropout)

    def op_inputs(self):
        """The operator's inputs up to the last."""
        tables = self.table if self.table.dim() == 3 else self.table.unsqueeze(0)
        scale = torch.rand(tables.size(0), self.plan.num_edges).to(tables) if self.dropout else None
        names = ("rowptr", "col", "dst", "rel", "colptr", "cdst", "csc")
        return self.x, tables, scale, self.query_index, *(getattr(self.plan, name) for name in names)

    def check(self, tolerance):
        out, expected = self.run(), self.run("reference", double=True)
        assert out.dtype == self.x.dtype
        torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
        assert not out[-2:].any()
        weight = torch.randn_like(expected)
        inputs = self.x, self.table
        got = torch.autograd.grad((out.double() * weight).sum(), inputs)
        wanted = torch.autograd.grad((expected * weight).sum(), inputs)
        for one, other, value in zip(got, wanted, inputs, strict=True):
            assert one.dtype == value.dtype
            # By norm, as sums of many terms of both signs have no small error of their own.
            error, size = (one.double() - other.double()).norm(), other.double().norm()
            assert error <= tolerance * max(size, 1)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "C", "num_queries"),
    [
        (torch.float, 1e-5, 24, 1),
        (torch.float, 1e-5, 64, 4),
        (torch.bfloat16, 4e-2, 24, 4),
        (torch.bfloat16, 4e-2, 64, 1),
        (torch.half, 5e-3, 24, 4),
    ],
)
def test_values_and_gradients(dtype, tolerance, C, num_queries):
    case = Case(num_edges=400, num_queries=num_queries, C=C, dtype=dtype, size=(20, 18))
    for ptr in (case.plan.rowptr, case.plan.colptr):
        degree = ptr.diff()
        assert degree.max() > 3 * triton_kernels.CHUNK
        assert (degree > triton_kernels.CHUNK).sum() >= 2
    case.check(tolerance)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": torch.double},
        {"num_edges": 0},
        {"num_edges": 20},
        {"num_relations": 1},
        {"num_queries": 18},
        {"C": 1},
        {"C": 200, "num_edges": 100},
        {"size": (3, 3)},
        {"size": (50, 3)},
        {"size": (3, 50)},
        {"wide": True, "num_queries": 3},
    ],
    ids=str,
)
def test_other_shapes(changes):
    Case(**changes).check(1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_tables": 2},
        {"num_tables": 3, "num_queries": 4, "dropout": 0.5},
        {"num_tables": 9, "dropout": 0.5},
        {"num_tables": 9, "num_queries": 4},
        {"num_tables": 3, "dropout": 0.5, "dtype": torch.bfloat16},
        {"num_tables": 2, "num_queries": 4, "C": 64, "dtype": torch.half},
        {"num_tables": 2, "dropout": 0.5, "dtype": torch.double, "num_edges": 100},
        {"num_tables": 3, "C": 600, "num_edges": 50},
        {"num_tables": 3, "num_queries": 2, "wide": True, "num_edges": 100},
        {"num_tables": 3, "num_edges": 0, "dropout": 0.5},
        {"num_tables": 1, "dropout": 0.5},
    ],
    ids=str,
)
def test_several_tables(changes):
    case = Case(**changes)
    for ptr in (case.plan.rowptr, case.plan.colptr):
        assert case.plan.num_edges < 200 or (ptr.diff() > triton_kernels.CHUNK).any()
    case.check({torch.bfloat16: 4e-2, torch.half: 5e-3}.get(case.x.dtype, 1e-5))


@pytest.mark.parametrize("num_tables", [None, 3])
def test_hubs_that_end_where_chunks_do(num_tables):
    case = Case(size=(5, 6), num_tables=num_tables)
    dst = torch.tensor([64, 33, 31, 1, 160, 0]).cumsum(0)
    dst = torch.bucketize(torch.arange(289), dst, right=True)
    case.edges = torch.stack([torch.randint(3, (289,)), dst]), torch.randint(5, (289,))
    case.plan = case.make_plan()
    torch.testing.assert_close(case.run().double(), case.run("reference", double=True), rtol=1e-5, atol=1e-5)


def test_edges_that_need_no_second_order():
    case = Case()
    case.edges = case.edges[0].sort(dim=1).values, case.edges[1]
    case.plan = case.make_plan()
    assert case.plan.csc is None
    case.check(1e-5)


def test_exact_for_any_range_of_scores():
    case = Case(num_edges=400, num_relations=7)
    case.table = torch.tensor([[0.0, -500.0, -1000.0, 3.0, 2.0, 1.0, 0.0]], device=DEVICE, requires_grad=True)
    # A hub and a target of one low score alone each, and a hub whose first parts have nothing but low scores.
    case.edges[1][case.edges[0][1] == 0] = 2
    case.edges[1][case.edges[0][1] == 7] = 1
    case.edges[1][case.edges[0][1] == 1] = torch.where(
        torch.rand(int((case.edges[0][1] == 1).sum())) < 0.9, 2, 3
    )
    case.plan = case.make_plan()
    case.check(1e-5)


def test_scores_of_minus_infinity_leave_edges_out():
    case = Case(num_edges=400, num_relations=2)
    case.table = torch.tensor([[-torch.inf, 0.0]], device=DEVICE)
    # More than a chunk of such edges comes first, as edges are sorted by relation.
    case.edges[1][:] = torch.arange(400) % 4 == 0
    case.plan = case.make_plan()
    expected = case.run("reference", double=True)
    some = ~expected.isnan().any(dim=1)
    assert some.sum() > 3
    torch.testing.assert_close(case.run()[some].double(), expected[some], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_tables", [None, 3])
@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0)])
def test_no_nodes(size, num_tables):
    case = Case(num_edges=0, size=(size[0], size[1]), num_tables=num_tables)
    out = case.run()
    assert out.shape == ((size[1], 24) if num_tables is None else (size[1], num_tables, 24))
    out.sum().backward()
    assert not case.x.grad.any()
    assert not case.table.grad.any()


@pytest.mark.parametrize(
    "changes", [{}, {"num_queries": 4}, {"num_queries": 4, "num_tables": 2, "dropout": 0.5}], ids=str
)
def test_deterministic(changes):
    case = Case(num_edges=150, **changes)
    wanted = torch.autograd.grad(case.run().square().sum(), (case.x, case.table))
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            torch.autograd.grad(case.run().square().sum(), (case.x, case.table)) for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.parametrize("num_tables", [None, 2])
@pytest.mark.parametrize("needed", ["x", "table"])
def test_only_the_gradient_that_is_asked_for(needed, num_tables):
    case = Case(num_edges=150, num_queries=3, num_tables=num_tables)
    wanted = torch.autograd.grad(case.run().square().sum(), getattr(case, needed))
    case.x.requires_grad_(needed == "x")
    case.table.requires_grad_(needed == "table")
    case.run().square().sum().backward()
    torch.testing.assert_close(getattr(case, needed).grad, *wanted)
    assert (case.table if needed == "x" else case.x).grad is None


@pytest.mark.parametrize("num_tables", [None, 2])
def test_layouts_of_inputs_do_not_matter(num_tables):
    case = Case(num_edges=150, num_queries=3, num_tables=num_tables)
    expected = case.run()
    weight = torch.randn(24, device=DEVICE).expand_as(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), (case.x, case.table))
    case.x = torch.cat([case.x, case.x], dim=1).detach()[:, :24].requires_grad_()
    case.table = case.table.detach().mT.contiguous().mT.requires_grad_()
    case.query_index = case.query_index.repeat_interleave(2)[::2]
    out = case.run()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad((out * weight).sum(), (case.x, case.table)), wanted)


@pytest.mark.parametrize("num_tables", [None, 2])
def test_layouts_of_edges_do_not_matter(num_tables):
    case = Case(num_edges=150, num_queries=3, num_tables=num_tables)
    expected = case.run("reference")
    wanted = torch.autograd.grad(expected.square().sum(), (case.x, case.table))
    for field in ("rowptr", "col", "dst", "rel", "colptr", "cdst", "csc"):
        object.__setattr__(case.plan, field, getattr(case.plan, field).repeat_interleave(2)[::2])
    out = case.run()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    got = torch.autograd.grad(out.square().sum(), (case.x, case.table))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_tables", [None, 3])
def test_same_attention_as_torch(num_tables):
    inputs = Case(num_queries=3, num_tables=num_tables).op_inputs()
    alphas = [_aggregate(*inputs, triton)[1] for triton in (True, False)]
    torch.testing.assert_close(*alphas, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"num_queries": 3}, {"num_queries": 3, "num_tables": 2, "dropout": 0.5}], ids=str
)
def test_opcheck(changes):
    case = Case(num_edges=40, size=(4, 3), dtype=torch.bfloat16, **changes)
    torch.library.opcheck(_aggregate, (*case.op_inputs(), True))
    x, tables, *others = (None if value is None else value.detach() for value in case.op_inputs())
    out, alpha = _aggregate(x, tables, *others, True)
    for needs in [(True, True), (False, True), (True, False)]:
        torch.library.opcheck(_aggregate_backward, (out, x, out, alpha, *others, list(tables.shape), *needs))


def test_compiles_as_one_graph():
    case = Case(num_edges=60, num_queries=3)

    def function(x, scores):
        return relation_softmax_aggregate(x, scores.tanh(), case.plan, case.query_index, "triton").sigmoid()

    expected = function(case.x, case.table)
    wanted = torch.autograd.grad(expected.square().sum(), (case.x, case.table))
    out = torch.compile(function, fullgraph=True, backend="aot_eager")(case.x, case.table)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), (case.x, case.table)), wanted)


@pytest.mark.parametrize("num_tables", [None, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_masked_edges(num_tables, dropout):
    case = Case(num_edges=100, num_relations=3, num_tables=num_tables, dropout=dropout)
    # The first target is a hub, and like target 3 it has masked edges only.
    case.edges[1][(case.edges[0][1] == 0) | (case.edges[0][1] == 3)] = 0
    case.plan = case.make_plan()
    assert case.plan.rowptr[1] > triton_kernels.CHUNK
    for scores in ([-torch.inf, 0.0, 1.0], [-torch.inf] * 3, [-torch.inf, 1e30, -1e30]):
        case.table = torch.tensor(scores, device=DEVICE).expand_as(case.table).clone().requires_grad_()
        case.check(1e-5)
        assert not case.run()[[0, 3]].any()
