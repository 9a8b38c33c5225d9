"""The plain way through the language model, written faithfully and without a trick: what ours is compared with.

As in ReaEmb's released code, every prompt passes twice through the whole causal language model, vocabulary head
included, in padded batches, once for its thought and once with it. Nothing is remembered: each rollout of an item and
each candidate of each rollout is a sequence of its own. Shapes: n prompts, L tokens (thoughts and EOS included),
g items, G rollouts an item, N candidates, j thoughts, d hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.policies import Gaussian

if TYPE_CHECKING:
    from reaemb_bench.encoder.kinds import Loss
    from reaemb_bench.rl.crrl import Reinforcement

Rows = Sequence[Sequence[int]]
"""Token ids of prompts, without thoughts and EOS."""


@dataclass(frozen=True)
class Passed:
    """What two passes give: vectors (n, d), thoughts (n, j, d), logits (n, L, vocabulary), ids and mask (n, L)."""

    vectors: Tensor
    thoughts: Tensor
    logits: Tensor
    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Judged:
    """What a CRRL step makes of its rollouts: rewards and advantages (g, G), and the losses of its iterations."""

    rewards: Tensor
    advantages: Tensor
    losses: Iterator[Tensor]


@dataclass(frozen=True)
class Plain:
    """A model whose weights are read, none of whose methods; batch: sequences that pass through it at once."""

    model: ThoughtModel
    batch: int = 32

    def two_passes(self, rows: Rows, noise: Tensor | None = None) -> Passed:
        """Prompts with their thoughts, to which noise (n, j, d) is added. The first pass has no gradient."""
        model = self.model
        ids, mask = self._padded(rows)
        indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
        thoughts = self._thoughts(ids, mask, indices)
        if noise is not None:
            thoughts = thoughts + noise
        embedded = model.causal_lm.get_input_embeddings()(ids)
        before = embedded[:, : -model.thoughts - 1]
        outputs = model.causal_lm(
            inputs_embeds=torch.cat([before, thoughts.to(embedded.dtype), embedded[:, -1:]], dim=1),
            attention_mask=mask,
            position_ids=indices,
            output_hidden_states=True,
            use_cache=False,
        )
        vectors = model.pooling.pool(outputs.hidden_states[-1].float(), mask, model.thoughts)
        return Passed(vectors, thoughts, outputs.logits, ids, mask)

    @torch.no_grad()
    def vectors(self, rows: Rows, noise: Tensor | None = None) -> Tensor:
        """Vectors (n, d) in batches, in the order of `rows`."""
        starts = range(0, len(rows), self.batch)
        parts = [slice(start, start + self.batch) for start in starts]
        return torch.cat(
            [self.two_passes(rows[part], None if noise is None else noise[part]).vectors for part in parts]
        )

    def contrast(self, first: Rows, second: Rows, loss: Loss, temperature: Tensor) -> Tensor:
        """The loss of a step on pairs of views, with gradient: one batch per view, even if that takes much memory."""
        return loss.loss(self.two_passes(first).vectors, self.two_passes(second).vectors, temperature)

    def reinforce(
        self,
        rows: Rows,
        candidates: Sequence[Rows],
        weights: Tensor,
        noise: Tensor,
        settings: Reinforcement,
        sigma: float,
    ) -> Judged:
        """A CRRL step: rows of g items, N candidates of each, weights (g, N), noise (g * G, j, d).

        Sequences that pass through the model, an item: 2 G for the rollouts, 2 G N for the candidates, which every
        rollout has for itself; then with `token-logprob-paper` 2 G for the old log-probabilities and 2 G in each
        iteration for the new ones, half of these with a backward pass too; with `gaussian` G in each iteration, for
        the thought alone. With G = 8, N = 10 and two iterations: 224 forward and 16 backward, or 192 forward.
        """
        group = settings.group
        copies = [row for row in rows for _ in range(group)]
        alternatives = [row for rows_of_item in candidates for _ in range(group) for row in rows_of_item]
        with torch.no_grad():
            rolled = self.vectors(copies, noise)
            ranked = self.vectors(alternatives).view(len(copies), -1, rolled.shape[1])
            scores = (ranked @ rolled.unsqueeze(2)).view(len(rows), group, -1)
            rewards = settings.reward.reward(scores, weights.unsqueeze(1))
            advantages = settings.advantage.advantage(rewards)
        shares = advantages.flatten()
        if isinstance(settings.policy, Gaussian):
            return Judged(rewards, advantages, self._gaussian_losses(copies, noise, shares, settings, sigma))
        return Judged(rewards, advantages, self._token_losses(copies, noise, shares, settings))

    def token_logprobs(self, rows: Rows, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(n, L): log-softmax of the head's logits at each token, read at that token, and which of them are real."""
        passed = self.two_passes(rows, noise)
        logprobs = torch.log_softmax(passed.logits.float(), dim=-1)
        return logprobs.gather(2, passed.ids.unsqueeze(2)).squeeze(2), passed.mask.bool()

    def _token_losses(
        self, copies: Rows, noise: Tensor, advantages: Tensor, settings: Reinforcement
    ) -> Iterator[Tensor]:
        with torch.no_grad():
            old, _ = self.token_logprobs(copies, noise)
        for _ in range(settings.iterations):
            new, counted = self.token_logprobs(copies, noise)
            yield _clipped((new - old).exp(), advantages, settings)[counted].mean()

    def _gaussian_losses(
        self, copies: Rows, noise: Tensor, advantages: Tensor, settings: Reinforcement, sigma: float
    ) -> Iterator[Tensor]:
        ids, mask = self._padded(copies)
        indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
        noisy = torch.arange(len(noise)) % settings.group > 0
        actions = old = None
        for _ in range(settings.iterations):
            means = self._thoughts(ids, mask, indices)
            actions = (means + noise).detach() if actions is None else actions
            new = -((actions - means) / sigma).square().flatten(1).sum(dim=1, keepdim=True) / 2
            old = new.detach() if old is None else old
            yield _clipped((new - old).exp(), advantages, settings)[noisy].mean()

    def _thoughts(self, ids: Tensor, mask: Tensor, indices: Tensor) -> Tensor:
        """Thoughts (n, j, d) by the first pass, which has no gradient."""
        model = self.model
        with torch.no_grad():
            outputs = model.causal_lm(
                input_ids=ids, attention_mask=mask, position_ids=indices, output_hidden_states=True, use_cache=False
            )
        end = ids.shape[1] - model.thoughts - 1
        columns = torch.arange(end, device=ids.device).expand(len(ids), -1)
        positions = indices[:, :end] if model.template.padding == "right" else columns
        assert model.reasoner is not None
        thoughts: Tensor = model.reasoner(outputs.hidden_states[-1][:, :end].float(), mask[:, :end], positions)
        return thoughts

    def _padded(self, rows: Rows) -> tuple[Tensor, Tensor]:
        model = self.model
        assert model.thought_id is not None
        tail = [model.thought_id] * model.thoughts + [model.eos_id]
        longest = max(map(len, rows))
        ids = [[model.eos_id] * (longest - len(row)) + [*row] + tail for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * (len(row) + len(tail)) for row in rows]
        return torch.tensor(ids, device=model.device), torch.tensor(mask, device=model.device)


def _clipped(ratio: Tensor, advantages: Tensor, settings: Reinforcement) -> Tensor:
    """Minus the clipped objective of each term: ratio (n, terms), advantages (n,)."""
    weights = advantages.unsqueeze(1)
    policy: Any = settings.policy
    return -torch.minimum(ratio * weights, ratio.clamp(1 - policy.low, 1 + policy.high) * weights)
