"""MLflow shows what the store holds: a run for each recipe and seed, with a nested run for each step.

An ablation, a sweep or a suite has a run of its own above those of its members. Any failure here ends in one warning
line. Results that are tracked already are not logged twice, and a finished run replaces what was logged by half.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import re
import ssl
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from threading import Thread
from typing import Any, Literal, TypeVar

from filelock import FileLock

import reaemb_bench
from reaemb_bench.core.artifacts import Corpus, Ranker, Ranks, Vectors
from reaemb_bench.core.execute import Event, Finished, Planned, Progressed, Started
from reaemb_bench.core.plan import Job, Plan, flatten
from reaemb_bench.core.runs import Group, Run, as_run
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.addresses import database_file, is_server, page_of, redacted

T = TypeVar("T")
Outcome = Literal["waiting", "tracked", "known", "failed"]

EXPERIMENT = "reaemb-bench"
"""Experiment of runs without data, and the first part of all other experiments' names."""
TABLE = "table.md"
"""The text among a run's results that also becomes its description."""
IDENTITY_TAG = "reaemb_bench.identity"
GROUP_TAG = "reaemb_bench.group"
PARENT_TAG = "mlflow.parentRunId"
QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    # MLflow sets its level while it is imported, alembic while it creates the tables: both read this.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The pages of runs, with the password of the server's address in them.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment of MLflow unless the user chose another: it reports to nobody and does not wait for a silent server."""

_BINS = re.compile(r"(low|high)/|.*-q\d+$")
_GROUP_TITLES = {"run": "runs", "ablation": "ablation", "trial": "sweep", "bench": "suite"}
_LONGEST_TAG = 8000
_LONGEST_PARAM = 6000
_LONGEST_REASON = 120
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_SECONDS_BETWEEN_FLUSHES = 10.0
_SECONDS_AWAY = 300.0
_SECONDS_TO_ANSWER = 2
_SECONDS_TO_CREATE_TABLES = 300
_SLOWEST_UPLOAD = 1e6
"""Bytes a second; so much longer than other calls may the upload of files take."""

_failed_at: dict[str, float] = {}


