"""The data card of a prepared data set: its figures, whether order matters in it, and the files that show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reaemb_bench.core.artifacts import Corpus, Int64, Ranks, Sequences, TestTargets, ValidationTargets
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.text import printable
from reaemb_bench.data.interactions import About
from reaemb_bench.data.prepare import fingerprint
from reaemb_bench.evaluation.groups import item_groups, user_groups
from reaemb_bench.evaluation.metrics import Metric, gini, hit_rate, ndcg
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.evaluation.significance import bootstrap_interval, method_values, paired_differences
from reaemb_bench.recommender.simple_baselines import LastItemKNN
from reaemb_bench.report.plots import picture
from reaemb_bench.report.render import template

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Section = dict[str, tuple[str, float | None]]
"""What a figure is in words, and the figure, None if it is not known; by its key in `card.json`, in order."""

_MISSING = "—"
_REMOVED, _FILLED = "removed: ", "items_with: "
_TITLES = {"size": "Size", "users": "Users", "items": "Items", "targets": "Held-out targets", "texts": "Texts"}
_SHUFFLES = 5
_MOST_SCORES = 1 << 31
"""Scores of one pass over the users, at most: with more items than these allow, fewer users are ranked."""
_MOST_PAIRS = 1 << 25
"""Pairs of items of one user that are counted, at most: with more, the model is counted on fewer users."""
_METRICS: dict[str, Metric] = {"ndcg@10": partial(ndcg, k=10), "hr@10": partial(hit_rate, k=10)}


def percent(share: float) -> str:
    """Three significant digits, never in scientific notation: `80.3 %`, `0.0734 %`."""
    return f"{np.format_float_positional(100 * share, precision=3, fractional=False, trim='-')} %"


def shown(key: str, value: float | None) -> str:
    """A figure as it is printed: `22,363`, `8.88`, `0.0734 %` if its key is that of a share, or a dash."""
    if value is None:
        return _MISSING
    if key.endswith(("share", "density")):
        return percent(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


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
        """The lost share of the ordered value, negative if shuffling helps; None if that value is 0."""
        return 1 - self.shuffled / self.ordered if self.ordered else None


@dataclass(frozen=True)
class Sequentiality:
    """users: how many validation targets were ranked, of `of`. counted: users on whom the model was counted, of
    `counted_of`. by_metric: the loss in each metric.
    """

    users: int
    of: int
    counted: int
    counted_of: int
    shuffles: int
    by_metric: dict[str, Loss]


@dataclass(frozen=True)
class Card:
    """What is known of a prepared data set.

    about: home, licence and citation. prepared: settings of the step that made it, and the contents that it read.
    removed: what was taken away, by reason. sha256: of everything prepared. long_tail, lengths: see the functions
    `long_tail` and `length_bins`. sequentiality: None if there are too few validation targets.
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
    """Counts everything. facts: what the step that prepared the data noted. seed: orders the shuffled histories.

    tail, short: see `reaemb_bench.evaluation.groups`.
    """
    popularity = corpus.popularity
    whole = test_targets.histories.followed_by(test_targets.users, test_targets.targets)
    pairs = len(np.unique(whole.owners * corpus.items + whole.items))
    cells = corpus.users * corpus.items
    history = test_targets.histories.lengths[test_targets.users]
    is_short = user_groups(popularity[test_targets.targets], history, short=short)["short"]
    groups = item_groups(popularity, tail)
    targets: Section = {}
    for name, items in (("validation", validation_targets.targets), ("test", test_targets.targets)):
        kinds = item_groups(popularity[items], tail)
        targets[f"{name}_tail_share"] = (f"{name} targets that are tail items", _mean(kinds["tail"]))
        targets[f"{name}_cold"] = (f"{name} targets that are cold items", int(kinds["cold"].sum()))
    characters = np.array([len(text) for text in corpus.texts], dtype=np.int64)
    untrained = int((corpus.training.lengths == 0).sum())
    sections: dict[str, Section] = {
        "size": {
            "users": ("users", corpus.users),
            "items": ("items", corpus.items),
            "interactions": ("interactions", len(whole.items)),
            "density": ("density: pairs of user and item that occur", pairs / cells if cells else None),
            "repeated_pairs": ("repeated pairs of user and item (filter drop-repeats)", len(whole.items) - pairs),
            "training_interactions": ("training interactions", len(corpus.training.items)),
            "validation_users": ("users with a validation target", len(validation_targets.users)),
            "test_users": ("users with a test target", len(test_targets.users)),
        },
        "users": {
            **_spread("interactions a user", whole.lengths),
            "short_history_share": (f"test users with fewer than {short} items before the target", _mean(is_short)),
            "without_training": ("users without a training interaction", untrained),
        },
        "items": {
            **_spread("training interactions an item", popularity),
            "tail_share": (f"tail items, with 1 to {tail - 1} of them", _mean(groups["tail"])),
            "cold": ("cold items, with none", int(groups["cold"].sum())),
            "gini": ("Gini index (0: all items equally often)", gini(popularity) if popularity.any() else None),
        },
        "targets": targets,
        "texts": {
            "without_text": ("items without any text", facts.get("items_without_text")),
            "without_title": ("items without a title", facts.get("items_without_title")),
            **{
                f"with_{name}_share": (f"items with '{name}'", count / max(corpus.items, 1))
                for key, count in facts.items()
                if (name := key.removeprefix(_FILLED)) != key
            },
            "duplicates": ("items whose text another item has already", corpus.items - len(set(corpus.texts))),
            "characters_mean": ("characters a text: mean", _mean(characters)),
            "characters_max": ("characters a text: longest", int(characters.max(initial=0))),
        },
    }
    return Card(
        name=corpus.name,
        about=about,
        prepared=prepared,
        sections=sections,
        removed={name.removeprefix(_REMOVED): str(value) for name, value in facts.items() if name.startswith(_REMOVED)},
        sha256=fingerprint(corpus, validation_targets, test_targets),
        long_tail=long_tail(popularity),
        lengths=length_bins(whole.lengths),
        sequentiality=sequentiality(corpus, validation_targets, seed),
    )


