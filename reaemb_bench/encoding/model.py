"""A language model that thinks before it embeds: one forward over the prompt, then a step over its key/value cache.

The method runs the language model twice: once to compute a thought from the prompt's hidden states, once with the
thought in place. Under causal attention the prompt's own states are the same in both passes, so one pass and a
continuation over [thoughts, EOS] give the same vectors and the same gradients. Shapes: n prompts, L tokens, d hidden
size, j thoughts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from reaemb_bench.encoding.template import Template
from reaemb_bench.kinds import Pooling

_WORTH_SHARING = 8


@dataclass(frozen=True)
class Tokens:
    """Prompts up to but excluding the thought, left-padded: ids (n, L) and mask (n, L), 1 at real tokens."""

    ids: Tensor
    mask: Tensor

    @property
    def indices(self) -> Tensor:
        """(n, L), the place of each token among the real tokens of its prompt, 0 at padding."""
        return (self.mask.cumsum(dim=1) - 1).clamp(min=0)


@dataclass(frozen=True)
class Prefix:
    """Prompts that the language model has read, left-padded.

    states: (n, L, d) last hidden states. ids, mask: (n, L). positions: (n, L), the coordinates that the reasoner's
    rotary embedding uses. cache: keys and values of each block, each (n, heads, L, head size); never written to.
    """

    states: Tensor
    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: tuple[tuple[Tensor, Tensor], ...]

    def repeat(self, times: int) -> Prefix:
        """Each prompt `times` in a row: (n, ...) -> (n * times, ...)."""

        def each(tensor: Tensor) -> Tensor:
            return tensor.repeat_interleave(times, dim=0)

        cache = tuple((each(keys), each(values)) for keys, values in self.cache)
        return Prefix(each(self.states), each(self.ids), each(self.mask), each(self.positions), cache)

    def detach(self) -> Prefix:
        """The same numbers without gradient."""
        cache = tuple((keys.detach(), values.detach()) for keys, values in self.cache)
        return replace(self, states=self.states.detach(), cache=cache)


class ThoughtModel(nn.Module):
    """A causal language model, a reasoner that gives latent thoughts, and a pooling that makes one vector.

    causal_lm: the transformers model. reasoner: its network, or None for a method without thoughts. thoughts: j.
    embedding_rms: root mean square of the input embeddings' entries. thought_scale: the root mean square at which
    thoughts are injected, 1.0 where the reasoner does not scale them.
    """

    def __init__(
        self,
        causal_lm: nn.Module,
        tokenizer: Any,
        reasoner: nn.Module | None,
        pooling: Pooling,
        template: Template,
        *,
        thoughts: int,
        eos_id: int,
        thought_id: int | None,
        embedding_rms: float,
        thought_scale: float,
    ) -> None:
        super().__init__()
        self.causal_lm: Any = causal_lm
        self.tokenizer = tokenizer
        self.reasoner = reasoner
        self.pooling = pooling
        self.template = template
        self.thoughts = thoughts
        self.eos_id = eos_id
        self.thought_id = thought_id
        self.embedding_rms = embedding_rms
        self.thought_scale = thought_scale

    @property
    def device(self) -> torch.device:
        """Where the language model lies."""
        device: torch.device = self._embeddings.weight.device
        return device

    @property
    def width(self) -> int:
        """Hidden size d of the language model."""
        return int(self._embeddings.weight.shape[1])

    @property
    def _embeddings(self) -> Any:
        return self.causal_lm.get_input_embeddings()

    @property
    def _body(self) -> Any:
        return self.causal_lm.get_decoder()

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Token ids of the prompts of item texts, without thoughts and EOS, for which room is left in the length."""
        return self.template.rows(self.tokenizer, texts, self.thoughts + 1, max_length)

    def tokens(self, rows: Sequence[Sequence[int]]) -> Tokens:
        """Rows of token ids as one left-padded batch on the model's device."""
        longest = max(len(row) for row in rows)
        # What stands at padding is masked everywhere; EOS is an id that every tokenizer has.
        ids = torch.full((len(rows), longest), self.eos_id, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
            mask[place, longest - len(row) :] = 1
        return Tokens(ids.to(self.device), mask.to(self.device))

    def prefix(self, tokens: Tokens, *, share: bool = True) -> Prefix:
        """Read the prompts: hidden states and key/value cache, with gradient where the model has any.

        share: read the tokens with which all prompts begin (the template's fixed part) once and not once a prompt.
        The numbers are the same, but under dropout the prompts then share the masks of that part.
        """
        common = self._common(tokens) if share else 0
        if common < _WORTH_SHARING:
            made = self._read(tokens.ids, tokens.mask, tokens.indices, ())
            cache = tuple((layer.keys, layer.values) for layer in made.past_key_values.layers)
            return Prefix(made.last_hidden_state, tokens.ids, tokens.mask, self._coordinates(tokens), cache)
        return self._shared_prefix(tokens, common)

    def think(self, prefix: Prefix) -> Tensor:
        """Thoughts (n, j, d); the prompt's states are read without gradient, the reasoner's weights keep theirs."""
        return self._think(prefix.states, prefix.mask, prefix.positions)

    def complete(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """Pooled vectors (n, d) of the prompts followed by `thoughts` (n, j, d) and EOS."""
        states = torch.cat([prefix.states, self._continue(prefix, thoughts)], dim=1)
        return self._pool(states, self.full_mask(prefix))

    def embed(self, tokens: Tokens) -> Tensor:
        """Vectors (n, d) of prompts: read, think, complete."""
        prefix = self.prefix(tokens)
        return self.complete(prefix, self.think(prefix))

    def two_pass(self, tokens: Tokens) -> Tensor:
        """Vectors (n, d) by two whole forward passes, as the method is written down: the reference for `embed`."""
        ids, mask = self._with_tail(tokens.ids), self._with_ones(tokens.mask)
        indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
        length = tokens.ids.shape[1]
        with torch.no_grad():
            first = self._body(input_ids=ids, attention_mask=mask, position_ids=indices, use_cache=False)
        thoughts = self._think(first.last_hidden_state[:, :length], tokens.mask, self._coordinates(tokens))
        embedded = self._embeddings(ids)
        inputs = torch.cat(
            [embedded[:, :length], thoughts.to(embedded.dtype), embedded[:, length + self.thoughts :]], dim=1
        )
        second = self._body(inputs_embeds=inputs, attention_mask=mask, position_ids=indices, use_cache=False)
        return self._pool(second.last_hidden_state, mask)

    def token_logprobs(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """(n, L + j + 1): log-softmax of the LM head at each position, read at the token of that same position.

        There is no shift by one: this is the quantity that the paper's code calls the policy. `full_mask` tells
        which positions are real.
        """
        states = torch.cat([prefix.states, self._continue(prefix, thoughts)], dim=1)
        head = self.causal_lm.get_output_embeddings()
        ids = self._with_tail(prefix.ids)
        # One prompt at a time: logits of a whole batch over the whole vocabulary would not fit into memory.
        rows = [
            torch.log_softmax(head(row).float(), dim=-1).gather(1, row_ids.unsqueeze(1)).squeeze(1)
            for row, row_ids in zip(states, ids, strict=True)
        ]
        return torch.stack(rows)

    def full_mask(self, prefix: Prefix) -> Tensor:
        """(n, L + j + 1), 1 at real tokens, thoughts and EOS."""
        return self._with_ones(prefix.mask)

    def _common(self, tokens: Tokens) -> int:
        """How many tokens all prompts begin with; the tokens that think are not counted."""
        lengths = tokens.mask.sum(dim=1, keepdim=True)
        places = torch.arange(int(lengths.min()) - max(self.thoughts, 1), device=tokens.ids.device)
        if len(tokens.ids) < 2 or not len(places):
            return 0
        begins = tokens.ids.gather(1, tokens.ids.shape[1] - lengths + places)
        return int((begins == begins[:1]).all(dim=0).cumprod(dim=0).sum())

    def _shared_prefix(self, tokens: Tokens, common: int) -> Prefix:
        count, length = tokens.ids.shape
        padding = length - tokens.mask.sum(dim=1, keepdim=True)
        columns = torch.arange(length, device=tokens.ids.device)
        # Read as [common tokens, padding, the rest of each prompt], then put the padding first again.
        mask = ((columns < common) | (columns >= common + padding)).to(tokens.mask.dtype)
        indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
        first = tokens.ids[:1, length - int(tokens.mask[0].sum()) :][:, :common]
        begun = self._read(first, mask[:1, :common], indices[:1, :common], ())
        expanded = tuple(
            (layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1))
            for layer in begun.past_key_values.layers
        )
        made = self._read(tokens.ids[:, common:], mask, indices[:, common:], expanded)
        states = torch.cat([begun.last_hidden_state.expand(count, -1, -1), made.last_hidden_state], dim=1)
        moved = torch.where(columns < padding + common, columns - padding, columns)
        source = torch.where(columns < padding, common + columns, moved)
        cache = tuple(
            (_reordered(layer.keys, source), _reordered(layer.values, source)) for layer in made.past_key_values.layers
        )
        return Prefix(_reordered(states, source), tokens.ids, tokens.mask, self._coordinates(tokens), cache)

    def _read(self, ids: Tensor, mask: Tensor, indices: Tensor, cache: tuple[tuple[Tensor, Tensor], ...]) -> Any:
        return self._body(
            input_ids=ids,
            attention_mask=mask,
            position_ids=indices,
            use_cache=True,
            past_key_values=DynamicCache(cache or None),
        )

    def _coordinates(self, tokens: Tokens) -> Tensor:
        if self.template.padding == "right":
            return tokens.indices
        return torch.arange(tokens.ids.shape[1], device=tokens.ids.device).expand_as(tokens.ids)

    def _think(self, states: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        if self.reasoner is None:
            return states.new_zeros(len(states), 0, states.shape[2])
        thoughts: Tensor = self.reasoner(states.detach().float(), mask, positions)
        return thoughts

    def _continue(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """Last hidden states (n, j + 1, d) at the thoughts and EOS."""
        eos = self._embeddings(prefix.ids.new_full((len(prefix.ids), 1), self.eos_id))
        inputs = torch.cat([thoughts.to(eos.dtype), eos], dim=1)
        mask = self.full_mask(prefix)
        indices = (mask.cumsum(dim=1) - 1)[:, -inputs.shape[1] :]
        made = self._body(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=indices,
            use_cache=True,
            past_key_values=DynamicCache(prefix.cache),
        )
        states: Tensor = made.last_hidden_state
        return states

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.pooling.pool(states.float(), mask, self.thoughts)

    def _with_tail(self, ids: Tensor) -> Tensor:
        tail = [*[self.thought_id or 0] * self.thoughts, self.eos_id]
        return torch.cat([ids, ids.new_tensor(tail).expand(len(ids), -1)], dim=1)

    def _with_ones(self, mask: Tensor) -> Tensor:
        return torch.cat([mask, mask.new_ones(len(mask), self.thoughts + 1)], dim=1)


def _reordered(tensor: Tensor, source: Tensor) -> Tensor:
    """The tensor (n, ..., L, width) with column c of row i taken from column source[i, c] (n, L)."""
    shape = [len(tensor), *[1] * (tensor.dim() - 3), source.shape[1], 1]
    return tensor.gather(-2, source.view(shape).expand(*tensor.shape[:-2], -1, tensor.shape[-1]))
