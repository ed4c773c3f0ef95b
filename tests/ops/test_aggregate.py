"""Every backend of `relation_softmax_aggregate` against a loop, and the promises of the fused one."""

import pytest
import torch

from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from mgwa_pyg.ops.aggregate import _aggregate, _aggregate_backward, _by_table
from tests.graphs import BACKENDS


class Case:
    """A random multigraph whose last nodes have no edges, with features, scores and a loop."""

    def __init__(
        self,
        size=(8, 8),
        num_edges=60,
        num_relations=4,
        num_queries=1,
        num_tables=None,
        dtype=torch.double,
    ):
        self.size = size
        ends = [torch.randint(n - 2, (num_edges,)) for n in size]
        self.edge_index, self.edge_type = torch.stack(ends), torch.randint(num_relations, (num_edges,))
        self.plan = RelationCSR.from_edge_index(self.edge_index, self.edge_type, num_relations, size)
        self.x = torch.randn(size[0], 5, dtype=dtype).requires_grad_()
        table_dtype = torch.promote_types(dtype, torch.float)
        shape = [] if num_tables is None else [num_tables]
        shape += [num_queries, num_relations]
        self.table = torch.randn(shape, dtype=table_dtype).mul_(3).requires_grad_()
        self.query_index = None if num_queries == 1 else torch.randint(num_queries, (size[1],))

    def run(self, backend="torch", dropout=0.0):
        return relation_softmax_aggregate(self.x, self.table, self.plan, self.query_index, backend, dropout)

    def loop(self):
        if self.table.dim() == 2:
            return self.loop_of(self.table)
        return torch.stack([self.loop_of(table) for table in self.table], dim=1)

    def loop_of(self, table):
        x, table = self.x.double(), table.double()
        out = []
        for target in range(self.size[1]):
            edges = (self.edge_index[1] == target).nonzero().squeeze(1)
            row = 0 if self.query_index is None else int(self.query_index[target])
            alpha = torch.softmax(table[row, self.edge_type[edges]], dim=0)
            out.append((alpha.unsqueeze(1) * x[self.edge_index[0, edges]]).sum(dim=0))
        return torch.stack(out)

    def check(self, backend="torch", **tolerance):
        out, expected = self.run(backend), self.loop()
        assert out.dtype == self.x.dtype
        torch.testing.assert_close(out.double(), expected, **tolerance)
        assert not out[-2:].any()
        weight = torch.randn_like(expected)
        got = torch.autograd.grad((out.double() * weight).sum(), (self.x, self.table))
        wanted = torch.autograd.grad((expected * weight).sum(), (self.x, self.table))
        assert [grad.dtype for grad in got] == [self.x.dtype, self.table.dtype]
        torch.testing.assert_close(got, wanted, **tolerance)


CASES = {
    "one query": {},
    "many queries": {"num_queries": 3},
    "a query each": {"num_queries": 8},
    "one relation": {"num_relations": 1},
    "one relation, many queries": {"num_relations": 1, "num_queries": 3},
    "more sources": {"size": (12, 5), "num_queries": 3},
    "more targets": {"size": (4, 20), "num_queries": 3},
    "no edges": {"num_edges": 0},
    "more edges than pairs of nodes": {"size": (5, 6), "num_queries": 2, "num_edges": 200},
    "one of several tables": {"num_tables": 1},
    "several tables": {"num_tables": 3},
    "several tables, many queries": {"size": (12, 9), "num_tables": 3, "num_queries": 2},
    "several tables, no edges": {"num_tables": 2, "num_edges": 0},
}


@pytest.mark.smoke
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_equal_a_loop(case, backend):
    Case(**case).check(backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float, 1e-5), (torch.half, 1e-2), (torch.bfloat16, 6e-2)],
)
def test_lower_precisions(backend, dtype, tolerance):
    Case(num_queries=3, dtype=dtype).check(backend, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_in_half_precision_are_widened(backend):
    case = Case(dtype=torch.float)
    half = case.table.detach().bfloat16().requires_grad_()
    out = relation_softmax_aggregate(case.x, half, case.plan, backend=backend)
    torch.testing.assert_close(out, relation_softmax_aggregate(case.x, half.float(), case.plan))
    out.sum().backward()
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("spread", [15.0, 17.0, 80.0, 104.0])
@pytest.mark.parametrize("num_tables", [None, 2])
def test_rows_far_below_the_highest_score(spread, num_tables):
    case = Case(num_relations=3, num_tables=num_tables, num_queries=2, dtype=torch.float)
    case.table = case.table.detach().sigmoid()
    case.table[..., 0, :] -= spread
    case.table.requires_grad_()
    case.check("torch", rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0)])
