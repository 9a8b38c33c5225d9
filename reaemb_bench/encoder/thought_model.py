"""A language model that thinks before it embeds: one forward over the prompt, then a step over its key/value cache.

The method runs the language model twice: once to compute a thought from the prompt's hidden states, once with the
thought in place. Under causal attention the prompt's own states are the same in both passes, so one pass and a
continuation over [thoughts, EOS] give the same vectors and the same gradients. For the same reason the tokens with
which all prompts begin are read once, however many prompts there are, and a prompt once, however many thoughts follow
it. The vocabulary head is not computed. Shapes: n prompts, L tokens, d hidden size, j thoughts, G thoughts a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.kinds import Pooling
from reaemb_bench.encoder.language_model import bidirectional_mask, narrowest_window, side_by_side, takes_any_mask
from reaemb_bench.encoder.memory import Shape, by_length
from reaemb_bench.encoder.shared_prefix import Cache, Prefix, SharedPrefix, Tokens, coordinates, in_order, joined
from reaemb_bench.encoder.template import Template

_WORTH_SHARING = 8


class ThoughtModel(nn.Module):
    """A causal language model, a reasoner that gives latent thoughts, and a pooling that makes one vector.

    causal_lm: the transformers model. reasoner: its network, or None for a method without thoughts. thoughts: j.
    embedding_rms: root mean square of the input embeddings' entries. thought_scale: the root mean square at which
    thoughts are injected, 1.0 where the reasoner does not scale them. both_ways: attention is bidirectional, so that a
    prompt is read as a whole and cannot be continued. Raises UserError where the model cannot do that.
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
        bidirectional: bool = False,
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
        self.bidirectional = bidirectional
        if bidirectional and thoughts:
            raise UserError('a bidirectional backbone has no place for thoughts; say llm.reasoner = "none"')
        if bidirectional and not takes_any_mask(self.causal_lm.config):
            raise UserError("this model takes no bidirectional mask; choose attention 'sdpa' and one without windows")

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
    def shape(self) -> Shape:
        """Sizes of the language model."""
        return Shape.of(self.causal_lm.config, self._embeddings.weight.element_size())

    @property
    def start(self) -> int:
        """What starting one more pass over prompts costs, in tokens; see `batching.by_length`."""
        return self.shape.start(self.device.type)

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
        lengths = np.array([len(row) for row in rows])
        real = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
        # What stands at padding is masked everywhere; EOS is an id that every tokenizer has.
        ids = np.full(real.shape, self.eos_id)
        ids[real] = np.concatenate(rows)
        return Tokens(torch.from_numpy(ids).to(self.device), torch.from_numpy(real).long().to(self.device))

    def begin(self, rows: Sequence[Sequence[int]]) -> SharedPrefix | None:
        """Read the tokens with which all rows begin (the template's fixed part), with gradient where the model has any.

        None where they are too few to be worth it, where there is but one row, and where a token does not see a whole
        prompt: the padding behind the beginning would push it out of the model's window. Under dropout the prompts that
        are read behind them share the masks of that part.
        """
        if len(rows) < 2 or self.bidirectional:
            return None
        window = narrowest_window(self.causal_lm.config)
        if window is not None and window <= max(map(len, rows)) + self.thoughts:
            return None
        # What the first and the last in order have in common, all between them have too.
        first, last = min(rows, key=list), max(rows, key=list)
        # The tokens that think are each prompt's own.
        room = min(map(len, rows)) - max(self.thoughts, 1)
        same = 0
        while same < room and first[same] == last[same]:
            same += 1
        if same < _WORTH_SHARING:
            return None
        ids = torch.tensor([first[:same]], dtype=torch.long, device=self.device)
        made = self._read(ids, torch.ones_like(ids), torch.arange(same, device=self.device).unsqueeze(0), ())
        return SharedPrefix(ids[0], made.last_hidden_state, _cache_of(made))

    def prefix(self, tokens: Tokens, beginning: SharedPrefix | None = None, *, share: bool = True) -> Prefix:
        """Read the prompts: hidden states and key/value cache, with gradient where the model has any.

        beginning: what these and other prompts begin with, read before; None reads it for these alone, and share =
        False reads every prompt as a whole. The numbers are the same. Prompts of like length are read together, so
        that little padding is; all follow each other in one batch again, for what is to be computed behind them.
        Raises UserError for a bidirectional model.
        """
        if self.bidirectional:
            raise UserError("a bidirectional backbone reads a prompt as a whole; say contrast.passes = 1")
        if beginning is None and share:
            beginning = self.begin(tokens.rows)
        groups = self._groups(tokens)
        if len(groups) == 1:
            return self._behind(beginning, tokens)
        parts = [self._behind(beginning, tokens.some(group)) for group in groups]
        return joined(groups, parts, 0 if beginning is None else len(beginning.ids), self.template.padding)

    def think(self, prefix: Prefix) -> Tensor:
        """Thoughts (n, j, d); the prompt's states are read without gradient, the reasoner's weights keep theirs."""
        return self._think(prefix.states, prefix.mask, prefix.positions)

    def complete(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """Pooled vectors (n * G, d) of the prompts, each followed by G `thoughts` (n * G, j, d) in turn and EOS."""
        ends = self._continue(prefix, thoughts)
        times = len(ends) // len(prefix.ids)
        states = torch.cat([_each(prefix.states, times), ends], dim=1)
        return self._pool(states, _each(self.full_mask(prefix), times))

    def embed(self, tokens: Tokens, beginning: SharedPrefix | None = None) -> Tensor:
        """Vectors (n, d) of prompts: read, think, complete; where attention is bidirectional, of prompts with EOS."""
        if self.bidirectional:
            whole = Tokens(self._with_tail(tokens.ids), self._with_ones(tokens.mask))
            groups = self._groups(whole)
            parts = [whole.some(group) for group in groups]
            vectors = [self._pool(self.states(part, bidirectional=True), part.mask) for part in parts]
            return in_order(groups, torch.cat(vectors))
        prefix = self.prefix(tokens, beginning)
        return self.complete(prefix, self.think(prefix))

    def states(self, tokens: Tokens, *, bidirectional: bool) -> Tensor:
        """Last hidden states (n, L, d) of sequences read as they are; both_ways: each token sees all real ones."""
        mask = bidirectional_mask(tokens.mask, self._embeddings.weight.dtype) if bidirectional else tokens.mask
        made = self._body(input_ids=tokens.ids, attention_mask=mask, position_ids=tokens.indices, use_cache=False)
        states: Tensor = made.last_hidden_state
        return states

    def two_pass(self, tokens: Tokens) -> Tensor:
        """Vectors (n, d) by two whole forward passes, as the method is written down: the reference for `embed`."""
        ids, mask = self._with_tail(tokens.ids), self._with_ones(tokens.mask)
        indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
        length = tokens.ids.shape[1]
        with torch.no_grad():
            first = self._body(input_ids=ids, attention_mask=mask, position_ids=indices, use_cache=False)
        thoughts = self._think(
            first.last_hidden_state[:, :length], tokens.mask, self._coordinates(tokens.mask, tokens.indices)
        )
        embedded = self._embeddings(ids)
        inputs = torch.cat(
            [embedded[:, :length], thoughts.to(embedded.dtype), embedded[:, length + self.thoughts :]], dim=1
        )
        second = self._body(inputs_embeds=inputs, attention_mask=mask, position_ids=indices, use_cache=False)
        return self._pool(second.last_hidden_state, mask)

    def tail_logprobs(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """(n * G, j + 1): log-softmax of the LM head at the thoughts (n * G, j, d) and EOS, each read at its own token.

        There is no shift by one: this is the quantity that the paper's code calls the policy. Its values at the
        prompt's own tokens do not depend on the thought.
        """
        ends = self._continue(prefix, thoughts)
        ids = ends.new_tensor([*[self.thought_id or 0] * self.thoughts, self.eos_id], dtype=torch.long)
        # One position at a time: logits over the whole vocabulary are many numbers.
        head = self.causal_lm.get_output_embeddings()
        columns = [torch.log_softmax(head(ends[:, place]).float(), dim=-1)[:, ids[place]] for place in range(len(ids))]
        return torch.stack(columns, dim=1)

    def full_mask(self, prefix: Prefix) -> Tensor:
        """(n, L + j + 1), 1 at real tokens, thoughts and EOS."""
        return self._with_ones(prefix.mask)

    def _groups(self, tokens: Tokens) -> list[Tensor]:
        lengths = tokens.mask.sum(dim=1).tolist()
        return by_length(lengths, len(lengths), self.start)

    def _behind(self, beginning: SharedPrefix | None, tokens: Tokens) -> Prefix:
        """The prompts in the order [beginning, padding, rest], of which the rest is read."""
        if beginning is None:
            made = self._read(tokens.ids, tokens.mask, tokens.indices, ())
            positions = self._coordinates(tokens.mask, tokens.indices)
            return Prefix(made.last_hidden_state, tokens.ids, tokens.mask, positions, _cache_of(made))
        count, length = tokens.ids.shape
        common = len(beginning.ids)
        padding = length - tokens.mask.sum(dim=1, keepdim=True)
        columns = torch.arange(length, device=tokens.ids.device)
        mask = ((columns < common) | (columns >= common + padding)).to(tokens.mask.dtype)
        indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
        expanded = tuple(
            (keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1)) for keys, values in beginning.cache
        )
        made = self._read(tokens.ids[:, common:], mask, indices[:, common:], expanded)
        states = torch.cat([beginning.states.expand(count, -1, -1), made.last_hidden_state], dim=1)
        ids = torch.cat([beginning.ids.expand(count, -1), tokens.ids[:, common:]], dim=1)
        return Prefix(states, ids, mask, self._coordinates(mask, indices), _cache_of(made))

    def _read(self, ids: Tensor, mask: Tensor, indices: Tensor, cache: Cache) -> Any:
        return self._body(
            input_ids=ids,
            attention_mask=mask,
            position_ids=indices,
            use_cache=True,
            past_key_values=DynamicCache(cache or None),
        )

    def _coordinates(self, mask: Tensor, indices: Tensor) -> Tensor:
        return coordinates(mask, indices, self.template.padding)

    def _think(self, states: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        if self.reasoner is None:
            return states.new_zeros(len(states), 0, states.shape[2])
        thoughts: Tensor = self.reasoner(states.detach().float(), mask, positions)
        return thoughts

    def _continue(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """Last hidden states (n * G, j + 1, d) at the thoughts (n * G, j, d) and EOS."""
        count, times = len(prefix.ids), len(thoughts) // len(prefix.ids)
        if times > 1 and not takes_any_mask(self.causal_lm.config):
            return self._continue(prefix.repeat(times), thoughts)
        eos = self._embeddings(prefix.ids.new_full((len(thoughts), 1), self.eos_id))
        inputs = torch.cat([thoughts.to(eos.dtype), eos], dim=1)
        size = inputs.shape[1]
        # The thoughts of a prompt follow it side by side, each blind to the others.
        mask = self.full_mask(prefix) if times == 1 else side_by_side(prefix.mask, size, times, inputs.dtype)
        indices = prefix.mask.sum(dim=1, keepdim=True) + torch.arange(size, device=inputs.device)
        made = self._body(
            inputs_embeds=inputs.reshape(count, times * size, -1),
            attention_mask=mask,
            position_ids=indices.repeat(1, times),
            use_cache=True,
            past_key_values=DynamicCache(prefix.cache),
        )
        states: Tensor = made.last_hidden_state
        return states.view(len(thoughts), size, -1)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.pooling.pool(states.float(), mask, self.thoughts)

    def _with_tail(self, ids: Tensor) -> Tensor:
        tail = [*[self.thought_id or 0] * self.thoughts, self.eos_id]
        return torch.cat([ids, ids.new_tensor(tail).expand(len(ids), -1)], dim=1)

    def _with_ones(self, mask: Tensor) -> Tensor:
        return torch.cat([mask, mask.new_ones(len(mask), self.thoughts + 1)], dim=1)


def _cache_of(made: Any) -> Cache:
    return tuple((layer.keys, layer.values) for layer in made.past_key_values.layers)


def _each(tensor: Tensor, times: int) -> Tensor:
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=0)
