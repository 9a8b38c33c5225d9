"""Item vectors from any sentence encoder, by the library sentence-transformers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError

from reaemb_bench.core.artifacts import Corpus, Float32, Vectors
from reaemb_bench.core.component import Context, Progress, Step
from reaemb_bench.core.distributed import all_reduce, share
from reaemb_bench.core.errors import UserError, check_rows, is_out_of_memory
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.embed import in_files
from reaemb_bench.encoder.hub import contents_of_model, folder_of_model, missing_folder
from reaemb_bench.encoder.language_model import quiet
from reaemb_bench.encoder.memory import MICRO_BATCH

_NOT_INSTALLED = "sentence-transformers is not installed; pip install 'reaemb-bench[sentence-transformers]'"
_ROWS = 2_048
"""Texts of one file: an interrupted run repeats no more. Texts of similar length among them are read together."""
_UNREADABLE = (ImportError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError)
"""What the libraries raise for models that they cannot load."""


class SentenceEncoder(Step):
    """Embed every item's text with a model of sentence-transformers, or with an encoder and a pooling.

    Needs the extra `sentence-transformers`. `--micro-batch` says how many texts are read at once (64).
    """

    distributed: ClassVar[bool] = True

    model: str
    """Hub id, or a local folder, with weights in safetensors."""
    revision: str | None = None
    """Commit, tag or branch on the hub; the commit that it stands for enters the key."""
    pooling: Literal["mean", "cls", "last"] | None = None
    """How the last states of a model without `modules.json` become a vector: their mean over all tokens, the state of
    the first or of the last token. None takes the model's own modules."""
    prompt: str | None = None
    """What is put before each text, such as `passage: ` or a whole instruction."""
    prompt_name: str | None = None
    """A prompt of the model's own by its name; with neither, its prompt for documents if it has one."""
    with_instruction: bool = False
    """Put the corpus' instruction line before each text, after the prompt."""
    max_length: int | None = Field(default=None, ge=3)
    """Most tokens of a text, prompt included; never more than the model's own limit."""
    dimensions: int | None = Field(default=None, ge=1)
    """Keep the first numbers of each vector, for models that were trained for it (Matryoshka); None keeps all."""
    normalize: bool = False
    """Scale the vectors to length 1, after `dimensions`."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of weights and arithmetic; None takes the machine's `--precision`."""

    @model_validator(mode="after")
    def _check(self) -> SentenceEncoder:
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("prompt and prompt_name exclude each other; drop one of them")
        return self

    def fingerprint(self) -> dict[str, Any]:
        """The contents of the folder, wherever it lies, or the commit on the hub."""
        return {"model": contents_of_model(self.model, self.revision), "revision": None}

    def obstacle(self, machine: Machine) -> str:
        """The package or the folder that is missing."""
        return _NOT_INSTALLED if find_spec("sentence_transformers") is None else missing_folder(self.model)

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, width). Raises UserError if the model cannot be loaded or has no such prompt or width."""
        model, full = self._load(context.machine)
        if self.prompt_name is not None and self.prompt_name not in model.prompts:
            known = ", ".join(sorted(model.prompts)) or "none"
            raise UserError(f"prompt_name: {self.model} has no prompt '{self.prompt_name}'; known: {known}")
        if self.max_length is not None:
            model.max_seq_length = min(self.max_length, model.max_seq_length or self.max_length)
        width = full if self.dimensions is None else self.dimensions
        if width > full:
            raise UserError(f"dimensions = {width}, but {self.model} has vectors of {full} numbers; lower it")
        context.note({"parameters": sum(parameter.numel() for parameter in model.parameters())})
        size = context.machine.micro_batch or MICRO_BATCH
        tokens = torch.zeros(1, dtype=torch.float64, device=model.device)

        def count(_: Any, inputs: tuple[Any, ...]) -> None:
            # Models that need no padding have no mask.
            mask = inputs[0].get("attention_mask")
            tokens.add_(inputs[0]["input_ids"].numel() if mask is None else mask.sum())

        model[0].register_forward_pre_hook(count)
        before = f"{corpus.instruction}\n" if self.with_instruction else ""

        def embed(first: int, chunk: Sequence[str]) -> tuple[Float32, int]:
            tokens.zero_()
            order = sorted(range(len(chunk)), key=lambda row: -len(chunk[row]))
            batches = [order[start : start + size] for start in range(0, len(order), size)]
            vectors = torch.zeros(len(chunk), width, device=model.device)
            for batch, done in share(list(zip(batches, accumulate(map(len, batches)), strict=True))):
                vectors[batch] = model.encode_document(
                    [f"{before}{chunk[row]}" for row in batch],
                    prompt=self.prompt,
                    prompt_name=self.prompt_name,
                    batch_size=size,
                    show_progress_bar=False,
                    truncate_dim=self.dimensions,
                    normalize_embeddings=self.normalize,
                    convert_to_tensor=True,
                ).float()
                context.report(Progress(first + done, corpus.items, "items"))
            context.report(Progress(first + len(chunk), corpus.items, "items"))
            all_reduce([vectors, tokens])
            values: Float32 = vectors.cpu().numpy()
            check_rows("vector", values, first, cure='say dtype = "float32", or choose another model')
            return values, int(tokens)

        return in_files(corpus.texts, context, embed, _ROWS)

    def _load(self, machine: Machine) -> tuple[Any, int]:
        """The model, on the machine's device, and the width of its vectors. Raises UserError if it cannot be loaded."""
        try:
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.base.modules import Transformer
            from sentence_transformers.sentence_transformer.modules import Pooling
            from sentence_transformers.util import is_sentence_transformer_model
        except ImportError:
            raise UserError(f"sentence-encoder: {_NOT_INSTALLED}") from None
        folder = str(folder_of_model(self.model, self.revision))
        dtype = machine.torch_dtype() if self.dtype is None else getattr(torch, self.dtype)
        offline = {"local_files_only": True, "trust_remote_code": False}
        weights = {"dtype": dtype, "use_safetensors": True}
        device = str(machine.torch_device())
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        try:
            with quiet():
                if is_sentence_transformer_model(folder, local_files_only=True):
                    if self.pooling is not None:
                        raise UserError(f"pooling: {self.model} pools by its own modules.json; drop the setting")
                    model = SentenceTransformer(folder, **offline, device=device, model_kwargs=weights)
                else:
                    options = {"processor_kwargs": offline, "config_kwargs": offline}
                    states = Transformer(folder, model_kwargs={**offline, **weights}, **options)
                    if self.pooling is None:
                        raise UserError(f"pooling: {self.model} has no modules.json, so say mean, cls or last")
                    mode = "lasttoken" if self.pooling == "last" else self.pooling
                    pooling = Pooling(states.get_embedding_dimension(), mode)
                    model = SentenceTransformer(modules=[states, pooling], device=device)
                return model.eval(), model.encode(["A text."], show_progress_bar=False).shape[1]
        except _UNREADABLE as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"the sentence encoder {self.model} cannot be loaded ({reason}); give a folder with config.json, "
                "safetensors and a tokenizer, or the hub id of such a model"
            ) from None
