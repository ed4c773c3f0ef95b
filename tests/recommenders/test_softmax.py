"""The cross-entropy among all items, and its gradients, against autograd on the whole table."""

import pytest
import torch

from mgwa_pyg.recommenders import softmax


@pytest.mark.parametrize("cells", [1, 14, 2**22])  # One user, two users and all users at once.
def test_cross_entropy_is_that_of_the_whole_table(monkeypatch, cells):
    monkeypatch.setattr(softmax, "_CELLS", cells)
    torch.manual_seed(0)
    z_user = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    z_item = torch.randn(7, 3, dtype=torch.double, requires_grad=True)
    weight, more = torch.randn(7, dtype=torch.double, requires_grad=True), torch.randn(5, 7).double()

    def scores(rows, z_user, z_item):
        return z_user @ z_item.t() + weight * more[rows]

    row, item = torch.tensor([3, 0, 1, 3, 2, 4, 3, 0]), torch.tensor([1, 0, 6, 2, 5, 5, 4, 6])
    hidden = torch.tensor([4, 0, 0, 2]), torch.tensor([0, 3, 1, 6])
    got, logit = softmax.cross_entropy(scores, z_user, z_item, [weight], (row, item), 6, hidden)
    inputs = z_user, z_item, weight
    gradients = torch.autograd.grad(2 * got, inputs)

    table = scores(torch.arange(5), z_user, z_item)
    table = table.masked_fill(torch.zeros(5, 7).index_put(hidden, torch.tensor(1.0)).bool(), -torch.inf)
    want = (table.logsumexp(dim=1)[row] - table[row, item])[:6].mean()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(logit, table[row, item].detach())
    assert not logit.requires_grad
    for gradient, other in zip(gradients, torch.autograd.grad(2 * want, inputs), strict=True):
        torch.testing.assert_close(gradient, other)
