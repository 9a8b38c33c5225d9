"""Train a sequential recommender on the training sequences, stopped early by the validation targets."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Float32, Int64, Ranker, Sequences, ValidationTargets, Vectors
from reaemb_bench.core.component import Context, DataAccess, Foreseen, Progress, Randomness, Step
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.training import training, update
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.recommender.item_tables import NO_VECTORS, AdapterSettings, Initialised, misfit
from reaemb_bench.recommender.kinds import AnyHead, AnyItemTable, AnyObjective, Head, ItemTable
from reaemb_bench.recommender.packing import pack, windows
from reaemb_bench.recommender.score import NetworkScorer

Penalty = Callable[[nn.Module, Tensor, Int64], Tensor]
"""From the network, all item vectors (items, hidden) and a batch's user numbers to a scalar that is added to its loss.
"""

CUTOFF = 10
_FUSED_ADAM = ("cpu", "cuda")
"""Devices on which one kernel updates all parameters."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's settings, from malloc.h."""


class TrainSettings(Step):
    """The settings that all training of recommenders shares."""

    version: ClassVar[int] = 2
    data_access: ClassVar[DataAccess] = "validation"
    randomness: ClassVar[Randomness] = "recommender"

    head: AnyHead = "sasrec"  # type: ignore[assignment]
    """The recommender."""
    objective: AnyObjective = "cross-entropy"  # type: ignore[assignment]
    """The training loss."""
    histories: Literal["newest", "windows"] = "newest"
    """What is trained on of a history longer than `head.max_length`: its newest part, as in most published code,
    or all of it in windows, each a training sequence of its own."""
    batch_size: int = Field(default=128, ge=1)
    """Training sequences per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's learning rate."""
    decay: bool = False
    """Whether the learning rate falls linearly, to 0 after the last of `epochs`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Adam's L2 penalty."""
    epochs: int = Field(default=200, ge=1)
    """Most passes over the training sequences."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a better validation NDCG@10 after which training stops; the best epoch's weights are kept."""
    trend: bool = True
    """Whether training goes on if validation still rises over the last 3 * `patience` epochs by more than chance.
    Otherwise one lucky epoch may end the training of a head that learns slowly."""


