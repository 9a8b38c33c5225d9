"""Causal language models of transformers: loading them, the thought token, attention and its masks."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging as transformers_logging

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine

PACKED = "sdpa-packed"
"""Transformers' name of the implementation in `packed_attention`."""
THOUGHT = "<|Thought|>"
"""The special token whose input embedding a thought replaces."""


@dataclass(frozen=True)
class Loaded:
    """A transformers causal language model, on its device and in eval mode, and its tokenizer.

    bidirectional: each token of an item's prompt sees all of it, not only what stands before.
    """

    model: Any
    tokenizer: Any
    bidirectional: bool = False


def unquantisable(quantised: str, device: str) -> str:
    """Why a model cannot be quantised on a device, in one line; empty if it can."""
    if not device.startswith("cuda"):
        return f"quantised = '{quantised}' needs an NVIDIA GPU, and this machine computes on {device}; leave it out"
    missing = find_spec("bitsandbytes") is None
    return "quantised needs bitsandbytes; pip install 'reaemb-bench[quantised]'" if missing else ""


def load_pretrained(
    source: str | Path,
    machine: Machine,
    *,
    layers: int | None,
    attention: str,
    revision: str | None = None,
    dtype: str | None = None,
    quantised: str | None = None,
) -> Loaded:
    """The model and tokenizer of a hub id or a folder, in safetensors.

    layers: how many of the model's blocks to keep, from the input on; None keeps all. attention: transformers' name
    of the implementation. dtype: torch's name of the type of its numbers; None takes the machine's. quantised: `8bit`
    or `4bit`, by bitsandbytes. Raises UserError if the model cannot be loaded.
    """
    device = machine.torch_device()
    options: dict[str, Any] = {}
    if quantised is not None:
        if reason := unquantisable(quantised, str(device)):
            raise UserError(reason)
        options = {
            "quantization_config": BitsAndBytesConfig(**{f"load_in_{quantised}": True}),
            "device_map": {"": str(device)},
        }
    with quiet(), _explained(source, attention):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            dtype=dtype or machine.torch_dtype(),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            # A file that is cut while it is mapped would kill the process without a line.
            disable_mmap=True,
            **options,
        )
        if attention == "sdpa":
            pack(model)
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {source} has no end-of-sequence token; choose another model")
    if layers is not None:
        config = model.config.get_text_config()
        lists = [part for part in body(model).named_children() if isinstance(part[1], nn.ModuleList)]
        blocks = {name: part for name, part in lists if len(part) == config.num_hidden_layers}
        if len(blocks) != 1:
            raise UserError(f"layers: {source} keeps its blocks in no list of its own; leave `layers` out")
        name, part = blocks.popitem()
        if layers > len(part):
            raise UserError(f"layers = {layers}, but {source} has {len(part)} blocks; ask for fewer")
        setattr(body(model), name, part[:layers])
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
        config.num_hidden_layers = layers
    return Loaded((model if quantised else model.to(device)).eval(), tokenizer)


def body(model: Any) -> Any:
    """A causal language model without its vocabulary head, which returns hidden states."""
    decoder = model.get_decoder()
    if isinstance(decoder, PreTrainedModel) and decoder is not model:
        return decoder
    # Some models call their head the decoder.
    return next((part for part in model.children() if isinstance(part, PreTrainedModel)), decoder)


def add_thought_token(loaded: Loaded) -> int:
    """Adds the thought token to the tokenizer and, if no row is spare, to the embeddings; returns its id."""
    loaded.tokenizer.add_tokens([AddedToken(THOUGHT, special=True)])
    thought_id = int(loaded.tokenizer.convert_tokens_to_ids(THOUGHT))
    table = loaded.model.get_input_embeddings().weight
    if thought_id >= len(table):
        mean = table.detach().float().mean(dim=0).to(table.dtype)
        # The default initialisation draws at random; the mean is the same in every process.
        loaded.model.resize_token_embeddings(thought_id + 1, mean_resizing=False)
        with torch.no_grad():
            for layer in (loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings()):
                if layer is not None:
                    same = layer.weight.shape[1] == len(mean)
                    layer.weight[thought_id:] = mean if same else layer.weight[:thought_id].mean(dim=0)
    return thought_id


def embedding_rms(loaded: Loaded) -> float:
    """Root mean square of the entries of the input embeddings of the tokenizer's own tokens."""
    layer = loaded.model.get_input_embeddings()
    ids = torch.arange(min(len(loaded.tokenizer), len(layer.weight)), device=layer.weight.device)
    # The layer may do more than read its table: Gemma's multiplies by the root of the width.
    with torch.no_grad():
        return float(layer(ids).float().square().mean().sqrt())


