"""`report`: the page needs no other file, runs may have any name, and says what the store knows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from reaemb_bench.core.artifacts import Corpus, Encoder, Floors, Ranks, Sequences, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import ALONE, Group, Result, Run
from reaemb_bench.core.store import PROGRESS_FILE, Store, save_checksummed
from reaemb_bench.report import render as html
from reaemb_bench.report.page import in_words, report, report_html
from reaemb_bench.report.table import Cell, Column, Row, Table
from tests.conftest import TOYS, Said

Command = Callable[..., Said]

_VOID = {"meta"}


class Page(HTMLParser):
    """What a browser would find in a page; fails where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open[-2:]:
            self.texts.setdefault(tag, []).append(data)

    def headings(self) -> list[str]:
        """Texts of all headings of second order."""
        return [text for text in self.texts["h2"] if text.strip()]


TABLE = Table(
    "Toys <1>",
    (Column("HR@10"), Column("NDCG@10", "tail"), Column("Δ", "a & b", difference=True), Column("minutes", cost=True)),
    (
        Row("ours", (Cell(0.5, 0.01, best=True, significant=True), Cell(None), Cell(None), Cell(1234.0)), leaks=True),
        Row(
            "theirs",
            (Cell(0.25, second=True), Cell(0.1), Cell(-0.02, interval=(-0.05, 0.01), verdict="none shown"), Cell(2.5)),
        ),
        Row("floor", (Cell(0.125), Cell(0.0), Cell(None), Cell(None)), floor=True),
        Row("ground", (Cell(0.0), Cell(0.0), Cell(None), Cell(None)), floor=True),
    ),
    ("5 < 6 users",),
    verdict="ours < theirs",
)

GOLDEN = """\
<section>
<h2><bdi>Toys &lt;1&gt;</bdi></h2>
<p class="verdict"><bdi>ours &lt; theirs</bdi></p>
<div class="scroll" role="region" tabindex="0" aria-label="Toys &lt;1&gt;">
<table>
<thead><tr><td></td><td colspan="1"></td><th scope="colgroup" colspan="1">NDCG@10 ↑</th><th scope="colgroup" \
colspan="1">Δ ↑</th><td colspan="1"></td></tr>
<tr><th scope="col">method</th><th scope="col">HR@10 ↑</th><th scope="col">tail</th><th scope="col">a &amp; \
b</th><th scope="col">minutes</th></tr></thead>
<tbody>
<tr><th scope="row"><bdi>ours</bdi> †</th><td><strong>.5000</strong>*<small>± \
.0100</small></td><td>—</td><td>—</td><td>1.23k</td></tr>
<tr><th scope="row"><bdi>theirs</bdi></th><td><u>.2500</u></td><td>.1000</td><td>-.0200<small>-.0500 to \
+.0100</small><small>none shown</small></td><td>2.5</td></tr>
<tr class="floor first-floor"><th \
scope="row"><bdi>floor</bdi></th><td>.1250</td><td>.0000</td><td>—</td><td>—</td></tr>
<tr class="floor"><th scope="row"><bdi>ground</bdi></th><td>.0000</td><td>.0000</td><td>—</td><td>—</td></tr>
</tbody>
</table>
</div>
<ul class="notes">
<li><bdi>5 &lt; 6 users</bdi></li>
</ul>
</section>
"""


def test_a_table_as_html_says_all_that_a_cell_knows() -> None:
    text = html.page("Toys & co", [TABLE, TABLE])
    assert text.count(GOLDEN) == 2
    whole = Page(text)
    assert whole.tags.count("table") == 2
    assert whole.texts["title"] == ["Toys & co"]


def put(store: Store, key: str, artifacts: Sequence[Any], seconds: float = 60.0, ticks: Sequence[Any] = ()) -> None:
    """A result in the store, as the pipeline leaves it."""
    with store.writing(key) as draft:
        for artifact in artifacts:
            folder = draft / type(artifact).__name__.lower()
            folder.mkdir()
            artifact.save(folder)
        (draft / PROGRESS_FILE).write_text("".join(f"{json.dumps(tick)}\n" for tick in ticks), encoding="utf-8")
        versions = {"reaemb-bench": "9.9", "python": "3.11"}
        facts: dict[str, object] = {"facts": {"tokens": 7}, "seconds": seconds, "versions": versions}
        save_checksummed(draft, {**facts, "peak_memory_bytes": 2_000_000, "peak_memory_of": "ram"})


