"""Any causal language model of the hub or of a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import cached_sha256, sha256_of
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.hub import commit_of
from reaemb_bench.encoder.language_model import Loaded, converted_gguf, load_pretrained, unquantisable

Attention = Literal["sdpa", "eager", "flash_attention_2"]
_COMMIT = "commit"
"""File in the encoder's folder that names the commit of a hub model."""


class CausalLM(Component):
    """A causal language model in safetensors or GGUF, such as the paper's `Qwen/Qwen2.5-0.5B`."""

    model: str
    """Hub id, or a local folder with config.json, weights and tokenizer."""
    revision: str | None = None
    """Commit, tag or branch on the hub; None takes `main`. It stands for the commit that it is now."""
    gguf_file: str | None = None
    """A GGUF file inside a local `model` folder, converted once to float32 safetensors in the cache."""
    layers: int | None = Field(default=None, ge=1)
    """How many blocks to keep, from the input on; None keeps all."""
    attention: Attention = "sdpa"
    """Implementation of attention."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the model's numbers; None takes the machine's --precision."""
    quantised: Literal["8bit", "4bit"] | None = None
    """Bits of a weight, quantised by bitsandbytes (extra `quantised`) while loading; needs an NVIDIA GPU."""

    def fingerprint(self) -> dict[str, Any]:
        """sha256 of a local folder's files, or the commit of a hub model."""
        folder = Path(self.model).expanduser()
        if not folder.is_dir():
            if self._looks_local():
                return {"missing": self.model}
            return {"commit": commit_of(self.model, self.revision or "main")}
        relative = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
        visible = [file for file in relative if not any(part.startswith(".") for part in file.parts)]
        return {"files": {str(file): cached_sha256(folder / file) for file in visible}}

    def obstacle(self, machine: Machine) -> str:
        """The folder, the GGUF file, the package or the GPU that is missing."""
        local = Path(self.model).expanduser()
        if not local.is_dir() and self._looks_local():
            return f"model: {self.model} is not a folder; correct the path or give a hub id"
        if self.gguf_file is not None and not (local / self.gguf_file).is_file():
            return f"gguf_file: {local / self.gguf_file} is not a file; give the folder that holds it as model"
        return "" if self.quantised is None else unquantisable(self.quantised, machine.device_name())

    def prepare(self, corpus: Corpus, folder: Path, machine: Machine, seed: int) -> None:
        """Writes the commit of a hub model, so that all later steps load the same; the weights stay where they are."""
        if not Path(self.model).expanduser().is_dir() and not self._looks_local():
            commit = commit_of(self.model, self.revision or "main")
            if commit is not None:
                (folder / _COMMIT).write_text(commit, encoding="ascii")

    def load(self, folder: Path, machine: Machine) -> Loaded:
        """The model and its tokenizer, ready on the machine's device. Raises UserError if it cannot be loaded."""
        local = Path(self.model).expanduser()
        if not local.is_dir() and self._looks_local():
            raise UserError(f"backbone.model: {self.model} is not a folder; correct the path or give a hub id")
        source = local if local.is_dir() else self.model
        if self.gguf_file is not None:
            file = local / self.gguf_file
            if not file.is_file():
                raise UserError(f"backbone.gguf_file: {file} is not a file; give the folder that holds it as model")
            source = converted_gguf(file, sha256_of(file), machine.cache)
        commit = folder / _COMMIT
        revision = commit.read_text(encoding="ascii") if commit.is_file() else self.revision
        return load_pretrained(
            source,
            machine,
            layers=self.layers,
            attention=self.attention,
            revision=revision if isinstance(source, str) else None,
            dtype=self.dtype,
            quantised=self.quantised,
        )

    def _looks_local(self) -> bool:
        # Hub ids are `owner/name`, without a leading dot, slash or tilde.
        return self.model.startswith((".", "/", "~")) or self.model.count("/") > 1
