import pytest
import torch
from safetensors.torch import load_file

from reaemb_bench.core.registry import build
from tests.helpers.encoders import FIDELITY


@pytest.mark.parametrize("case", ["0", "1", "2"])
@pytest.mark.parametrize("name", ["soft-target", "info-nce"])
def test_loss_and_gradients_are_those_of_the_paper(name, case):
    data = load_file(FIDELITY / "contrastive_losses.safetensors")
    first = data[f"{case}.view_a"].requires_grad_()
    second = data[f"{case}.view_b"].requires_grad_()
    loss = build("loss", name).loss(first, second, data[f"{case}.temperature"])
    loss.backward()
    expected = f"{case}.{name.replace('-', '_')}"
    torch.testing.assert_close(loss, data[f"{expected}.loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(first.grad, data[f"{expected}.grad_a"], atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(second.grad, data[f"{expected}.grad_b"], atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("name", ["soft-target-detached", "info-nce"])
def test_views_may_be_swapped(name):
    first, second = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    loss = build("loss", name)
    tau = torch.tensor(0.7)
    torch.testing.assert_close(loss.loss(first, second, tau), loss.loss(second, first, tau))


def test_detached_targets_equal_the_plain_ones_by_rows():
    view = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    tau = torch.tensor(2.0)
    # With equal views the similarities are symmetric, so only the transposed targets' columns can differ.
    plain, detached = (build("loss", name) for name in ("soft-target", "soft-target-detached"))
    logits = view @ view.T / tau
    rows = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(detached.loss(view, view, tau), rows)
    assert plain.loss(view, view, tau) != detached.loss(view, view, tau)
    view.requires_grad_()
    detached.loss(view, view.detach(), tau).backward()
    assert view.grad is not None


def test_info_nce_prefers_twins():
    view = torch.eye(6)
    loss = build("loss", "info-nce")
    tau = torch.tensor(0.1)
    assert loss.loss(view, view, tau) < 0.01 < loss.loss(view, view.roll(1, 0), tau)
