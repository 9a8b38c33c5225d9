"""What things are called in MLflow: experiments, parameters, metrics."""

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
from typing import Any, Literal

import reaemb_bench
from reaemb_bench.core.artifacts import Corpus, Ranker, Ranks, Vectors
from reaemb_bench.core.execute import Event, Finished, Planned, Progressed, Started
from reaemb_bench.core.plan import Job, Plan
from reaemb_bench.core.runs import Group, Run, as_run, flatten
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.addresses import database_file, redacted, without_secrets

EXPERIMENT = "reaemb-bench"
"""Experiment of runs without data, and the first part of all other experiments' names."""

HEADLINE = "full/ndcg@10"
"""The metric that comes first."""

_BINS = re.compile(r"(low|high)/|.*-q\d+$")


def experiment_name(data: str) -> str:
    """The experiment of all runs on one data set, such as `reaemb-bench/MovieLens-100K`."""
    return f"{EXPERIMENT}/{data}" if data else EXPERIMENT


def clean(name: str) -> str:
    """The name in the characters that MLflow takes: `ndcg@10` becomes `ndcg_at_10`."""
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))


def shown_metrics(summary: Mapping[str, float]) -> dict[str, float]:
    """What is logged of a summary: `test/full/ndcg@10/tail`, ... without the many quantile bins of curves.

    MLflow shows metrics in the order in which they come, so the headline is first and counts of users are last.
    """
    ordered = sorted(summary, key=lambda name: (name.startswith("users"), name != HEADLINE))
    return {f"test/{name}": summary[name] for name in ordered if not _BINS.match(name)}


# Reaching MLflow: a client that neither chatters nor hangs, the experiment of a data set, servers that are away.


QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    # MLflow sets its level while it is imported, alembic while it creates the tables: both read this.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment of MLflow where nobody chose another: it reports to nobody and gives a silent server up soon."""

_SECONDS_AWAY = 300.0
_KIND_TAG = "mlflow.experimentKind"
_KIND = "custom_model_development"

_failed: dict[str, float] = {}


def connect(uri: str) -> Any:
    """An MLflow client that logs no noise and does not hang for minutes where no server answers."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of each attempt, and one line is what a server that is away may cost.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def experiment_of(client: Any, uri: str, data: str) -> str:
    """Id of the experiment of a data set, made where there is none. Raises LookupError where somebody deleted it."""
    name = experiment_name(data)
    known = client.get_experiment_by_name(name)
    if known is None:
        known = _made(client, uri, name)
    if known.lifecycle_stage != "active":
        raise LookupError(f"experiment '{name}' was deleted there; restore it, or remove it for good with mlflow gc")
    return str(known.experiment_id)


def _made(client: Any, uri: str, name: str) -> Any:
    # Beside the database, for MLflow's own choice is whatever folder the first run was started from.
    file = database_file(uri)
    beside = None if file is None else (file.resolve().parent / "mlruns").as_uri()
    try:
        client.create_experiment(name, artifact_location=beside, tags={_KIND_TAG: _KIND})
    except Exception:
        # Another process may have made it meanwhile.
        if client.get_experiment_by_name(name) is None:
            raise
    return client.get_experiment_by_name(name)


def is_away(uri: str) -> bool:
    """Whether this process could not reach it a moment ago, so that each of many runs need not wait for it."""
    return uri in _failed and time.monotonic() - _failed[uri] < _SECONDS_AWAY


def note_away(uri: str) -> None:
    """Remember that it could not be reached."""
    _failed[uri] = time.monotonic()


def note_here(uri: str) -> None:
    """Remember that it answers again."""
    _failed.pop(uri, None)


# Tags of a tracked run: what people filter and group by.


IDENTITY_TAG = "reaemb_bench.identity"
PARENT_TAG = "mlflow.parentRunId"
DESCRIPTION_TAG = "mlflow.note.content"
"""MLflow shows its value, which is Markdown, above a run."""
MOST_CHARACTERS = 8000
"""The longest value of a tag that MLflow takes."""


def identity_of(planned: Plan, group: Group | None) -> str:
    """What tells two tracked plans apart: the recipe's name, seed, the keys of all its results, and their group."""
    parts = [planned.recipe.name, str(planned.seed), *(f"{job.name}={job.key}" for job in planned.jobs)]
    if group is not None:
        parts += [group.kind, group.name]
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:32]


