"""One number of a card: its key in `card.json` and its words for people."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reaemb_bench.core.artifacts import Corpus, Int64, Ranks, Sequences, TestTargets, ValidationTargets
from reaemb_bench.core.files import write_atomically
from reaemb_bench.data.interactions import About
from reaemb_bench.data.prepare import fingerprint
from reaemb_bench.evaluation.groups import item_groups, user_groups
from reaemb_bench.evaluation.metrics import Metric, gini, hit_rate, ndcg
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.evaluation.significance import bootstrap_interval, method_values, paired_differences
from reaemb_bench.recommender.simple_baselines import LastItemKNN

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MISSING = "—"
_DIGITS = 6
_DIGITS_OF_SHARE = 3


@dataclass(frozen=True)
class Figure:
    """A count or a mean, or with `share` a number in [0, 1] that people read in per cent; None where there is none."""

    words: str
    value: float | None
    share: bool = False

    @property
    def shown(self) -> str:
        """`22,363`, `8.88`, `0.0734 %`, or a dash."""
        if self.value is None:
            return MISSING
        if self.share:
            return percent(self.value)
        return f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:,.2f}"


Section = Mapping[str, Figure]
"""Figures by their key, in order."""


def percent(share: float) -> str:
    """Three significant digits, never in scientific notation: `80.3 %`, `0.0734 %`."""
    return f"{np.format_float_positional(100 * share, precision=_DIGITS_OF_SHARE, fractional=False, trim='-')} %"


def rounded(value: float) -> float:
    """Six significant digits, which is less than the order of a sum can change."""
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


# The two curves of a card: how interactions share out over items, and how long users' sequences are.


_FIRST = (0, 1, 2, 3, 5, 7)
_THEN = (10, 15, 20, 30, 50, 70)


def long_tail(popularity: Int64) -> tuple[float, ...]:
    """Share of all interactions that the most popular 0, 1, ..., 100 % of the items hold: 101 rising numbers.

    popularity: (items,) interactions of each item; all 0 where there is no interaction.
    """
    ordered = np.sort(popularity)[::-1]
    held = np.concatenate([[0], np.cumsum(ordered)]) / max(int(ordered.sum()), 1)
    at = np.interp(np.linspace(0, len(ordered), 101), np.arange(len(ordered) + 1), held)
    return tuple(at.tolist())


@dataclass(frozen=True)
class Bin:
    """How many users have `low` to `high` interactions, both included."""

    low: int
    high: int
    users: int

    @property
    def words(self) -> str:
        """`4` or `10-14`."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,}-{self.high:,}"


def length_bins(lengths: Int64) -> tuple[Bin, ...]:
    """Users by the length (users,) of their sequences, from the bin of the shortest to that of the longest.

    Bins begin at 0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, ..., so that they grow with the length and are the
    same for every data set.
    """
    digits = len(str(lengths.max(initial=0)))
    starts = [*_FIRST, *(start * 10**power for power in range(digits) for start in _THEN)]
    counts, _ = np.histogram(lengths, bins=starts)
    inside = np.flatnonzero(counts)
    if not len(inside):
        return ()
    return tuple(
        Bin(starts[place], starts[place + 1] - 1, int(counts[place])) for place in range(inside[0], inside[-1] + 1)
    )


# Counts of a prepared data set, in the sections of its card.


def whole_sequences(test_targets: TestTargets) -> Sequences:
    """Everything that was kept of each user, the test item included."""
    return test_targets.histories.followed_by(test_targets.users, test_targets.targets)


def sections(
    corpus: Corpus,
    validation_targets: ValidationTargets,
    test_targets: TestTargets,
    facts: Mapping[str, Any],
    tail: int,
    short: int,
) -> dict[str, Section]:
    """The figures of a card by section: size, users, items, targets, texts.

    facts: what the step that prepared the data noted. tail, short: see `reaemb_bench.evaluation.groups`.
    """
    return {
        "size": _size(corpus, validation_targets, test_targets),
        "users": _users(corpus, test_targets, short),
        "items": _items(corpus.popularity, tail),
        "targets": _targets(corpus.popularity, validation_targets, test_targets, tail),
        "texts": _texts(corpus, facts),
    }


