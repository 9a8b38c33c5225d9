"""Counts words and phrases that a reader of this field would stumble over: `python -m tests.plain_english`.

Variables must carry the noun of what they hold, so `made`, `each`, `found`, `place` and `told` are not allowed.
Comments, docstrings, messages, help and pages must not contain the phrases below. `plain_english.toml` says how many
are left in each folder; more than that is an error. `--lower` writes today's counts into it if they are lower.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import tomli_w

ROOT = Path(__file__).parents[1]
ALLOWED = Path(__file__).with_suffix(".toml")
VARIABLES = frozenset({"made", "each", "found", "place", "told"})
PHRASES = {
    r"(?<!there\s)(?:is|are|was|were) no\b(?! longer| more than)": "is not a",
    r"where there (?:is|are)\b": "if there is",
    r"where none\b": "if no ...",
    r"behind (?:the|it|them|each)\b": "after",
    r"beside\b": "next to",
    r"whoever\b|whosoever\b": "the user who, the process that",
    r"whatever\b": "any",
    r"people see\b|a person\b": "the user",
    r"of one's own\b": "your own",
    r"nothing but\b|(?:is|are|has|have) but\b": "only",
    r"leaves with (?:exit )?code\b": "exits with code",
    r", for (?:it|they|that|nobody|nothing)\b": "because",
    r"by the clock on the wall\b": "wall-clock",
}
_PATTERN = re.compile("|".join(rf"(?<!\w)(?:{pattern})".replace(" ", r"\s+") for pattern in PHRASES), re.IGNORECASE)
_SELF = {Path(__file__).name, f"test_{Path(__file__).name}"}


def main() -> int:
    """Print what is over the allowance; returns the exit code."""
    faults = list(all_faults())
    counts = Counter((folder, kind) for folder, kind, _ in faults)
    allowed = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))
    if "--lower" in sys.argv:
        lowered = {
            kind: {
                folder: min(limit, counts[folder, kind])
                for folder, limit in sorted(folders.items())
                if counts[folder, kind]
            }
            for kind, folders in allowed.items()
        }
        ALLOWED.write_text(tomli_w.dumps(lowered), encoding="utf-8")
        return 0
    over = {key for key, count in counts.items() if count > allowed.get(key[1], {}).get(key[0], 0)}
    for folder, kind, line in faults:
        if (folder, kind) in over or folder in sys.argv[1:]:
            print(line)
    for folder, kind in sorted(over):
        limit = allowed.get(kind, {}).get(folder, 0)
        print(f"{folder}: {counts[folder, kind]} {kind}, {limit} allowed; rename or reword what is new among the above")
    return 1 if over else 0


def all_faults() -> Iterator[tuple[str, str, str]]:
    """(folder, "variables" or "phrases", place and words) of everything that should be said otherwise."""
    for file in sorted(path for pattern in ("*.py", "*.md", "*.toml") for path in ROOT.rglob(pattern)):
        path = file.relative_to(ROOT)
        if any(part.startswith((".", "_shipped")) for part in path.parts) or file.name in _SELF:
            continue
        folder = "pages" if len(path.parts) == 1 or path.parts[0] == "docs" else path.parts[0]
        if folder == "reaemb_bench" and len(path.parts) > 2:
            folder = f"reaemb_bench/{path.parts[1]}"
        text = file.read_text(encoding="utf-8")
        for kind, number, words in faults_of(text, file.suffix):
            yield folder, kind, f"{path}:{number}: {words}"


def faults_of(text: str, suffix: str) -> Iterator[tuple[str, int, str]]:
    """("variables" or "phrases", line, words) of a file's text."""
    if suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name | ast.arg):
                name = node.id if isinstance(node, ast.Name) else node.arg
                if name in VARIABLES:
                    yield "variables", node.lineno, name
    for line, prose in _prose(text, suffix):
        for match in _PATTERN.finditer(prose):
            number = line + prose.count("\n", 0, match.start())
            yield "phrases", number, f"{' '.join(match[0].split())!r}, say {_instead(match[0])!r}"


def _prose(text: str, suffix: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of comments and strings, or of the whole page."""
    if suffix != ".py":
        yield 1, _loose(text)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            yield token.start[0], _loose(token.string)


def _loose(text: str) -> str:
    """The text without indents, so that a phrase may be broken over two lines."""
    return re.sub(r"\n[ \t#>]+", "\n", text)


def _instead(phrase: str) -> str:
    return next(say for pattern, say in PHRASES.items() if re.match(pattern, " ".join(phrase.split()), re.IGNORECASE))


if __name__ == "__main__":
    sys.exit(main())