def test_no_nodes(size):
    plan = RelationCSR.from_edge_index(torch.empty(2, 0, dtype=torch.long), None, 1, size)
    x, table = torch.randn(size[0], 4, requires_grad=True), torch.randn(1, 1, requires_grad=True)
    out = relation_softmax_aggregate(x, table, plan)
    assert out.shape == (size[1], 4)
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert not table.grad.any()


def test_edges_that_need_no_sorting():
    case = Case(size=(60, 8))
    case.edge_index = torch.stack([torch.arange(60), case.edge_index[1].sort().values])
    case.plan = RelationCSR.from_edge_index(case.edge_index, case.edge_type, 4, case.size)
    assert case.plan.csc is None
    case.check()


@pytest.mark.parametrize("backend", BACKENDS)
def test_exact_for_any_range_of_scores(backend):
    case = Case(num_relations=7, dtype=torch.float)
    case.table = torch.tensor([[0.0, -500.0, -1000.0, 3.0, 2.0, 1.0, 0.0]], requires_grad=True)
    # Targets of the lowest scores alone: nothing of them is left if the highest score of all is subtracted.
    case.edge_type[case.edge_index[1] == 0] = 2
    case.edge_type[case.edge_index[1] == 1] = 1
    case.plan = RelationCSR.from_edge_index(case.edge_index, case.edge_type, 7, case.size)
    case.check(backend, rtol=1e-5, atol=1e-5)


def test_layouts_of_inputs_do_not_matter():
    case = Case(num_queries=3)
    expected = case.run()
    weight = torch.randn(5, dtype=torch.double).expand(8, 5)
    wanted = torch.autograd.grad((expected * weight).sum(), (case.x, case.table))
    case.x = torch.cat([case.x, case.x], dim=1).detach()[:, :5].requires_grad_()
    case.table = case.table.detach().t().contiguous().t().requires_grad_()
    out = case.run()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad((out * weight).sum(), (case.x, case.table)), wanted)


@pytest.mark.parametrize("needed", ["x", "table"])
def test_only_the_gradient_that_is_asked_for(needed):
    case = Case(num_queries=3)
    wanted = torch.autograd.grad(case.run().square().sum(), getattr(case, needed))
    case.x.requires_grad_(needed == "x")
    case.table.requires_grad_(needed == "table")
    case.run().square().sum().backward()
    torch.testing.assert_close(getattr(case, needed).grad, *wanted)
    assert (case.table if needed == "x" else case.x).grad is None


@pytest.mark.parametrize("backend", ["torch", pytest.param("scatter", marks=pytest.mark.scatter)])
@pytest.mark.parametrize("num_tables", [None, 2])
def test_dropout_is_the_same_for_every_backend(backend, num_tables):
    case = Case(num_tables=num_tables)
    outs = []
    for name in ("reference", backend):
        torch.manual_seed(1)
        outs.append(case.run(name, dropout=0.4))
    torch.testing.assert_close(*outs)
    weight = torch.randn_like(outs[0])
    wanted, got = (torch.autograd.grad((out * weight).sum(), (case.x, case.table)) for out in outs)
    torch.testing.assert_close(got, wanted)


def test_dropout_keeps_the_sum_on_average():
    case = Case()
    torch.testing.assert_close(
        torch.stack([case.run(dropout=0.5) for _ in range(1500)]).mean(dim=0), case.run(), atol=0.15, rtol=0.0
    )