def tags_of(planned: Plan, run: Run, store: Store, group: Group | None) -> dict[str, str]:
    """The tags of one recipe and seed; what the recipe does not have is left out.

    run: the record of the plan, as far as it is known.
    """
    specs = [step.spec() for step in planned.recipe.steps.values()]
    version = _version(planned, store)
    found = {
        "method": planned.recipe.name,
        "data": run.data,
        "backbone": _use(specs, "backbone"),
        "head": _use(specs, "head"),
        "protocol": _protocol(planned, specs),
        "seed": str(planned.seed),
        "leaks": ", ".join(planned.leaks) or "none",
        "git": run.git,
        "version": version,
        "group": group.name if group else "",
        "kind": group.kind if group else "run",
        IDENTITY_TAG: identity_of(planned, group),
        "mlflow.source.name": f"reaemb-bench {version}",
        "mlflow.source.git.commit": run.git.removesuffix("-dirty"),
    }
    return {name: value for name, value in found.items() if value}


def _protocol(planned: Plan, specs: list[dict[str, Any]]) -> str:
    """How targets are chosen and what they are ranked against: `leave-last-two, whole catalogue`."""
    if planned.job_of(Ranks) is None:
        return ""
    sampled = next(_values(specs, "sampled_candidates"), None)
    parts = [_use(specs, "split"), "whole catalogue", f"{sampled} sampled beside it" if sampled else ""]
    return ", ".join(part for part in parts if part)


def _use(specs: list[dict[str, Any]], part: str) -> str:
    """The components that the steps have as this part; of a plug-in, its file's name and its class."""
    found = [each["use"] for each in _values(specs, part) if isinstance(each, Mapping) and "use" in each]
    return ", ".join(dict.fromkeys(Path(use).name for use in found))


def _values(specs: list[dict[str, Any]], setting: str) -> Iterator[Any]:
    return (spec[setting] for spec in specs if setting in spec)


def _version(planned: Plan, store: Store) -> str:
    """The version that computed the last result, which is this one where there is none yet."""
    key = planned.jobs[-1].key
    versions = store.manifest(key).get("versions", {}) if store.has(key) else {}
    return str(versions.get("reaemb-bench", reaemb_bench.__version__))


# The run above all runs of an ablation, a sweep or a suite: whichever process comes first makes it.


GROUP_TAG = "reaemb_bench.group"

_TITLES = {"run": "runs", "ablation": "ablation", "trial": "sweep", "bench": "suite"}


def group_run(client: Any, experiment: str, group: Group) -> str:
    """Id of the group's run in this experiment, made where there is none.

    Two processes may make one each at the same moment: all take the older, and the other is deleted by who made it.
    """
    found = _oldest(client, experiment, group)
    if found is not None:
        return found
    tags = {GROUP_TAG: _identity(group), "kind": group.kind, "group": group.name}
    name = f"{_TITLES[group.kind]} {group.name}"
    own = str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)
    # Its members come and go; it is never under way itself.
    client.set_terminated(own, "FINISHED")
    oldest = _oldest(client, experiment, group) or own
    if oldest != own:
        client.delete_run(own)
    return oldest


def stay_together(client: Any, experiment: str, group: Group, member: str, parent: str) -> None:
    """Move a member whose group's run turned out not to be the oldest one, and end the group's run anew."""
    oldest = group_run(client, experiment, group)
    if oldest != parent:
        client.set_tag(member, PARENT_TAG, oldest)
        if not client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{parent}'", max_results=1):
            client.delete_run(parent)
    client.set_terminated(oldest, "FINISHED")


def _oldest(client: Any, experiment: str, group: Group) -> str | None:
    found = client.search_runs([experiment], f"tags.`{GROUP_TAG}` = '{_identity(group)}'")
    runs = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
    return str(runs[0].info.run_id) if runs else None


def _identity(group: Group) -> str:
    return f"{group.kind}/{group.name}".replace("'", "_")


# MLflow: a run for each recipe and seed, below the run of its group if it has one, and a nested run for each step.
#
# Results live in the store; MLflow only shows them. Whatever goes wrong here ends in one warning line. A recipe and
# seed whose results are tracked already are not logged twice, and a finished one replaces what was logged by half.


Outcome = Literal["waiting", "tracked", "known", "failed"]

TABLE = "table.md"
"""The text among a run's results that also becomes its description."""

_MAX_VALUE_CHARACTERS = 6000
_REASON_CHARACTERS = 120
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_SECONDS_BETWEEN_FLUSHES = 10.0


