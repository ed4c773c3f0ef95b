"""What the fusions promise beyond the layer's own tests."""

import pytest
import torch

from mgwa_pyg.nn import FUSIONS
from tests.nn.oracle import randomize, width

WIDTH_KEEPING = ["highway", "identity"]


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("heads", [1, 3])
def test_lazy_widths_give_the_same_as_given_ones(name, heads):
    out_channels = width(name, 5, 4)
    given = randomize(FUSIONS[name](5, 5, out_channels, heads, True))
    lazy = FUSIONS[name](-1, -1, out_channels, heads, True)
    lazy.load_state_dict(given.state_dict())
    x, neighborhood = torch.randn(6, 5), torch.randn(6, heads, 5)
    out = given(x, neighborhood)
    assert out.shape == (6, heads, out_channels)
    torch.testing.assert_close(lazy(x, neighborhood), out)


@pytest.mark.parametrize("name", FUSIONS)
def test_bias_can_be_left_out(name):
    out_channels = width(name, 5, 4)
    fusion = FUSIONS[name](5, 5, out_channels, 1, False)
    assert not any("bias" in key for key in fusion.state_dict())
    out = fusion(torch.zeros(2, 5), torch.zeros(2, 1, 5))
    torch.testing.assert_close(out, torch.zeros(2, 1, out_channels))


@pytest.mark.parametrize("name", FUSIONS)
def test_uses_self_says_whether_the_node_counts(name):
    fusion = FUSIONS[name](5, 5, width(name, 5, 4), 1, True)
    neighborhood = torch.randn(2, 1, 5)
    same = torch.equal(fusion(torch.zeros(2, 5), neighborhood), fusion(torch.ones(2, 5), neighborhood))
    assert same != fusion.uses_self


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6)], ids=["shared", "batched"])
def test_columns_are_rows_turned_round(name, shape):
    fusion = randomize(FUSIONS[name](5, 5, width(name, 5, 4), 1, True))
    x, neighborhood = torch.randn(shape), torch.randn(3, 5, 6)
    rows = [
        fusion(own.t(), near.t().unsqueeze(1)).squeeze(1)
        for own, near in zip(x.expand(3, 5, 6), neighborhood, strict=True)
    ]
    torch.testing.assert_close(fusion.columns(x, neighborhood).transpose(1, 2), torch.stack(rows))


def test_the_gate_keeps_between_none_and_all_of_the_value():
    fusion = FUSIONS["gated"](5, 5, 4, 1, True)
    concat = FUSIONS["concat"](5, 5, 8, 1, True)
    concat.load_state_dict(fusion.state_dict())
    x, neighborhood = torch.randn(6, 5), torch.randn(6, 1, 5)
    value, _ = concat(x, neighborhood).chunk(2, dim=-1)
    ratio = fusion(x, neighborhood) / value
    assert ((ratio > 0) & (ratio < 1)).all()


def test_a_new_highway_is_half_the_node_and_half_its_neighbourhood():
    fusion = FUSIONS["highway"](5, 5, 5, 3, True)
    x, neighborhood = torch.randn(6, 5), torch.randn(6, 3, 5)
    half = (x.unsqueeze(1) + neighborhood) / 2
    torch.testing.assert_close(fusion(x, neighborhood), half)
    assert not torch.allclose(randomize(fusion)(x, neighborhood), half)
    fusion.reset_parameters()
    torch.testing.assert_close(fusion(x, neighborhood), half)


def test_a_highway_has_one_gate_for_each_node_and_head():
    fusion = randomize(FUSIONS["highway"](5, 5, 5, 3, True))
    x, neighborhood = torch.randn(6, 5), torch.randn(6, 3, 5)
    gate = (fusion(x, neighborhood) - neighborhood) / (x.unsqueeze(1) - neighborhood)
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(gate, gate[..., :1].expand_as(gate), rtol=1e-3, atol=1e-3)
    assert gate[..., 0].unique().numel() == 6 * 3


def test_identity_returns_the_neighbourhood_without_parameters():
    fusion = FUSIONS["identity"](3, 5, 5, 2, True)
    neighborhood = torch.randn(6, 2, 5)
    assert torch.equal(fusion(None, neighborhood), neighborhood)
    assert not fusion.state_dict()


@pytest.mark.parametrize("name", WIDTH_KEEPING)
def test_a_neighbourhood_of_another_width_is_an_error(name):
    message = f"fusion='{name}' keeps the width, but in_channels has in_neighbor=5 and out_channels=4"
    with pytest.raises(ValueError, match=message):
        FUSIONS[name](4, 5, 4, 1, True)
    lazy = FUSIONS[name](-1, -1, 4, 1, True)
    with pytest.raises(ValueError, match=message):
        lazy(torch.randn(6, 4), torch.randn(6, 1, 5))


def test_a_node_of_another_width_is_an_error_for_the_highway_alone():
    message = "fusion='highway' keeps the width, but in_channels has in_self=5 and out_channels=4"
    with pytest.raises(ValueError, match=message):
        FUSIONS["highway"](5, 4, 4, 1, True)
    lazy = FUSIONS["highway"](-1, -1, 4, 1, True)
    with pytest.raises(ValueError, match=message):
        lazy(torch.randn(6, 5), torch.randn(6, 1, 4))
    FUSIONS["identity"](5, 4, 4, 1, True)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_linearized_gate_leaves_an_affine_map(name):
    fusion = randomize(FUSIONS[name](4, 4, 4, 2, True).double())
    x, hood = torch.randn(3, 4, dtype=torch.double), torch.randn(3, 2, 4, dtype=torch.double)
    torch.testing.assert_close(fusion.linearized(x, hood), fusion(x, hood))
    gate = fusion.gate(x, hood)
    assert (gate is None) == (name not in ("gated", "highway"))
    # Node and neighbourhood add their gradients' share; what is left is the same whatever they are.
    x.requires_grad_(), hood.requires_grad_()
    out = fusion.linearized(x, hood)
    to_x, to_hood = torch.autograd.grad(out.sum(), (x, hood), allow_unused=True, materialize_grads=True)
    rest = out.sum() - (to_x * x).sum() - (to_hood * hood).sum()
    if name == "highway":
        assert rest.abs() < 1e-12
        torch.testing.assert_close(to_hood, (1 - gate).expand_as(hood).detach())
    elif name == "gated":
        torch.testing.assert_close(rest, (gate * fusion.lin_neighbor.bias.view(2, 8)[:, :4]).sum())
