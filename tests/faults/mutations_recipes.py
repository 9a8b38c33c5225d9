"""Mutated recipes: shipped ones with one to three edits, in the tables, in the text, or on the command line."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w

from reaemb_bench.catalogue import CATALOGUE
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.recipe import SHIPPED, load

Raw = dict[str, Any]

LONG = "x" * 100_000
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 10**6, 2**31, 2**63, -(2**63) - 1, 10**30, 0.0, -0.5, 1e-300, 1e308, float("nan"), float("inf"),
    -float("inf"),
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    "", " ", "\t", "none", "auto", "🦊", "שלום", "\u202e", "a\nb", "\x00", "\x1b[31m", "a;b", "../..", "/", ".", "~",
    LONG, "pca", "sasrec", "train", "NaN", "1", "%s{}", "é" * 300,
)  # fmt: skip
ODD: tuple[Any, ...] = (*NUMBERS, *TEXTS, True, False, [], {}, [[]], [{}], [None], {"": {}}, ["a", 1, {"b": []}])
PLUGINS = {
    "empty.py": "",
    "syntax.py": "class Broken(:\n",
    "raises.py": "raise ValueError('no\\nluck')\n",
    "leaves.py": "import sys\nsys.exit('gone')\n",
    "bytes.py": "\udcff\udcfe",
    "nul.py": "x = 1\x00",
    "other.py": "class Thing:\n    pass\n",
    "value.py": "Thing = 3\n",
    "norun.py": "from reaemb_bench import Step\nclass Thing(Step):\n    pass\n",
    "hints.py": (
        "from reaemb_bench import Step\n"
        "class Thing(Step):\n    def run(self, data: 'Nowhere') -> 'Nothing':\n        return data\n"
    ),
    "untyped.py": ("from reaemb_bench import Step\nclass Thing(Step):\n    def run(self, data):\n        pass\n"),
    "sees.py": (
        "from reaemb_bench import Corpus\nfrom reaemb_bench import Step\n"
        "class Thing(Step):\n    data_access = 'everything'\n"
        "    def run(self, corpus: Corpus) -> Corpus:\n        return corpus\n"
    ),
    "draws.py": (
        "from reaemb_bench import Corpus\nfrom reaemb_bench import Step\n"
        "class Thing(Step):\n    randomness = 'much'\n"
        "    def run(self, corpus: Corpus) -> Corpus:\n        return corpus\n"
    ),
    "fine.py": (
        "from reaemb_bench import Corpus\nfrom reaemb_bench import Step\n"
        "class Thing(Step):\n    width: int = 3\n    def run(self, corpus: Corpus) -> Corpus:\n        return corpus\n"
    ),
    "default.py": (
        "from reaemb_bench import Step\nclass Thing(Step):\n    width: int = 'wide'\n    def run(self):\n        pass\n"
    ),
}


@dataclass(frozen=True)
class Case:
    """A mutated recipe: its file, and edits of the command line."""

    label: str
    recipe: str
    sets: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()


@dataclass
class _Draft:
    """A recipe while it is mutated: its tables until they are written, then its bytes."""

    rng: random.Random
    folder: Path
    raw: Raw
    shipped: tuple[Raw, ...]
    sets: list[str] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    extends: str | None = None


@cache
def bases(folders: tuple[str, ...] = ("recipes", "baselines")) -> tuple[Raw, ...]:
    """The resolved tables of every shipped recipe that stands alone: suites name these too."""
    recipes = []
    for file in sorted(file for folder in folders for file in SHIPPED.glob(f"{folder}/**/*.toml")):
        try:
            recipes.append(load(file).raw)
        except UserError:
            # A parent that only its children complete.
            continue
    return tuple(recipes)


def mutated(seed: int, folder: Path, *folders: str) -> Case:
    """The recipe of this number, written below `folder`, which is new; of those in `folders`, if given."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    shipped = bases(folders) if folders else bases()
    draft = _Draft(rng, folder, _copied(rng.choice(shipped)), shipped)
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        edit = rng.choice(_EDITS)
        names.append(edit.__name__.strip("_"))
        edit(draft)
    written = dict(draft.raw) if draft.extends is None else {"extends": draft.extends, **draft.raw}
    file = folder / "recipe_mutated.toml"
    content = _dumped(written)
    if rng.random() < 0.2:
        damage = rng.choice(_DAMAGES)
        names.append(damage.__name__.strip("_"))
        content = damage(rng, content)
    file.write_bytes(content)
    recipe = str(file)
    if rng.random() < 0.05:
        names.append("place")
        recipe = _odd_place(rng, folder)
    return Case(f"{seed} ({', '.join(names)})", recipe, tuple(draft.sets), tuple(draft.drops))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _dumped(raw: Raw) -> bytes:
    return tomli_w.dumps(_writable(raw)).encode()


def _writable(value: Any) -> Any:
    """What TOML can hold: nothing becomes an empty string."""
    if isinstance(value, dict):
        return {str(key): _writable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(inner) for inner in value]
    return "" if value is None else value


