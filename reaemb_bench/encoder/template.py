"""The text around an item: system prompt, prefix and chat template, turned into token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice, pairwise, takewhile
from typing import Any, Literal

from jinja2 import TemplateError

from reaemb_bench.core.errors import UserError

SYSTEM_PROMPT = "You are a specialist who summarizes product texts into concise, high-quality item descriptions."
PREFIX = "Please provide the item description. The item information is: \n"

_MARK = "\x02item\x03"
_CODES = "".join(f"|replace('%{code}', '{date(2024, 7, 26):%{code}}')" for code in "aAbBdjmyYHIMSp")
_DATE = "{%- macro strftime_now(format) -%}{{ format" + _CODES + " }}{%- endmacro -%}"
"""Today in chat templates that show the date, so that vectors do not change from day to day: Llama 3's own default."""


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
        """The prompt of each item text; see `around_text`."""
        before, after = self.around_text(tokenizer)
        return [f"{before}{text}{after}" for text in texts]

    def around_text(self, tokenizer: Any) -> tuple[str, str]:
        """What stands before and after an item's text in its prompt, from the tokenizer's chat template if it has one.

        If that has no system role, the system prompt begins the user's message. Raises UserError if the template
        cannot be rendered or drops what it is given.
        """
        if tokenizer.chat_template is None:
            return f"{self.system_prompt}\n{self.prefix}" if self.system_prompt else self.prefix, ""
        user = self.prefix + _MARK
        apart = [{"role": "system", "content": self.system_prompt}, {"role": "user", "content": user}]
        joined = [{"role": "user", "content": f"{self.system_prompt}\n\n{user}"}]
        reason = "it drops the text"
        template = tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = _DATE + template
        for messages in (apart, joined) if self.system_prompt else (apart[1:],):
            try:
                prompt = tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=False
                )
            except (TemplateError, TypeError, ValueError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                continue
            before, mark, after = prompt.partition(_MARK)
            # Some templates skip a role that they do not know.
            if mark and self.system_prompt.strip() in before:
                return before, after
        raise UserError(
            f"the tokenizer's chat template cannot be used ({reason}); choose an instruction-tuned model, or delete "
            "the template to use none"
        )

    def around(self, tokenizer: Any) -> tuple[int, list[int]]:
        """How many tokens stand before an item's text in its prompt, and the ids of those after it."""
        rows = self._ids(tokenizer, ["", "a", "7"])
        before = _common(rows)
        after = _common([row[before:][::-1] for row in rows])
        return before, list(rows[0][len(rows[0]) - after :])

    def rows(self, tokenizer: Any, texts: Sequence[str], extra: int, max_length: int | None = None) -> list[list[int]]:
        """Token ids of each prompt, cut at the end `cut` so that `extra` more tokens fit into `max_length`.

        Raises UserError if the template alone fills it.
        """
        limit = max_length or self.max_length
        room = limit - extra
        bare, *ids = self._ids(tokenizer, ["", *texts])
        if len(bare) >= room:
            raise UserError(
                f"max_length = {limit} leaves no room for item texts: the template takes {len(bare)}; raise it"
            )
        return [row[-room:] if self.cut == "left" else row[:room] for row in ids]

    def _ids(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt. No part of an item's text becomes a control token."""
        before, after = self.around_text(tokenizer)
        opening: list[int] = []
        if tokenizer.chat_template is None:
            # A chat template writes BOS itself; without one, the tokenizer's own rule is that of the training.
            special = set(tokenizer.all_special_ids)
            opening = list(takewhile(special.__contains__, tokenizer("a")["input_ids"]))
        tokens = tokenizer.added_tokens_decoder.values()
        control = sorted(token.content for token in tokens if token.special and len(token.content) > 1)
        first = re.escape("".join({content[0] for content in control}))
        spelled = re.compile(f"(?=[{first}])(?={'|'.join(map(re.escape, control))})" if control else "(?!)")
        pieces, counts = [], []
        for text in texts:
            # Cut after the first character of each, and tokenised in pieces.
            cuts = [match.start() + 1 for match in spelled.finditer(text)]
            parts = [text[start:stop] for start, stop in pairwise([0, *cuts, len(text)])]
            parts[0] = before + parts[0]
            parts[-1] += after
            pieces += parts
            counts.append(len(parts))
        ids = iter(tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"])
        return [[*opening, *chain.from_iterable(islice(ids, count))] for count in counts]


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
