"""AlphaRec (arXiv 2407.05441): text vectors through a small network and the user-item graph, without ids."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Corpus, Float64, Int64, Vectors
from reaemb_bench.core.component import Context, Progress, Randomness, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.training import training, update
from reaemb_bench.encoder.finetune import seeded
from reaemb_bench.recommender.fit import NegativeSampler
from reaemb_bench.recommender.item_tables import centred_unit_rms


class AlphaRec(Step):
    """Item vectors of a graph recommender that reads no ids: those of texts, mapped and mixed over the interactions.

    A user is the mean of the text vectors of the training items. One network of two layers maps users and items;
    their vectors are averaged with those of their neighbours in the user-item graph, and those of their neighbours'
    neighbours. The loss contrasts a user's items with random others by cosine (InfoNCE).
    Source: Sheng et al., "Language Representations Can be What Recommenders Need", ICLR 2025, arXiv 2407.05441.
    """

    randomness: ClassVar[Randomness] = "recommender"

    dimensions: int = Field(default=128, ge=1)
    """Width of the item vectors."""
    inner: int = Field(default=512, ge=1)
    """Width between the network's two layers."""
    layers: int = Field(default=2, ge=0)
    """Steps over the graph."""
    temperature: float = Field(default=0.15, gt=0)
    """Temperature of the contrast."""
    negatives: int = Field(default=256, ge=1)
    """Random items, which the user has not, that a pair is contrasted with."""
    batch_size: int = Field(default=1024, ge=1)
    """Pairs of a user and an item per step."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Adam's learning rate."""
    epochs: int = Field(default=20, ge=1)
    """Passes over the pairs."""

    def run(self, corpus: Corpus, vectors: Vectors, context: Context) -> Vectors:
        """(items, dimensions), each at length 1. Raises UserError if there is no training interaction."""
        pairs = np.unique(corpus.training.owners * corpus.items + corpus.training.items)
        if not len(pairs):
            raise UserError("there is no training interaction to learn from; loosen prepare.filters")
        users, items = np.divmod(pairs, corpus.items)
        device = context.machine.torch_device()
        with seeded(context):
            texts = centred_unit_rms(torch.from_numpy(vectors.values)).to(device)
            network = nn.Sequential(
                nn.Linear(texts.shape[1], self.inner), nn.LeakyReLU(), nn.Linear(self.inner, self.dimensions)
            ).to(device)
            graph = Graph(users, items, corpus.users, corpus.items, device)
            averages = graph.mean_over_items(texts)
            optimiser = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
            sampler = NegativeSampler.from_sequences(corpus.training, corpus.items)

            def directions() -> tuple[Tensor, Tensor]:
                mixed = graph.mixed(network(averages), network(texts), self.layers)
                return F.normalize(mixed[0], dim=1), F.normalize(mixed[1], dim=1)

            def learn(epoch: int) -> dict[str, float]:
                draw = np.random.default_rng([context.seed, epoch])
                order = draw.permutation(len(pairs))
                total, batches = 0.0, np.split(order, range(self.batch_size, len(order), self.batch_size))
                for batch in batches:
                    others = sampler.draw(users[batch], self.negatives, draw)
                    candidates = torch.from_numpy(np.hstack([items[batch, None], others])).to(device)
                    of_users, of_items = directions()
                    cosines = (of_users[users[batch], None] * of_items[candidates]).sum(dim=2)
                    first = torch.zeros(len(batch), dtype=torch.long, device=device)
                    loss = F.cross_entropy(cosines / self.temperature, first)
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    total += update(optimiser, loss, f"epoch {epoch}", users[batch], whose="user")
                return {"loss": total / len(batches)}

            for epoch, values in training(self.epochs, learn):
                context.report(Progress(epoch, self.epochs, "epochs", values))
            context.note({"trained_parameters": sum(parameter.numel() for parameter in network.parameters())})
            with torch.no_grad():
                return Vectors(directions()[1].cpu().numpy())


class Graph:
    """The graph of users and the items that they have, without weights: numbers of both ends of each edge, (edges,)."""

    def __init__(self, users: Int64, items: Int64, user_count: int, item_count: int, device: torch.device) -> None:
        of_users, of_items = np.bincount(users)[users], np.bincount(items)[items]
        ends, shape = torch.from_numpy(np.stack([users, items])), (user_count, item_count)

        def weighted(weights: Float64) -> Tensor:
            values = torch.from_numpy(weights.astype(np.float32))
            return torch.sparse_coo_tensor(ends, values, shape, device=device, check_invariants=True).coalesce()

        self.mean, self.symmetric = weighted(1 / of_users), weighted(1 / np.sqrt(of_users * of_items))

    def mean_over_items(self, vectors: Tensor) -> Tensor:
        """The mean vector (users, width) of each user's items; zeros for a user without any."""
        means: Tensor = torch.sparse.mm(self.mean, vectors)
        return means

    def mixed(self, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """The mean over 0 to `layers` steps along the edges, each weighted by both ends' degrees (LightGCN)."""
        sums, steps = (users, items), (users, items)
        for _ in range(layers):
            steps = torch.sparse.mm(self.symmetric, steps[1]), torch.sparse.mm(self.symmetric.T, steps[0])
            sums = sums[0] + steps[0], sums[1] + steps[1]
        return sums[0] / (layers + 1), sums[1] / (layers + 1)
