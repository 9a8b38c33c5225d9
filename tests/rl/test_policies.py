"""The policies against a released step's numbers, against REINFORCE, and the clipping between them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from reaemb_bench.encoder.poolings import Mean
from reaemb_bench.encoder.reasoners.latent_thought import PaperThoughtAttention
from reaemb_bench.encoder.shared_prefix import Tokens
from reaemb_bench.encoder.template import Template
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.crrl import Judge, Learner, ReinforceLeakyPaper
from reaemb_bench.rl.policies import Gaussian, LogDensity, Rollouts, Trial, clipped_loss

FIXTURES = Path(__file__).parents[1] / "fixtures" / "fidelity"
GROUP, CANDIDATES = 4, 8


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def paper_model(tensors: dict[str, Tensor]) -> ThoughtModel:
    causal_lm = Qwen2ForCausalLM(Qwen2Config.from_json_file(FIXTURES / "two_pass_forward_tiny_qwen2.config.json"))
    causal_lm.model.load_state_dict(under("weight.lm.", tensors))
    causal_lm.tie_weights()
    reasoner = PaperThoughtAttention(32, 1, None, None)
    reasoner.load_state_dict(under("weight.latent_thought.", tensors))
    thought_id = int(tensors["input_ids"][0, -2])
    return (
        ThoughtModel(
            causal_lm,
            None,
            reasoner,
            Mean(),
            Template(padding="left"),
            thoughts=1,
            eos_id=1,
            thought_id=thought_id,
            embedding_rms=1.0,
            thought_scale=1.0,
        )
        .eval()
        .requires_grad_(False)
    )


def prompts(ids: Tensor, mask: Tensor) -> Tokens:
    """The fixture's inputs without their thought and EOS."""
    return Tokens(ids[:, :-2], mask[:, :-2])


def gradients_agree(reasoner: torch.nn.Module, expected: dict[str, Tensor]) -> None:
    for name, parameter in reasoner.named_parameters():
        assert parameter.grad is not None
        error = (parameter.grad - expected[name]).norm() / expected[name].norm()
        assert error < 1e-4, f"{name}: {error}"


@pytest.mark.parametrize("positives", [1, 3])
def test_a_paper_step_has_the_released_codes_numbers(positives: int) -> None:
    tensors = load_file(FIXTURES / f"crrl_step_positives{positives}_tiny_qwen2.safetensors")
    model = paper_model(tensors)
    reasoner = model.reasoner
    assert reasoner is not None
    reasoner.requires_grad_(True)
    settings = ReinforceLeakyPaper(
        group=GROUP, candidates=CANDIDATES, positives=positives, noise=1.5, rollouts_per_step=2 * GROUP, iterations=2
    )
    learner = Learner(model, settings)
    each = slice(None, None, GROUP)
    candidate_tokens = prompts(
        tensors["candidate_input_ids"][each].flatten(0, 1), tensors["candidate_attention_mask"][each].flatten(0, 1)
    )
    candidates = learner.vectors(model.prefix(candidate_tokens)).view(2, CANDIDATES, -1)
    counts = torch.zeros(2, CANDIDATES)
    counts[:, 0] = 1
    if positives > 1:
        counts = tensors["candidate_frequencies"][each].clamp(min=0).float()
    prefix = model.prefix(prompts(tensors["input_ids"][each], tensors["attention_mask"][each]))
    noise = tensors["noise"].unsqueeze(1)

    sample = learner.sample(prefix, noise, Judge.of(settings, candidates, counts / counts.sum(1, keepdim=True)))
    torch.testing.assert_close(sample.rewards.flatten(), tensors["rewards"], rtol=0, atol=1e-5)
    torch.testing.assert_close(sample.advantages.flatten(), tensors["advantages"], rtol=0, atol=1e-5)
    old = settings.policy.log_density(model, prefix, sample.rollouts.actions - noise, sample.rollouts)
    # The prompt's own tokens are terms too, but their log-probabilities cannot change.
    assert old.settled is not None
    assert torch.equal(old.counted.sum(1) + old.settled, tensors["attention_mask"].sum(1))
    torch.testing.assert_close(old.values, tensors["old_logprobs"][:, -2:], rtol=0, atol=1e-5)

    losses = learner.losses(sample)
    for loss_name, gradient_name in (("loss", "grad."), ("loss_second_iteration", "grad_second_iteration.")):
        loss, _ = next(losses)
        torch.testing.assert_close(loss.detach(), tensors[loss_name], rtol=0, atol=1e-5)
        reasoner.zero_grad()
        loss.backward()
        gradients_agree(reasoner, under(f"{gradient_name}latent_thought.", tensors))
        reasoner.load_state_dict(under("weight_after.latent_thought.", tensors))


