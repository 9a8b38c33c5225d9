"""SAID: one learned vector per item, from which a language model writes the item's text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Corpus, Encoder, Vectors
from reaemb_bench.core.component import Context
from reaemb_bench.encoder.dropout import enable_dropout
from reaemb_bench.encoder.finetune import Task, seeded, tune
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.lora import LoraSettings, add_lora
from reaemb_bench.encoder.lrcl import batches
from reaemb_bench.encoder.thought_model import ThoughtModel

_IGNORED = -100


@dataclass(frozen=True)
class Text:
    """An item and the tokens of its text, EOS included."""

    item: int
    ids: tuple[int, ...]

    @property
    def terms(self) -> int:
        """One per token."""
        return len(self.ids)


@dataclass(frozen=True)
class Table:
    """Learned vectors and their projector: rows (items, width), projector (width, hidden size), start (hidden size,).

    scale: brings rows of unit variance to the size of the language model's token embeddings.
    """

    rows: nn.Parameter
    projector: nn.Parameter
    start: nn.Parameter
    scale: float

    def vectors(self, items: Sequence[int]) -> Tensor:
        """The projected vectors (n, hidden size) of some items."""
        return self.start + self.rows[list(items)] @ self.projector * self.scale


class Regenerate(LoraSettings):
    """Learn a vector per item that, read as the first token, makes the language model write the item's text.

    All vectors pass through one learned projector, whose outputs are the item vectors. The language model reads
    nothing else: no template, no title. All items start from the same vector, the mean of the token embeddings, so
    their differences are learned.
    Source: Hu et al., Enhancing Sequential Recommendation via LLM-based Semantic Embedding Learning (WWW 2024).
    """

    version: ClassVar[int] = 3

    batch_size: int = Field(default=64, ge=1)
    """Items per step; at most as many as there are."""
    width: int = Field(default=256, ge=1)
    """Width of an item's vector before the projector."""
    lora: bool = True
    """Whether LoRA in the language model learns too, at `learning_rate`; it is not kept. False freezes the model."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on LoRA's inputs."""
    vector_learning_rate: float = Field(default=0.2, gt=0)
    """AdamW's learning rate of vectors and projector at the first step; it falls linearly to 0."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Vectors:
        """One projected vector per item, (items, hidden size)."""
        with seeded(context):
            model = open_encoder(encoder, context.machine)
            embeddings = model.causal_lm.get_input_embeddings().weight.detach().float()
            table = Table(
                nn.Parameter(torch.zeros(corpus.items, self.width, device=model.device)),
                nn.Parameter(torch.randn(self.width, model.width).to(model.device)),
                nn.Parameter(embeddings.mean(dim=0)),
                model.embedding_rms / self.width**0.5,
            )

            def loss(texts: Sequence[Text]) -> Tensor:
                return text_loss(model, table.vectors([text.item for text in texts]), texts)

            if self.lora:
                add_lora(model, self)
                enable_dropout(model)
            adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            learned = (table.rows, table.projector, table.start)
            texts = self._texts(model, corpus, context.seed)
            tune(model, Task(texts, loss, adapters, learned, self.vector_learning_rate), self, context)
            with torch.no_grad():
                return Vectors(table.vectors(range(corpus.items)).cpu().numpy())

    def _texts(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Iterator[Sequence[Text]]:
        texts = item_texts(model, corpus)
        for _, items in batches(corpus.items, min(self.batch_size, corpus.items), seed):
            yield [texts[item] for item in items]


def item_texts(model: ThoughtModel, corpus: Corpus) -> list[Text]:
    """The text of every item, cut to the model's length less its vector and EOS."""
    limit = model.template.max_length - 2
    rows = model.tokenizer(list(corpus.texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [Text(item, (*row[:limit], model.eos_id)) for item, row in enumerate(rows)]


def text_loss(model: ThoughtModel, vectors: Tensor, texts: Sequence[Text]) -> Tensor:
    """Sum of the cross-entropies of all tokens of the texts, each predicted after its vector (n, hidden size)."""
    embeddings = model.causal_lm.get_input_embeddings()
    longest = max(len(text.ids) for text in texts)
    ids = torch.full((len(texts), longest), model.eos_id, device=model.device)
    targets = torch.full((len(texts), longest), _IGNORED, device=model.device)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids, device=model.device)
        targets[row, : len(text.ids)] = ids[row, : len(text.ids)]
    model.mask_keys.current, model.mask_keys.rows = model.mask_keys.rows, None
    read = embeddings(ids[:, :-1])
    inputs = torch.cat([vectors.to(read.dtype).unsqueeze(1), read], dim=1)
    # Padding is on the right, where causal attention never reads it.
    states = model.causal_lm.get_decoder()(inputs_embeds=inputs, use_cache=False).last_hidden_state
    real = targets != _IGNORED
    logits = model.causal_lm.get_output_embeddings()(states[real]).float()
    return F.cross_entropy(logits, targets[real], reduction="sum")