class Tracker:
    """Logs one plan: `tracker(event)` while it runs, then `results(...)`, then `close(...)`.

    The experiment is that of the data set. Until its name is known nothing is sent; events are kept and logged with
    their time. outcome: `known` if all was logged before, `failed` if MLflow failed.
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
        """models: whether to log the ranker and vectors too. record: of the run, if it finished earlier."""
        if record is not None:
            # A push tries MLflow again although it failed before.
            _failed_at.pop(uri, None)
        self.outcome: Outcome = "waiting"
        self._planned, self._store, self._uri, self._warn = planned, store, uri, warn
        self._group, self._models, self._record = group, models, record
        self._client: Any = None
        self._experiment = self._run = self._group_run = ""
        self._held: list[tuple[Event, int]] = []
        self._steps: dict[str, str] = {}
        self._metrics: dict[str, list[Any]] = {}
        self._flushed = time.monotonic()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Gives MLflow up after the first failure, with one line for all trackers of this process if it is away."""
        if self.outcome in ("waiting", "tracked") and is_away(self._uri):
            self._client, self._held, self.outcome = None, [], "failed"
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a tracking server must never cost anybody a result
            self._client, self._held, self.outcome = None, [], "failed"
            if not self._run or _is_silence(error):
                _failed_at[self._uri] = time.monotonic()
            self._warn(f"{failure(error, self._uri)}; later: reaemb-bench push {quote(self._planned.recipe.name)}")

    def __call__(self, event: Event) -> None:
        """Takes one event of the pipeline."""
        with self._harmless():
            if self.outcome == "waiting":
                self._held.append((event, _now()))
                data, first = self._planned.job_of(Corpus), self._held[0][0]
                awaited = data is not None and isinstance(first, Planned) and data.key in first.needed
                if not awaited or (data is not None and self._store.has(data.key)):
                    self._catch_up()
            elif self._client is not None:
                self._log(event, _now())

    def _catch_up(self) -> None:
        """Creates the run, if these results are not tracked yet, and logs all events so far."""
        held, self._held = self._held, []
        planned, recipe, client = self._planned, self._planned.recipe, connect(self._uri)
        run = self._record or as_run([planned], self._store, self._group)
        tags = tags_of(planned, run, self._store, self._group)
        self._experiment = _experiment(client, self._uri, run.data)
        _failed_at.pop(self._uri, None)
        same = client.search_runs([self._experiment], f"tags.`{IDENTITY_TAG}` = '{tags[IDENTITY_TAG]}'")
        if any(other.info.status == "FINISHED" for other in same):
            self.outcome = "known"
            return
        if self._group is not None:
            self._group_run = tags[PARENT_TAG] = group_run(client, self._experiment, self._group)
        name = f"{recipe.name}, seed {planned.seed}"
        created = client.create_run(self._experiment, start_time=held[0][1], tags=tags, run_name=name)
        self._client, self._run, self.outcome = client, created.info.run_id, "tracked"
        header = {
            "steps": ", ".join(recipe.steps),
            "seed": planned.seed,
            "data_seed": recipe.data_seed,
            "embedder_seed": planned.seed if recipe.embedder_seed is None else recipe.embedder_seed,
            "allow_leaks": recipe.allow_leaks,
        }
        self._log_params(self._run, {**header, **flatten({name: step.spec() for name, step in recipe.steps.items()})})
        client.log_text(self._run, recipe.toml(), "recipe.toml")
        for event, when in held:
            self._log(event, when)

    def _log(self, event: Event, when: int) -> None:
        """Logs what happened to a step at a time in milliseconds."""
        if isinstance(event, Started):
            self._start_step(event.job, when)
        elif isinstance(event, Progressed):
            progress = event.progress
            self._log_metrics(self._steps[event.job.name], progress.values, progress.done, when)
        elif isinstance(event, Finished):
            job, folder = event.job, self._store.folder(event.job.key)
            if event.cached:
                self._start_step(job, when)
                self._client.set_tag(self._steps[job.name], "cached", "true")
                for recorded in self._store.progress(job.key):
                    values = {name: value for name, value in recorded.items() if name not in ("done", "total", "unit")}
                    self._log_metrics(self._steps[job.name], values, int(recorded["done"]), when)
            run, facts = self._steps[job.name], event.manifest.get("facts", {})
            numbers = {name: value for name, value in facts.items() if isinstance(value, int | float)}
            self._log_metrics(run, {**numbers, "seconds": event.manifest["seconds"]})
            self._flush()
            self._log_params(run, {name: value for name, value in facts.items() if isinstance(value, str)})
            if Corpus in job.makes:
                self._log_corpus(job, folder / "corpus")
            if Ranks in job.makes:
                self._client.log_artifact(self._run, str(folder / "ranks" / "ranks.parquet"), job.name)
            for artifact in {Ranker, Vectors} & set(job.makes) if self._models else ():
                name = artifact.__name__.lower()
                self._client.log_artifacts(self._run, str(folder / name), f"{job.name}/{name}")
            self._client.set_terminated(run, "FINISHED", end_time=when)

    def _start_step(self, job: Job, when: int) -> None:
        tags = {PARENT_TAG: self._run, "step": job.name, "component": job.step.use, "key": job.key}
        tags |= {"leaks": job.name} if job.step.leaks else {}
        created = self._client.create_run(self._experiment, start_time=when, tags=tags, run_name=job.name)
        self._steps[job.name] = created.info.run_id
        seed = {} if job.seed is None else {"seed": job.seed}
        self._log_params(created.info.run_id, {**seed, **flatten(job.step.spec())})

    def _log_corpus(self, job: Job, folder: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        corpus = Corpus.load(folder)
        counts = {"users": corpus.users, "items": corpus.items, "training_interactions": len(corpus.training.items)}
        source = json.dumps({"uri": folder.resolve().as_uri()})
        # MLflow takes digests of up to 36 characters.
        digest = str(self._store.manifest(job.key)["facts"].get("sha256", job.key))[:36]
        dataset = Dataset(corpus.name or job.name, digest, "local", source, profile=json.dumps(counts))
        self._client.log_inputs(self._run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _log_params(self, run: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(clean(name), str(value)[:_LONGEST_PARAM]) for name, value in params.items()]
        for start in range(0, len(entries), _PARAMS_PER_CALL):
            self._client.log_batch(run, params=entries[start : start + _PARAMS_PER_CALL])

    def _log_metrics(self, run: str, metrics: Mapping[str, float], done: int = 0, when: int | None = None) -> None:
        """Keeps metrics for some seconds, so that many go out in one call."""
        from mlflow.entities import Metric

        moment = _now() if when is None else when
        entries = [Metric(clean(name), float(value), moment, done) for name, value in metrics.items()]
        self._metrics.setdefault(run, []).extend(entries)
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self._flush()

    def _flush(self) -> None:
        kept, self._metrics, self._flushed = self._metrics, {}, time.monotonic()
        for run, metrics in kept.items():
            for start in range(0, len(metrics), _METRICS_PER_CALL):
                self._client.log_batch(run, metrics=metrics[start : start + _METRICS_PER_CALL])

    def step_results(self, step: str, metrics: Mapping[str, float]) -> None:
        """Logs the final metrics of one judge to its own run."""
        with self._harmless():
            if self._client is not None and step in self._steps:
                self._log_metrics(self._steps[step], shown_metrics(metrics))

    def results(self, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Logs the final metrics of the plan's last ranks, and tables and report as texts by file name."""
        with self._harmless():
            if self._client is not None:
                self._log_metrics(self._run, shown_metrics(metrics))
                _log_texts(self._client, self._run, texts)

    def close(self, finished: bool) -> None:
        """Ends the run, and a step that was under way, as finished or failed."""
        with self._harmless():
            if self.outcome == "waiting" and self._held:
                self._catch_up()
            client = self._client
            if client is None:
                return
            self._flush()
            for run in () if finished else self._steps.values():
                if client.get_run(run).info.status == "RUNNING":
                    client.set_terminated(run, "FAILED")
            client.set_terminated(self._run, "FINISHED" if finished else "FAILED")
            if self._group is not None:
                # Another process may have created an older run of the group meanwhile: all members move there.
                oldest = group_run(client, self._experiment, self._group)
                if oldest != self._group_run:
                    client.set_tag(self._run, PARENT_TAG, oldest)
                    if not self._children(self._group_run):
                        client.delete_run(self._group_run)
                client.set_terminated(oldest, "FINISHED")
            if finished:
                # One run of these results stays: the oldest finished one.
                own = client.get_run(self._run)
                identity = own.data.tags[IDENTITY_TAG]
                same = client.search_runs([self._experiment], f"tags.`{IDENTITY_TAG}` = '{identity}'")
                others = [run for run in same if run.info.run_id != self._run]
                kept = min((run for run in [own, *others] if run.info.status == "FINISHED"), key=_age)
                for run in [other for other in others if other.info.status != "FINISHED"] + [own] * (kept is not own):
                    for deleted in [*self._children(run.info.run_id), run]:
                        client.delete_run(deleted.info.run_id)

    def _children(self, run: str) -> list[Any]:
        return list(self._client.search_runs([self._experiment], f"tags.`{PARENT_TAG}` = '{run}'"))


# What runs, parameters, metrics and tags are called.


def experiment_name(data: str) -> str:
    """Returns the experiment of all runs on one data set, such as `reaemb-bench/MovieLens-100K`."""
    return f"{EXPERIMENT}/{data}" if data else EXPERIMENT


def clean(name: str) -> str:
    """Returns the name in the characters that MLflow accepts: `ndcg@10` becomes `ndcg_at_10`."""
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))


def shown_metrics(summary: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics to log: `test/full/ndcg@10/tail`, ... without the many quantile bins of curves.

    MLflow shows metrics in the order in which they come, so the headline is first and counts of users are last.
    """
    ordered = sorted(summary, key=lambda name: (name.startswith("users"), name != "full/ndcg@10"))
    return {f"test/{name}": summary[name] for name in ordered if not _BINS.match(name)}


def tags_of(planned: Plan, run: Run, store: Store, group: Group | None) -> dict[str, str]:
    """Returns the tags of one recipe and seed, without those of parts that the recipe does not have.

    run: the record of the plan, as far as it is known. The identity is of the recipe's name, the seed, all results and
    the group.
    """
    settings = flatten({name: step.spec() for name, step in planned.recipe.steps.items()})

    def used(part: str) -> str:
        components = [Path(value).name for name, value in settings.items() if name.split(".")[1:] == [part, "use"]]
        return ", ".join(dict.fromkeys(components))

    sampled = next((value for name, value in settings.items() if name.endswith(".sampled_candidates")), None)
    protocol = (used("split"), "whole catalogue", f"and {sampled} sampled candidates" if sampled else "")
    last = planned.jobs[-1].key
    versions = store.manifest(last).get("versions", {}) if store.has(last) else {}
    version = str(versions.get("reaemb-bench", reaemb_bench.__version__))
    identity = [planned.recipe.name, str(planned.seed), *(f"{job.name}={job.key}" for job in planned.jobs)]
    identity += [group.kind, group.name] if group else []
    tags = {
        "method": planned.recipe.name,
        "data": run.data,
        "backbone": used("backbone"),
        "head": used("head"),
        "protocol": ", ".join(filter(None, protocol)) if planned.job_of(Ranks) is not None else "",
        "seed": str(planned.seed),
        "leaks": ", ".join(planned.leaks) or "none",
        "git": run.git,
        "version": version,
        "group": group.name if group else "",
        "kind": group.kind if group else "run",
        IDENTITY_TAG: hashlib.sha256("/".join(identity).encode()).hexdigest()[:32],
        "mlflow.source.name": f"reaemb-bench {version}",
        "mlflow.source.git.commit": run.git.removesuffix("-dirty"),
    }
    return {name: value for name, value in tags.items() if value}


# Reaching MLflow: a client that neither chatters nor hangs, experiments, and the runs of groups.


def connect(uri: str) -> Any:
    """Returns an MLflow client that logs no noise.

    Connecting raises within seconds if nothing answers at the address, and each later call raises TimeoutError.
    """
    ready = _within(_SECONDS_TO_ANSWER + 1, lambda: _is_ready(uri))
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    from mlflow.tracking import MlflowClient

    for logger in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    # It warns of each attempt, but a server that is away may cost one line.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # The lock of the process that creates the tables; its file is there only while that goes on.
    if (file := database_file(uri)) is not None:
        lock = file.with_name(f"{file.name}.lock")
    else:
        digest = hashlib.sha256(f"{getpass.getuser()} {uri}".encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir()) / f"reaemb-bench-{digest}.lock"
    # Asked after the tables, which may be half of those of a process that creates them and holds the lock.
    if not ready or lock.exists():
        with FileLock(lock, timeout=_SECONDS_TO_CREATE_TABLES):
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
            lock.unlink(missing_ok=True)
    return _Bounded(MlflowClient(tracking_uri=uri))


class _Bounded:
    """An MLflow client whose calls raise TimeoutError after a few seconds, also if its store is not a server."""

    def __init__(self, client: Any) -> None:
        self._client = client
        attempts = 1 + int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        # A server is given up by MLflow itself, and by name; this is for all other stores.
        self._seconds = 1 + attempts * float(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*words: Any, **options: Any) -> Any:
            size = 0
            if name in ("log_artifact", "log_artifacts"):
                path = Path(words[1])
                size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
            return _within(self._seconds + size / _SLOWEST_UPLOAD, lambda: method(*words, **options))

        return call


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """Returns what `ask` returns, or raises what it raises, or TimeoutError if it takes longer."""
    answers: list[T] = []
    errors: list[Exception] = []

    def answer() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - raised again by the thread that asked
            errors.append(error)

    # In a thread, because not every driver and no name server can be given a time limit.
    thread = Thread(target=answer, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answers[0]


def _is_ready(uri: str) -> bool:
    """Returns whether the first run need not create tables there. Raises what the driver raises if nothing answers.

    MLflow itself would try again for minutes.
    """
    if is_server(uri):
        page = f"{page_of(uri).rstrip('/')}/health"
        try:
            urllib.request.urlopen(page, timeout=_SECONDS_TO_ANSWER).close()  # noqa: S310 - http or https
        except urllib.error.URLError as error:
            # Any page is an answer, and MLflow may have been told to trust this server.
            if not isinstance(error, urllib.error.HTTPError) and not isinstance(error.reason, ssl.SSLError):
                raise
        return True
    if not uri.startswith(("sqlite", "postgresql", "mysql", "mssql")):
        return True
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import OperationalError, SAWarning
    from sqlalchemy.pool import NullPool

    if (file := database_file(uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    limit = {"timeout" if file is not None or uri.startswith("mssql") else "connect_timeout": _SECONDS_TO_ANSWER}
    try:
        # SQLAlchemy only warns, in every process, of a setting in the address that the driver does not know.
        with warnings.catch_warnings():
            warnings.simplefilter("error", SAWarning)
            engine = create_engine(uri, poolclass=NullPool, connect_args=limit)
        return "alembic_version" in inspect(engine).get_table_names()
    except OperationalError as error:
        # Of SQLite, by a process that creates the tables.
        if "database is locked" in str(error):
            return False
        raise


def is_away(uri: str) -> bool:
    """Returns whether this process could not reach it a moment ago, so that many runs do not wait for it each."""
    return uri in _failed_at and time.monotonic() - _failed_at[uri] < _SECONDS_AWAY


def _is_silence(error: Exception) -> bool:
    """Returns whether nothing answered, so that no other call will be answered either."""
    from requests.exceptions import ConnectionError as Unconnected
    from requests.exceptions import Timeout

    # MLflow raises an error of its own in their place.
    return isinstance(error, TimeoutError) or isinstance(error.__context__, Unconnected | Timeout)


def failure(error: Exception, uri: str) -> str:
    """Returns why MLflow fails, as the start of a warning line without secrets."""
    reason = redacted(f"{type(error).__name__}: {' '.join(str(error).split())}", uri)[:_LONGEST_REASON]
    return f"warning: MLflow at {redacted(uri)} fails, so this run is not tracked there ({reason})"


def group_run(client: Any, experiment: str, group: Group) -> str:
    """Returns the id of the group's run in this experiment, created if there is none.

    Two processes may create one each at the same moment: all take the older, and its creator deletes the other.
    """
    identity = f"{group.kind}/{group.name}".replace("'", "_")

    def oldest() -> str | None:
        run = min(client.search_runs([experiment], f"tags.`{GROUP_TAG}` = '{identity}'"), key=_age, default=None)
        return None if run is None else str(run.info.run_id)

    if (known := oldest()) is not None:
        return known
    tags = {GROUP_TAG: identity, "kind": group.kind, "group": group.name}
    created = client.create_run(experiment, tags=tags, run_name=f"{_GROUP_TITLES[group.kind]} {group.name}")
    own = str(created.info.run_id)
    # Its members come and go; it is never under way itself.
    client.set_terminated(own, "FINISHED")
    kept = oldest() or own
    if kept != own:
        client.delete_run(own)
    return kept


def log_group(uri: str, group: Group, data: str, texts: Mapping[str, str]) -> None:
    """Logs texts to the run of a group in the experiment of a data set. Raises what MLflow raises."""
    client = connect(uri)
    _log_texts(client, group_run(client, _experiment(client, uri, data), group), texts)


def _experiment(client: Any, uri: str, data: str) -> str:
    """Returns the id of the data set's experiment, created if it is missing. Raises LookupError if it was deleted."""
    name = experiment_name(data)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # Next to the database: MLflow's own choice is the folder in which the first run happened to start.
        file = database_file(uri)
        files = None if file is None else (file.resolve().parent / "mlruns").as_uri()
        try:
            client.create_experiment(name, files, tags={"mlflow.experimentKind": "custom_model_development"})
        except Exception:
            # Another process may have created it meanwhile.
            if client.get_experiment_by_name(name) is None:
                raise
        experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        raise LookupError(f"experiment '{name}' was deleted there; restore it, or remove it for good with mlflow gc")
    return str(experiment.experiment_id)


def _log_texts(client: Any, run: str, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        client.log_text(run, text, name)
    if TABLE in texts and len(texts[TABLE]) <= _LONGEST_TAG:
        # MLflow shows this above the run, as Markdown.
        client.set_tag(run, "mlflow.note.content", texts[TABLE])


def _age(run: Any) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id


def _now() -> int:
    return int(time.time() * 1000)
