"""A random little Qwen2 with a tokenizer of the corpus: for tests and demonstrations, not for results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.component import Component
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.backbones.causal_lm import Attention
from reaemb_bench.encoder.language_model import Loaded, load_pretrained, save_pretrained
from reaemb_bench.encoder.template import PREFIX, SYSTEM_PROMPT

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Tiny(Component):
    """A Qwen2 with random weights from the step's seed and a byte-level BPE tokenizer trained on the item texts."""

    layers: int = Field(default=2, ge=1)
    """Number of blocks."""
    hidden: int = Field(default=64, ge=8, multiple_of=8)
    """Hidden size, divided among 4 attention heads."""
    vocabulary: int = Field(default=1000, ge=300)
    """Most tokens of the tokenizer."""
    attention: Attention = "sdpa"
    """Implementation of attention."""

    def prepare(self, corpus: Corpus, folder: Path, machine: Machine, seed: int) -> None:
        """Writes the random weights and the trained tokenizer into `folder`."""
        tokenizer = self._tokenizer(corpus)
        config = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=2 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Qwen2ForCausalLM(config)
        save_pretrained(model, tokenizer, folder)

    def load(self, folder: Path, machine: Machine) -> Loaded:
        """The model and its tokenizer, ready on the machine's device."""
        return load_pretrained(folder, machine, layers=self.layers, attention=self.attention)

    def _tokenizer(self, corpus: Corpus) -> Any:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        # Prompts as they will be, so that the template's words become tokens too and are not split into bytes.
        bpe.train_from_iterator((f"{SYSTEM_PROMPT}\n{PREFIX}{text}" for text in corpus.texts), trainer)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", clean_up_tokenization_spaces=False
        )
        tokenizer.chat_template = _CHAT_TEMPLATE
        return tokenizer