def _size(corpus: Corpus, validation_targets: ValidationTargets, test_targets: TestTargets) -> Section:
    whole = whole_sequences(test_targets)
    pairs = np.unique(whole.owners * corpus.items + whole.items)
    repeated = len(whole.items) - len(pairs)
    density = _ratio(len(pairs), corpus.users * corpus.items)
    return {
        "users": Figure("users", corpus.users),
        "items": Figure("items", corpus.items),
        "interactions": Figure("interactions", len(whole.items)),
        "density": Figure("density: pairs of user and item that occur", density, share=True),
        "repeated_pairs": Figure("interactions that repeat a pair of user and item", repeated),
        "training_interactions": Figure("training interactions", len(corpus.training.items)),
        "validation_users": Figure("users with a validation target", len(validation_targets.users)),
        "test_users": Figure("users with a test target", len(test_targets.users)),
    }


def _users(corpus: Corpus, test_targets: TestTargets, short: int) -> Section:
    history = test_targets.histories.lengths[test_targets.users]
    is_short = user_groups(corpus.popularity[test_targets.targets], history, short=short)["short"]
    return {
        **_spread("interactions a user", whole_sequences(test_targets).lengths),
        "short_history_share": Figure(
            f"test users with fewer than {short} items before the target", _mean(is_short), share=True
        ),
        "without_training": Figure("users without a training interaction", int((corpus.training.lengths == 0).sum())),
    }


def _items(popularity: Int64, tail: int) -> Section:
    kinds = item_groups(popularity, tail)
    return {
        **_spread("training interactions an item", popularity),
        "tail_share": Figure(f"tail items, with 1 to {tail - 1} of them", _mean(kinds["tail"]), share=True),
        "cold": Figure("cold items, with none", int(kinds["cold"].sum())),
        "gini": Figure("Gini index (0: all items equally often)", gini(popularity) if popularity.any() else None),
    }


def _targets(popularity: Int64, validation_targets: ValidationTargets, test_targets: TestTargets, tail: int) -> Section:
    made = {}
    for name, targets in (("validation", validation_targets.targets), ("test", test_targets.targets)):
        kinds = item_groups(popularity[targets], tail)
        made[f"{name}_tail_share"] = Figure(f"{name} targets that are tail items", _mean(kinds["tail"]), share=True)
        made[f"{name}_cold"] = Figure(f"{name} targets that are cold items", int(kinds["cold"].sum()))
    return made


def _texts(corpus: Corpus, facts: Mapping[str, Any]) -> Section:
    characters = np.array([len(text) for text in corpus.texts], dtype=np.int64)
    return {
        "without_text": Figure("items without any text", facts.get("items_without_text")),
        "without_title": Figure("items without a title", facts.get("items_without_title")),
        "duplicates": Figure("items whose text another item has already", corpus.items - len(set(corpus.texts))),
        "characters_mean": Figure("characters a text: mean", _mean(characters)),
        "characters_max": Figure("characters a text: longest", int(characters.max(initial=0))),
    }


def _spread(words: str, counts: Int64) -> Section:
    return {
        "mean": Figure(f"{words}: mean", _mean(counts)),
        "median": Figure(f"{words}: median", float(np.median(counts)) if len(counts) else None),
        "min": Figure(f"{words}: least", int(counts.min()) if len(counts) else None),
        "max": Figure(f"{words}: most", int(counts.max()) if len(counts) else None),
    }


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


# Does order matter in these data? What a simple model loses when it reads histories in random order.


K = 10
SHUFFLES = 5
MOST_SCORES = 1 << 31
"""Scores of one pass over the users, at most: with more items than these allow, fewer users are asked."""
METRICS: dict[str, Metric] = {f"ndcg@{K}": partial(ndcg, k=K), f"hr@{K}": partial(hit_rate, k=K)}


@dataclass(frozen=True)
class Loss:
    """One metric with histories in order, and in random order as the mean over shuffles and its standard deviation.

    low, high: 95 % bootstrap interval over users of the difference between the two.
    """

    ordered: float
    shuffled: float
    sd: float
    low: float
    high: float

    @property
    def share(self) -> float | None:
        """What is lost of the ordered value, 1 being all of it, below 0 where shuffling helps; None where that is 0."""
        return 1 - self.shuffled / self.ordered if self.ordered else None


