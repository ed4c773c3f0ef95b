"""Forms of tensors by a table: what fits, and what a refusal says."""

import pytest
import torch

from mgwa_pyg.utils.checks import check_tensors, forms

FORMS = forms(
    edge_index="int: 2 edges",
    edge_type="int: edges | None",
    edge_attr="real: edges edge_dim",
    query="float: channels | rows channels",
    index="int: rows",
    key="long: rows | None",
)


def given(**changes):
    values = {
        "edge_index": torch.zeros(2, 5, dtype=torch.int32),
        "edge_type": None,
        "edge_attr": torch.ones(5, 3, dtype=torch.bool),
        "query": torch.zeros(4, 6),
        "index": torch.zeros(4, dtype=torch.uint8),
        "key": None,
    }
    return {**values, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"edge_type": torch.zeros(5, dtype=torch.long)},
        {"query": torch.zeros(6, dtype=torch.half), "index": torch.zeros(9, dtype=torch.long)},
    ],
)
def test_what_fits(changes):
    check_tensors(FORMS, given(**changes), edge_dim=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_index": torch.zeros(3, 5).long()}, r"edge_index has shape \(3, 5\) .* shape 2 × edges are"),
        ({"edge_index": [[0], [1]]}, r"edge_index is \[\[0\], \[1\]\], but whole numbers of shape 2 × edges"),
        (
            {"edge_type": torch.zeros(4).long()},
            r"edge_type has shape \(4,\) .* whole numbers of shape 5 edges",
        ),
        ({"edge_type": torch.zeros(5)}, r"edge_type .* type torch.float32, but whole numbers"),
        (
            {"edge_attr": None},
            r"edge_attr is None, but real numbers of shape 5 edges × edge_dim=3 are needed",
        ),
        ({"edge_attr": torch.zeros(5, 3, dtype=torch.cfloat)}, "edge_attr .* torch.complex64"),
        ({"query": torch.zeros(2, 4, 6)}, r"\(2, 4, 6\) .* of shape channels or rows × channels are"),
        ({"index": torch.zeros(3).long()}, r"index has shape \(3,\) .* of shape 4 rows are needed"),
        (
            {"key": torch.zeros(4).int()},
            "key .* torch.int32, but torch.long numbers of shape 4 rows",
        ),
        ({"query": torch.zeros(4, 6).to_sparse()}, r"query is torch.sparse_coo, but .* query.to_dense\(\)"),
        ({"query": torch.zeros(4, 6, device="meta")}, "query is on meta, but edge_index on cpu"),
    ],
)
def test_what_does_not(changes, message):
    with pytest.raises(ValueError, match=message):
        check_tensors(FORMS, given(**changes), edge_dim=3)


@pytest.mark.parametrize("kind", ["index", "long"])
def test_an_index_has_values(kind):
    index = torch.zeros(3, dtype=torch.long)
    table = forms(index=f"{kind}: rows")
    check_tensors(table, {"index": index})
    with pytest.raises(ValueError, match="index is on meta, where it has no values"):
        check_tensors(table, {"index": index.to("meta")})
    check_tensors(forms(index="int: rows"), {"index": index.to("meta")})
