"""The text around an item: system prompt, prefix and chat template, turned into token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from reaemb_bench.core.errors import UserError

SYSTEM_PROMPT = "You are a specialist who summarizes product texts into concise, high-quality item descriptions."
PREFIX = "Please provide the item description. The item information is: \n"

_MARK = "\x02item\x03"


@dataclass(frozen=True)
class Template:
    """How an item text becomes a prompt.

    max_length: most tokens of a prompt, the thoughts and EOS counted. padding: the side on which the paper's code
    padded at this stage; it decides the coordinates that the reasoner's rotary embedding sees, nothing else. cut: the
    end at which prompts that are too long lose tokens; on the left they lose the template first.
    """

    system_prompt: str = SYSTEM_PROMPT
    prefix: str = PREFIX
    max_length: int = 1024
    padding: Literal["left", "right"] = "left"
    cut: Literal["left", "right"] = "right"

    def prompts(self, tokenizer: Any, texts: Sequence[str]) -> list[str]:
        """The prompt of each item text, through the tokenizer's chat template if it has one."""
        if tokenizer.chat_template is None:
            before, after = f"{self.system_prompt}\n{self.prefix}" if self.system_prompt else self.prefix, ""
        else:
            system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
            messages = [*system, {"role": "user", "content": self.prefix + _MARK}]
            whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
            before, mark, after = whole.partition(_MARK)
            if not mark:
                raise UserError("the tokenizer's chat template drops the text; choose an instruction-tuned model")
        return [f"{before}{text}{after}" for text in texts]

    def around(self, tokenizer: Any) -> tuple[int, list[int]]:
        """How many tokens stand before an item's text in its prompt, and the ids of those after it."""
        rows = tokenizer(self.prompts(tokenizer, ["", "a", "7"]), add_special_tokens=False)["input_ids"]
        before = _common(rows)
        after = _common([row[before:][::-1] for row in rows])
        return before, list(rows[0][len(rows[0]) - after :])

    def rows(self, tokenizer: Any, texts: Sequence[str], extra: int, max_length: int | None = None) -> list[list[int]]:
        """Token ids of each prompt, cut at the end `cut` so that `extra` more tokens fit into `max_length`.

        Raises UserError if the template alone fills it.
        """
        limit = max_length or self.max_length
        room = limit - extra
        bare, *ids = tokenizer(self.prompts(tokenizer, ["", *texts]), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        if len(bare) >= room:
            raise UserError(
                f"max_length = {limit} leaves no room for item texts: the template takes {len(bare)}; raise it"
            )
        return [list(row[-room:] if self.cut == "left" else row[:room]) for row in ids]


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
