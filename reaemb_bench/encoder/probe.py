"""How a language model may read prompts, decided by its states on two short ones whenever it is loaded.

Configurations do not say reliably whether attention is causal, has a window or counts positions by column. So two
prompts are read as anyone would read each of them alone, given its tokens alone, and then in the ways that save
work: left-padded, continued from keys and values, behind a shared prefix, with thoughts side by side. The quickest way
that gives the same states is used.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.dropout import PROMPT
from reaemb_bench.encoder.language_model import PACKED, narrowest_window, quiet, takes_any_mask
from reaemb_bench.encoder.shared_prefix import Prefix, Reading, Tokens
from reaemb_bench.encoder.thought_model import ThoughtModel

_COMMON, _SHORT, _LONG = 8, 12, 15
"""Tokens that both prompts begin with, and tokens of each."""
_TIMES = 2
"""Thoughts that follow each prompt."""
_ALONE = Reading(padded=False, cached=False)
_WHOLE = Reading(cached=False)
_FAILURES = (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What models raise if they are asked for what they cannot do."""


def fitting_reading(model: ThoughtModel) -> Reading:
    """The quickest way of reading prompts that is right for the model.

    Sets the model's `reading` and `width`, the latter to that of its states. Raises UserError, with the cure, if the
    model cannot be read at all or cannot take vectors in place of tokens.
    """
    causal_lm, layer = model.causal_lm, model.causal_lm.get_input_embeddings()
    special = set(model.tokenizer.all_special_ids)
    usable = [number for number in range(min(len(model.tokenizer), len(layer.weight))) if number not in special]
    # Spread over the vocabulary.
    ids = [usable[7919 * number % len(usable)] for number in range(_SHORT + _LONG)]
    tokens = model.tokens([ids[:_SHORT], [*ids[:_COMMON], *ids[_SHORT : _SHORT + _LONG - _COMMON]]])
    with torch.no_grad(), quiet():
        try:
            alone = _states(model, tokens, _ALONE)
        except torch.OutOfMemoryError:
            raise
        except _FAILURES as error:
            raise UserError(_refusal(model, tokens, error)) from None
        model.width = alone.shape[-1]
        if model.thoughts and model.width != layer(tokens.ids).shape[-1]:
            raise UserError(
                f"the states of {type(causal_lm).__name__} are wider than its input embeddings, so they give no "
                'thought; say llm.reasoner = "none"'
            )
        if not model.bidirectional and _right(model, tokens, Reading(), alone):
            most = model.template.max_length
            shared = min(most, narrowest_window(causal_lm.config) or most)
            ways = [Reading(shared=shared, side_by_side=True), Reading(shared=shared), Reading()]
            if not takes_any_mask(causal_lm.config):
                del ways[0]
        else:
            ways = [_WHOLE, _ALONE]
        right = (way for way in ways[:-1] if _right(model, tokens, way, alone))
        model.reading = next(right, ways[-1])
        if model.thoughts and not model.reading.cached:
            # What is read with a thought is read as vectors, also the tokens before it.
            vectors = model.read_whole(None, PROMPT, tokens.mask, inputs_embeds=layer(tokens.ids))
            real = tokens.mask.bool()
            if not _agree(vectors[real], model.states(tokens, bidirectional=False)[real]):
                raise UserError(_takes_no_thoughts(causal_lm))
    return model.reading


def _states(model: ThoughtModel, tokens: Tokens, way: Reading) -> Tensor:
    """(real tokens, d): the states of each prompt with each of its thoughts and EOS, read this way."""
    model.reading = way
    count, device = len(tokens.ids), tokens.ids.device
    times = _TIMES if model.thoughts else 1
    if not model.thoughts and not way.cached:
        eos = tokens.ids.new_full((count, 1), model.eos_id)
        whole = Tokens(torch.cat([tokens.ids, eos], dim=1), torch.cat([tokens.mask, torch.ones_like(eos)], dim=1))
        return model.states(whole, bidirectional=model.bidirectional)[whole.mask.bool()]
    # As large as tokens, but none: some models look up which token a vector belongs to.
    drawn = torch.arange(count * times * model.thoughts, device=device) % _SHORT
    thoughts = model.causal_lm.get_input_embeddings()(tokens.ids[0, -_SHORT:][drawn]).flip(dims=[-1])
    prefix = _behind_a_gap(model, tokens) if way.shared else model.prefix(tokens, share=False)
    before, ends = model.continued(prefix, thoughts.view(count * times, model.thoughts, thoughts.shape[-1]))
    states = torch.cat([before.repeat_interleave(len(ends) // len(before), dim=0), ends], dim=1)
    return states[model.full_mask(prefix).repeat_interleave(times, dim=0).bool()]


def _behind_a_gap(model: ThoughtModel, tokens: Tokens) -> Prefix:
    """The prompts behind their shared prefix, as far from it as padding ever is; padding costs no computation."""
    shared = model.begin(tokens.rows)
    if shared is None:
        return model.prefix(tokens, share=False)
    count, length = tokens.ids.shape
    common, gap = len(shared.ids), model.reading.shared - model.thoughts - 1 - length
    columns = torch.arange(gap + length, device=tokens.ids.device)
    padding = length - tokens.mask.sum(dim=1, keepdim=True)
    mask = ((columns < common) | (columns >= common + gap + padding)).to(tokens.mask.dtype)
    indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
    before = tuple(
        (
            functional.pad(keys, (0, 0, 0, gap)).expand(count, -1, -1, -1),
            functional.pad(values, (0, 0, 0, gap)).expand(count, -1, -1, -1),
        )
        for keys, values in shared.cache
    )
    rest, cache = model.read(tokens.ids[:, common:], mask, indices[:, common + gap :], before, None, PROMPT)
    states = torch.cat([functional.pad(shared.states, (0, 0, 0, gap)).expand(count, -1, -1), rest], dim=1)
    return Prefix(states, functional.pad(tokens.ids, (gap, 0)), mask, indices, cache)


def _right(model: ThoughtModel, tokens: Tokens, way: Reading, alone: Tensor) -> bool:
    """Whether states that are read this way are those of prompts read alone."""
    try:
        return _agree(_states(model, tokens, way), alone)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES:
        return False


def _agree(states: Tensor, expected: Tensor) -> bool:
    """Whether states are equal but for rounding; those of a wrong way differ by tens of percent."""
    tolerance = 1e-3 if expected.dtype == torch.float32 else 0.05
    return states.shape == expected.shape and bool((states - expected).norm() <= tolerance * expected.norm())


def _refusal(model: ThoughtModel, tokens: Tokens, error: Exception) -> str:
    """Why the model cannot be read, and the cure that was tried and works."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    causal_lm, thoughts = model.causal_lm, model.thoughts
    name, attention = type(causal_lm).__name__, causal_lm.config._attn_implementation
    try:
        causal_lm.set_attn_implementation("eager")
        _states(model, tokens, _ALONE)
        return f"{name} cannot attend by '{attention.replace(PACKED, 'sdpa')}' ({reason}); say attention = \"eager\""
    except _FAILURES:
        causal_lm.set_attn_implementation(attention)
    try:
        model.thoughts = 0
        _states(model, tokens, _ALONE)
        return _takes_no_thoughts(causal_lm)
    except _FAILURES:
        return f"{name} cannot be read as a language model ({reason}); choose another one"
    finally:
        model.thoughts = thoughts


def _takes_no_thoughts(causal_lm: object) -> str:
    return f'{type(causal_lm).__name__} takes no thought in place of a token; say llm.reasoner = "none"'
