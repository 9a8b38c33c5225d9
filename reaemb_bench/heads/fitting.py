"""Fit a recommender: batches, loss, validation, early stopping."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from reaemb_bench.artifacts import Corpus, Float32, Int64, Ranker, Sequences, Signal
from reaemb_bench.context import Context, Tick
from reaemb_bench.errors import UserError
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.heads.batching import Untouched, pad, shuffled_batches
from reaemb_bench.heads.scoring import NetworkScorer
from reaemb_bench.kinds import ItemTable
from reaemb_bench.training import training

if TYPE_CHECKING:
    from reaemb_bench.steps.train import TrainSettings

CUTOFF = 10


def fit(
    corpus: Corpus,
    signal: Signal,
    vectors: Float32 | None,
    items: ItemTable,
    settings: TrainSettings,
    context: Context,
) -> Ranker:
    """Train until validation NDCG@10 has not risen for `patience` epochs; the best epoch's weights, as a Ranker."""
    device = context.machine.torch_device()
    rows = np.flatnonzero(corpus.training.lengths > 1)
    if not len(rows):
        raise UserError("no user has two training interactions to learn an order from; loosen prepare.filters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        network = settings.head.build(items.build(corpus.items, settings.head.hidden, vectors)).to(device)
        loss = training_loss(network, corpus, settings, np.random.default_rng(context.seed), device)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        context.note({"trained_parameters": sum(parameter.numel() for parameter in trained)})
        optimiser = torch.optim.Adam(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)

        def batches(epoch: int) -> list[Int64]:
            # Seeded by epoch, so that a run can be picked up at any epoch.
            order = np.random.default_rng([context.seed, epoch])
            return [rows[part] for part in shuffled_batches(corpus.training.lengths[rows], settings.batch_size, order)]

        best = _fit_epochs(network, optimiser, batches, loss, corpus, signal, settings, context)
    tensors = {name: tensor.cpu().numpy() for name, tensor in best.items()}
    return Ranker(head=settings.head.spec(), tensors=tensors)


def training_loss(
    network: nn.Module, corpus: Corpus, settings: TrainSettings, generator: np.random.Generator, device: torch.device
) -> Callable[[Int64], Tensor]:
    """The loss of a batch of user numbers: each position of a training sequence predicts the item after it."""
    objective = settings.objective
    max_length, left = settings.head.max_length, bool(network.left_padded)
    untouched = Untouched.by(corpus.training, corpus.items)

    def loss(users: Int64) -> Tensor:
        sequences = corpus.training.select(users)
        inputs, targets = shifted(sequences)
        batch = pad(inputs, max_length, left=left, device=device)
        wanted = pad(targets, max_length, left=left, device=device)
        places = torch.arange(batch.items.shape[1], device=device)
        lengths = batch.lengths[:, None]
        real = places >= places.shape[0] - lengths if left else places < lengths
        table = network.table()  # type: ignore[operator]
        outputs = network(batch.items, batch.lengths, table)[real]
        negatives = None
        if objective.negatives:
            owners = np.repeat(users, batch.lengths.cpu().numpy())
            drawn = untouched.draw(owners, objective.negatives, generator)
            negatives = torch.from_numpy(drawn).to(device)
        return objective.loss(outputs, wanted.items[real], table, negatives)

    return loss


def shifted(sequences: Sequences) -> tuple[Sequences, Sequences]:
    """Inputs (all but each user's last item) and targets (all but each user's first); every user has two items."""
    offsets = sequences.offsets - np.arange(sequences.users + 1)
    first = np.ones(len(sequences.items), dtype=bool)
    last = np.ones(len(sequences.items), dtype=bool)
    first[sequences.offsets[:-1]] = False
    last[sequences.offsets[1:] - 1] = False
    return Sequences(sequences.items[last], offsets), Sequences(sequences.items[first], offsets)


def _fit_epochs(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Callable[[int], list[Int64]],
    loss: Callable[[Int64], Tensor],
    corpus: Corpus,
    signal: Signal,
    settings: TrainSettings,
    context: Context,
) -> dict[str, Tensor]:
    best, best_value, best_epoch = _snapshot(network), -1.0, -1
    total = 0.0
    network.train()
    for update in training(optimiser, settings.epochs, batches, loss):
        total += update.loss
        if not update.ends_epoch:
            continue
        in_epoch = update.steps // settings.epochs
        value = validation_ndcg(network, corpus, signal)
        values = {"loss": total / in_epoch, f"validation/ndcg@{CUTOFF}": value}
        context.report(Tick(update.epoch + 1, settings.epochs, "epochs", values))
        total = 0.0
        if value > best_value:
            best, best_value, best_epoch = _snapshot(network), value, update.epoch
        if update.epoch - best_epoch >= settings.patience:
            break
        network.train()
    context.note({"best_epoch": best_epoch + 1, "best_validation_ndcg": best_value})
    return best


def validation_ndcg(network: nn.Module, corpus: Corpus, signal: Signal) -> float:
    """Mean NDCG@10 of the validation targets against the whole catalogue; leaves the network in eval mode."""
    network.eval()
    with torch.no_grad():
        scorer = NetworkScorer(network, network.table())  # type: ignore[operator]
    ranks = rank_targets(
        scorer, corpus.training, signal.users, signal.targets, signal.candidates, popularity=corpus.popularity
    )
    return float(ndcg(ranks.better, ranks.tied, CUTOFF).mean())


def _snapshot(network: nn.Module) -> dict[str, Tensor]:
    """The state from which `open_ranker` restores: all parameters, and the item vectors as the head reads them."""
    with torch.no_grad():
        vectors = network.table().detach().clone()  # type: ignore[operator]
    return {**{name: tensor.clone() for name, tensor in network.state_dict().items()}, "vectors": vectors}
