"""Vectors of all items from an encoder, written file by file, so that memory does not grow with their number."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from reaemb_bench.core.artifacts import (
    SHARD,
    Corpus,
    Encoder,
    Float32,
    Vectors,
    rows_of,
    shard_facts,
    shard_names,
    write_shard,
)
from reaemb_bench.core.component import Context, Foreseen, Progress, Randomness, Step
from reaemb_bench.core.distributed import all_reduce, broadcast, is_first, share, world_size
from reaemb_bench.core.errors import UserError, check_rows
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.memory import in_turn, micro_batch
from reaemb_bench.encoder.thought_model import ThoughtModel

_SAMPLE = 128
"""Items whose vectors say how far a stage of training moves the model."""
_CHUNK = 4_096
"""Prompts that are tokenised at once, and among which those of similar length are put together."""


class Encode(Step):
    """Embed every item's full text, without dropout."""

    randomness: ClassVar[Randomness] = "none"
    distributed: ClassVar[bool] = True

    with_instruction: bool = False
    """Put the corpus' instruction line before each text; training leaves it out, the authors' export keeps it."""
    padding: Literal["left", "right"] | None = None
    """Padding side in this stage, for `latent-thought-paper`; None takes the encoder's."""
    max_length: int | None = Field(default=None, ge=8)
    """Most tokens of a prompt in this stage; None takes the encoder's."""
    cut: Literal["left", "right"] = "right"
    """The end at which prompts that are too long lose tokens; the paper's code cuts from the left (part of D8)."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """Vectors as wide as the encoder's states."""
        return Foreseen(width=given[Encoder].width)

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Vectors:
        """One vector an item, (items, hidden size)."""
        context.phase("loading the model")
        model = open_encoder(encoder, context.machine)
        model.template = replace(model.template, padding=self.padding or model.template.padding, cut=self.cut)
        context.note({"parameters": sum(parameter.numel() for parameter in model.parameters())})
        before = f"{corpus.instruction}\n" if self.with_instruction else ""
        return embed_texts(model, corpus.texts, context, before=before, max_length=self.max_length)


def embed_texts(
    model: ThoughtModel, texts: Sequence[str], context: Context, *, before: str = "", max_length: int | None = None
) -> Vectors:
    """Vectors (texts, d) of item texts in their order, in files as `in_files` writes them.

    before: what is put before each text. max_length: most tokens of a prompt; None takes the model's. Raises
    NotFiniteError if a vector is not finite.
    """

    def embed(first: int, chunk: Sequence[str]) -> tuple[Float32, int]:
        rows = model.tokenize([f"{before}{text}" for text in chunk], max_length)
        return embed_all(model, rows, context, first, len(texts)), sum(len(row) + model.thoughts + 1 for row in rows)

    return in_files(texts, context, embed)


def in_files(
    texts: Sequence[str],
    context: Context,
    embed: Callable[[int, Sequence[str]], tuple[Float32, int]],
    size: int | None = None,
) -> Vectors:
    """Vectors (texts, d) in files of the step's scratch folder, `size` rows each; an interrupted run resumes after its
    last whole file.

    embed: gets the number of a text and a chunk of texts from there on; returns their vectors and how many tokens it
    read. Several processes share each chunk, and the first of them writes. size: None takes SHARD.
    """
    size = SHARD if size is None else size
    starts = range(0, len(texts), size)
    files = [context.scratch / name for name in shard_names(len(starts))]
    whole = broadcast(next((number for number, file in enumerate(files) if not _is_whole(file)), len(files)))[0]
    for start, file in list(zip(starts, files, strict=True))[whole:]:
        parts, tokens = [], 0
        stop = min(start + size, len(texts))
        for first in range(start, stop, _CHUNK):
            part, read = embed(first, texts[first : min(first + _CHUNK, stop)])
            parts.append(part)
            tokens += read
        if is_first():
            values = np.concatenate(parts)
            write_shard(file, values, {"tokens": str(tokens), "sha256": _sum(values, str(tokens))})
    if is_first():
        context.note({"tokens": sum(int(shard_facts(file)["tokens"]) for file in files)})
    return Vectors(*files)