class Tracker:
    """Logs one plan. `tracker(event)` while it runs, then `results(...)`, then `close(...)`.

    The experiment is the data set's, so nothing is sent before the data set's name is known: what happens until then
    is kept and logged with its time. outcome: `known` where all was there already, `failed` where MLflow failed.
    """

    def __init__(
        self,
        planned: Plan,
        store: Store,
        uri: str,
        warn: Callable[[str], None],
        group: Group | None = None,
        models: bool = False,
        record: Run | None = None,
    ) -> None:
        """models: log the ranker and vectors too. record: of the run, where it finished long ago."""
        self.outcome: Outcome = "waiting"
        self._planned = planned
        self._store = store
        self._uri = uri
        self._warn = warn
        self._group = group
        self._models = models
        self._record = record
        self._client: Any = None
        self._experiment = ""
        self._parent = ""
        self._above = ""
        self._held: list[tuple[Event, int]] = []
        self._nested: dict[str, str] = {}
        self._waiting: list[tuple[str, str, float, int, int]] = []
        self._flushed = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take one event of the pipeline."""
        with self._harmless():
            if self.outcome == "waiting":
                self._held.append((event, _now()))
                if self._knows_data():
                    self._catch_up()
            elif self._client is not None:
                self._take(event, _now())

    def results(self, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Log the final metrics of the plan's last ranks, and texts by file name: tables as people see them."""
        with self._harmless():
            if self._client is None:
                return
            self._log_metrics(self._parent, shown_metrics(metrics))
            log_texts(self._client, self._parent, texts)

    def step_results(self, step: str, metrics: Mapping[str, float]) -> None:
        """Log the final metrics of one judge beside its own run."""
        with self._harmless():
            if self._client is not None and step in self._nested:
                self._log_metrics(self._nested[step], shown_metrics(metrics))

    def close(self, finished: bool) -> None:
        """End the run, and whatever step was under way, as finished or failed."""
        with self._harmless():
            if self.outcome == "waiting" and self._held:
                self._catch_up()
            if self._client is None:
                return
            self._flush()
            if not finished:
                for run in self._nested.values():
                    if self._client.get_run(run).info.status == "RUNNING":
                        self._client.set_terminated(run, "FAILED")
            self._client.set_terminated(self._parent, "FINISHED" if finished else "FAILED")
            if self._group is not None:
                stay_together(self._client, self._experiment, self._group, self._parent, self._above)
            if finished:
                self._replace_others()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a tracking server must never cost anybody a result
            if not self._parent:
                note_away(self._uri)
            self._client = None
            self._held = []
            self.outcome = "failed"
            self._warn(f"{failure(error, self._uri)}; later: reaemb-bench push {self._planned.recipe.name}")

    def _knows_data(self) -> bool:
        """Whether the name of the data set is in the store, or will not come there."""
        planned = next((event for event, _ in self._held if isinstance(event, Planned)), None)
        job = self._planned.job_of(Corpus)
        return job is None or self._store.has(job.key) or (planned is not None and job.key not in planned.needed)

    def _catch_up(self) -> None:
        held, self._held = self._held, []
        self._open(held[0][1])
        if self._client is not None:
            for event, when in held:
                self._take(event, when)

    def _open(self, when: int) -> None:
        if self._record is None and is_away(self._uri):
            self.outcome = "failed"
            return
        client = connect(self._uri)
        run = self._record or as_run([self._planned], self._store, self._group)
        tags = tags_of(self._planned, run, self._store, self._group)
        self._experiment = experiment_of(client, self._uri, run.data)
        note_here(self._uri)
        if any(each.info.status == "FINISHED" for each in self._same(client, tags[IDENTITY_TAG])):
            self.outcome = "known"
            return
        if self._group is not None:
            self._above = tags[PARENT_TAG] = group_run(client, self._experiment, self._group)
        recipe = self._planned.recipe
        name = f"{recipe.name}, seed {self._planned.seed}"
        made = client.create_run(self._experiment, start_time=when, tags=tags, run_name=name)
        self._parent = made.info.run_id
        self._client = client
        self.outcome = "tracked"
        self._log_params(self._parent, {**_header(self._planned), **flatten(_tables(self._planned))})
        client.log_text(self._parent, recipe.toml(), "recipe.toml")

    def _same(self, client: Any, identity: str) -> list[Any]:
        return list(client.search_runs([self._experiment], f"tags.`{IDENTITY_TAG}` = '{identity}'"))

    def _replace_others(self) -> None:
        """Leave one run of these results: the oldest finished one."""
        own = self._client.get_run(self._parent)
        others = [
            each for each in self._same(self._client, own.data.tags[IDENTITY_TAG]) if each.info.run_id != self._parent
        ]
        finished = [each for each in [own, *others] if each.info.status == "FINISHED"]
        kept = min(finished, key=lambda run: (run.info.start_time, run.info.run_id))
        gone = [each for each in others if each.info.status != "FINISHED"] + [own] * (kept is not own)
        for run in gone:
            children = f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"
            for each in [*self._client.search_runs([self._experiment], children), run]:
                self._client.delete_run(each.info.run_id)

    def _take(self, event: Event, when: int) -> None:
        if isinstance(event, Started):
            self._begin(event.job, when)
        elif isinstance(event, Progressed):
            self._tick(event.job, event.progress.done, event.progress.values, when)
        elif isinstance(event, Finished):
            self._finish(event, when)

    def _begin(self, job: Job, when: int) -> None:
        tags = {PARENT_TAG: self._parent, "step": job.name, "component": job.step.use, "key": job.key}
        if job.step.leaks:
            tags["leaks"] = job.name
        made = self._client.create_run(self._experiment, start_time=when, tags=tags, run_name=job.name)
        self._nested[job.name] = made.info.run_id
        seed = {} if job.seed is None else {"seed": job.seed}
        self._log_params(made.info.run_id, {**seed, **flatten(job.step.spec())})

    def _tick(self, job: Job, done: int, values: Mapping[str, float], when: int) -> None:
        self._waiting += [(self._nested[job.name], name, value, done, when) for name, value in values.items()]
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self._flush()

    def _finish(self, event: Finished, when: int) -> None:
        job = event.job
        if event.cached:
            self._begin(job, when)
            self._client.set_tag(self._nested[job.name], "cached", "true")
            for tick in self._store.progress(job.key):
                values = {name: value for name, value in tick.items() if name not in ("done", "total", "unit")}
                self._tick(job, int(tick["done"]), values, when)
        self._flush()
        run = self._nested[job.name]
        facts = dict(event.manifest.get("facts", {}))
        numbers = {name: float(value) for name, value in facts.items() if isinstance(value, int | float)}
        self._log_metrics(run, {**numbers, "seconds": float(event.manifest["seconds"])})
        self._log_params(run, {name: value for name, value in facts.items() if isinstance(value, str)})
        self._log_files(job)
        self._client.set_terminated(run, "FINISHED", end_time=when)

    def _log_files(self, job: Job) -> None:
        folder = self._store.folder(job.key)
        if Corpus in job.makes:
            self._log_corpus(job)
        if Ranks in job.makes:
            self._client.log_artifact(self._parent, str(folder / "ranks" / "ranks.parquet"), job.name)
        if self._models:
            for made in {Ranker, Vectors} & set(job.makes):
                name = made.__name__.lower()
                self._client.log_artifacts(self._parent, str(folder / name), f"{job.name}/{name}")

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
        now = _now()
        self._waiting += [(run, name, value, 0, now) for name, value in metrics.items()]
        self._flush()

    def _flush(self) -> None:
        from mlflow.entities import Metric

        by_run: dict[str, list[Any]] = {}
        for run, name, value, step, when in self._waiting:
            by_run.setdefault(run, []).append(Metric(clean(name), float(value), when, step))
        self._waiting = []
        for run, metrics in by_run.items():
            for place in range(0, len(metrics), _METRICS_PER_CALL):
                self._client.log_batch(run, metrics=metrics[place : place + _METRICS_PER_CALL])
        self._flushed = time.monotonic()


def log_texts(client: Any, run: str, texts: Mapping[str, str]) -> None:
    """Texts as artefacts by file name; the table also as the run's description, where it is short enough."""
    for name, text in texts.items():
        client.log_text(run, text, name)
    if TABLE in texts and len(texts[TABLE]) <= MOST_CHARACTERS:
        client.set_tag(run, DESCRIPTION_TAG, texts[TABLE])


def log_group(uri: str, group: Group, data: str, texts: Mapping[str, str]) -> None:
    """The same for the run of a whole group in the experiment of a data set. Raises what MLflow raises."""
    client = connect(uri)
    experiment = experiment_of(client, uri, data)
    log_texts(client, group_run(client, experiment, group), texts)


def failure(error: Exception, uri: str) -> str:
    """Why MLflow fails, as the start of a warning line that holds no secret."""
    reason = without_secrets(f"{type(error).__name__}: {' '.join(str(error).split())}", uri)
    return f"warning: MLflow at {redacted(uri)} fails, so this run is not tracked there ({reason[:_REASON_CHARACTERS]})"


def _now() -> int:
    return int(time.time() * 1000)


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