def converted_gguf(file: Path, key: str, cache: Path) -> Path:
    """The folder in the cache that holds a GGUF file's weights as safetensors, and its tokenizer; written once.

    key: identifies the file's content, such as its sha256.
    """
    folder = cache / "converted" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{key[:12]}."))
            try:
                # Transformers draws a progress bar here that none of its settings turns off.
                with quiet(), _explained(file, "sdpa"), redirect_stderr(io.StringIO()):
                    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
                    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
                # The weights are no longer quantised, but transformers refuses to save them while these say so.
                if hasattr(model.config, "quantization_config"):
                    del model.config.quantization_config
                model.hf_quantizer = None
                save_pretrained(model, tokenizer, draft)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def save_pretrained(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a model and its tokenizer as a folder that `load_pretrained` reads."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which transformers writes no warnings and no progress bars."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # What one library's next version will say of another is nothing that a user could act on.
            warnings.simplefilter("ignore", FutureWarning)
            # Peft warns of a second adapter, which is what is wanted.
            warnings.filterwarnings("ignore", category=UserWarning, module="peft")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()


@contextmanager
def _explained(source: str | Path, attention: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, ValueError, KeyError, SafetensorError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, ImportError):
            raise UserError(f"attention '{attention}' cannot be used here ({reason}); say 'sdpa'") from None
        if "gated repo" in str(error):
            cure = f"accept its terms on https://huggingface.co/{source}, then log in with `hf auth login`"
            raise UserError(f"{source} is gated: {cure}") from None
        if "attn_implementation" in str(error) and attention != "eager":
            raise UserError(f"{source} cannot attend by '{attention}'; say attention = \"eager\"") from None
        raise UserError(
            f"the model {source} cannot be loaded ({reason}); give a folder that holds config.json, "
            "safetensors and a tokenizer, or the hub id of such a model on a machine that reaches the hub"
        ) from None


# Attention for models in which several query heads share keys and values: nothing is copied for each head.


def pack(model: Any) -> None:
    """Lets a transformers model that attends by `sdpa` do so without copies of keys and values; numbers stay."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
    model.set_attn_implementation(PACKED)


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Outputs (n, queries, heads, head size) of query (n, heads, queries, head size) and fewer heads of key and value.

    Under a mask, transformers' `sdpa` copies keys and values for every query head. Here the queries of all heads that
    share keys and values follow each other, as if they were more tokens, each under its token's mask. Torch's
    `enable_gqa` gives the same to 4e-7 and is as fast for whole prompts, but takes 1.2 to 2 times as long if two
    tokens follow a prompt, up to 4 times in bfloat16 (one CPU core), and those are all that CRRL computes in a step.
    """
    shared = query.shape[1] // key.shape[1]
    special = any(settings.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    if attention_mask is None or attention_mask.shape[1] != 1 or shared == 1 or special:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return attended
    count, heads, queries, size = query.shape
    outputs = nn.functional.scaled_dot_product_attention(
        query.reshape(count, heads // shared, shared * queries, size),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, shared, 1),
        dropout_p=settings.get("dropout", 0.0),
        scale=settings.get("scaling"),
    )
    return outputs.reshape(count, heads, queries, -1).transpose(1, 2).contiguous(), None


# Attention masks other than the causal one, as numbers that are added to attention scores: 0 where a token is seen.


def takes_any_mask(config: Any) -> bool:
    """Whether a transformers model with this configuration takes masks (n, 1, queries, keys) from its caller."""
    full = narrowest_window(config) is None and {"full_attention"} >= {*(getattr(config, "layer_types", None) or ())}
    return full and config._attn_implementation in ("sdpa", PACKED, "eager")


def narrowest_window(config: Any) -> int | None:
    """How many positions, padding included, a token of such a model sees at least; None if it sees all before it."""
    text = config.get_text_config()
    windows = (getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((window for window in windows if window), default=None)


def trained_length(config: Any) -> int | None:
    """Most tokens of the sequences that such a model was trained on; None if its configuration does not say."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_target_positions")
    most: int | None = next((getattr(text, name) for name in names if getattr(text, name, None)), None)
    rope = getattr(text, "rope_parameters", None) or {}
    # Beyond this length such models take other frequencies, for all tokens of a batch.
    return rope.get("original_max_position_embeddings", most) if rope.get("rope_type") == "longrope" else most


def extends_positions(config: Any) -> bool:
    """Whether such a model computes a position's number, so that there is one for every length."""
    text = config.get_text_config()
    return bool(getattr(text, "rope_parameters", None) or getattr(text, "alibi", False))


def bidirectional_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, 1, L, L): every token sees all real ones, before and after it; `mask` (n, L) is 1 at real tokens."""
    count, length = mask.shape
    return _additive(mask.bool().view(count, 1, 1, length).expand(-1, -1, length, -1), dtype)


def side_by_side(mask: Tensor, size: int, times: int, dtype: torch.dtype) -> Tensor:
    """(n, 1, times * size, L + times * size): each of `times` pieces of `size` tokens sees the prompt, whose real
    tokens have 1 in `mask` (n, L), and itself, causally.
    """
    causal = torch.ones(size, size, dtype=torch.long, device=mask.device).tril()
    pieces = torch.kron(torch.eye(times, dtype=torch.long, device=mask.device), causal).bool()
    shape = (len(mask), times * size, -1)
    allowed = torch.cat([mask.bool().unsqueeze(1).expand(shape), pieces.expand(shape)], dim=2).unsqueeze(1)
    return _additive(allowed, dtype)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