@pytest.mark.parametrize("num_tables", [None, 2])
@pytest.mark.parametrize("num_queries", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradcheck(num_queries, num_tables, dropout):
    case = Case(num_queries=num_queries, num_tables=num_tables)

    def function(x, table):
        torch.manual_seed(1)
        return relation_softmax_aggregate(x, table, case.plan, case.query_index, "torch", dropout)

    assert torch.autograd.gradcheck(function, (case.x, case.table))


def edges_of(plan):
    return plan.rowptr, plan.col, plan.dst, plan.rel, plan.colptr, plan.cdst, plan.csc


@pytest.mark.parametrize(
    ("num_queries", "num_tables", "dtype", "scaled"),
    [
        (1, 1, torch.float, False),
        (3, 1, torch.bfloat16, False),
        (1, 2, torch.bfloat16, True),
        (3, 2, torch.float, True),
    ],
)
def test_opcheck(num_queries, num_tables, dtype, scaled):
    case = Case(num_queries=num_queries, num_tables=num_tables, dtype=dtype)
    scale = torch.rand(num_tables, 60) if scaled else None
    others = scale, case.query_index, *edges_of(case.plan)
    torch.library.opcheck(_aggregate, (case.x, case.table, *others, False))
    x, tables = case.x.detach(), case.table.detach()
    out, alpha = _aggregate(x, tables, *others, False)
    for needs in [(True, True), (False, True), (True, False)]:
        torch.library.opcheck(_aggregate_backward, (out, x, None, alpha, *others, list(tables.shape), *needs))


def test_positions_beyond_32_bits():
    plan = Case().plan
    wide = _by_table(3, 2**31, plan.rowptr, plan.col, plan.dst, plan.rel)
    narrow = _by_table(3, 4, plan.rowptr, plan.col, plan.dst, plan.rel)
    for one, other in zip(wide[:3], narrow[:3], strict=True):
        assert one.dtype == torch.long
        assert other.dtype == torch.int32
        assert torch.equal(one, other.long())
    assert torch.equal(wide[3].view(3, 60), plan.rel + torch.arange(3).unsqueeze(1) * 2**31)


@pytest.mark.parametrize("plan_inside", [False, True])
def test_compiles_as_one_graph(plan_inside):
    case = Case(num_queries=3)

    def function(x, scores, plan):
        if plan_inside:
            plan = RelationCSR.from_edge_index(case.edge_index, case.edge_type, 4, case.size)
        return relation_softmax_aggregate(x, scores.tanh(), plan, case.query_index, "torch").sigmoid()

    expected = function(case.x, case.table, case.plan)
    wanted = torch.autograd.grad(expected.square().sum(), (case.x, case.table))
    out = torch.compile(function, fullgraph=True, backend="aot_eager")(case.x, case.table, case.plan)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), (case.x, case.table)), wanted)


@pytest.mark.slow
def test_compiles_to_code():
    case = Case(num_queries=3)
    compiled = torch.compile(relation_softmax_aggregate, fullgraph=True)
    out = compiled(case.x, case.table, case.plan, case.query_index)
    torch.testing.assert_close(out, case.run())
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), (case.x, case.table)),
        torch.autograd.grad(case.run().square().sum(), (case.x, case.table)),
    )


@pytest.mark.parametrize("num_queries", [1, 50])
def test_nothing_of_the_size_of_the_messages_is_kept(num_queries):
    num_nodes, num_edges, num_channels = 50, 5000, 64
    case = Case((num_nodes, num_nodes), num_edges, num_queries=num_queries, dtype=torch.float)
    x = torch.randn(num_nodes, num_channels, requires_grad=True)
    saved = {}

    def pack(value):
        saved[value.data_ptr()] = value.nbytes
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        relation_softmax_aggregate(x, case.table, case.plan, case.query_index, "torch")
    # Six numbers of four bytes for each edge, five of them the plan's own.
    assert sum(saved.values()) <= 24 * num_edges + 2 * x.nbytes
    assert max(saved.values()) < num_edges * num_channels


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"x": torch.randn(8)}, ValueError, r"x has shape \(8,\)"),
        ({"x": torch.randn(7, 5)}, ValueError, r"x has shape \(7, 5\) .* 8 sources"),
        ({"x": torch.ones(8, 5).long()}, ValueError, "x .* type torch.int64"),
        ({"table": torch.randn(4)}, ValueError, r"table has shape \(4,\)"),
        ({"table": torch.randn(2, 3, 5)}, ValueError, r"table has shape \(2, 3, 5\) .* 4 relations"),
        ({"table": torch.randn(1, 2, 3, 4)}, ValueError, r"table has shape \(1, 2, 3, 4\)"),
        ({"table": torch.randn(0, 3, 4)}, ValueError, r"table has shape \(0, 3, 4\), but at least one"),
        ({"dropout": 1.0}, ValueError, "dropout=1.0"),
        ({"dropout": None}, ValueError, "dropout=None"),
        ({"x": torch.full((8, 5), torch.nan)}, ValueError, "x of shape .* 40 values that are NaN"),
        ({"table": torch.full((3, 4), torch.inf)}, ValueError, "table of shape .* 12 values .* infinite"),
        ({"table": torch.randn(3, 5)}, ValueError, r"table has shape \(3, 5\) .* 4 relations"),
        ({"table": torch.ones(3, 4).long()}, ValueError, "table .* type torch.int64"),
        ({"table": torch.randn(3, 4, device="meta")}, ValueError, "table is on meta, but x on cpu"),
        ({"query_index": None}, ValueError, "table has 3 rows, but query_index is None"),
        ({"query_index": None, "table": torch.randn(8, 4)}, ValueError, r"torch.arange\(8\)"),
        ({"query_index": torch.zeros(7).long()}, ValueError, r"query_index has shape \(7,\)"),
        ({"query_index": torch.zeros(8)}, ValueError, "query_index .* type torch.float32"),
        ({"query_index": torch.full((8,), 3)}, IndexError, "query_index holds 3"),
        ({"query_index": torch.full((8,), -1)}, IndexError, "query_index holds -1"),
        ({"backend": "cuda"}, ValueError, "backend='cuda' is unknown: choose one of"),
        ({"backend": "triton"}, ValueError, "backend='triton' is for CUDA, but x is on cpu"),
    ],
)
def test_errors_name_what_is_wrong(changes, error, match):
    case = Case(num_queries=3)
    arguments = {"x": case.x, "table": case.table, "plan": case.plan, "query_index": case.query_index}
    with pytest.raises(error, match=match):
        relation_softmax_aggregate(**{**arguments, **changes})


