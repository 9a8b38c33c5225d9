"""Choices that the command line spells out, so that `--help` loads no room, are those of the rooms."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

from reaemb_bench.cli import data, experiments, results
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.evaluation.metrics import MetricName
from reaemb_bench.experiments.space import PrunerName, SamplerName
from reaemb_bench.report.export import Which
from reaemb_bench.report.results import By
from reaemb_bench.report.vectors import Format


@pytest.mark.parametrize(
    ("shown", "known"),
    [
        (results.MetricName, MetricName),
        (results.By, By),
        (results.Vectors, Which),
        (results.Format, Format),
        (experiments.SamplerName, SamplerName),
        (experiments.PrunerName, PrunerName),
    ],
)
def test_choices_are_those_of_the_rooms(shown: object, known: object) -> None:
    assert set(get_args(shown)) == set(get_args(known))


def test_the_tail_and_short_histories_of_a_data_card_are_those_of_tables() -> None:
    parameters = inspect.signature(data.describe).parameters
    assert (parameters["tail"].default, parameters["short"].default) == (TAIL, SHORT)
