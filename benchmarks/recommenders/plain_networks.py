"""SASRec, GRU4Rec and BERT4Rec as research code commonly writes them, in the variant ReaEmb's released code trains.

Histories are padded on the left to `max_length` and everything is computed at the padding too. Ids count from 1; 0 is
padding. They compute the numbers in tests/fixtures/fidelity, under whose names the parameters stand.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Head = Literal["sasrec", "gru4rec", "bert4rec"]
HEADS: tuple[Head, ...] = ("sasrec", "gru4rec", "bert4rec")
EPSILON = 1e-8


class Network(Protocol):
    """What the loop asks of each head; L = max_length."""

    def loss(self, sequence: Tensor, positions: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Binary cross-entropy, one negative a target: sequence and positions (users, L); targets as the head's."""

    def scores(self, sequence: Tensor, positions: Tensor, candidates: Tensor) -> Tensor:
        """(users, L), (users, L), (users, candidates) -> (users, candidates)."""


def build(head: Head, items: int, *, hidden: int, max_length: int, dropout: float) -> nn.Module:
    """The network of a head with two blocks, or one recurrent layer."""
    if head == "gru4rec":
        return GRU4Rec(items, hidden)
    network = SASRec if head == "sasrec" else BERT4Rec
    return network(items, hidden, max_length, dropout)


class FeedForward(nn.Module):
    """Two point-wise layers as convolutions of width one, around a residual."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(hidden, hidden, kernel_size=1)
        self.dropout1 = nn.Dropout(dropout)
        self.conv2 = nn.Conv1d(hidden, hidden, kernel_size=1)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """(users, L, hidden) -> the same shape."""
        inner = F.relu(self.dropout1(self.conv1(states.transpose(1, 2))))
        updated: Tensor = states + self.dropout2(self.conv2(inner)).transpose(1, 2)
        return updated


class Backbone(nn.Module):
    """Blocks of self-attention without a mask; padding is zeroed after each block, not within it."""

    def __init__(self, hidden: int, dropout: float, blocks: int = 2, heads: int = 1) -> None:
        super().__init__()
        self.attention_layernorms = nn.ModuleList(nn.LayerNorm(hidden, eps=EPSILON) for _ in range(blocks))
        self.attention_layers = nn.ModuleList(
            nn.MultiheadAttention(hidden, heads, dropout, batch_first=True) for _ in range(blocks)
        )
        self.forward_layernorms = nn.ModuleList(nn.LayerNorm(hidden, eps=EPSILON) for _ in range(blocks))
        self.forward_layers = nn.ModuleList(FeedForward(hidden, dropout) for _ in range(blocks))
        self.last_layernorm = nn.LayerNorm(hidden, eps=EPSILON)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """(users, L, hidden), (users, L, 1) -> (users, L, hidden)."""
        for norm, attention, forward_norm, feed_forward in zip(
            self.attention_layernorms,
            self.attention_layers,
            self.forward_layernorms,
            self.forward_layers,
            strict=True,
        ):
            queries = norm(states)
            attended, _ = attention(queries, states, states)
            states = feed_forward(forward_norm(queries + attended)) * real
        normed: Tensor = self.last_layernorm(states)
        return normed


class _SelfAttentive(nn.Module):
    """Item vectors times sqrt(hidden) plus positions (1 = oldest), and the backbone."""

    def __init__(self, items: int, hidden: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.items = items
        self.item_emb = nn.Embedding(items + 2, hidden, padding_idx=0)
        # One position beyond max_length, where BERT4Rec scores a history that fills it.
        self.pos_emb = nn.Embedding(max_length + 2, hidden)
        self.dropout = nn.Dropout(dropout)
        self.backbone = Backbone(hidden, dropout)

    def states(self, sequence: Tensor, positions: Tensor) -> Tensor:
        """(users, L) -> (users, L, hidden)."""
        real = (sequence != 0).unsqueeze(-1)
        vectors = self.item_emb(sequence) * math.sqrt(self.item_emb.embedding_dim) + self.pos_emb(positions)
        states: Tensor = self.backbone(self.dropout(vectors) * real, real)
        return states

    def loss(self, sequence: Tensor, positions: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Targets and negatives (users, L), 0 where a position predicts nothing."""
        states = self.states(sequence, positions)
        wanted = positive != 0
        above = (states * self.item_emb(positive)).sum(-1)[wanted]
        below = (states * self.item_emb(negative)).sum(-1)[wanted]
        return binary_cross_entropy(above, below)


class SASRec(_SelfAttentive):
    """Each position is matched with the item that comes next, which it attends to: there is no causal mask."""

    def scores(self, sequence: Tensor, positions: Tensor, candidates: Tensor) -> Tensor:
        """(users, candidates), read at the last position."""
        return match(self.states(sequence, positions)[:, -1], self.item_emb(candidates))


class BERT4Rec(_SelfAttentive):
    """Masked positions are matched with the item that stood there; the mask's id is items + 1."""

    def scores(self, sequence: Tensor, positions: Tensor, candidates: Tensor) -> Tensor:
        """(users, candidates), read at a mask that is appended; the oldest place is dropped for it."""
        mask = torch.full_like(sequence[:, :1], self.items + 1)
        sequence = torch.cat([sequence[:, 1:], mask], dim=1)
        positions = torch.cat([positions[:, 1:], positions[:, -1:] + 1], dim=1)
        return match(self.states(sequence, positions)[:, -1], self.item_emb(candidates))


class GRU4Rec(nn.Module):
    """One recurrent layer without biases over all padded steps; the last state predicts the one item after it."""

    class _Recurrent(nn.Module):
        def __init__(self, hidden: int) -> None:
            super().__init__()
            self.gru = nn.GRU(hidden, hidden, num_layers=1, bias=False, batch_first=True)

    def __init__(self, items: int, hidden: int) -> None:
        super().__init__()
        # The vector of padding is read like any other: there is no padding_idx.
        self.item_emb = nn.Embedding(items + 2, hidden)
        self.backbone = self._Recurrent(hidden)

    def last_state(self, sequence: Tensor) -> Tensor:
        """(users, L) -> (users, hidden)."""
        states, _ = self.backbone.gru(self.item_emb(sequence))
        last: Tensor = states[:, -1]
        return last

    def loss(self, sequence: Tensor, positions: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Targets (users,) and negatives (users, 1); positions are not read."""
        last = self.last_state(sequence)
        above = (last * self.item_emb(positive)).sum(-1)
        return binary_cross_entropy(above, match(last, self.item_emb(negative)).squeeze(-1))

    def scores(self, sequence: Tensor, positions: Tensor, candidates: Tensor) -> Tensor:
        """(users, candidates); positions are not read."""
        return match(self.last_state(sequence), self.item_emb(candidates))


def match(states: Tensor, vectors: Tensor) -> Tensor:
    """(users, hidden), (users, candidates, hidden) -> inner products (users, candidates)."""
    return torch.matmul(vectors, states.unsqueeze(-1)).squeeze(-1)


def binary_cross_entropy(above: Tensor, below: Tensor) -> Tensor:
    """Mean over targets of BCE(above, 1), plus the same of BCE(below, 0)."""
    return F.binary_cross_entropy_with_logits(above, torch.ones_like(above)) + F.binary_cross_entropy_with_logits(
        below, torch.zeros_like(below)
    )
