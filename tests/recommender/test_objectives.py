"""Training losses of recommenders: values and gradients against plain formulas."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reaemb_bench.core.registry import build
from reaemb_bench.recommender import objectives as softmax
from reaemb_bench.recommender.objectives import BinaryCrossEntropy, CalibratedBCE, CrossEntropy, SampledSoftmax


def batch(items: int = 30, positions: int = 11, negatives: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    outputs = torch.randn(positions, 4, generator=generator).requires_grad_()
    vectors = torch.randn(items, 4, generator=generator).requires_grad_()
    targets = torch.randint(items, (positions,), generator=generator)
    return outputs, targets, vectors, torch.randint(items, (positions, negatives), generator=generator)


@pytest.mark.parametrize("rows_at_once", [1, 4, 1000])
def test_cross_entropy_in_chunks_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(softmax, "CHUNK_BYTES", rows_at_once * 30 * 4)
    outputs, targets, vectors, _ = batch()
    # A factor shows that what arrives from above is used.
    ours = 3 * CrossEntropy().loss(outputs * 5, targets, vectors, None)
    theirs = 3 * F.cross_entropy(outputs * 5 @ vectors.T, targets)
    torch.testing.assert_close(ours, theirs)
    got = torch.autograd.grad(ours, [outputs, vectors])
    wanted = torch.autograd.grad(theirs, [outputs, vectors])
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)


def test_cross_entropy_survives_large_logits() -> None:
    outputs, targets, vectors, _ = batch()
    loss = CrossEntropy().loss(outputs * 1e4, targets, vectors, None)
    torch.testing.assert_close(loss, F.cross_entropy(outputs * 1e4 @ vectors.T, targets))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [outputs, vectors]))


def test_calibrated_bce_without_calibration_is_bce_summed_over_its_terms() -> None:
    outputs, targets, vectors, negatives = batch()
    positive = (outputs * vectors[targets]).sum(-1)
    negative = torch.einsum("bh,bkh->bk", outputs, vectors[negatives])
    plain = (F.softplus(-positive) + F.softplus(negative).sum(-1)).mean() / 6
    torch.testing.assert_close(CalibratedBCE(calibration=0).loss(outputs, targets, vectors, negatives), plain)


@pytest.mark.parametrize("calibration", [0.5, 1.0])
def test_calibrated_bce_raises_the_target_to_the_power_beta(calibration: float) -> None:
    outputs, targets, vectors, negatives = batch()
    rate = 5 / 29
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    if calibration == 1:
        assert beta == pytest.approx(rate)
    positive = torch.sigmoid((outputs * vectors[targets]).sum(-1)) ** beta
    negative = torch.sigmoid(torch.einsum("bh,bkh->bk", outputs, vectors[negatives]))
    plain = -(positive.log() + (1 - negative).log().sum(-1)).mean() / 6
    torch.testing.assert_close(CalibratedBCE(calibration=calibration).loss(outputs, targets, vectors, negatives), plain)


def test_sampled_softmax_over_every_other_item_is_cross_entropy() -> None:
    outputs, targets, vectors, _ = batch()
    others = torch.stack([torch.tensor([item for item in range(30) if item != target]) for target in targets])
    sampled = SampledSoftmax(negatives=29).loss(outputs, targets, vectors, others)
    torch.testing.assert_close(sampled, CrossEntropy().loss(outputs, targets, vectors, None))


def test_sampled_softmax_estimates_the_whole_softmax() -> None:
    outputs, targets, vectors, _ = batch()
    generator = torch.Generator().manual_seed(0)
    # Weak scores: the estimate of the denominator is then close with few samples.
    drawn = torch.randint(30, (11, 20_000), generator=generator)
    sampled = SampledSoftmax(negatives=20_000).loss(outputs * 0.3, targets, vectors, drawn)
    whole = F.cross_entropy(outputs * 0.3 @ vectors.T, targets)
    assert sampled.item() == pytest.approx(whole.item(), abs=0.03)


def test_an_uncorrected_sampled_softmax_is_cross_entropy_over_the_sample() -> None:
    outputs, targets, vectors, negatives = batch()
    candidates = torch.cat([targets[:, None], negatives], dim=1)
    logits = torch.einsum("ph,pch->pc", outputs, vectors[candidates])
    ours = SampledSoftmax(negatives=5, corrected=False).loss(outputs, targets, vectors, negatives)
    torch.testing.assert_close(ours, F.cross_entropy(logits, torch.zeros(11, dtype=torch.long)))


@pytest.mark.parametrize("name", ["bce", "calibrated-bce", "sampled-softmax"])
def test_large_catalogues_and_small_ones_have_the_same_loss(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    outputs, targets, vectors, negatives = batch()
    results = []
    for items_per_negative in (0, 1000):
        monkeypatch.setattr(softmax, "WHOLE", items_per_negative)
        loss = build("objective", name).loss(outputs, targets, vectors, negatives)  # type: ignore[attr-defined]
        results.append([loss, *torch.autograd.grad(loss, [outputs, vectors])])
    torch.testing.assert_close(results[0], results[1])


def test_bce_of_hopeless_scores_is_two_log_two() -> None:
    outputs, targets, vectors, negatives = batch()
    loss = BinaryCrossEntropy(negatives=5).loss(outputs * 0, targets, vectors, negatives)
    assert loss.item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("name", ["bce", "calibrated-bce", "cross-entropy", "trained-cross-entropy", "sampled-softmax"])
def test_every_loss_falls_when_the_target_rises_and_its_negatives_sink(name: str) -> None:
    outputs, targets, vectors, _ = batch()
    negatives = (targets[:, None] + 1 + torch.arange(5)) % 30
    objective = build("objective", name)
    before = objective.loss(outputs, targets, vectors, negatives)  # type: ignore[attr-defined]
    (slope,) = torch.autograd.grad(before, outputs)
    after = objective.loss(outputs - 0.01 * slope, targets, vectors, negatives)  # type: ignore[attr-defined]
    assert after < before