def embed_all(
    model: ThoughtModel,
    rows: list[list[int]],
    context: Context,
    first: int = 0,
    total: int | None = None,
    *,
    check: bool = True,
) -> Float32:
    """Vectors (rows, d) of tokenised prompts in the order of `rows`, held in memory.

    Several processes take a part of the rows each, and all return the whole. first: the number of the first row among
    `total`, for messages and progress; None says that these are all. check: whether to raise NotFiniteError if a
    vector is not finite.
    """
    total = len(rows) if total is None else total
    vectors = torch.zeros(len(rows), model.width, device=model.device)
    longest = max(map(len, rows)) + model.thoughts + 1
    # Hosts may differ in free memory, but all processes must share the same groups.
    at_once = broadcast(micro_batch(context.machine, model.shape, longest, learns=False))[0]
    groups = in_turn([len(row) for row in rows], min(at_once, math.ceil(len(rows) / world_size())))
    with torch.inference_mode():
        shared = model.begin(rows)
        for group, done in share(list(zip(groups, accumulate(map(len, groups)), strict=True))):
            tokens = model.tokens([rows[row] for row in group.tolist()])
            vectors[group.to(vectors.device)] = model.embed(tokens, shared).float()
            context.report(Progress(first + done, total, "items"))
        context.report(Progress(first + len(rows), total, "items"))
        all_reduce([vectors])
    values: Float32 = vectors.cpu().numpy()
    if check:
        check_rows("vector", values, first, cure="train with a lower learning rate or in float32")
    return values


class Movement:
    """How far a stage of training moves the vectors of a sample of items.

    Taken before the stage, and asked for `share()` after it: the mean squared change of the vectors, a shift common to
    all left out, as a share of their variance before. A stage that moves less than a thousandth has changed nothing
    that a recommender could read.
    """

    def __init__(self, model: ThoughtModel, texts: Sequence[str], context: Context) -> None:
        """Embeds the sample."""
        chosen = np.random.default_rng([context.seed, 3]).permutation(len(texts))[:_SAMPLE]
        self._rows = model.tokenize([texts[item] for item in np.sort(chosen)])
        self._model = model
        self._context = replace(context, report=lambda progress: None)
        self._before = self._vectors()

    def share(self) -> float:
        """The share of the sample's variance by which the model has moved since then."""
        change = self._vectors() - self._before
        return float(change.var(axis=0).sum() / max(self._before.var(axis=0).sum(), 1e-12))

    @torch.no_grad()
    def lever(self) -> float:
        """The share of the sample's variance that goes if every thought is replaced by the mean thought."""
        model = self._model
        prefixes = [
            model.prefix(model.tokens(self._rows[start : start + 32])) for start in range(0, len(self._rows), 32)
        ]
        thoughts = [model.think(prefix) for prefix in prefixes]
        mean = torch.cat(thoughts).mean(0)
        pairs = [
            (model.complete(prefix, own), model.complete(prefix, mean.expand_as(own)))
            for prefix, own in zip(prefixes, thoughts, strict=True)
        ]
        own, same = (torch.cat(vectors) for vectors in zip(*pairs, strict=True))
        return float((own - same).var(0).sum() / own.var(0).sum().clamp_min(1e-12))

    def _vectors(self) -> Float32:
        return embed_all(self._model, self._rows, self._context, check=False)


def _is_whole(file: Path) -> bool:
    """Whether an interrupted run has left the file, and the disk has not changed it since."""
    try:
        facts = shard_facts(file)
        return facts["sha256"] == _sum(rows_of(file), facts["tokens"])
    except (OSError, UserError, LookupError, TypeError, ValueError):
        return False


def _sum(rows: Float32, tokens: str) -> str:
    digest = hashlib.sha256(tokens.encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
