"""LRCL: latent reasoning-enhanced contrastive learning, the method's first stage."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from reaemb_bench.artifacts import Corpus, Encoder
from reaemb_bench.context import Context, Tick
from reaemb_bench.distributed import from_first, is_first
from reaemb_bench.errors import UserError
from reaemb_bench.kinds import AnyLoss
from reaemb_bench.steps.tune import LoraSettings

_LONG_TEXTS = 16
"""Texts that are tokenised to know how much memory a prompt takes."""


class Contrast(LoraSettings):
    """Train LoRA, the reasoner and a temperature so that two views of an item's attributes meet.

    Source: arXiv 2606.16703, Stage I. The defaults repair the authors' code: views drawn anew in every epoch,
    negatives from the whole batch whatever the machine's micro-batch. `views = "once"`, `negatives = "micro-batch"`
    and `passes = 2` are theirs.
    """

    together: ClassVar[bool] = True
    version: ClassVar[int] = 2

    loss: AnyLoss = "soft-target"  # type: ignore[assignment]
    """The contrastive loss."""
    batch_size: int = Field(default=512, ge=2)
    """Pairs of views a step; at most as many as there are items."""
    views: Literal["every-epoch", "once", "same"] = "every-epoch"
    """When the two views of an item are drawn; `same` takes the whole text twice, so that nothing but LoRA's dropout
    tells the two apart (unsupervised SimCSE, arXiv 2104.08821)."""
    drop: float = Field(default=0.4, ge=0, lt=1)
    """Share of an item's attributes that each view leaves out."""
    negatives: Literal["batch", "micro-batch"] = "batch"
    """Where the negatives of a pair come from: all pairs of the step, or those of its block of `device_batch`."""
    device_batch: int = Field(default=64, ge=2)
    """Pairs a block where negatives = "micro-batch": what one of the authors' GPUs held."""
    passes: Literal[1, 2] = 1
    """1 reads the prompt once and continues from its cache; 2 reads it twice, with two masks of LoRA dropout."""
    padding: Literal["left", "right"] | None = None
    """Padding side in this stage, for `latent-thought-paper`; None takes the encoder's."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter, a trained reasoner and the temperature it arrived at."""
        from reaemb_bench.encoding.tuning import seeded

        if not self.steps:
            return encoder
        with seeded(context):
            return self._train(corpus, encoder, context)

    def _pairs(self, corpus: Corpus, items: list[int], seed: int, epoch: int) -> list[tuple[str, str]]:
        from reaemb_bench.encoding.contrastive import view_pairs

        if self.views == "same":
            return [(corpus.texts[item], corpus.texts[item]) for item in items]
        return view_pairs(corpus, items, self.drop, seed, 0 if self.views == "once" else epoch)

    def _train(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        import torch

        from reaemb_bench.encoding.batching import micro_batch
        from reaemb_bench.encoding.checkpoint import Checkpoints
        from reaemb_bench.encoding.contrastive import ContrastiveLearner, batches, step_seed
        from reaemb_bench.encoding.folder import open_encoder, with_adapter
        from reaemb_bench.finite import check_parameters

        model = open_encoder(encoder, context.machine)
        model.template = replace(model.template, padding=self.padding or model.template.padding)
        # Most characters are not always most tokens, but hardly ever are they far from it.
        longest = model.tokenize(sorted(corpus.texts, key=len)[-_LONG_TEXTS:])
        length = max(map(len, longest)) + model.thoughts + 1
        # Hosts may differ in free memory, but all processes must share the same groups.
        room = from_first(micro_batch(context.machine, model.shape, length, learns=True))[0]
        learner = ContrastiveLearner(self, model, room)
        model.train()
        checkpoints = Checkpoints(context.scratch, learner.parameters, learner.optimiser)
        curve, learner.tokens = checkpoints.restore()
        if from_first(len(curve)) != [len(curve)]:
            raise UserError("this process finds another checkpoint than process 0; give all hosts the same --store")
        drawn = batches(corpus.items, min(self.batch_size, corpus.items), context.seed)
        for number, (epoch, items) in zip(range(1, self.steps + 1), drawn, strict=False):
            if number > len(curve):
                pairs = self._pairs(corpus, items, context.seed, epoch)
                # Every step has a seed of its own, so that a resumed run draws the same dropout masks.
                torch.manual_seed(step_seed(context.seed, number))
                curve.append((learner.step(number, pairs, items), learner.temperature.item()))
                if is_first():
                    checkpoints.save(curve, learner.tokens)
            loss, temperature = curve[number - 1]
            context.report(Tick(number, self.steps, "steps", {"loss": loss, "temperature": temperature}))
        check_parameters(learner.parameters, f"step {self.steps}")
        if not is_first():
            return encoder
        context.note(
            {
                "trained_parameters": sum(parameter.numel() for parameter in learner.parameters),
                "tokens": learner.tokens,
                "pairs_per_step": min(self.batch_size, corpus.items),
            }
        )
        folder = context.scratch / "encoder"
        return with_adapter(encoder, folder, model, learner.adapter, learner.temperature.item())
