"""Reading back what MLflow was told."""

from __future__ import annotations

from typing import Any

from reaemb_bench.tracking.connection import connect
from reaemb_bench.tracking.mlflow import PARENT_TAG, experiment_name

SELDOM = ("log_text", "log_inputs", "set_terminated")
"""What a client is asked to do at the beginning, in the middle and at the end of a run."""


def runs_in(uri: str, data: str) -> list[Any]:
    """All runs on a data set, oldest first."""
    client = connect(uri)
    experiment = client.get_experiment_by_name(experiment_name(data))
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def children(runs: list[Any], parent: Any) -> list[Any]:
    """Those of the runs that are nested below this one; None gives those that are nested below none."""
    wanted = None if parent is None else parent.info.run_id
    return [run for run in runs if run.data.tags.get(PARENT_TAG) == wanted]