@dataclass(frozen=True)
class Sequentiality:
    """users: how many validation targets were ranked, of `of`. by_metric: the loss in each."""

    users: int
    of: int
    shuffles: int
    by_metric: dict[str, Loss]


def sequentiality(
    corpus: Corpus,
    validation_targets: ValidationTargets,
    seed: int,
    shuffles: int = SHUFFLES,
    most_scores: int = MOST_SCORES,
) -> Sequentiality | None:
    """What `last-item-knn` loses on the validation targets, ranked in the whole catalogue; None below two targets.

    The model is counted once, on the training sequences as they are; only what it reads to predict is shuffled. So a
    loss of 0 says that the last item tells no more than any other of the history. Test targets are never read.
    Source of the idea: Klenitskiy et al., Does It Look Sequential?, RecSys 2024, who train neural models for it.
    """
    rng = np.random.default_rng(seed)
    asked = _asked(validation_targets, max(2, most_scores // corpus.items), rng)
    if len(asked.users) < 2:
        return None
    scorer = LastItemKNN().fit(corpus)
    histories = corpus.training.select(asked.users)

    def rank(read: Sequences) -> Ranks:
        everyone = np.arange(read.users)
        return rank_targets(scorer, read, everyone, asked.targets, asked.candidates, popularity=corpus.popularity)

    ordered = rank(histories)
    shuffled = [rank(in_random_order(histories, rng)) for _ in range(shuffles)]
    losses = {name: _loss(ordered, shuffled, metric) for name, metric in METRICS.items()}
    return Sequentiality(len(asked.users), len(validation_targets.users), shuffles, losses)


def in_random_order(sequences: Sequences, rng: np.random.Generator) -> Sequences:
    """The same items of the same users, each user's in an order drawn anew."""
    order = np.lexsort((rng.random(len(sequences.items)), sequences.owners))
    return replace(sequences, items=sequences.items[order])


def _asked(validation_targets: ValidationTargets, most: int, rng: np.random.Generator) -> ValidationTargets:
    """At most so many of the targets, drawn at random where there are more; without candidates."""
    places = np.arange(len(validation_targets.users))
    if len(places) > most:
        places = np.sort(rng.choice(places, size=most, replace=False))
    return ValidationTargets(
        validation_targets.users[places], validation_targets.targets[places], validation_targets.candidates[places, :0]
    )


def _loss(ordered: Ranks, shuffled: list[Ranks], metric: Metric) -> Loss:
    first, second = method_values("in order", [ordered], metric), method_values("shuffled", shuffled, metric)
    each = [float(metric(ranks.better, ranks.tied).mean()) for ranks in shuffled]
    sd = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
    return Loss(first.mean, second.mean, sd, *bootstrap_interval(paired_differences(first, second)))


# What a card says in the same words on the screen and as Markdown.


TITLES: Mapping[str, str] = {
    "size": "Size",
    "users": "Users",
    "items": "Items",
    "targets": "Held-out targets",
    "texts": "Texts",
}
SOURCE = 'the idea is that of Klenitskiy et al., "Does It Look Sequential?", RecSys 2024'


def terms(about: About) -> dict[str, str]:
    """Home, licence and citation, as far as the source states them."""
    return {
        "home": about.home or "not stated",
        "licence": about.licence or "not stated; find out before you pass the data on",
        "citation": about.citation or "not stated",
    }


def order_matters(found: Sequentiality | None) -> list[str]:
    """What random order costs, a line a metric, after a line that says how it was measured."""
    if found is None:
        return ["too few validation targets to tell"]
    users = f"{found.users:,}" if found.users == found.of else f"{found.users:,} of {found.of:,}"
    how = (
        f"last-item-knn on {users} validation targets, whole catalogue: histories as they are against histories in "
        f"random order (mean of {found.shuffles} shuffles); {SOURCE}"
    )
    return [how, *(f"{name.upper()}: {_loss_of_wording(loss)}" for name, loss in found.by_metric.items())]


def _loss_of_wording(loss: Loss) -> str:
    lost = MISSING if loss.share is None else percent(loss.share)
    return (
        f"{loss.ordered:.4f} in order, {loss.shuffled:.4f} ± {loss.sd:.4f} shuffled, {lost} lost "
        f"(95 % interval of the difference {loss.low:+.4f} to {loss.high:+.4f})"
    )


# Plots of block characters, for a terminal.


_RISING = " ▁▂▃▄▅▆▇█"
_GROWING = " ▏▎▍▌▋▊▉█"
_PARTS = 8


def columns(values: Sequence[float], height: int) -> list[str]:
    """Lines from the top down: a column a value, `height` lines high where the value is 1, none where it is 0."""
    eighths = [round(value * height * _PARTS) for value in values]
    return [
        "".join(_RISING[min(max(filled - _PARTS * line, 0), _PARTS)] for filled in eighths)
        for line in reversed(range(height))
    ]


def bars(values: Sequence[float], width: int) -> list[str]:
    """A line a value: the greatest fills `width` characters; what is more than 0 shows at least a sliver."""
    greatest = max(values, default=0)
    eighths = [round(value / greatest * width * _PARTS) if value else 0 for value in values]
    return [_bar(max(filled, 1) if value else 0) for filled, value in zip(eighths, values, strict=True)]


def _bar(eighths: int) -> str:
    whole, rest = divmod(eighths, _PARTS)
    return _RISING[-1] * whole + (_GROWING[rest] if rest else "")


# The pictures of a card, as PNG files 800 pixels wide.


_INCHES = (8.0, 4.5)
_DOTS_AN_INCH = 100
_INK = "#27496d"
_GREY = "#8a8f98"
_WORDS = "#555b64"
_MARKED = 20
"""Per cent of the items whose share is written into the picture."""
_CHARACTERS = 75
"""Small ones that fit below the longer side, side by side."""


def long_tail_png(curve: Sequence[float], name: str) -> bytes:
    """The curve of `reaemb_bench.cards.curves.long_tail` beside that of items that are all equally popular."""

    def draw(axes: Axes) -> None:
        shares = [100 * share for share in curve]
        axes.fill_between(range(len(shares)), shares, color=_INK, alpha=0.12, linewidth=0)
        axes.plot([0, 100], [0, 100], color=_GREY, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.text(64, 58, "all items equally often", color=_WORDS, fontsize=11)
        axes.plot(range(len(shares)), shares, color=_INK, linewidth=2.2)
        axes.plot([_MARKED], [shares[_MARKED]], "o", color=_INK, markersize=7)
        axes.set(xlim=(0, 100), ylim=(0, 102))
        axes.set_xlabel("share of items, most popular first (%)")
        axes.set_ylabel("share of training interactions (%)")

    return _png(draw, name, f"{_MARKED} % of the items hold {percent(curve[_MARKED])} of the training interactions")


def lengths_png(bins: Sequence[Bin], name: str) -> bytes:
    """A bar a bin of `reaemb_bench.cards.curves.length_bins`, with its count."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        words, users = [each.words for each in bins], [each.users for each in bins]
        drawn = axes.bar(range(len(bins)), users, color=_INK, width=0.86)
        axes.bar_label(drawn, [f"{count:,}" for count in users], padding=2, fontsize=10, color=_WORDS)
        without_strangers = len(words) * max(map(len, words), default=0) > _CHARACTERS
        side, angle = ("right", 40) if without_strangers else ("center", 0)
        axes.set_xticks(range(len(bins)), words, fontsize=10, ha=side, rotation=angle, rotation_mode="anchor")
        axes.margins(x=0.02, y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("interactions of a user (number; the bins widen)")
        axes.set_ylabel("users (number)")

    return _png(draw, name, f"{sum(each.users for each in bins):,} users by the length of their sequences")


def _png(draw: Callable[[Axes], None], name: str, says: str) -> bytes:
    """Draw on a canvas of our own, in matplotlib's default style, without a display and without a date in the file."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 12, "axes.edgecolor": _GREY, "axes.axisbelow": True})
        figure = Figure(figsize=_INCHES, dpi=_DOTS_AN_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        draw(axes)
        axes.set_title(f"{name}\n{says}", loc="left", fontsize=13, pad=12, linespacing=1.4, parse_math=False)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


# A data card: its contents, and the folder that it is written to.


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
    validation_targets: ValidationTargets,
    test_targets: TestTargets,
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
        sections=sections(corpus, validation_targets, test_targets, facts, tail, short),
        removed={name.removeprefix(_REMOVED): str(gone) for name, gone in facts.items() if name.startswith(_REMOVED)},
        sha256=fingerprint(corpus, validation_targets, test_targets),
        long_tail=long_tail(corpus.popularity),
        lengths=length_bins(whole_sequences(test_targets).lengths),
        sequentiality=sequentiality(corpus, validation_targets, seed),
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

    text = json.dumps(as_json(card), ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / LONG_TAIL, long_tail_png(card.long_tail, card.name))
    write_atomically(folder / LENGTHS, lengths_png(card.lengths, card.name))
    write_atomically(folder / "card.json", text.encode())
    write_atomically(folder / "card.md", render_markdown(card).encode())


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


# A card as Markdown, beside its pictures.


def render_markdown(card: Card) -> str:
    """Terms first, then figures, pictures, whether order matters, and how to prepare the same data again."""
    lines = [f"# Data card: {card.name}", "", *(f"- {name}: {text}" for name, text in terms(card.about).items())]
    lines += [f"- sha256 of everything prepared: `{card.sha256}`"]
    for name, section in card.sections.items():
        lines += ["", f"## {TITLES[name]}", "", *_table(section)]
    lines += ["", "## Removed", "", *([f"- {why}: {gone}" for why, gone in card.removed.items()] or ["- nothing"])]
    lines += ["", "## Long tail", "", f"![Share of interactions against share of items]({LONG_TAIL})"]
    lines += ["", "## Lengths", "", f"![Users by the length of their sequences]({LENGTHS})"]
    how, *losses = order_matters(card.sequentiality)
    lines += ["", "## Does order matter?", "", f"{how[0].upper()}{how[1:]}.", "", *(f"- {each}" for each in losses)]
    settings = json.dumps(card.prepared, ensure_ascii=False, indent=1)
    lines += ["", "## How it was prepared", "", "```json", settings, "```"]
    return "\n".join(lines) + "\n"


def _table(section: Section) -> list[str]:
    return ["| what | value |", "| --- | ---: |", *(f"| {each.words} | {each.shown} |" for each in section.values())]


# A card on the screen; it fits a terminal of 80 columns.


_WIDTH = 50
_HEIGHT = 6
_BAR = 40
_INDENT = (0, 0, 0, 2)


def render_terminal(card: Card) -> Group:
    """Terms, figures by section, the two plots, and whether order matters."""
    parts: list[RenderableType] = [Text(card.name, style="bold")]
    parts.append(_pairs({**terms(card.about), "sha256": card.sha256}))
    for name, section in card.sections.items():
        parts += [_heading(TITLES[name]), _pairs({each.words: each.shown for each in section.values()}, numbers=True)]
    if card.removed:
        parts += [_heading("Removed"), _pairs(card.removed)]
    parts += [_heading("Share of training interactions by share of items, most popular first"), _long_tail(card)]
    parts += [_heading("Users by their number of interactions"), _lengths(card)]
    how, *losses = order_matters(card.sequentiality)
    parts += [_heading("Does order matter?"), _indented(how, "dim"), *map(_indented, losses)]
    return Group(*parts)


def _heading(words: str) -> Text:
    return Text(f"\n{words}", style="bold")


def _indented(words: str, style: str = "") -> Padding:
    return Padding(Text(words, style=style), _INDENT, expand=False)


def _pairs(rows: Mapping[str, str], numbers: bool = False) -> Padding:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right" if numbers else "left", overflow="fold")
    for what, value in rows.items():
        table.add_row(Text(what), Text(value))
    return Padding(table, _INDENT, expand=False)


def _long_tail(card: Card) -> Text:
    at = [card.long_tail[round(100 * (place + 1) / _WIDTH)] for place in range(_WIDTH)]
    lines = columns(at, _HEIGHT)
    marks = ["100 %", *[""] * (_HEIGHT - 2), "0 %"]
    plot = [f"  {mark:>5} ┤{line}" for mark, line in zip(marks, lines, strict=True)]
    ends = f"{'0 %':<{_WIDTH - 5}}100 %"
    return Text("\n".join([*plot, f"  {'':>5}  {ends}"]))


def _lengths(card: Card) -> Text:
    widest = max((len(each.words) for each in card.lengths), default=0)
    drawn = bars([each.users for each in card.lengths], _BAR)
    rows = zip(card.lengths, drawn, strict=True)
    return Text("\n".join(f"  {each.words:>{widest}} {bar} {each.users:,}" for each, bar in rows))