ITEMS = 6
USERS = 12


def ranks(shift: int, users: int = USERS) -> Ranks:
    numbers = np.arange(users, dtype=np.int64)
    zeros = np.zeros(users, dtype=np.int64)
    return Ranks(
        users=numbers,
        targets=(numbers % ITEMS).astype(np.int32),
        better=numbers + shift,
        tied=zeros,
        sampled_better=zeros - 1,
        sampled_tied=zeros,
        popularity=numbers * 3,
        history=zeros + 5,
        catalogue=zeros + 40,
    )


def run_of(name: str, keys: dict[str, tuple[str, tuple[str, ...]]], **changed: Any) -> Run:
    results = tuple(Result(step, key, makes) for step, (key, makes) in keys.items())
    given = {
        "id": f"{name}0000"[:10],
        "name": name,
        "title": f"Title of {name}",
        "groups": (ALONE,),
        "data": "toys",
        "recipe": "seeds = [1]\n",
        "seeds": (1,),
        "leaks": (),
        "finished": "2026-11-24T12:00:00+00:00",
        "git": "abc-dirty",
        "results": (results,),
    }
    return Run(**{**given, **changed})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Results of a base encoder and of one that was tuned, on one data set."""
    folder = tmp_path_factory.mktemp("results")
    made = Store(folder / "store")
    rng = np.random.default_rng(0)
    training = Sequences(np.array([0, 1, 2, 0, 1, 0], dtype=np.int32), np.array([0, 3, 5, 6], dtype=np.int64))
    keys = tuple(f"i{item}" for item in range(ITEMS))
    put(made, "data", [Corpus("toys", training, keys, ("a", "b", "c"), "", keys, keys)], seconds=1e6)
    (folder / "weights").mkdir()
    losses = [{"done": place, "total": 3, "unit": "steps", "loss": 9.0 / place} for place in (1, 2, 3)]
    rewards = [{**tick, "reward": -9.0 / place} for place, tick in enumerate(losses, 1)]
    for key, ticks in (("llm", []), ("lrcl", losses), ("crrl", rewards)):
        put(made, key, [Encoder(folder / "weights")], ticks=ticks)
    for key, shift in (("base", 2), ("tuned", 1)):
        put(made, f"vectors-{key}", [Vectors(rng.normal(size=(ITEMS, 4)).astype(np.float32))])
        put(made, f"ranks-{key}", [ranks(shift)], seconds=1e6)
    put(made, "floors", [Floors({"item-knn": ranks(4)})], seconds=1e6)
    return made


@pytest.fixture(scope="module")
def both(store: Store) -> str:
    """The page of both runs."""
    return report_html(report([TUNED, BASE], store, against=BASE), store)


BEFORE = {"prepare": ("data", ("Corpus",)), "llm": ("llm", ("Encoder",))}
JUDGED = {"floors": ("floors", ("Floors",))}
BASE = run_of(
    "base",
    {**BEFORE, "encode": ("vectors-base", ("Vectors",)), "rank": ("ranks-base", ("Ranks",)), **JUDGED},
)
TUNED = run_of(
    "tuned",
    {
        **BEFORE,
        "lrcl": ("lrcl", ("Encoder",)),
        "crrl": ("crrl", ("Encoder",)),
        "encode": ("vectors-tuned", ("Vectors",)),
        "rank": ("ranks-tuned", ("Ranks",)),
        **JUDGED,
    },
)


def test_the_page_of_one_run_has_all_but_the_costs_and_says_how_to_get_a_map_from_before(store: Store) -> None:
    text = report_html(report([TUNED], store), store)
    assert Page(text).headings() == [
        "Results",
        "Long tail",
        "Learning curves",
        "Reinforcement",
        "Map of the item vectors",
        "What was run",
        "Steps of tuned",
    ]
    for words in (
        "12 test users; each target is ranked against 40 items",
        "lrcl: loss 9 → 3 in 3 steps",
        "crrl: the reward rises, -9 → -3 in 3 steps",
        "tuned, after lrcl, crrl",
        "no map from before tuning",
        "abc-dirty",
        "no CUDA",
        "2026-11-24T12:00:00+00:00",
        "prepare, llm, lrcl, crrl, encode, rank, floors",
        "seeds = [1]",
    ):
        assert words in text
    assert "<title>Title of tuned</title>" in text


def test_the_page_of_two_runs_maps_before_and_after_and_weighs_costs_without_data_and_judging(both: str) -> None:
    page = Page(both)
    assert page.headings()[:3] == ["What differs", "Results", "Differences from base"]
    captions = [each for each in page.texts["figcaption"] if "tuning" in each or "after" in each]
    assert captions == ["base, before tuning", "tuned, after lrcl, crrl"]
    assert "no map from before tuning" not in both
    assert "tuned is best: NDCG@10 .2953 in 4 minutes; base is cheapest: .2427 in 2 minutes, .0526 less" in both
    assert "<title>2 runs on toys</title>" in both


def test_a_run_that_saw_held_out_data_is_marked_and_the_other_is_not(store: Store) -> None:
    leaky = run_of("leaky", {}, results=TUNED.results, leaks=("crrl",))
    text = report_html(report([leaky, BASE], store), store)
    warnings = [each for each in Page(text).texts["bdi"] if each.startswith("leaky † looks at held-out data")]
    assert len(warnings) == 1
    assert "<bdi>leaky</bdi> †</th>" in text
    assert "<bdi>base</bdi></th>" in text


def test_what_the_store_lost_is_left_out_and_lost_ranks_are_an_error(store: Store, tmp_path: Path) -> None:
    store = Store(shutil.copytree(store.root, tmp_path / "store"))
    for key in ("data", "vectors-base", "lrcl", "floors"):
        (store.folder(key) / "manifest.json").unlink()
    page = Page(report_html(report([TUNED, BASE], store), store))
    assert "Map of the item vectors" not in page.headings()
    assert "Learning curves" not in page.headings()
    assert "Cost against quality" not in page.headings()
    assert "Reinforcement" in page.headings()
    (store.folder("ranks-tuned") / "manifest.json").unlink()
    with pytest.raises(UserError, match="no longer in the store"):
        report_html(report([TUNED, BASE], store), store)


def test_seeds_that_share_a_step_have_one_curve_and_others_one_each(store: Store) -> None:
    ticks = [{"done": place, "total": 3, "unit": "epochs", "loss": 4.0 / place} for place in (1, 2, 3)]
    put(store, "other", [], ticks=ticks)
    (first,) = TUNED.results
    second = tuple(Result(each.step, "other", each.makes) if each.step == "crrl" else each for each in first)
    page = report_html(report([run_of("both", {}, seeds=(1, 2), results=(first, second))], store), store)
    lines = [set(re.findall(r'id="p\w+-(series[\d-]+)"', each)) for each in page.split("<figcaption>")]
    assert {"series-0-0"} in lines
    assert {"series-0-0", "series-0-1"} in lines
    assert "of each run, the first seed is shown" in page


def test_a_page_of_runs_that_judged_nobody_says_so(store: Store) -> None:
    put(store, "ranks-none", [ranks(0, users=0)])
    (results,) = BASE.results
    judged = tuple(Result(each.step, "ranks-none", each.makes) if each.step == "rank" else each for each in results)
    nobody = run_of("nobody", {}, results=(tuple(each for each in judged if each.step != "floors"),))
    text = report_html(report([nobody, run_of("none", {}, results=nobody.results)], store), store)
    assert "no test user" in text
    assert not {"Long tail", "Cost against quality"} & set(Page(text).headings())


def test_curves_in_words_need_no_plot(store: Store) -> None:
    said = in_words(report([TUNED, BASE], store), store)
    assert [line.partition(":")[0] for line in said] == ["tuned, lrcl", "tuned, crrl"]


POISON = "<script>alert('x')</script> & \"q\" 🦊 שלום \u202e</title><img src=x onerror=y>"


def test_no_name_or_title_becomes_markup(store: Store, both: str) -> None:
    poisoned = run_of(
        POISON,
        {},
        id="0123456789",
        title=POISON,
        groups=(Group("ablation", POISON),),
        git=POISON,
        recipe=tomli_w.dumps({"title": POISON}),
        leaks=(POISON,),
        results=(tuple(Result(f"{POISON}{each.step}", each.key, each.makes) for each in TUNED.results[0]),),
    )
    # What turns the direction of a line would turn its numbers too.
    shown = POISON.replace("\u202e", "\\u202e")
    several, alone = (
        Page(report_html(report([poisoned, BASE], store, against=BASE), store)),
        Page(report_html(report([poisoned], store), store)),
    )
    assert set(several.tags) == set(Page(both).tags)
    for page in (several, alone):
        assert not {"script", "img"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert shown in page.texts["bdi"]
    assert alone.texts["title"] == [shown]


def test_the_page_needs_no_network_no_script_and_no_other_file(both: str) -> None:
    page = Page(both)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "img", "image"} & set(page.tags)
    targets = [value for name, value in page.attributes if name in {"src", "href", "xlink:href", "srcset", "action"}]
    assert targets and all(value.startswith("#") for value in targets)
    assert not re.search(r"https?:|//|@import|url\((?!#)", both)
    identities = [value for name, value in page.attributes if name == "id"]
    assert len(identities) == len(set(identities))
    assert {value[1:] for value in targets} <= set(identities)


def test_the_same_store_gives_the_same_page(store: Store, both: str) -> None:
    assert report_html(report([TUNED, BASE], store, against=BASE), store) == both


def test_wide_tables_scroll_in_a_box_of_their_own_that_the_keyboard_reaches(both: str) -> None:
    boxes = re.findall(r'<div class="scroll" role="region" tabindex="0" aria-label="[^"]+">\n<table', both)
    assert len(boxes) == both.count("<table")
    assert ".scroll { overflow-x: auto" in both
    pictures = both.count("<figure>")
    assert pictures == len(re.findall(r'<svg role="img" aria-label="[^"]+" viewBox=', both))


@pytest.mark.slow
def test_the_command_reports_a_run_by_name_and_writes_what_is_asked(command: Command, toy_recipe: Path) -> None:
    assert command("run", toy_recipe).code == 0
    text = f"extends = 'toys.toml'\nallow_leaks = true\n[embed]\nuse = '{TOYS}:Leaky'\n"
    Path("leaky.toml").write_text(text, encoding="utf-8")
    assert command("run", "leaky.toml").code == 0
    shown = command("report", "toys")
    assert shown.code == 0, shown.err
    assert "Toys" in shown.out
    assert "train: loss 0.1 → 0.05 in 2 steps" in shown.out
    written = command("report", "toys", "leaky", "--against", "toys", "--html", "here/a.html", "--out", "b.html")
    assert written.code == 0, written.err
    assert "written to here/a.html" in written.out
    page = Path("here/a.html").read_text(encoding="utf-8")
    assert "leaky † looks at held-out data on purpose (embed)" in page
    tables = Path("b.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "<svg" not in tables
    assert "Differences from toys" in tables
    again = command("report", "toys", "leaky", "--against", "toys", "--html", "again.html")
    assert again.code == 0
    assert Path("again.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["toyz"], "Did you mean"),
        (["toys", "--out", "a.xyz"], ".html"),
        (["toys", "--html", "taken/a.html"], "choose another --html"),
        (["toys", "--against", "none"], "remembers no run 'none'"),
    ],
)
def test_mistakes_end_in_one_line(command: Command, toy_recipe: Path, words: list[str], cure: str) -> None:
    command("run", toy_recipe)
    Path("taken").write_text("a file", encoding="utf-8")
    said = command("report", *words)
    assert said.code == 2
    assert cure in said.err
    assert len(said.err.splitlines()) == 1


def test_a_report_imports_no_learning_library(command: Command, toy_recipe: Path, tmp_path: Path) -> None:
    command("run", toy_recipe)
    script = (
        "import sys\nfrom reaemb_bench.cli.app import main\n"
        "sys.argv = ['reaemb-bench', 'report', 'toys', '--html', 'a.html']\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert left.code == 0, left.code\n"
        "slow = {'torch', 'transformers', 'mlflow', 'optuna', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert Path("a.html").is_file()
