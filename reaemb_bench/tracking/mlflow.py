"""MLflow: a parent run for each recipe and seed, a nested run for each step.

Results live in the store; MLflow only shows them. Whatever goes wrong here ends in one warning line. A recipe and
seed whose results are tracked already are not logged twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reaemb_bench.artifacts import Corpus, Ranks
from reaemb_bench.environment import git_state
from reaemb_bench.pipeline import Event, Finished, Job, Plan, Planned, Started, Ticked
from reaemb_bench.runs import Group
from reaemb_bench.store import Store

EXPERIMENT = "reaemb-bench"
IDENTITY_TAG = "reaemb_bench.identity"

_MAX_VALUE_CHARACTERS = 6000
_REASON_CHARACTERS = 120
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_SECONDS_BETWEEN_FLUSHES = 10.0


class Tracker:
    """Logs one plan. `tracker(event)` while it runs, then `results(...)`, then `close(...)`."""

    def __init__(
        self, planned: Plan, store: Store, uri: str, warn: Callable[[str], None], group: Group | None = None
    ) -> None:
        self._planned = planned
        self._store = store
        self._uri = uri
        self._warn = warn
        self._group = group
        self._client: Any = None
        self._parent = ""
        self._experiment = ""
        self._nested: dict[str, str] = {}
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take one event of the pipeline."""
        with self._harmless():
            if isinstance(event, Planned):
                self._open()
            elif self._client is None:
                return
            elif isinstance(event, Started):
                self._begin(event.job)
            elif isinstance(event, Ticked):
                self._tick(event.job, event.tick.done, event.tick.values)
            else:
                self._finish(event)

    def results(self, metrics: Mapping[str, float], table_markdown: str) -> None:
        """Log the final metrics of the plan's last ranks and the table that people see."""
        with self._harmless():
            if self._client is None:
                return
            self._log_metrics(self._parent, {f"test/{name}": value for name, value in metrics.items()})
            self._client.log_text(self._parent, table_markdown, "table.md")

    def step_results(self, step: str, metrics: Mapping[str, float]) -> None:
        """Log the final metrics of one judge beside its own run."""
        with self._harmless():
            if self._client is not None and step in self._nested:
                self._log_metrics(self._nested[step], {f"test/{name}": value for name, value in metrics.items()})

    def close(self, finished: bool) -> None:
        """End the parent run, and whatever step was under way, as finished or failed."""
        with self._harmless():
            if self._client is None:
                return
            self._flush()
            if not finished:
                for run in self._nested.values():
                    if self._client.get_run(run).info.status == "RUNNING":
                        self._client.set_terminated(run, "FAILED")
            self._client.set_terminated(self._parent, "FINISHED" if finished else "FAILED")

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a tracking server must never cost anybody a result
            self._client = None
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_REASON_CHARACTERS]
            self._warn(f"warning: MLflow at {self._uri} fails, so this run is not tracked there ({reason})")

    def _open(self) -> None:
        client = connect(self._uri)
        self._experiment = _experiment(client, self._uri)
        recipe = self._planned.recipe
        identity = plan_identity(self._planned)
        known = client.search_runs(
            [self._experiment],
            f"tags.`{IDENTITY_TAG}` = '{identity}' and attributes.status = 'FINISHED'",
            max_results=1,
        )
        if known:
            return
        tags = {
            IDENTITY_TAG: identity,
            "recipe": recipe.name,
            "seed": str(self._planned.seed),
            "leaks": ", ".join(self._planned.leaks) or "none",
            **({"group": self._group.name, "kind": self._group.kind} if self._group else {}),
            "mlflow.source.git.commit": git_state(),
        }
        name = f"{recipe.name}, seed {self._planned.seed}"
        self._parent = client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
        self._client = client
        self._log_params(self._parent, {**_header(self._planned), **flatten(_tables(self._planned))})
        client.log_text(self._parent, recipe.toml(), "recipe.toml")

    def _begin(self, job: Job) -> None:
        tags = {"mlflow.parentRunId": self._parent, "step": job.name, "component": job.step.use, "key": job.key}
        if job.step.leaks:
            tags["leaks"] = job.name
        made = self._client.create_run(self._experiment, tags=tags, run_name=job.name)
        self._nested[job.name] = made.info.run_id
        seed = {} if job.seed is None else {"seed": job.seed}
        self._log_params(made.info.run_id, {**seed, **flatten(job.step.spec())})

    def _tick(self, job: Job, done: int, values: Mapping[str, float]) -> None:
        self._waiting += [(self._nested[job.name], name, value, done) for name, value in values.items()]
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self._flush()

    def _finish(self, event: Finished) -> None:
        job = event.job
        if event.cached:
            self._begin(job)
            self._client.set_tag(self._nested[job.name], "cached", "true")
            for tick in self._store.ticks(job.key):
                values = {name: value for name, value in tick.items() if name not in ("done", "total", "unit")}
                self._tick(job, int(tick["done"]), values)
        self._flush()
        run = self._nested[job.name]
        facts = dict(event.manifest.get("facts", {}))
        numbers = {name: float(value) for name, value in facts.items() if isinstance(value, int | float)}
        self._log_metrics(run, {**numbers, "seconds": float(event.manifest["seconds"])})
        self._log_params(run, {name: value for name, value in facts.items() if isinstance(value, str)})
        if Corpus in job.makes:
            self._log_corpus(job)
        if Ranks in job.makes:
            self._client.log_artifact(
                self._parent, str(self._store.folder(job.key) / "ranks" / "ranks.parquet"), job.name
            )
        self._client.set_terminated(run, "FINISHED")

    def _log_corpus(self, job: Job) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        folder = self._store.folder(job.key) / "corpus"
        corpus = Corpus.load(folder)
        counts = {"users": corpus.users, "items": corpus.items, "training_interactions": len(corpus.training.items)}
        source = json.dumps({"uri": folder.resolve().as_uri()})
        dataset = Dataset(corpus.name or job.name, job.key, "local", source, profile=json.dumps(counts))
        made = DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
        self._client.log_inputs(self._parent, [made])

    def _log_params(self, run: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        made = [Param(clean(name), str(value)[:_MAX_VALUE_CHARACTERS]) for name, value in params.items()]
        for place in range(0, len(made), _PARAMS_PER_CALL):
            self._client.log_batch(run, params=made[place : place + _PARAMS_PER_CALL])

    def _log_metrics(self, run: str, metrics: Mapping[str, float]) -> None:
        self._waiting += [(run, name, value, 0) for name, value in metrics.items()]
        self._flush()

    def _flush(self) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        by_run: dict[str, list[Any]] = {}
        for run, name, value, step in self._waiting:
            by_run.setdefault(run, []).append(Metric(clean(name), float(value), now, step))
        self._waiting = []
        for run, metrics in by_run.items():
            for place in range(0, len(metrics), _METRICS_PER_CALL):
                self._client.log_batch(run, metrics=metrics[place : place + _METRICS_PER_CALL])
        self._flushed = time.monotonic()


def connect(uri: str) -> Any:
    """An MLflow client that logs no noise and does not hang for minutes where no server answers."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    # MLflow sets its level while it is imported, alembic while it creates the tables: both read these.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def plan_identity(planned: Plan) -> str:
    """What tells two tracked plans apart: the recipe's name and the keys of all its results."""
    text = "/".join([planned.recipe.name, str(planned.seed), *(f"{job.name}={job.key}" for job in planned.jobs)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables and lists as `a.b.0.c` -> value."""
    if isinstance(value, Mapping):
        pairs: list[tuple[str, Any]] = [(str(name), each) for name, each in value.items()]
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        pairs = [(str(place), each) for place, each in enumerate(value)]
    else:
        return {prefix: value}
    made: dict[str, Any] = {}
    for name, each in pairs:
        made |= flatten(each, f"{prefix}.{name}" if prefix else name)
    return made


def clean(name: str) -> str:
    """The name in the characters that MLflow takes: `ndcg@10` becomes `ndcg_at_10`."""
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))


def _experiment(client: Any, uri: str) -> str:
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is not None:
        return str(known.experiment_id)
    # Beside the database, for MLflow's own choice is whatever folder the first run was started from.
    beside = Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlruns" if uri.startswith("sqlite:///") else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=beside.as_uri() if beside else None))


def _header(planned: Plan) -> dict[str, Any]:
    recipe = planned.recipe
    return {
        "steps": ", ".join(recipe.steps),
        "seed": planned.seed,
        "data_seed": recipe.data_seed,
        "embedder_seed": planned.seed if recipe.embedder_seed is None else recipe.embedder_seed,
        "allow_leaks": recipe.allow_leaks,
    }


def _tables(planned: Plan) -> dict[str, Any]:
    return {name: step.spec() for name, step in planned.recipe.steps.items()}
