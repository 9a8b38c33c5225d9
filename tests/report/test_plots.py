"""The plots of a report: what they compute, what they say, and that they draw each series."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import matplotlib
import numpy as np
import pytest

from reaemb_bench.core.artifacts import Floors, Ranks, Vectors
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.report import plots
from reaemb_bench.report.plots import Curve, Panel, Plot, Point, curves_of, running_mean
from reaemb_bench.report.table import Cell


def ranks(places: Sequence[int], popularity: Sequence[int]) -> Ranks:
    count = len(places)
    zeros = np.zeros(count, dtype=np.int64)
    return Ranks(
        users=np.arange(count),
        targets=np.arange(count, dtype=np.int32),
        better=np.array(places, dtype=np.int64),
        tied=zeros,
        sampled_better=zeros - 1,
        sampled_tied=zeros,
        popularity=np.array(popularity, dtype=np.int64),
        history=zeros + 5,
        catalogue=zeros + 90,
    )


def series(drawn: Panel) -> int:
    return len(set(re.findall(r'id="p\w+-(series-[\d-]+)"', drawn.svg)))


def words(drawn: Panel) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawn.svg)


POPULARITY = [1, 2, 3, 4, 50, 60, 70, 80, 900, 1900]


def tail(cold: bool = False) -> Plot:
    popularity = [0, *POPULARITY[1:]] if cold else POPULARITY
    ours = [ranks(range(10), popularity), ranks(range(1, 11), popularity)]
    drawn = plots.long_tail_plot({"ours": ours}, Floors({"floor": ranks([0] * 5 + [30] * 5, popularity)}))
    assert drawn is not None
    return drawn


def numbers(drawn: Plot) -> dict[str, list[Cell]]:
    assert drawn.numbers is not None
    return {row.name: list(row.cells) for row in drawn.numbers.rows}


def bins(drawn: Plot) -> list[str]:
    assert drawn.numbers is not None
    return [column.part for column in drawn.numbers.columns]


def test_the_long_tail_is_the_mean_over_the_users_of_each_bin_and_over_seeds() -> None:
    drawn = tail()
    assert bins(drawn) == ["1-2", "3-4", "50-60", "70-80", "900-1.9k"]
    ours, floor = numbers(drawn)["ours"], numbers(drawn)["floor"]
    gains = ndcg(np.arange(11), np.zeros(11, dtype=np.int64), 10)
    expected = [(gains[place] + 2 * gains[place + 1] + gains[place + 2]) / 4 for place in range(0, 10, 2)]
    assert [cell.value for cell in ours] == pytest.approx(expected)
    assert all(cell.sd is not None and cell.sd > 0 for cell in ours)
    assert [cell.value for cell in floor] == [1, 1, pytest.approx(0.5), 0, 0]
    assert [cell.sd for cell in floor] == [None] * 5


def test_the_long_tail_draws_a_line_a_method_and_names_bins_and_users() -> None:
    drawn = tail()
    (one,) = drawn.panels
    assert series(one) == 2
    assert [entry.name for entry in drawn.legend] == ["ours", "floor"]
    assert {"1-2", "900-1.9k", "NDCG@10"} <= set(words(one))
    assert words(one).count("2") == 5, "two users in each bin"
    assert drawn.readings[0].startswith(
        "NDCG@10: where targets have 1-2 training interactions (2 users), ours .6905, best floor floor 1.0000; "
    )


def test_cold_targets_are_a_bin_of_their_own_and_no_end_of_the_tail() -> None:
    drawn = tail(cold=True)
    assert bins(drawn)[0] == "none"
    assert [cell.value for cell in numbers(drawn)["floor"]][:1] == [1]
    assert "have none" not in drawn.readings[0]
    assert {"none", "1"} <= set(words(drawn.panels[0]))


def test_nobody_judged_is_no_long_tail() -> None:
    assert plots.long_tail_plot({"ours": [ranks([], [])]}, None) is None
    assert plots.long_tail_plot({}, None) is None
    cold = plots.long_tail_plot({"ours": [ranks([0, 1], [0, 0])]}, None)
    assert cold is not None
    assert "none training interactions (2 users)" in cold.readings[0]


def ticks(unit: str, values: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    rows = zip(*values.values(), strict=True)
    total = len(next(iter(values.values())))
    return [
        {"done": place, "total": total, "unit": unit, **dict(zip(values, row, strict=True))}
        for place, row in enumerate(rows, 1)
    ]


LRCL = ticks("steps", {"loss": np.linspace(4, 1, 60).tolist(), "temperature": [0.05] * 60})
TRAIN = [
    ticks("epochs", {"loss": [5, 4, 3.5], "validation/ndcg@10": [0.1, 0.3, 0.2]}),
    ticks("epochs", {"loss": [5, 4], "validation/ndcg@10": [0.1, 0.35]}),
]
CRRL = ticks("steps", {"reward": [-2, -1, -2, -1.5], "dead_groups": [0, 0, 0.5, 0.5], "shift": [2, 1, 1, 0]})


def curves(method: str = "ours") -> list[Curve]:
    return [
        *curves_of(method, "lrcl", [LRCL]),
        *curves_of(method, "crrl", [CRRL]),
        *curves_of(method, "train", TRAIN),
    ]


def test_learning_curves_say_where_they_begin_and_end_and_where_validation_is_best() -> None:
    first, last = np.linspace(4, 1, 60)[:6].mean(), np.linspace(4, 1, 60)[-6:].mean()
    assert plots.learning_readings(curves(), ["ours"]) == (
        f"lrcl: loss {first:.3g} → {last:.3g} in 60 steps",
        "lrcl: temperature 0.05 → 0.05 in 60 steps",
        "train: loss 5 → 3.75 in 2 to 3 epochs",
        "train: validation/ndcg@10 is best after 2 of 2 to 3 epochs (.3000 to .3500)",
    )


def test_learning_curves_have_a_panel_a_value_and_a_line_a_seed_without_the_rewarded_steps() -> None:
    drawn = plots.learning_plot(curves(), ["ours"])
    assert drawn is not None
    assert [each.heading for each in drawn.panels] == [
        "lrcl: loss",
        "lrcl: temperature",
        "train: loss",
        "train: validation/ndcg@10",
    ]
    assert [series(each) for each in drawn.panels] == [1, 1, 2, 2]
    assert "epochs" in words(drawn.panels[2])
    assert drawn.legend == ()


def test_methods_that_say_the_same_are_named_together_and_keep_their_colours() -> None:
    methods = ["untrained", "ours", "theirs"]
    both = [*curves("ours"), *curves("theirs")]
    assert plots.learning_readings(both, methods)[0].startswith("ours and theirs, lrcl: loss ")
    drawn = [plots.learning_plot(both, methods), plots.reinforcement_plot(curves("theirs"), methods)]
    looks = [{entry.name: entry.look for entry in each.legend} for each in drawn if each is not None]
    assert [list(each) for each in looks] == [["ours", "theirs"], ["theirs"]]
    assert looks[0]["theirs"] == looks[1]["theirs"] != looks[0]["ours"]
    assert drawn[0] is not None
    assert series(drawn[0].panels[0]) == 2


def test_reinforcement_says_whether_the_reward_rose_beyond_its_noise() -> None:
    (said,) = plots.reinforcement_readings(curves(), ["ours"])
    noise = np.std([-2, -1, -2, -1.5])
    assert said == (
        "crrl: the reward rises, -2 → -1.5 in 4 steps, more than single steps differ "
        f"(standard deviation {noise:.3g}); 25 % of the groups gave no signal; "
        "a step moves the thoughts by 1 of the noise's deviation"
    )
    drawn = plots.reinforcement_plot(curves(), ["ours"])
    assert drawn is not None
    assert [each.heading for each in drawn.panels] == ["crrl: reward", "crrl: dead_groups", "crrl: shift"]
    assert [note.partition(":")[0] for note in drawn.notes] == ["reward", "dead_groups", "shift"]


def test_what_no_step_recorded_is_not_drawn() -> None:
    assert plots.learning_plot([], ["ours"]) is None
    assert plots.learning_plot(curves_of("ours", "crrl", [CRRL]), ["ours"]) is None
    assert plots.reinforcement_plot(curves_of("ours", "lrcl", [LRCL]), ["ours"]) is None
    assert curves_of("ours", "rank", [[], []]) == []


def test_a_running_mean_keeps_the_length_and_the_mean_of_a_line() -> None:
    values = np.array([0.0, 3, 6, 3, 0])
    assert running_mean(values, 3).tolist() == [1.5, 3, 4, 3, 1.5]
    assert running_mean(values, 1).tolist() == values.tolist()


def test_a_map_knows_the_directions_that_are_in_use() -> None:
    rng = np.random.default_rng(0)
    width, items = 8, 4_000
    even = plots.shape_of(Vectors(rng.normal(size=(items, width)).astype(np.float32)))
    assert even.effective_rank == pytest.approx(width, rel=0.01)
    assert even.mean_cosine == pytest.approx(0, abs=0.01)
    line = np.zeros((items, width), dtype=np.float32)
    line[:, 3] = np.linspace(-1, 3, items)
    flat = plots.shape_of(Vectors(line))
    assert flat.effective_rank == pytest.approx(1, abs=1e-6)
    assert flat.explained == pytest.approx((1, 0))
    assert flat.points[:, 0] == pytest.approx(line[:, 3] - line[:, 3].mean(), abs=1e-6)


def test_a_map_of_files_in_blocks_is_that_of_the_whole_and_its_axes_are_the_principal_ones() -> None:
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 2).astype(np.float32)
    made = plots.shape_of(Vectors(rows[:300], rows[300:]))
    centred = rows - rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(made.points) == pytest.approx(np.abs(centred @ axes[:2].T), abs=1e-3)
    assert made.explained == pytest.approx(tuple(sizes[:2] ** 2 / (sizes**2).sum()), rel=1e-4)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(500, dtype=bool)]
    assert made.mean_cosine == pytest.approx(cosines.mean(), rel=1e-4)


@pytest.mark.parametrize("rows", [np.zeros((5, 3)), np.ones((1, 3)), np.ones((4, 1))])
def test_a_map_of_equal_few_or_narrow_vectors_is_still_a_map(rows: np.ndarray) -> None:
    shape = plots.shape_of(Vectors(rows.astype(np.float32)))
    assert shape.points.shape == (len(rows), 2)
    drawn = plots.map_plot({"it": shape}, np.arange(len(rows)))
    assert len(drawn.panels) == 1
    assert "nan" not in "".join(drawn.readings)


def test_a_map_shows_every_item_once_or_says_how_many() -> None:
    rng = np.random.default_rng(2)
    shape = plots.shape_of(Vectors(rng.normal(size=(1_600, 4)).astype(np.float32)))
    drawn = plots.map_plot({"before": shape, "after": shape}, np.arange(1_600), ["a remark"])
    assert [each.heading for each in drawn.panels] == ["before", "after"]
    assert drawn.notes[0].startswith("every map shows 1,500 of 1,600 items")
    assert drawn.notes[-1] == "a remark"
    (group,) = re.findall(r'<g id="p\w+-items">(.*?)</g>\s*<g id', drawn.panels[0].svg, re.DOTALL)
    assert group.count("<use ") == 1_500
    few = plots.map_plot({"it": replace(shape, points=shape.points[:30])}, np.arange(30))
    assert "shows" not in few.notes[0]


POINTS = [Point("slow", 90.0, 0.31), Point("quick", 1.5, 0.3)]


def test_costs_need_two_runs_and_name_the_best_and_the_cheapest() -> None:
    assert plots.cost_plot(POINTS[:1], None) is None
    drawn = plots.cost_plot(POINTS, ("item-knn", 0.2))
    assert drawn is not None
    assert drawn.readings == (
        "slow is best: NDCG@10 .3100 in 90 minutes; quick is cheapest: .3000 in 1.5 minutes, .0100 less",
    )
    assert series(drawn.panels[0]) == 2
    assert [entry.name for entry in drawn.legend] == ["slow", "quick", "best floor: item-knn"]
    one = plots.cost_plot([Point("both", 1, 0.4), POINTS[0]], None)
    assert one is not None
    assert one.readings == ("both is best: NDCG@10 .4000 in 1 minutes, and no run is cheaper",)


def all_plots() -> list[Plot]:
    shape = plots.shape_of(Vectors(np.random.default_rng(3).normal(size=(20, 4)).astype(np.float32)))
    made = [
        tail(),
        plots.learning_plot(curves(), ["ours"]),
        plots.reinforcement_plot(curves(), ["ours"]),
        plots.map_plot({"ours": shape}, np.arange(20)),
        plots.cost_plot(POINTS, None),
    ]
    return [each for each in made if each is not None]


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes_whatever_a_persons_own_style() -> None:
    first = all_plots()
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 3, "svg.fonttype": "path"}):
        assert all_plots() == first


@pytest.mark.slow
def test_plots_need_no_display() -> None:
    # Another test of this process may have loaded pyplot, which chooses a display.
    code = (
        "import sys; from tests.report.test_plots import all_plots; all_plots(); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pictures_carry_no_date_no_address_and_no_id_of_another_picture() -> None:
    panels = [each for plot in all_plots() for each in plot.panels]
    assert len(panels) == 10
    ids = [set(re.findall(r'\bid="([^"]+)"', each.svg)) for each in panels]
    assert all(not some & other for place, some in enumerate(ids) for other in ids[place + 1 :])
    for each, known in zip(panels, ids, strict=True):
        assert each.svg.startswith('<svg viewBox="0 0 440 300">')
        assert not re.search(r"https?:|<metadata|xmlns|<\?xml|DOCTYPE|<image|<style", each.svg)
        wanted = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', each.svg)
        assert {one or other for one, other in wanted} <= known
        assert each.alt


def test_no_label_of_the_long_tail_lies_on_another() -> None:
    popularity = np.repeat([1_234, 2_468, 3_345, 4_690, 34_567, 69_134, 145_678, 191_356, 567_891, 999_000], 50_000)
    wide = plots.long_tail_plot({"ours": [ranks(0 * popularity, popularity)]}, None)
    assert wide is not None
    found = [
        (float(x), float(x) + 0.55 * len(text) * float(size))
        for size, x, text in re.findall(
            r"font-size: ([\d.]+)px[^>]*translate\(([\d.]+) [^>]*>(\d[^<]*-[^<]*[kM])<", wide.panels[0].svg
        )
    ]
    assert len(found) == 5
    assert all(one[1] < other[0] for one, other in pairwise(found))