def test_plan_on_another_device():
    case = Case()
    with pytest.raises(ValueError, match="the plan is on meta, but x on cpu"):
        relation_softmax_aggregate(case.x, case.table, case.plan.to("meta"))


def test_missing_triton_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("mgwa_pyg.ops.backends._HAS_TRITON", False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ImportError, match=r"pip install mgwa_pyg\[triton\]"):
        Case().run("triton")


def test_missing_torch_scatter_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("mgwa_pyg.ops.backends.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="--no-build-isolation torch_scatter"):
        Case().run("scatter")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.double, torch.float, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_masked_edges(backend, dtype, dropout):
    # Relation 0 is masked: target 0 has no other, target 1 has both, and target 2 the other.
    edges, types = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 1, 2]]), torch.tensor([0, 0, 0, 1, 1, 1])
    plan = RelationCSR.from_edge_index(edges, types, 2, (3, 4))
    x = torch.randn(3, 5).to(dtype).requires_grad_()
    for score in (1e30, 0.0, -1e30):
        table = torch.tensor([[[-torch.inf, score]]]).expand(2, 1, 2).requires_grad_()
        out = relation_softmax_aggregate(x, table, plan, backend=backend, dropout=dropout)
        assert not out[[0, 3]].any()
        if dropout == 0.0:
            expected = x[:2].mean(dim=0).expand(2, 5)
            tolerance = 1e-2 if dtype is torch.bfloat16 else 1e-6
            torch.testing.assert_close(out[1], expected, rtol=tolerance, atol=tolerance)
        grad_x, grad_table = torch.autograd.grad(out.sum(), (x, table))
        assert grad_x.isfinite().all()
        assert grad_table.isfinite().all()
        assert not grad_table[..., 0].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_tables", [None, 2])
def test_no_edge_counts_where_all_scores_are_masked(backend, num_tables):
    case = Case(num_tables=num_tables, dtype=torch.float)
    case.table = torch.full_like(case.table, -torch.inf).requires_grad_()
    out = case.run(backend)
    assert not out.any()
    for grad in torch.autograd.grad(out.sum(), (case.x, case.table)):
        assert not grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_tables", [None, 2])
def test_no_channels(backend, num_tables):
    case = Case(num_tables=num_tables)
    x = torch.empty(8, 0, dtype=torch.double, requires_grad=True)
    out = relation_softmax_aggregate(x, case.table, case.plan, backend=backend)
    assert out.shape == ((8, 0) if num_tables is None else (8, 2, 0))
    for grad, value in zip(torch.autograd.grad(out.sum(), (x, case.table)), (x, case.table), strict=True):
        assert torch.equal(grad, torch.zeros_like(value))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_tables", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16, torch.half])
@pytest.mark.parametrize("num_edges", [15_000, 300_000])
def test_hubs_lose_no_digits(backend, num_tables, dtype, num_edges):
    num_relations, shape = 3, (1, 3) if num_tables is None else (num_tables, 1, 3)
    # The first target and the first source have two edges of three; terms of one sign, so that errors add up.
    edges = torch.stack([torch.randint(30, (num_edges,)), torch.randint(40, (num_edges,))])
    edges[0, : 2 * num_edges // 3], edges[1, num_edges // 3 :] = 0, 0
    plan = RelationCSR.from_edge_index(edges, edges[0] % 3, num_relations, (30, 40))
    x, table = (1 + torch.rand(30, 3)).to(dtype), torch.rand(shape)
    grad = (1 + torch.rand(40, *shape[:-2], 3)).to(dtype)
    results = []
    for kind, name in ((dtype, backend), (torch.double, "reference")):
        inputs = (
            x.to(kind).requires_grad_(),
            table.to(torch.promote_types(kind, torch.float)).requires_grad_(),
        )
        out = relation_softmax_aggregate(*inputs, plan, backend=name)
        results.append((out, *torch.autograd.grad(out, inputs, grad.to(kind))))
    tolerance = {torch.float: 1e-5, torch.bfloat16: 8e-3, torch.half: 1e-3}[dtype]
    for got, wanted in zip(*results, strict=True):
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()
