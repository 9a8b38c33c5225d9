"""Tuning by a loss that is a sum over examples: LoRA in a language model, or parameters in front of a frozen one.

Contrastive losses, which couple the examples of a batch, are in `lrcl`. Shapes: n examples, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from reaemb_bench.core.artifacts import Encoder
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.training import Checkpoints, training, update
from reaemb_bench.encoder.dropout import enable_dropout
from reaemb_bench.encoder.folder import open_encoder, read_parts, with_adapter
from reaemb_bench.encoder.lora import LoraSettings, TuneSettings, add_lora, step_seed
from reaemb_bench.encoder.memory import by_length, micro_batch
from reaemb_bench.encoder.thought_model import ThoughtModel


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
        """One for each target."""
        return len(self.targets)


@dataclass(frozen=True)
class Task(Generic[E]):
    """What a tuning learns: endless batches, the sum of the losses of some examples, and what is trained.

    parameters learn at the learning rate of the settings, and faster at `fast_rate`.
    """

    batches: Iterator[Sequence[E]]
    loss: Callable[[Sequence[E]], Tensor]
    parameters: Sequence[nn.Parameter]
    faster: Sequence[nn.Parameter] = ()
    fast_rate: float = 0.0


def tuned(
    encoder: Encoder, settings: LoraSettings, context: Context, task: Callable[[ThoughtModel], Task[E]]
) -> Encoder:
    """The encoder with one more adapter, trained on the task that `task` returns for the opened model.

    The parameters of that task are those that train besides LoRA.
    """
    if not settings.steps:
        return encoder
    with seeded(context):
        context.phase("loading the model")
        model = open_encoder(encoder, context.machine)
        adapter = add_lora(model, settings)
        lora = [parameter for parameter in model.parameters() if parameter.requires_grad]
        given = task(model)
        enable_dropout(model)
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
    """Trains the task's parameters in place; an interrupted tuning goes on from its last checkpoint.

    The loss of a step is the mean over the terms of its examples, however many of them pass through the model at
    once. Raises NotFiniteError if loss, gradient or what was learned is not finite.
    """
    groups = [(task.parameters, settings.learning_rate), (task.faster, task.fast_rate)]
    groups = [(parameters, rate) for parameters, rate in groups if parameters]
    optimiser = torch.optim.AdamW(
        [{"params": list(parameters), "lr": rate} for parameters, rate in groups], weight_decay=settings.weight_decay
    )
    checkpoints = Checkpoints(context.scratch, optimiser)
    drawn = islice(task.batches, len(checkpoints.curve), None)

    def learn(step: int) -> dict[str, float]:
        examples = next(drawn)
        model.mask_keys.step = step_seed(context.seed, step)
        lengths = [len(example.ids) for example in examples]
        terms = sum(example.terms for example in examples)
        at_once = micro_batch(context.machine, model.shape, max(lengths), learns=True)
        losses = []
        optimiser.zero_grad(set_to_none=True)
        for group in by_length(lengths, at_once, model.start):
            model.mask_keys.rows = group
            loss = task.loss([examples[row] for row in group.tolist()]) / terms
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        rates = [rate * (1 - (step - 1) / settings.steps) for _, rate in groups]
        total = torch.stack(losses).sum()
        value = update(optimiser, total, f"step {step}", clip_norm=settings.clip_norm, learning_rate=rates)
        return {"loss": value, "tokens": sum(lengths)}

    for step, values in training(settings.steps, learn, checkpoints):
        context.report(Progress(step, settings.steps, "steps", {"loss": values["loss"]}))
    trained = sum(parameter.numel() for parameters, _ in groups for parameter in parameters)
    tokens = sum(values["tokens"] for values in checkpoints.curve)
    context.note({"trained_parameters": trained, "tokens": int(tokens)})


def token_loss(model: ThoughtModel, questions: Sequence[Question], *, bidirectional: bool) -> Tensor:
    """Sum of the cross-entropies of all targets, a scalar; bidirectional: each token sees the whole sequence."""
    tokens = model.tokens([question.ids for question in questions])
    states = model.states(tokens, bidirectional=bidirectional)
    # Sequences are padded on the left.
    length = states.shape[1]
    rows = [row for row, question in enumerate(questions) for _ in question.places]
    columns = [length - len(question.ids) + index for question in questions for index in question.places]
    # Only what is asked: logits over the whole vocabulary are many numbers.
    logits = model.causal_lm.get_output_embeddings()(states[rows, columns]).float()
    targets = torch.tensor([target for question in questions for target in question.targets], device=logits.device)
    return functional.cross_entropy(logits, targets, reduction="sum")
