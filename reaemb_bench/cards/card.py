"""A data card: its contents, and the folder that it is written to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reaemb_bench.artifacts import Corpus, Holdout, Signal
from reaemb_bench.cards.curves import Bin, length_bins, long_tail
from reaemb_bench.cards.figures import Section, rounded
from reaemb_bench.cards.sequentiality import Sequentiality, sequentiality
from reaemb_bench.cards.statistics import sections, whole_sequences
from reaemb_bench.data.assemble import fingerprint
from reaemb_bench.data.interactions import About
from reaemb_bench.files import write_atomically

LONG_TAIL = "long_tail.png"
LENGTHS = "lengths.png"

_REMOVED = "removed: "


@dataclass(frozen=True)
class Card:
    """What is known of a prepared data set.

    about: home, licence and citation, empty where the source states none. prepared: settings of the step that made it,
    and the contents that it read. removed: what was taken away, by reason. sha256: of everything prepared. long_tail,
    lengths: see `reaemb_bench.cards.curves`. sequentiality: None where there are too few validation targets.
    """

    name: str
    about: About
    prepared: Mapping[str, Any]
    sections: Mapping[str, Section]
    removed: Mapping[str, str]
    sha256: str
    long_tail: tuple[float, ...]
    lengths: tuple[Bin, ...]
    sequentiality: Sequentiality | None


def make_card(
    corpus: Corpus,
    signal: Signal,
    holdout: Holdout,
    facts: Mapping[str, Any],
    *,
    about: About,
    prepared: Mapping[str, Any],
    tail: int,
    short: int,
    seed: int,
) -> Card:
    """Count everything. facts: what the step that prepared the data noted. seed: orders the shuffled histories."""
    return Card(
        name=corpus.name,
        about=about,
        prepared=prepared,
        sections=sections(corpus, signal, holdout, facts, tail, short),
        removed={name.removeprefix(_REMOVED): str(gone) for name, gone in facts.items() if name.startswith(_REMOVED)},
        sha256=fingerprint(corpus, signal, holdout),
        long_tail=long_tail(corpus.popularity),
        lengths=length_bins(whole_sequences(holdout).lengths),
        sequentiality=sequentiality(corpus, signal, seed),
    )


def as_json(card: Card) -> dict[str, Any]:
    """All figures of a card as plain JSON, fractions with six significant digits."""
    figures = {
        name: {key: _plain(figure.value) for key, figure in section.items()} for name, section in card.sections.items()
    }
    return {
        "name": card.name,
        "about": asdict(card.about),
        "sha256": card.sha256,
        **figures,
        "removed": dict(card.removed),
        "sequentiality": _sequentiality(card.sequentiality),
        "long_tail": [rounded(share) for share in card.long_tail],
        "lengths": [asdict(each) for each in card.lengths],
        "prepared": dict(card.prepared),
    }


def write(card: Card, folder: Path) -> None:
    """Write `card.md`, `card.json` and the two pictures, each whole or not at all.

    The same card gives the same bytes, the pictures under the same version of matplotlib.
    """
    from reaemb_bench.cards.charts import lengths_png, long_tail_png
    from reaemb_bench.cards.markdown import render

    text = json.dumps(as_json(card), ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / LONG_TAIL, long_tail_png(card.long_tail, card.name))
    write_atomically(folder / LENGTHS, lengths_png(card.lengths, card.name))
    write_atomically(folder / "card.json", text.encode())
    write_atomically(folder / "card.md", render(card).encode())


def _sequentiality(found: Sequentiality | None) -> dict[str, Any] | None:
    if found is None:
        return None
    losses = {
        name: {**{key: rounded(value) for key, value in asdict(loss).items()}, "lost": _plain(loss.share)}
        for name, loss in found.by_metric.items()
    }
    return {"users": found.users, "of": found.of, "shuffles": found.shuffles, **losses}


def _plain(value: float | None) -> float | None:
    return None if value is None else rounded(value)
