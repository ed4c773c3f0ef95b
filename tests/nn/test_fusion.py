"""What the fusions promise beyond the layer's own tests."""

import pytest
import torch

from mgwa_pyg.nn import FUSIONS


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("heads", [1, 3])
def test_lazy_widths_give_the_same_as_given_ones(name, heads):
    given = FUSIONS[name](5, 5, 4, heads, True)
    lazy = FUSIONS[name](-1, -1, 4, heads, True)
    lazy.load_state_dict(given.state_dict())
    x, neighborhood = torch.randn(6, 5), torch.randn(6, heads, 5)
    out = given(x, neighborhood)
    assert out.shape == (6, heads, 4)
    torch.testing.assert_close(lazy(x, neighborhood), out)


@pytest.mark.parametrize("name", FUSIONS)
def test_bias_can_be_left_out(name):
    fusion = FUSIONS[name](5, 5, 4, 1, False)
    assert not any("bias" in key for key in fusion.state_dict())
    out = fusion(torch.zeros(2, 5), torch.zeros(2, 1, 5))
    torch.testing.assert_close(out, torch.zeros(2, 1, 4))


@pytest.mark.parametrize("name", FUSIONS)
def test_uses_self_says_whether_the_node_counts(name):
    fusion = FUSIONS[name](5, 5, 4, 1, True)
    neighborhood = torch.randn(2, 1, 5)
    same = torch.equal(fusion(torch.zeros(2, 5), neighborhood), fusion(torch.ones(2, 5), neighborhood))
    assert same != fusion.uses_self


def test_the_gate_keeps_between_none_and_all_of_the_value():
    fusion = FUSIONS["gated"](5, 5, 4, 1, True)
    concat = FUSIONS["concat"](5, 5, 8, 1, True)
    concat.load_state_dict(fusion.state_dict())
    x, neighborhood = torch.randn(6, 5), torch.randn(6, 1, 5)
    value, _ = concat(x, neighborhood).chunk(2, dim=-1)
    ratio = fusion(x, neighborhood) / value
    assert ((ratio > 0) & (ratio < 1)).all()