class Train(TrainSettings):
    """Train a head over item vectors."""

    items: AnyItemTable = "frozen"  # type: ignore[assignment]
    """Where its item vectors come from."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """Nothing. Raises RecipeError if the item table cannot take vectors of this width."""
        if reason := misfit(self.items, self.head.hidden, given[Vectors].width):
            raise RecipeError(reason, ("items",))
        return Foreseen()

    def run(self, corpus: Corpus, validation_targets: ValidationTargets, vectors: Vectors, context: Context) -> Ranker:
        """The recommender at its best epoch."""
        return fit(corpus, validation_targets, vectors.values, self.items, self, context)


class TrainIds(TrainSettings):
    """Train a head over ids alone: the baseline that reads no text."""

    items: AnyItemTable = "ids"  # type: ignore[assignment]
    """Where its item vectors come from; a table that reads no vectors."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """Nothing. Raises RecipeError if the item table reads vectors."""
        if isinstance(self.items, Initialised | AdapterSettings):
            raise RecipeError(NO_VECTORS, ("items",))
        return Foreseen()

    def run(self, corpus: Corpus, validation_targets: ValidationTargets, context: Context) -> Ranker:
        """The recommender at its best epoch."""
        return fit(corpus, validation_targets, None, self.items, self, context)


def fit(
    corpus: Corpus,
    validation_targets: ValidationTargets,
    vectors: Float32 | None,
    items: ItemTable,
    settings: TrainSettings,
    context: Context,
    penalty: Penalty | None = None,
) -> Ranker:
    """Train until validation NDCG@10 no longer rises; returns the best epoch's weights.

    penalty: a further term of each batch's loss; a user may be in a batch with several windows.
    """
    head, objective, device = settings.head, settings.objective, context.machine.torch_device()
    sequences, owners = corpus.training, np.arange(corpus.users)
    if settings.histories == "windows":
        sequences, owners = windows(corpus.training, training_length(head))
    rows = np.flatnonzero(sequences.lengths > 1)
    if not len(rows):
        raise UserError("no user has two training interactions to learn an order from; loosen prepare.filters")
    if not len(validation_targets.users):
        raise UserError("no user has a validation target, by which training is stopped; choose another prepare.split")
    with torch.random.fork_rng(devices=[]), _fast_memory():
        torch.manual_seed(context.seed)
        network = head.build(items.build(corpus.items, head.hidden, vectors)).to(device)
        generator = np.random.default_rng(context.seed)
        sampler = NegativeSampler.from_sequences(corpus.training, corpus.items) if objective.negatives else None
        # An objective may ask for the items that occur in training alone.
        occurs = torch.from_numpy(np.flatnonzero(corpus.popularity)).to(device)
        trained_items = occurs if getattr(objective, "trained_items", False) else None
        read_lengths = np.minimum(sequences.lengths, head.max_length + 1)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        read = corpus.training.lengths[corpus.training.owners] > 1
        if settings.histories == "newest":
            from_end = corpus.training.offsets[1:][corpus.training.owners] - np.arange(len(read))
            read &= from_end <= training_length(head)
        context.note(
            {
                "trained_parameters": sum(parameter.numel() for parameter in trained),
                "training_interactions": len(read),
                "interactions_not_trained_on": len(read) - int(read.sum()),
                "items_not_trained_on": len(np.setdiff1d(corpus.training.items, corpus.training.items[read])),
                "users_not_trained_on": len(np.setdiff1d(corpus.training.owners, corpus.training.owners[read])),
            }
        )
        optimiser = torch.optim.Adam(
            trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=device.type in _FUSED_ADAM
        )

        def loss(batch: Int64) -> Tensor:
            """The loss of a batch of training sequences, by their numbers."""
            # Neighbours of similar length share a grid in attention.
            batch = batch[np.argsort(read_lengths[batch], kind="stable")]
            users = owners[batch]
            examples = head.training_examples(sequences.select(batch), corpus.items, generator)
            table = network.table()  # type: ignore[operator]
            packed = pack(examples.inputs, head.max_length, device)
            outputs = network(packed, table, torch.from_numpy(examples.indices).to(device))
            negatives = None
            if sampler is not None:
                drawn = sampler.draw(users[examples.rows], objective.negatives, generator)
                negatives = torch.from_numpy(drawn).to(device)
            targets = torch.from_numpy(examples.targets).to(device)
            if trained_items is None:
                value = objective.loss(outputs, targets, table, negatives)
            else:
                among = torch.searchsorted(trained_items, targets)
                value = objective.loss(outputs, among, table[trained_items], negatives)
            return value if penalty is None else value + penalty(network, table, users)

        def learn(epoch: int) -> dict[str, float]:
            network.train()
            order = np.random.default_rng([context.seed, epoch - 1]).permutation(rows)
            batches = np.split(order, range(settings.batch_size, len(order), settings.batch_size))
            total = 0.0
            for step, batch in enumerate(batches, 1 + (epoch - 1) * len(batches)):
                optimiser.zero_grad(set_to_none=True)
                batch_loss = loss(batch)
                batch_loss.backward()  # type: ignore[no-untyped-call]
                share = 1 - (step - 1) / (settings.epochs * len(batches)) if settings.decay else 1.0
                rate, where = settings.learning_rate * share, f"step {step} (epoch {epoch})"
                total += update(optimiser, batch_loss, where, owners[batch], whose="user", learning_rate=rate)
            network.eval()
            with torch.no_grad():
                scorer = NetworkScorer(head, network, network.table())  # type: ignore[operator]
            ranks = rank_targets(
                scorer,
                corpus.training,
                validation_targets.users,
                validation_targets.targets,
                validation_targets.candidates,
                popularity=corpus.popularity,
            )
            validation = float(ndcg(ranks.better, ranks.tied, CUTOFF).mean())
            return {"loss": total / len(batches), f"validation/ndcg@{CUTOFF}": validation}

        def snapshot() -> dict[str, Tensor]:
            """The state from which `open_ranker` restores: all parameters, and the item vectors as the head reads."""
            with torch.no_grad():
                table = network.table().detach().clone()  # type: ignore[operator]
            return {**{name: tensor.clone() for name, tensor in network.state_dict().items()}, "vectors": table}

        best, best_value, best_epoch = snapshot(), -1.0, 0
        curve: list[float] = []
        for epoch, values in training(settings.epochs, learn):
            context.report(Progress(epoch, settings.epochs, "epochs", values))
            value = values[f"validation/ndcg@{CUTOFF}"]
            if value > best_value:
                best, best_value, best_epoch = snapshot(), value, epoch
            curve.append(value)
            if epoch - best_epoch >= settings.patience and not (settings.trend and rising(curve, settings.patience)):
                break
    context.note({"best_epoch": best_epoch, "best_validation_ndcg": best_value})
    return Ranker(head=head.spec(), tensors={name: tensor.cpu().numpy() for name, tensor in best.items()})


def rising(curve: Sequence[float], patience: int) -> bool:
    """Whether the last 3 * `patience` epochs of a validation curve rise by more than chance (Mann 1945, Kendall 1975).

    That is, whether pairs of epochs whose later one is better outnumber the others by more than the standard error of
    that number in a curve without a trend. One lucky epoch counts no more than any other.
    """
    recent = np.array(curve[-3 * patience :])
    count = len(recent)
    surplus = np.tril(np.sign(recent[:, None] - recent)).sum()
    return bool(surplus > np.sqrt(count * (count - 1) * (2 * count + 5) / 18))


def training_length(head: Head) -> int:
    """How many items of a history training reads at most, targets included: those in the examples of a longer one."""
    first, length = 1_000_000, head.max_length + 2
    long = Sequences(np.arange(first, first + length, dtype=np.int32), np.array([0, length]))
    examples = head.training_examples(long, first + length, np.random.default_rng(0))
    read = np.union1d(examples.inputs.items, examples.targets)
    return int(np.count_nonzero((read >= first) & (read < first + length)))


@dataclass(frozen=True)
class NegativeSampler:
    """Draws uniform items that a user never touched.

    codes: sorted user * items + item of every distinct pair; touched: distinct items of each user, (users,).
    """

    items: int
    codes: Int64
    touched: Int64

    @classmethod
    def from_sequences(cls, sequences: Sequences, items: int) -> NegativeSampler:
        """The sampler for the users of `sequences`."""
        codes = np.unique(sequences.owners * items + sequences.items)
        touched = np.bincount(codes // items, minlength=sequences.users)
        # A search may end after the last pair; no pair has this code.
        return cls(items, np.append(codes, np.iinfo(np.int64).max), touched)

    def draw(self, owners: Int64, count: int, generator: np.random.Generator) -> Int64:
        """(positions, count) items that the owner of each position never touched.

        A user who touched every item gets uniform ones, because no others are left.
        """
        drawn = generator.integers(self.items, size=(len(owners), count))
        rows = np.flatnonzero(self.touched[owners] < self.items)
        while len(rows):
            codes = owners[rows, None] * self.items + drawn[rows]
            touched = self.codes[np.searchsorted(self.codes, codes)] == codes
            redraw = touched.any(axis=1)
            rows, touched = rows[redraw], touched[redraw]
            drawn[rows] = np.where(touched, generator.integers(self.items, size=touched.shape), drawn[rows])
        return drawn


@contextmanager
def _fast_memory() -> Iterator[None]:
    """Treats numbers below 1e-38 as zeros, and makes glibc keep freed blocks below 1 GiB for the next request.

    A softmax over a catalogue makes many such numbers, and each costs many cycles. By default each large tensor goes
    back to the system at once, and the next one costs a page fault every 4 KiB; another C library has no such settings.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    glibc = library if library is not None and hasattr(library, "mallopt") else None
    torch.set_flush_denormal(True)
    if glibc is not None:
        glibc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        glibc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        if glibc is not None:
            # The highest values that glibc chooses by itself.
            glibc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
            glibc.mallopt(_M_TRIM_THRESHOLD, 1 << 26)
            glibc.malloc_trim(0)
