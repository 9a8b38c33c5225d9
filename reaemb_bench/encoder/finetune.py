"""What steps that train a language model, or something in front of it, have in common; settings alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from reaemb_bench.core.artifacts import Encoder
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.errors import check_finite, check_parameters, gradient_norm
from reaemb_bench.encoder.folder import open_encoder, read_parts, with_adapter
from reaemb_bench.encoder.lora import LoraSettings, TuneSettings, add_lora, step_seed
from reaemb_bench.encoder.memory import by_length, micro_batch
from reaemb_bench.encoder.thought_model import ThoughtModel

# Tuning by a loss that is a sum over examples: LoRA in a language model, or parameters in front of a frozen one.
#
# Contrastive losses, which couple the examples of a batch, are in `contrastive`. Shapes: n examples, L tokens.


class Example(Protocol):
    """Something to learn from."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens that the language model reads."""

    @property
    def terms(self) -> int:
        """How many terms of the loss come from it."""


E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class Question:
    """A sequence of tokens, and the tokens `targets` to be predicted from the states at its `places`."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def terms(self) -> int:
        """One a target."""
        return len(self.targets)


@dataclass(frozen=True)
class Task(Generic[E]):
    """What a tuning learns: batches without end, the sum of the losses of some examples, and what is trained."""

    batches: Iterator[Sequence[E]]
    loss: Callable[[Sequence[E]], Tensor]
    parameters: Sequence[nn.Parameter]


def tuned(
    encoder: Encoder, settings: LoraSettings, context: Context, task: Callable[[ThoughtModel], Task[E]]
) -> Encoder:
    """The encoder with one more adapter, trained on what `task` makes of the opened model.

    task: its parameters are those that train beside LoRA. An interrupted tuning begins anew.
    """
    if not settings.steps:
        return encoder
    with seeded(context):
        model = open_encoder(encoder, context.machine)
        adapter = add_lora(model, settings)
        lora = [parameter for parameter in model.parameters() if parameter.requires_grad]
        given = task(model)
        model.train()
        tune(model, Task(given.batches, given.loss, [*lora, *given.parameters]), settings, context)
        return with_adapter(encoder, context.scratch / "encoder", model, adapter, read_parts(encoder).temperature)


@contextmanager
def seeded(context: Context) -> Iterator[None]:
    """A block in which torch draws from the step's seed, and after which it goes on as before."""
    device = context.machine.torch_device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(context.seed)
        yield


def tune(model: ThoughtModel, task: Task[E], settings: TuneSettings, context: Context) -> None:
    """Train the task's parameters in place; progress and facts go to `context`.

    The loss of a step is the mean over the terms of its examples, however many of them pass through the model at
    once. Raises UserError where loss, gradient or what was learned is not finite.
    """
    optimiser = torch.optim.AdamW(task.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    tokens = 0
    for number, examples in zip(range(1, settings.steps + 1), task.batches, strict=False):
        # Every step has a seed of its own, so that its dropout depends on nothing before it.
        torch.manual_seed(step_seed(context.seed, number))
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - (number - 1) / settings.steps)
        optimiser.zero_grad(set_to_none=True)
        value = _accumulate(model, task, examples, context)
        check_finite("loss", value, f"step {number}")
        norm = gradient_norm(task.parameters, settings.clip_norm)
        check_finite("gradient norm", norm.item(), f"step {number}")
        optimiser.step()
        tokens += sum(len(example.ids) for example in examples)
        context.report(Progress(number, settings.steps, "steps", {"loss": value}))
    check_parameters(task.parameters, f"step {settings.steps}")
    trained = sum(parameter.numel() for parameter in task.parameters)
    context.note({"trained_parameters": trained, "tokens": tokens})


def _accumulate(model: ThoughtModel, task: Task[E], examples: Sequence[E], context: Context) -> float:
    lengths = [len(example.ids) for example in examples]
    terms = sum(example.terms for example in examples)
    room = micro_batch(context.machine, model.shape, max(lengths), learns=True)
    total = 0.0
    for group in by_length(lengths, room, model.start):
        part = task.loss([examples[place] for place in group.tolist()]) / terms
        part.backward()  # type: ignore[no-untyped-call]
        total += part.item()
    return total


def token_loss(model: ThoughtModel, questions: Sequence[Question], *, bidirectional_mask: bool) -> Tensor:
    """Sum of the cross-entropies of all targets, a scalar; both_ways: each token sees all, not only those before."""
    tokens = model.tokens([question.ids for question in questions])
    states = model.states(tokens, bidirectional_mask=bidirectional_mask)
    rows, columns = asked_at(questions, states.shape[1])
    # Only what is asked: logits over the whole vocabulary are many numbers.
    logits = model.causal_lm.get_output_embeddings()(states[rows, columns]).float()
    targets = torch.tensor([target for question in questions for target in question.targets], device=logits.device)
    return functional.cross_entropy(logits, targets, reduction="sum")


def asked_at(questions: Sequence[Question], length: int) -> tuple[list[int], list[int]]:
    """Row and column of each place that is asked for, in a left-padded batch of sequences of `length` columns."""
    rows = [row for row, question in enumerate(questions) for _ in question.places]
    columns = [length - len(question.ids) + place for question in questions for place in question.places]
    return rows, columns