def _tables(value: Raw) -> list[Raw]:
    """A table and all tables inside it, that are not in a list."""
    return [value, *(inner for child in value.values() if isinstance(child, dict) for inner in _tables(child))]


def _spot(draft: _Draft) -> tuple[Raw, str]:
    table = draft.rng.choice([table for table in _tables(draft.raw) if table] or [{"": 0}])
    return table, draft.rng.choice(list(table))


def _misspelt(rng: random.Random, word: str) -> str:
    position = rng.randrange(len(word) + 1)
    before, after = word[:position], word[position:]
    return rng.choice((before + after[1:], before + "q" + after, word.upper(), word + " "))


def _delete_key(draft: _Draft) -> None:
    table, key = _spot(draft)
    del table[key]


def _rename_key(draft: _Draft) -> None:
    table, key = _spot(draft)
    table[_misspelt(draft.rng, key)] = table.pop(key)


def _duplicate_key(draft: _Draft) -> None:
    table, key = _spot(draft)
    table[draft.rng.choice((f"{key}2", "prepare", "train", "steps", "use"))] = _copied(table[key])


def _odd_value(draft: _Draft) -> None:
    table, key = _spot(draft)
    table[key] = draft.rng.choice(ODD)


def _odd_number(draft: _Draft) -> None:
    spots = [
        (table, key) for table in _tables(draft.raw) for key, value in table.items() if isinstance(value, int | float)
    ]
    table, key = draft.rng.choice(spots or [_spot(draft)])
    table[key] = draft.rng.choice(NUMBERS)


def _new_key(draft: _Draft) -> None:
    table, _ = _spot(draft)
    table[draft.rng.choice(("", "use", "epochs", "version", "🦊", "a.b", "run", "_use", LONG))] = draft.rng.choice(ODD)


def _nudge(draft: _Draft) -> None:
    """A setting that may well be as good as the one before."""
    spots = [
        (table, key) for table in _tables(draft.raw) for key, value in table.items() if isinstance(value, int | float)
    ]
    if spots:
        table, key = draft.rng.choice(spots)
        table[key] = draft.rng.choice((table[key] + 1, table[key] * 2, float(table[key]), str(table[key])))
    draft.raw["seeds"] = draft.rng.sample(range(1000), 3)
    draft.raw["title"] = draft.rng.choice(TEXTS)


def _nest(draft: _Draft) -> None:
    table, key = _spot(draft)
    table[key] = draft.rng.choice(({key: table[key]}, [table[key]], {"use": table[key]}, {"use": {"use": table[key]}}))


def _flatten(draft: _Draft) -> None:
    spots = [(table, key) for table in _tables(draft.raw) for key, value in table.items() if isinstance(value, dict)]
    table, key = draft.rng.choice(spots or [_spot(draft)])
    inner = table[key]
    table[key] = inner.get("use", str(inner)) if isinstance(inner, dict) else [inner]


def _other_component(draft: _Draft) -> None:
    table, key = _spot(draft)
    name = draft.rng.choice([name for names in CATALOGUE.values() for name in names])
    table[key] = draft.rng.choice((name, {"use": name}, {"use": _misspelt(draft.rng, name)}, [name, name]))


def _other_steps(draft: _Draft) -> None:
    rng, steps = draft.rng, draft.raw.get("steps", [])
    if not isinstance(steps, list) or not steps:
        return
    shuffled = rng.sample(steps, len(steps))
    draft.raw["steps"] = rng.choice(
        ([], steps + steps[:1], steps[::-1], shuffled, steps[1:], steps[:-1], [*steps, "fly"], [*steps, ""],
         [*steps, 3], [*steps, LONG], "prepare", 7, {"prepare": 1}, [steps], [*steps, "use"],
         [*steps, "title"], [*steps, "floors"])
    )  # fmt: skip


def _other_header(draft: _Draft) -> None:
    rng = draft.rng
    seeds: tuple[Any, ...] = (
        [],
        [-1],
        [2**70],
        [True],
        [True, False],
        [1, 1],
        [0.5],
        ["a"],
        3,
        [[1]],
        list(range(200)),
        [float("nan")],
    )
    name = rng.choice(("seeds", "seeds", "data_seed", "embedder_seed", "allow_leaks", "title", "extends", "name"))
    draft.raw[name] = rng.choice(seeds if name == "seeds" else ODD)


def _extends(draft: _Draft) -> None:
    folder = draft.folder
    (folder / "parent.toml").write_bytes(_dumped(draft.rng.choice(draft.shipped)))
    (folder / "loop.toml").write_text('extends = "recipe_mutated.toml"\n', encoding="utf-8")
    (folder / "broken.toml").write_text("[a\n", encoding="utf-8")
    choices = (
        "recipe_mutated.toml",
        "loop.toml",
        "broken.toml",
        "parent.toml",
        "absent.toml",
        "",
        ".",
        "/",
        "..",
        LONG,
    )
    draft.extends = draft.rng.choice((*choices, "a\x00b", "quickstart", "recipes/quickstart.toml"))