def _spread(words: str, counts: Int64) -> Section:
    known = len(counts) > 0
    return {
        "mean": (f"{words}: mean", _mean(counts)),
        "median": (f"{words}: median", float(np.median(counts)) if known else None),
        "min": (f"{words}: least", int(counts.min()) if known else None),
        "max": (f"{words}: most", int(counts.max()) if known else None),
    }


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def long_tail(popularity: Int64) -> tuple[float, ...]:
    """Share of all interactions that the most popular 0, 1, ..., 100 % of the items hold: 101 rising numbers.

    popularity: (items,) interactions of each item; the result is all 0 if there is no interaction.
    """
    ordered = np.sort(popularity)[::-1]
    held = np.concatenate([[0], np.cumsum(ordered)]) / max(int(ordered.sum()), 1)
    at = np.interp(np.linspace(0, len(ordered), 101), np.arange(len(ordered) + 1), held)
    return tuple(at.tolist())


def length_bins(lengths: Int64) -> tuple[Bin, ...]:
    """Users by the length (users,) of their sequences, from the bin of the shortest to that of the longest.

    Bins begin at 0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, ..., the same for every data set.
    """
    digits = len(str(lengths.max(initial=0)))
    tens = (start * 10**power for power in range(digits) for start in (10, 15, 20, 30, 50, 70))
    starts = [0, 1, 2, 3, 5, 7, *tens]
    counts, _ = np.histogram(lengths, bins=starts)
    filled = np.flatnonzero(counts)
    inside = range(filled[0], filled[-1] + 1) if len(filled) else ()
    return tuple(Bin(starts[at], starts[at + 1] - 1, int(counts[at])) for at in inside)


# Does order matter in these data? What a simple model loses if it reads histories in random order.