def drawn(rollouts: int, sigma: float) -> tuple[Tensor, Rollouts]:
    """Means (n, 2, 5), every fourth of them clean, that carry gradient."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(rollouts, 2, 5, generator=generator)
    noise = sigma * torch.randn(means.shape, generator=generator)
    noise[::4] = 0
    sampled = torch.arange(rollouts) % 4 != 0
    return means.requires_grad_(True), Rollouts(means.detach() + noise, noise, sigma, sampled)


def trial(means: Tensor, rollouts: Rollouts, advantages: Tensor, old: Tensor | None = None) -> Trial:
    # The Gaussian reads neither model nor prompts nor rewards.
    unread: Any = None
    return Trial(unread, unread, means, rollouts, advantages, unread, torch.ones(len(means) // 4), old)


def gaussian_density(policy: Gaussian, means: Tensor, rollouts: Rollouts) -> LogDensity:
    return policy.log_density(means, rollouts)


def test_the_gaussians_ratios_are_those_of_the_exact_density() -> None:
    means, rollouts = drawn(8, 0.3)
    moved = means.detach() + 0.05
    policy = Gaussian()
    log_ratio = gaussian_density(policy, moved, rollouts).values - gaussian_density(policy, means, rollouts).values

    def exact(centre: Tensor) -> Tensor:
        return torch.distributions.Normal(centre, 0.3).log_prob(rollouts.actions).sum((1, 2))

    torch.testing.assert_close(log_ratio.squeeze(1), exact(moved) - exact(means), rtol=1e-4, atol=1e-4)
    by_dimension = Gaussian(per_dimension=True)
    mean_ratio = (
        gaussian_density(by_dimension, moved, rollouts).values - gaussian_density(by_dimension, means, rollouts).values
    )
    torch.testing.assert_close(mean_ratio * 10, log_ratio, rtol=1e-4, atol=1e-4)


def test_at_ratio_1_the_gaussians_gradient_is_reinforce() -> None:
    means, rollouts = drawn(8, 0.3)
    advantages = torch.linspace(-1, 2, 8)
    policy = Gaussian()
    policy.loss(trial(means, rollouts, advantages)).value.backward()
    # d log N(a; r, s^2) / dr = (a - r) / s^2, averaged over the six rollouts that were sampled.
    expected = -advantages.view(8, 1, 1) * rollouts.noise / 0.3**2 / 6
    torch.testing.assert_close(means.grad, expected)


def test_clean_rollouts_move_nothing_even_when_the_means_have_moved() -> None:
    means, rollouts = drawn(8, 0.3)
    policy = Gaussian()
    old = gaussian_density(policy, means, rollouts).values.detach()
    moved = (means.detach() + 0.01).requires_grad_(True)
    policy.loss(trial(moved, rollouts, torch.ones(8), old)).value.backward()
    assert moved.grad is not None
    assert (moved.grad[::4] == 0).all()
    assert (moved.grad[1] != 0).any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "moves"),
    [
        (1.1, 1.0, 1.1, True),
        (1.5, 1.0, 1.28, False),
        (0.5, 1.0, 0.5, True),
        (0.5, -1.0, -0.8, False),
        (1.5, -1.0, -1.5, True),
    ],
)
def test_clipping_stops_only_what_has_gone_far_enough(ratio: float, advantage: float, gain: float, moves: bool) -> None:
    values = torch.tensor([[ratio]]).log().requires_grad_(True)
    new = LogDensity(values, torch.tensor([[True]]))
    loss = clipped_loss(new, torch.zeros(1, 1), torch.tensor([advantage]), 0.2, 0.28)
    assert loss.item() == pytest.approx(-gain)
    loss.backward()
    assert values.grad is not None
    assert bool(values.grad.item()) is moves


def test_terms_that_do_not_count_do_not_dilute_the_mean() -> None:
    values = torch.zeros(2, 3)
    counted = torch.tensor([[True, True, True], [False, False, True]])
    loss = clipped_loss(LogDensity(values, counted), values, torch.tensor([1.0, 3.0]), 0.2, 0.28)
    assert loss.item() == pytest.approx(-(3 * 1 + 3) / 4)


def test_settled_terms_count_as_terms_of_ratio_1() -> None:
    old, advantages = torch.zeros(2, 3), torch.tensor([1.0, -3.0])
    values = torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, -0.1]])
    all_terms = LogDensity(values, torch.tensor([[True, True, True], [False, True, True]]))
    last = LogDensity(values[:, 2:], torch.ones(2, 1, dtype=torch.bool), torch.tensor([2, 1]))
    expected = clipped_loss(all_terms, old, advantages, 0.2, 0.28)
    torch.testing.assert_close(clipped_loss(last, old[:, 2:], advantages, 0.2, 0.28), expected)


def test_a_ratio_that_would_overflow_leaves_loss_and_gradient_finite() -> None:
    values = torch.tensor([[500.0], [500.0]]).requires_grad_(True)
    new = LogDensity(values, torch.tensor([[True], [True]]))
    loss = clipped_loss(new, torch.zeros(2, 1), torch.tensor([1.0, -1.0]), 0.2, 0.28)
    loss.backward()
    assert loss.isfinite()
    assert values.grad is not None
    assert values.grad.isfinite().all()
