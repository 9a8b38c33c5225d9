"""Make the encoder: a language model, a reasoner and a pooling, before any training."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from reaemb_bench.artifacts import Corpus, Encoder
from reaemb_bench.component import Randomness, Step
from reaemb_bench.context import Context
from reaemb_bench.encoding.template import PREFIX, SYSTEM_PROMPT
from reaemb_bench.kinds import AnyBackbone, AnyPooling, AnyReasoner


class LanguageModel(Step):
    """A language model with a freshly initialised reasoner, the encoder that all later steps train or use."""

    randomness: ClassVar[Randomness] = "embedder"

    backbone: AnyBackbone
    """The language model."""
    reasoner: AnyReasoner = "latent-thought"  # type: ignore[assignment]
    """How latent thoughts are computed from the prompt."""
    pooling: AnyPooling = "mean"  # type: ignore[assignment]
    """How one vector is made of the last hidden states."""
    system_prompt: str = SYSTEM_PROMPT
    """System message of the chat template; empty for none."""
    prefix: str = PREFIX
    """What stands before the item text in the user's message."""
    max_length: int = Field(default=1024, ge=8)
    """Most tokens of a prompt, the thoughts and EOS counted; longer ones are cut on the right."""
    padding: Literal["left", "right"] = "left"
    """Side whose coordinates the reasoner's rotary embedding sees; matters to `latent-thought-paper` alone."""

    def run(self, corpus: Corpus, context: Context) -> Encoder:
        """The encoder, its reasoner drawn from the step's seed."""
        from reaemb_bench.encoding.folder import Parts, make_encoder
        from reaemb_bench.encoding.template import Template

        template = Template(self.system_prompt, self.prefix, self.max_length, self.padding)
        parts = Parts(self.backbone, self.reasoner, self.pooling, template)
        return make_encoder(parts, corpus, context.scratch / "encoder", context.machine, context.seed)