def _plugin(draft: _Draft) -> None:
    name = draft.rng.choice([*PLUGINS, "absent.py", "a\x00b.py", "é.py", f"{'x' * 300}.py", "folder.py"])
    if name in PLUGINS:
        (draft.folder / name).write_text(PLUGINS[name], encoding="utf-8", errors="surrogateescape")
    (draft.folder / "folder.py").mkdir(exist_ok=True)
    use = f"{name}:{draft.rng.choice(('Thing', 'Thing', 'Absent', 'sys', 'Step'))}"
    table, key = _spot(draft)
    if draft.rng.random() < 0.5 and isinstance(draft.raw.get("steps"), list):
        draft.raw["steps"] = [*draft.raw["steps"], "mine"]
        table, key = draft.raw, "mine"
    table[key] = draft.rng.choice((use, {"use": use}, {"use": use}, {"use": use, "width": 3}))


def _set(draft: _Draft) -> None:
    rng = draft.rng
    _, key = _spot(draft)
    first = rng.choice([*map(str, draft.raw), "unkonwn", "", "🦊"])
    value = rng.choice(
        ("1", "nan", "", "{", "[1,", "'a", "{use='pca'}", "true", "9" * 5000, "[" * 3000, LONG, "=", "a=b")
    )
    texts = (f"{first}.{key}={value}", f"{first}={value}", f"{first}.{key}", f"{first}..{key}={value}", value, "=", "")
    draft.sets.append(rng.choice((*texts, f"{first}{f'.{key}' * 2000}={value}", f"{first}.use={value}")))


def _drop(draft: _Draft) -> None:
    rng = draft.rng
    first = rng.choice([*map(str, draft.raw), "unkonwn", ""])
    _, key = _spot(draft)
    draft.drops.append(
        rng.choice((first, f"{first}.{key}", f"{first}.", f".{first}", f"{first}.use", f"{first}.a.b.c", ""))
    )


_EDITS: tuple[Callable[[_Draft], None], ...] = (
    _nudge, _nudge, _nudge, _nudge, _delete_key, _rename_key, _duplicate_key, _odd_value, _odd_value,
    _odd_number, _odd_number, _new_key, _nest, _flatten,
    _other_component, _other_steps, _other_header, _extends, _plugin, _plugin, _set, _drop,
)  # fmt: skip


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _line_twice(rng: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    position = rng.randrange(len(lines) or 1)
    return b"".join([*lines[:position], *lines[position : position + 1] * 2, *lines[position + 1 :]])


def _no_line(rng: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    position = rng.randrange(len(lines) or 1)
    return b"".join([*lines[:position], *lines[position + 1 :]])


def _other_bytes(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 6)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((*range(256), 0, 10, 34, 39, 61, 91, 93, 123, 125, 255))
    return bytes(changed)


def _other_encoding(rng: random.Random, content: bytes) -> bytes:
    text = content.decode()
    encoded = text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "cp1252")), "replace")
    return rng.choice((encoded, text.replace("\n", "\r\n").encode(), text.replace("\n", "\r").encode()))


def _deep(rng: random.Random, content: bytes) -> bytes:
    depth = rng.choice((200, 900, 5_000))
    tails: tuple[str, ...] = (
        "x = " + "[" * depth,
        "x = " + "[" * depth + "]" * depth,
        f"[{'.'.join('a' * depth)}]\nb = 1",
    )
    tails += (f"x = {'{a = ' * depth}1{'}' * depth}", "\n".join(f"[[x]]\ny = {n}" for n in range(depth)))
    return content + f"\n{rng.choice(tails)}\n".encode()


def _huge(rng: random.Random, content: bytes) -> bytes:
    return rng.choice((content + b"# " + b"x" * 2_000_000, content + b"\nx = " + b"9" * 10_000, b"title = '" + b"y" * 10**6 + b"'\n" + content))  # fmt: skip  # noqa: E501


def _strange(rng: random.Random, content: bytes) -> bytes:
    return rng.choice(
        (b"", b"\x00" * 100, b"\xff\xfe", b"\xef\xbb\xbf" + content, b"PK\x03\x04", b"{}", b"= 1", b"steps", b"\n")
    )


_DAMAGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _cut, _line_twice, _no_line, _other_bytes, _other_encoding, _deep, _huge, _strange,
)  # fmt: skip


def _odd_place(rng: random.Random, folder: Path) -> str:
    (folder / "inside.toml").mkdir()
    (folder / "ring.toml").symlink_to(folder / "ring.toml")
    (folder / "dangling.toml").symlink_to(folder / "absent.toml")
    named = [str(folder / name) for name in ("inside.toml", "ring.toml", "dangling.toml", "a\x00b", "x" * 5000, "")]
    return rng.choice((*named, "", ".", "..", "/", "quickstrt", "\ud800", "quickstart", "~/x", "x" * 300))
