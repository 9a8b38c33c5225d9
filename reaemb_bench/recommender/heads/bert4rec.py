"""BERT4Rec: bidirectional self-attention that restores masked items (Sun et al., CIKM 2019)."""

from __future__ import annotations

from functools import partial
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Int64, Sequences
from reaemb_bench.recommender.attention import AttentionSettings, Block, CountFrom, SelfAttentive, attend
from reaemb_bench.recommender.packing import Examples, Packed, newest, pack


class BERT4Rec(AttentionSettings):
    """Self-attention over the whole history; a mask appended to it asks for the next item.

    Item vectors and the last layer norm are SASRec's; the authors have a projection with GELU and item biases there.
    """

    max_length: int = Field(default=50, ge=2)
    """Most recent positions that are read, the mask included."""
    block: Literal["sasrec", "bert"] = "sasrec"
    """`sasrec`: the block of that head, so that the two differ in their training task and not in their layers. `bert`:
    the authors', with layer norms after the residuals, GELU and an inner layer four times as wide."""
    mask_probability: float = Field(default=0.2, gt=0, le=1)
    """Share of positions that are to be restored in training."""
    kept: float = Field(default=0.1, ge=0, le=1)
    """Share of those that show their own item."""
    replaced: float = Field(default=0.1, ge=0, le=1)
    """Share of those that show a random item; all others show the mask."""
    copies: Literal["none", "last", "prefix"] = "prefix"
    """Whether each sequence is added again with only its last item masked, as in scoring: whole, as in the paper's code
    (`last`), or cut after a random item."""
    prefixes: int = Field(default=1, ge=1)
    """Number of copies per sequence with `prefix`, each cut elsewhere: of all training examples these are most like
    scoring."""
    count_from: CountFrom = "newest"
    """Which item has position 1. Counted from the newest, the mask that asks for the next item has position 1 in every
    history; the paper's code counts from the oldest."""
    attend_padding: bool = False
    """Whether attention reads the padding up to `max_length`, whose states are zero, and positions go on counting when
    the mask pushes the oldest item out (defect D12 of the paper's code)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attend_padding and self.block == "bert":
            raise ValueError('attend_padding goes with block = "sasrec"')
        return self

    def build(self, table: nn.Module) -> nn.Module:
        """The network over `table`, whose forward() returns item vectors (items, hidden)."""
        padded_to = self.max_length if self.attend_padding else None
        block = (
            partial(Block, self, causal=False, padded_to=padded_to)
            if self.block == "sasrec"
            else partial(BertBlock, self)
        )
        return SelfAttentive(table, self, block, masks=True, count_from=self.count_from)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Random positions are to be restored, at least one per sequence; item number `items` is the mask."""
        read = newest(sequences, self.max_length)
        chosen = generator.random(len(read.items)) < self.mask_probability
        nothing_chosen = np.add.reduceat(chosen, read.offsets[:-1]) == 0
        chosen[read.offsets[1:][nothing_chosen] - 1] = True
        indices = np.flatnonzero(chosen)
        own = read.items[indices]
        draw = generator.random(len(indices))
        random = generator.integers(items, size=len(indices))
        shown = read.items.copy()
        shown[indices] = np.where(draw < self.kept, own, np.where(draw < self.kept + self.replaced, random, items))
        examples = Examples(Sequences(shown, read.offsets), indices, own.astype(np.int64), read.owners[indices])
        if self.copies == "none":
            return examples

        copies, owners = read, np.arange(read.users)
        if self.copies == "prefix":
            copies, owners = _random_prefixes(read.select(np.tile(owners, self.prefixes)), generator)
        last = copies.offsets[1:] - 1
        masked = copies.items.copy()
        masked[last] = items
        offsets = np.concatenate([read.offsets, copies.offsets[1:] + len(shown)])
        return Examples(
            Sequences(np.concatenate([shown, masked]), offsets),
            np.concatenate([indices, last + len(shown)]),
            np.concatenate([examples.targets, copies.items[last].astype(np.int64)]),
            np.concatenate([examples.rows, owners % read.users]),
        )

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories, each followed by a mask."""
        users = np.arange(histories.users)
        masked = histories.followed_by(users, np.full(len(users), items, dtype=np.int32))
        counted = self.max_length + 1 if self.attend_padding else self.max_length
        return pack(masked, self.max_length, device, counted=counted)


class BertBlock(nn.Module):
    """Self-attention and a feed-forward layer with a layer norm after each residual (Devlin et al., NAACL 2019)."""

    def __init__(self, head: BERT4Rec) -> None:
        super().__init__()
        hidden = head.hidden
        self.attention_heads = head.attention_heads
        self.projections = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden)
        self.inner = nn.Linear(hidden, 4 * hidden)
        self.outer = nn.Linear(4 * hidden, hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(head.dropout)

    def forward(self, states: Tensor, packed: Packed, indices: Tensor | None = None) -> Tensor:
        """(positions, hidden) -> the same shape, or (n, hidden) at `indices` alone."""
        rate = self.dropout.p if self.training else 0.0
        attended = attend(self.projections(states), packed, self.attention_heads, causal=False, dropout=rate)
        if indices is not None:
            states, attended = states.index_select(0, indices), attended.index_select(0, indices)
        states = self.attention_norm(states + self.dropout(self.output(attended)))
        output: Tensor = self.feed_forward_norm(states + self.dropout(self.outer(F.gelu(self.inner(states)))))
        return output


def _random_prefixes(sequences: Sequences, generator: np.random.Generator) -> tuple[Sequences, Int64]:
    """Each sequence up to a random item, of two items or more if it has them; by length, and their row numbers."""
    lengths = generator.integers(np.minimum(sequences.lengths, 2), sequences.lengths, endpoint=True)
    kept = np.arange(len(sequences.items)) < np.repeat(sequences.offsets[:-1] + lengths, sequences.lengths)
    prefixes = Sequences(sequences.items[kept], np.concatenate([[0], np.cumsum(lengths)]))
    # Neighbours of similar length share a grid in attention.
    order = np.argsort(lengths, kind="stable")
    return prefixes.select(order), order