def sequentiality(
    corpus: Corpus,
    validation_targets: ValidationTargets,
    seed: int,
    most_scores: int = _MOST_SCORES,
    most_pairs: int = _MOST_PAIRS,
) -> Sequentiality | None:
    """What `last-item-knn` loses on the validation targets, ranked in the whole catalogue; None below two targets.

    The model is counted once, on the training sequences as they are, of large data those of some users; only what it
    reads to predict is shuffled. So a loss of 0 says that the last item tells no more than any other of the history.
    Test targets are never read.
    Source of the idea: Klenitskiy et al., Does It Look Sequential?, RecSys 2024, who train neural models for it.
    """
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(validation_targets.users))
    most = max(2, most_scores // corpus.items)
    if len(chosen) > most:
        chosen = np.sort(rng.choice(chosen, size=most, replace=False))
    if len(chosen) < 2:
        return None
    counted, pairs = np.arange(corpus.users), corpus.training.lengths**2
    if min(corpus.items**2, int(pairs.sum())) > most_pairs:
        order = rng.permutation(corpus.users)
        counted = np.sort(order[: 1 + np.searchsorted(np.cumsum(pairs[order]), most_pairs)])
    scorer = LastItemKNN().fit(replace(corpus, training=corpus.training.select(counted)))
    histories = corpus.training.select(validation_targets.users[chosen])
    targets, no_candidates = validation_targets.targets[chosen], validation_targets.candidates[chosen, :0]

    def rank(read: Sequences) -> Ranks:
        users = np.arange(read.users)
        return rank_targets(scorer, read, users, targets, no_candidates, popularity=corpus.popularity)

    ordered = rank(histories)
    shuffled = [rank(in_random_order(histories, rng)) for _ in range(_SHUFFLES)]
    losses = {}
    for name, metric in _METRICS.items():
        first, second = method_values("in order", [ordered], metric), method_values("shuffled", shuffled, metric)
        sd = float(np.std([float(metric(ranks.better, ranks.tied).mean()) for ranks in shuffled], ddof=1))
        interval = bootstrap_interval(paired_differences(first, second))
        losses[name] = Loss(first.mean, second.mean, sd, *interval)
    return Sequentiality(len(chosen), len(validation_targets.users), len(counted), corpus.users, _SHUFFLES, losses)


def in_random_order(sequences: Sequences, rng: np.random.Generator) -> Sequences:
    """Returns the same items of the same users, each user's in an order drawn anew."""
    order = np.lexsort((rng.random(len(sequences.items)), sequences.owners))
    return replace(sequences, items=sequences.items[order])


# The card as files: card.json, card.md and two pictures.


def write(card: Card, folder: Path) -> None:
    """Writes `card.md`, `card.json` and the two pictures, each whole or not at all.

    The same card gives the same bytes, the pictures under the same version of matplotlib.
    """
    write_atomically(folder / "long_tail.png", long_tail_png(card.long_tail, card.name))
    write_atomically(folder / "lengths.png", lengths_png(card.lengths, card.name))
    text = json.dumps(as_json(card), ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / "card.json", text.encode())
    write_atomically(folder / "card.md", render_markdown(card).encode())


def as_json(card: Card) -> dict[str, Any]:
    """Returns all figures of a card as plain JSON, fractions with six significant digits."""

    def rounded(value: float | None) -> float | None:
        """Less than the order of a sum can change."""
        return value if value is None or isinstance(value, int) else float(f"{value:.6g}")

    order: dict[str, Any] | None = None
    if (measured := card.sequentiality) is not None:
        order = {name: value for name, value in vars(measured).items() if name != "by_metric"}
        for name, loss in measured.by_metric.items():
            order[name] = {key: rounded(value) for key, value in {**asdict(loss), "lost": loss.share}.items()}
    return {
        "name": card.name,
        "about": asdict(card.about),
        "sha256": card.sha256,
        **{
            name: {key: rounded(value) for key, (_, value) in section.items()}
            for name, section in card.sections.items()
        },
        "removed": dict(card.removed),
        "sequentiality": order,
        "long_tail": list(map(rounded, card.long_tail)),
        "lengths": list(map(asdict, card.lengths)),
        "prepared": dict(card.prepared),
    }


def render_markdown(card: Card) -> str:
    """Terms first, then figures, pictures, whether order matters, and how to prepare the same data again."""
    settings = json.dumps(card.prepared, ensure_ascii=False, indent=1)
    order = _order_matters(card)
    return template("data_card.md.j2").render(card=card, titles=_TITLES, shown=shown, order=order, settings=settings)


def _order_matters(card: Card) -> list[str]:
    """A line that says how it was measured, and what random order costs, a line a metric."""
    measured = card.sequentiality
    if measured is None:
        return ["too few validation targets to tell"]
    users = f"{measured.users:,}" if measured.users == measured.of else f"{measured.users:,} of {measured.of:,}"
    counted = ""
    if measured.counted < measured.counted_of:
        counted = f" counted on {measured.counted:,} of {measured.counted_of:,} users"
    lines = [
        f"last-item-knn{counted} on {users} validation targets, whole catalogue: histories as they are against "
        f"histories in random order (mean of {measured.shuffles} shuffles); "
        'the idea is that of Klenitskiy et al., "Does It Look Sequential?", RecSys 2024'
    ]
    for name, loss in measured.by_metric.items():
        lines.append(
            f"{name.upper()}: {loss.ordered:.4f} in order, {loss.shuffled:.4f} ± {loss.sd:.4f} shuffled, "
            f"{shown('share', loss.share)} lost (95 % interval of the difference {loss.low:+.4f} to {loss.high:+.4f})"
        )
    return lines


_INK, _GREY, _WORDS = "#27496d", "#8a8f98", "#555b64"
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 13, "pad": 12, "linespacing": 1.4, "parse_math": False}
_MARKED = 20
"""Per cent of the items whose share is written into the picture."""
_CHARACTERS = 75
"""Small ones that fit below the longer side, side by side."""


