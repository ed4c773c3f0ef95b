"""`reset_parameters` sets all that a module holds, so that one made on the meta device gets its values."""

import pytest
import torch

from mgwa_pyg.nn import (
    KGCN,
    MGWA,
    CollaborativeMGWA,
    GatedAggregationConv,
    GatedAggregationGNN,
    RippleNet,
)

MAKE = {
    "layer": lambda: GatedAggregationConv(6, 4, 4, heads=2, edge_dim=3),
    "highway": lambda: GatedAggregationConv(6, 6, 4, fusion="highway"),
    "gnn": lambda: GatedAggregationGNN(6, 8, 3, 2, norm="BatchNorm", jk="lstm", num_relations=3),
    "mgwa": lambda: MGWA(5, 9, 3, channels=4),
    "kgcn": lambda: KGCN(5, 9, 1, channels=4),
    "ripplenet": lambda: RippleNet(9, 3, channels=4),
    "collaborative": lambda: CollaborativeMGWA(5, 9, 3, channels=4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MAKE)
def test_from_the_meta_device(name, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = MAKE[name]()
        want = MAKE[name]()
    finally:
        torch.set_default_dtype(before)
    model = model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(-7)
    torch.manual_seed(1)
    model.reset_parameters()
    torch.manual_seed(1)
    want.reset_parameters()
    assert {value.dtype for value in want.state_dict().values()} <= {dtype, torch.int64}
    torch.testing.assert_close(model.state_dict(), want.state_dict(), rtol=0, atol=0)
