"""A language model that thinks before it embeds: one forward over the prompt, then a step over its key/value cache.

The method runs the language model twice: once to compute a thought from the prompt's hidden states, once with the
thought in place. Under causal attention the prompt's own states are the same in both passes, so one pass and a
continuation over [thoughts, EOS] give the same vectors and the same gradients. For the same reason the tokens with
which all prompts begin are read once, however many prompts there are, and a prompt once, however many thoughts follow
it. The vocabulary head is not computed. Shapes: n prompts, L tokens, d hidden size, j thoughts, G thoughts a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache

from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.dropout import END, PROMPT, SHARED, MaskKeys
from reaemb_bench.encoder.kinds import Pooling
from reaemb_bench.encoder.language_model import (
    bidirectional_mask,
    body,
    extends_positions,
    side_by_side,
    takes_any_mask,
    trained_length,
)
from reaemb_bench.encoder.memory import Shape, by_length
from reaemb_bench.encoder.poolings import TextAndThought
from reaemb_bench.encoder.shared_prefix import (
    Cache,
    Prefix,
    Reading,
    SharedPrefix,
    Tokens,
    coordinates,
    in_order,
    joined,
)
from reaemb_bench.encoder.template import Template

_WORTH_SHARING = 8
"""Fewest common tokens that are read once for all prompts."""


class ThoughtModel(nn.Module):
    """A causal language model, a reasoner that gives latent thoughts, and a pooling that makes one vector.

    causal_lm: the transformers model. reasoner: its network, or None for a method without thoughts. thoughts: j.
    embedding_rms: root mean square of the input embeddings' entries. thought_scale: the root mean square at which
    thoughts are injected, 1.0 if the reasoner does not scale them. think_template: whether the reasoner attends to the
    template too, or to the item's own text alone. share: of a pooling that learns one, its value at the start, which
    is then trained and saved as the reasoner's parameter `share`. bidirectional: each token sees the whole prompt,
    which is therefore read at once and cannot be continued. Raises UserError if the model cannot do that. reading: how
    prompts are read; all ways that are right for the model give the same numbers, and `probe` finds the quickest.
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
        think_template: bool = True,
        share: float | None = None,
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
        self.think_template = think_template
        if reasoner is not None and share is not None:
            reasoner.register_parameter("share", nn.Parameter(torch.tensor(share).logit()))
        self.bidirectional = bidirectional
        self.reading = Reading()
        self.width = int(self._embeddings.weight.shape[1])
        """Numbers of a state and of a vector, d."""
        self.mask_keys = MaskKeys()
        if bidirectional and thoughts:
            raise UserError('a bidirectional backbone has no place for thoughts; say llm.reasoner = "none"')
        if bidirectional and not takes_any_mask(self.causal_lm.config):
            raise UserError("this model takes no bidirectional mask; choose attention 'sdpa' and one without windows")

    @property
    def device(self) -> torch.device:
        """Device of the language model."""
        device: torch.device = self._embeddings.weight.device
        return device

    @property
    def shape(self) -> Shape:
        """Sizes of the language model."""
        return Shape.of(self.causal_lm.config, self._embeddings.weight.element_size())

    @property
    def trained_length(self) -> int | None:
        """Most tokens of the sequences that the language model was trained on; None if that is not known."""
        return trained_length(self.causal_lm.config)

    @property
    def start(self) -> int:
        """What starting one more pass over prompts costs, in tokens; see `memory.by_length`."""
        return self.shape.start(self.device.type)

    @property
    def _embeddings(self) -> Any:
        return self.causal_lm.get_input_embeddings()

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Token ids of the prompts of item texts, short enough for the thoughts and EOS that follow them.

        Raises UserError if one is longer than the model has positions.
        """
        rows = self.template.rows(self.tokenizer, texts, self.thoughts + 1, max_length)
        longest, trained = max(map(len, rows), default=0) + self.thoughts + 1, self.trained_length
        if trained is not None and longest > trained and not extends_positions(self.causal_lm.config):
            raise UserError(
                f"a prompt has {longest} tokens, and {type(self.causal_lm).__name__} has only {trained} positions; say "
                f"max_length = {trained}"
            )
        return rows

    def tokens(self, rows: Sequence[Sequence[int]]) -> Tokens:
        """Rows of token ids as one left-padded batch on the model's device."""
        lengths = np.array([len(row) for row in rows])
        real = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
        # What stands at padding is masked everywhere; EOS is an id that every tokenizer has.
        ids = np.full(real.shape, self.eos_id)
        ids[real] = np.concatenate(rows)
        mask = torch.from_numpy(real).long().to(self.device)
        numbers, self.mask_keys.rows = self.mask_keys.rows, None
        return Tokens(torch.from_numpy(ids).to(self.device), mask, None if numbers is None else numbers.to(self.device))

    def embed(self, tokens: Tokens, shared: SharedPrefix | None = None, *, share: bool = True) -> Tensor:
        """Vectors (n, d) of prompts: read, think, complete; with bidirectional attention, of prompts with EOS.

        shared, share: see `prefix`.
        """
        # Without a cache and without thoughts, one pass over prompt and EOS is all.
        if self.thoughts or (self.reading.cached and not self.bidirectional):
            prefix = self.prefix(tokens, shared, share=share)
            return self.complete(prefix, self.think(prefix))
        eos = tokens.ids.new_full((len(tokens.ids), 1), self.eos_id)
        whole = Tokens(torch.cat([tokens.ids, eos], dim=1), _with_ones(tokens.mask, 1), tokens.numbers)
        groups = self._groups(whole)
        parts = [whole.some(group) for group in groups]
        vectors = [
            self._pool(self.states(part, bidirectional=self.bidirectional), part.ids[:, :-1], part.mask)
            for part in parts
        ]
        return in_order(groups, torch.cat(vectors))

    def begin(self, rows: Sequence[Sequence[int]]) -> SharedPrefix | None:
        """Reads the tokens with which all rows begin (the template's fixed part), with gradient if the model has any.

        Returns None if the shared prefix is shorter than 8 tokens, if there is only one row, or if a prompt is longer
        than `reading` allows: padding after the shared prefix would push it out of the model's window. Under dropout
        the prompts that follow it share the masks of that part.
        """
        if len(rows) < 2 or max(map(len, rows)) + self.thoughts + 1 > self.reading.shared:
            return None
        # What the first and the last row in lexical order share, all rows between them share too.
        first, last = min(rows, key=list), max(rows, key=list)
        # The tokens that think are each prompt's own.
        longest = min(map(len, rows)) - max(self.thoughts, 1)
        common = 0
        while common < longest and first[common] == last[common]:
            common += 1
        if common < _WORTH_SHARING:
            return None
        ids = torch.tensor([first[:common]], dtype=torch.long, device=self.device)
        indices = torch.arange(common, device=self.device).unsqueeze(0)
        states, cache = self.read(ids, torch.ones_like(ids), indices, (), None, SHARED)
        return SharedPrefix(ids[0], states, cache)

    def prefix(
        self, tokens: Tokens, shared: SharedPrefix | None = None, *, share: bool = True, part: int = PROMPT
    ) -> Prefix:
        """Reads the prompts: hidden states and key/value cache, with gradient if the model has any.

        shared: the tokens with which these and other prompts begin, already read; None reads them for these alone, and
        share = False reads every prompt as a whole. The numbers are the same. Prompts of similar length are read
        together, which keeps padding small, and returned as one batch in their order. part: see `MaskKeys`. Raises
        UserError for a bidirectional model.
        """
        if self.bidirectional:
            raise UserError("a bidirectional backbone reads a prompt as a whole; say contrast.passes = 1")
        if shared is None and share:
            shared = self.begin(tokens.rows)
        groups = self._groups(tokens)
        if len(groups) == 1:
            return self._after(shared, tokens, part)
        parts = [self._after(shared, tokens.some(group), part) for group in groups]
        common = 0 if shared is None else len(shared.ids)
        # The width that was given, though no prompt may need it: a paper variant's thought depends on it.
        prefix = joined(groups, parts, common, self.template.padding, tokens.ids.shape[1])
        return replace(prefix, numbers=tokens.numbers)

    def _after(self, shared: SharedPrefix | None, tokens: Tokens, part: int) -> Prefix:
        """The prompts in the order [shared prefix, padding, rest], of which the rest is read."""
        if shared is None:
            states, cache = self.read(tokens.ids, tokens.mask, tokens.indices, (), tokens.numbers, part)
            positions = coordinates(tokens.mask, tokens.indices, self.template.padding)
            return Prefix(states, tokens.ids, tokens.mask, positions, cache, tokens.numbers)
        count, length = tokens.ids.shape
        common = len(shared.ids)
        padding = length - tokens.mask.sum(dim=1, keepdim=True)
        columns = torch.arange(length, device=tokens.ids.device)
        mask = ((columns < common) | (columns >= common + padding)).to(tokens.mask.dtype)
        indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
        before = tuple(
            (keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1)) for keys, values in shared.cache
        )
        rest, cache = self.read(tokens.ids[:, common:], mask, indices[:, common:], before, tokens.numbers, part)
        states = torch.cat([shared.states.expand(count, -1, -1), rest], dim=1)
        ids = torch.cat([shared.ids.expand(count, -1), tokens.ids[:, common:]], dim=1)
        positions = coordinates(mask, indices, self.template.padding)
        return Prefix(states, ids, mask, positions, cache, tokens.numbers)

    def think(self, prefix: Prefix) -> Tensor:
        """Thoughts (n, j, d); the prompt's states are read without gradient, the reasoner's weights keep theirs."""
        if self.reasoner is None:
            return prefix.states.new_zeros(len(prefix.states), 0, prefix.states.shape[2])
        mask = prefix.mask if self.think_template else self.text_mask(prefix.ids, prefix.mask)
        thoughts: Tensor = self.reasoner(prefix.states.detach().float(), mask, prefix.positions)
        return thoughts

    def complete(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """Pooled vectors (n * G, d) of the prompts, each followed by G `thoughts` (n * G, j, d) in turn and EOS."""
        before, ends = self.continued(prefix, thoughts)
        times = len(ends) // len(prefix.ids)
        ids, mask = prefix.ids, self.full_mask(prefix)
        if times > 1:
            ids, mask = ids.repeat_interleave(times, dim=0), mask.repeat_interleave(times, dim=0)
        return self._pool(
            torch.cat([before.repeat_interleave(len(ends) // len(before), dim=0), ends], dim=1), ids, mask
        )

    def tail_logprobs(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """(n * G, j + 1): log-softmax of the LM head at the thoughts (n * G, j, d) and EOS, each read at its own token.

        There is no shift by one: this is the quantity that the paper's code calls the policy. Its values at the
        prompt's own tokens do not depend on the thought.
        """
        _, ends = self.continued(prefix, thoughts)
        ids = ends.new_tensor([*[self.thought_id or 0] * self.thoughts, self.eos_id], dtype=torch.long)
        # One position at a time: logits over the whole vocabulary are many numbers.
        head = self.causal_lm.get_output_embeddings()
        return torch.stack(
            [head(ends[:, i]).float().log_softmax(dim=-1)[:, token] for i, token in enumerate(ids)], dim=1
        )

    def states(self, tokens: Tokens, *, bidirectional: bool) -> Tensor:
        """Last hidden states (n, L, d) of sequences read as they are; bidirectional: each token sees all real ones."""
        return self.read_whole(tokens.numbers, PROMPT, tokens.mask, bidirectional=bidirectional, input_ids=tokens.ids)

    def full_mask(self, prefix: Prefix) -> Tensor:
        """(n, L + j + 1), 1 at real tokens, thoughts and EOS."""
        return _with_ones(prefix.mask, self.thoughts + 1)

    def _groups(self, tokens: Tokens) -> list[Tensor]:
        lengths = tokens.mask.sum(dim=1).tolist()
        return by_length(lengths, len(lengths), self.start)

    def _forward(self, numbers: Tensor | None, part: int, **inputs: Any) -> Any:
        """The outputs of the blocks; numbers and part decide masks of dropout."""
        self.mask_keys.current, self.mask_keys.part = numbers, part
        return body(self.causal_lm)(**inputs)

    def read_whole(
        self, numbers: Tensor | None, part: int, mask: Tensor, *, bidirectional: bool = False, **inputs: Tensor
    ) -> Tensor:
        """Last hidden states (n, L, d) of left-padded sequences that are read without a cache.

        inputs: `input_ids` (n, L) or `inputs_embeds` (n, L, d).
        """
        dtype = self._embeddings.weight.dtype
        if self.reading.padded:
            attended = bidirectional_mask(mask, dtype) if bidirectional else mask
            indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
            outputs = self._forward(
                numbers, part, **inputs, attention_mask=attended, position_ids=indices, use_cache=False
            )
            states: Tensor = outputs.last_hidden_state
            return states
        # Without padding the model masks and counts as it was made to.
        lengths = mask.sum(dim=1)
        groups, parts = [], []
        for length in sorted(set(lengths.tolist())):
            rows = (lengths == length).nonzero()[:, 0]
            seen = {"attention_mask": bidirectional_mask(mask[rows, -length:], dtype)} if bidirectional else {}
            some = {name: tensor[rows, -length:] for name, tensor in inputs.items()}
            outputs = self._forward(rows if numbers is None else numbers[rows], part, **some, **seen, use_cache=False)
            groups.append(rows)
            parts.append(functional.pad(outputs.last_hidden_state, (0, 0, mask.shape[1] - length, 0)))
        return in_order(groups, torch.cat(parts))

    def read(
        self, ids: Tensor, mask: Tensor, indices: Tensor, before: Cache, numbers: Tensor | None, part: int
    ) -> tuple[Tensor, Cache]:
        """Last hidden states and the key/value cache of tokens that follow the cache `before`.

        ids, indices: (n, L). mask: (n, tokens in the cache + L).
        """
        if not self.reading.cached:
            return self.read_whole(numbers, part, mask, input_ids=ids), ()
        outputs = self._forward(
            numbers,
            part,
            input_ids=ids,
            attention_mask=mask,
            position_ids=indices,
            use_cache=True,
            past_key_values=DynamicCache(before or None),
        )
        return outputs.last_hidden_state, tuple((layer.keys, layer.values) for layer in outputs.past_key_values.layers)

    def continued(self, prefix: Prefix, thoughts: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden states of the prompts (n, L, d), or (n * G, L, d) if they had to be read again, and
        (n * G, j + 1, d) of the thoughts (n * G, j, d) and EOS that follow each.
        """
        count, times = len(prefix.ids), len(thoughts) // len(prefix.ids)
        if times > 1 and not self.reading.side_by_side:
            return self.continued(prefix.repeat(times), thoughts)
        eos = self._embeddings(prefix.ids.new_full((len(thoughts), 1), self.eos_id))
        inputs = torch.cat([thoughts.to(eos.dtype), eos], dim=1)
        size = inputs.shape[1]
        if not self.reading.cached:
            # The prompt's states may depend on what follows it.
            whole = torch.cat([self._embeddings(prefix.ids), inputs], dim=1)
            states = self.read_whole(prefix.numbers, PROMPT, self.full_mask(prefix), inputs_embeds=whole)
            return states[:, :-size], states[:, -size:]
        # The thoughts of a prompt follow it side by side, each masked from the others.
        mask = self.full_mask(prefix) if times == 1 else side_by_side(prefix.mask, size, times, inputs.dtype)
        indices = prefix.mask.sum(dim=1, keepdim=True) + torch.arange(size, device=inputs.device)
        outputs = self._forward(
            prefix.numbers,
            END,
            inputs_embeds=inputs.reshape(count, times * size, -1),
            attention_mask=mask,
            position_ids=indices.repeat(1, times),
            use_cache=True,
            past_key_values=DynamicCache(prefix.cache),
        )
        return prefix.states, outputs.last_hidden_state.view(len(thoughts), size, -1)

    def text_mask(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(n, L), 1 at the tokens of the items' own texts, of prompts with these ids and mask (n, L).

        A prompt without any text of its own keeps its mask. Raises UserError if prompts are cut on the left.
        """
        if self.template.cut == "left":
            raise UserError('cut = "left" takes the template away, so nothing can leave it out; say cut = "right"')
        before, after = self._around
        index = mask.cumsum(dim=1)
        text = mask.bool() & (index > before)
        if after:
            # A prompt that was cut has lost them.
            ending = (ids[:, -len(after) :] == ids.new_tensor(after)).all(dim=1, keepdim=True)
            text &= index <= index[:, -1:] - len(after) * ending
        return torch.where(text.any(dim=1, keepdim=True), text, mask.bool()).to(mask.dtype)

    @cached_property
    def _around(self) -> tuple[int, list[int]]:
        return self.template.around(self.tokenizer)

    def _pool(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors (n, d) of states and mask (n, L + ends), of prompts with these ids (n, L)."""
        if not getattr(self.pooling, "template", True):
            mask = torch.cat([self.text_mask(ids, mask[:, : ids.shape[1]]), mask[:, ids.shape[1] :]], dim=1)
        learned = getattr(self.reasoner, "share", None)
        if learned is not None and isinstance(self.pooling, TextAndThought):
            return self.pooling.mix(states.float(), mask, self.thoughts, learned.sigmoid())
        return self.pooling.pool(states.float(), mask, self.thoughts)


def _with_ones(mask: Tensor, columns: int) -> Tensor:
    return torch.cat([mask, mask.new_ones(len(mask), columns)], dim=1)