def long_tail_png(curve: Sequence[float], name: str) -> bytes:
    """The curve of `long_tail` and that of items that are all equally popular, 800 pixels wide."""

    def draw(axes: Axes) -> None:
        shares = [100 * share for share in curve]
        axes.fill_between(range(len(shares)), shares, color=_INK, alpha=0.12, linewidth=0)
        axes.plot([0, 100], [0, 100], color=_GREY, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.text(64, 58, "all items equally often", color=_WORDS, fontsize=11)
        axes.plot(range(len(shares)), shares, color=_INK, linewidth=2.2)
        axes.plot([_MARKED], [shares[_MARKED]], "o", color=_INK, markersize=7)
        axes.set(xlim=(0, 100), ylim=(0, 102))
        axes.set(xlabel="share of items, most popular first (%)", ylabel="share of training interactions (%)")
        held = f"{_MARKED} % of the items hold {percent(curve[_MARKED])} of the training interactions"
        axes.set_title(f"{printable(name)}\n{held}", **_TITLE)

    return picture(draw, (8.0, 4.5), "png", {"font.size": 12})


def lengths_png(bins: Sequence[Bin], name: str) -> bytes:
    """A bar for each of the `length_bins` with its count, 800 pixels wide."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        words, users = [lengths.words for lengths in bins], [lengths.users for lengths in bins]
        drawn = axes.bar(range(len(bins)), users, color=_INK, width=0.86)
        axes.bar_label(drawn, [f"{count:,}" for count in users], padding=2, fontsize=10, color=_WORDS)
        crowded = len(words) * max(map(len, words), default=0) > _CHARACTERS
        side, angle = ("right", 40) if crowded else ("center", 0)
        axes.set_xticks(range(len(bins)), words, fontsize=10, ha=side, rotation=angle, rotation_mode="anchor")
        axes.margins(x=0.02, y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="interactions of a user (number; the bins widen)", ylabel="users (number)")
        axes.set_title(f"{printable(name)}\n{sum(users):,} users by the length of their sequences", **_TITLE)

    return picture(draw, (8.0, 4.5), "png", {"font.size": 12})


# The card on the screen; it fits a terminal of 80 columns.

_RISING, _GROWING, _PARTS = " ▁▂▃▄▅▆▇█", " ▏▎▍▌▋▊▉█", 8
_WIDTH, _HEIGHT, _BAR = 50, 6, 40


def render_terminal(card: Card) -> Group:
    """Terms, figures by section, the two plots, and whether order matters."""

    def heading(words: str) -> Text:
        return Text(f"\n{words}", style="bold")

    def pairs(rows: Mapping[str, str], side: str = "left") -> Padding:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column("what")
        table.add_column("value", justify="right" if side == "right" else "left", overflow="fold")
        for what, value in rows.items():
            table.add_row(Text(what), Text(value))
        return Padding.indent(table, 2)

    parts: list[RenderableType] = [Text(card.name, style="bold"), pairs({**card.about.terms(), "sha256": card.sha256})]
    for name, section in card.sections.items():
        figures = {words: shown(key, value) for key, (words, value) in section.items()}
        parts += [heading(_TITLES[name]), pairs(figures, "right")]
    if card.removed:
        parts += [heading("Removed"), pairs(card.removed)]
    at = [card.long_tail[round(100 * (column + 1) / _WIDTH)] for column in range(_WIDTH)]
    marks = ["100 %", *[""] * (_HEIGHT - 2), "0 %"]
    plot = [f"  {mark:>5} ┤{line}" for mark, line in zip(marks, columns(at, _HEIGHT), strict=True)]
    plot.append(f"  {'':>5}  {'0 %':<{_WIDTH - 5}}100 %")
    parts += [heading("Share of training interactions by share of items, most popular first"), Text("\n".join(plot))]
    widest = max((len(lengths.words) for lengths in card.lengths), default=0)
    drawn = zip(card.lengths, bars([lengths.users for lengths in card.lengths], _BAR), strict=True)
    rows = "\n".join(f"  {lengths.words:>{widest}} {bar} {lengths.users:,}" for lengths, bar in drawn)
    parts += [heading("Users by their number of interactions"), Text(rows), heading("Does order matter?")]
    how, *losses = _order_matters(card)
    return Group(*parts, *(Padding.indent(text, 2) for text in (Text(how, style="dim"), *map(Text, losses))))


def columns(values: Sequence[float], height: int) -> list[str]:
    """Lines from the top down: a column a value, `height` lines high if the value is 1, none if it is 0."""
    eighths = [round(value * height * _PARTS) for value in values]
    return [
        "".join(_RISING[min(max(filled - _PARTS * line, 0), _PARTS)] for filled in eighths)
        for line in reversed(range(height))
    ]


def bars(values: Sequence[float], width: int) -> list[str]:
    """A line a value: the greatest fills `width` characters; what is more than 0 shows at least a sliver."""
    greatest = max(values, default=0)
    lines = []
    for value in values:
        whole, rest = divmod(max(round(value / greatest * width * _PARTS), 1) if value else 0, _PARTS)
        lines.append(_RISING[-1] * whole + (_GROWING[rest] if rest else ""))
    return lines
