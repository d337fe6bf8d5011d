"""WaveFlow's net reads only the rows above; row by row it computes the same."""

import pytest
import torch
from conftest import shake

from flowavenet.models import WaveFlow, WaveFlowConfig
from flowavenet.nets import RowNet
from flowavenet.nets.rownet import row_dilations
from flowavenet.transforms import ReverseGroups, RowAutoregressive, Squeeze, Transform

SIZES = [(2, 1, 5), (8, 3, 9), (16, 2, 1), (32, 4, 9), (64, 5, 3)]             # rows, layers, columns


def make(rows, layers, columns, batch=2):
    net = shake(RowNet(rows, 3, layers=layers, width=6).double())
    return net, torch.randn(batch, columns, rows).double(), torch.randn(batch, columns, 3 * rows).double()


def row_by_row(steps, x):
    """Shifts, then log-scales, from one row after the other: (batch, columns, 2 * (rows - 1))."""
    return torch.stack([steps(row) for row in x[..., :-1].split(1, dim=2)], dim=3).flatten(2)


@pytest.mark.parametrize("rows, layers, columns", SIZES)
def test_row_by_row_is_all_at_once(rows, layers, columns):
    net, x, cond = make(rows, layers, columns)
    wanted = net(x, cond)
    assert wanted.shape == (2, columns, 2 * (rows - 1)) and wanted.std() > 0.01
    torch.testing.assert_close(row_by_row(net.steps(cond), x), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows, layers, columns", SIZES)
def test_gradients_row_by_row_are_those_of_all_at_once(rows, layers, columns):
    net, x, cond = make(rows, layers, columns)
    inputs = [x.requires_grad_(), cond.requires_grad_(), *net.parameters()]
    wanted = torch.autograd.grad(net(x, cond).sin().sum(), inputs)
    got = torch.autograd.grad(row_by_row(net.steps(cond), x).sin().sum(), inputs)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows", [8, 16, 32, 64, 128])
def test_last_row_depends_on_the_first_and_no_row_on_itself(rows):
    net, x, cond = make(rows, 8, 1, batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, cond)[0, 0, rows - 1 :], x)[:, 0, 0]
    below = torch.ones(rows - 1, rows, dtype=torch.bool).tril()                # log-scale of row r + 1, x of row <= r
    assert not jacobian[~below].any() and jacobian[:, 0].all()


def test_conditioning_is_that_of_the_row_itself():
    """The first row of the picture is not changed, and the conditioning there is not read."""
    net, x, cond = make(8, 2, 5, batch=1)
    for row in range(8):
        changed = cond.clone()
        changed.unflatten(2, (8, 3))[:, :, row] += 1
        differ = (net(x, cond) - net(x, changed)).unflatten(2, (2, -1)).abs().amax(dim=(0, 1, 2)).nonzero().flatten()
        assert row == 0 and not len(differ) or differ.min() == row - 1


def test_receptive_field_in_columns_is_exact():
    net, x, cond = make(8, 3, 41, batch=1)
    changed = x.clone()
    changed[:, 20] += 1
    touched = (net(x, cond) - net(changed, cond)).abs().amax(dim=(0, 2)).nonzero().flatten()
    assert (20 - touched.min(), touched.max() - 20) == net.receptive_field


def test_starts_as_the_identity():
    model = WaveFlow(WaveFlowConfig(rows=8, flows=4, layers=2, width=4), n_mels=4, hop_length=8)
    wave = torch.randn(1, 64)
    noise, log_det = model.encode(wave, torch.randn(1, 4, 8))
    assert torch.equal(noise, wave) and not log_det.any()


class Counted(Transform):
    """Adds to each sample its number, to show the order in which an inner transform gets them."""

    def forward(self, x, cond=None):
        return x + torch.arange(x.shape[-1]), x.new_zeros(len(x), x.shape[-1])


def test_reversed_turns_groups_and_leaves_the_rest():
    assert ReverseGroups(3, Counted())(torch.zeros(1, 1, 8))[0].flatten().tolist() == [2, 1, 0, 5, 4, 3, 6, 7]


@pytest.mark.parametrize("flows", [2, 4, 6, 8])
def test_order_of_rows_is_the_published_one(flows):
    """Published, all rows are turned after each flow of the first half, and either half of them after each other one."""
    rows = 8
    model = WaveFlow(WaveFlowConfig(rows=rows, flows=flows, layers=1, width=4), n_mels=4, hop_length=8)
    order = torch.arange(rows)
    for index, flow in enumerate(model.flow.transforms):
        seen = []
        inner = next(module for module in flow.modules() if isinstance(module, RowAutoregressive))
        inner.forward = lambda x, cond, seen=seen: (seen.append(x), (x, x.new_zeros(1, x.shape[2])))[1]
        flow(torch.arange(rows)[None, None].float(), torch.zeros(1, rows, 4))
        assert seen[0].flatten().tolist() == order.tolist()
        order = order.flip(0) if index < flows // 2 else order.unflatten(0, (2, -1)).flip(1).flatten()


def test_every_sample_is_changed_by_some_flow():
    model = shake(WaveFlow(WaveFlowConfig(rows=8, flows=4, layers=2, width=4), n_mels=4, hop_length=8), 0.3)
    wave = torch.zeros(1, 64)
    assert model.encode(wave, torch.randn(1, 4, 8))[0].all()


@pytest.mark.parametrize("width, published", [(64, 5_950_164), (128, 22_385_876)])
def test_published_sizes(width, published):
    """Published counts include the residual branch of the last layer of each net, which nothing reads."""
    model = WaveFlow(WaveFlowConfig(width=width))
    assert sum(p.numel() for p in model.parameters()) == published - 8 * width * (width + 2)
    assert max(row_dilations(16, 8)) == 1


def test_receptive_field_grows_with_the_rows_of_the_inverse_only():
    flow = Squeeze(16, RowAutoregressive(RowNet(16, 3, layers=8, width=4)))
    assert flow.inner.forward_receptive_field == (255, 255) and flow.inner.receptive_field == (15 * 255, 15 * 255)


@pytest.mark.parametrize("rows", [1, 7])
def test_odd_rows_are_refused(rows):
    with pytest.raises(ValueError, match=f"rows is {rows}; .* make it even"):
        WaveFlowConfig(rows=rows)
