"""MLflow: a run for each recipe and seed, below the run of its group if it has one, and a nested run for each step.

Results live in the store; MLflow only shows them. Whatever goes wrong here ends in one warning line. A recipe and
seed whose results are tracked already are not logged twice, and a finished one replaces what was logged by half.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from reaemb_bench.artifacts import Corpus, Ranker, Ranks, Vectors
from reaemb_bench.pipeline import Event, Finished, Job, Plan, Planned, Started, Ticked
from reaemb_bench.runs import Group, Run, as_run
from reaemb_bench.store import Store
from reaemb_bench.tracking.addresses import redacted, without_secrets
from reaemb_bench.tracking.connection import connect, experiment_of, is_away, note_away, note_here
from reaemb_bench.tracking.groups import group_run, stay_together
from reaemb_bench.tracking.naming import clean, flatten, shown_metrics
from reaemb_bench.tracking.tags import DESCRIPTION_TAG, IDENTITY_TAG, MOST_CHARACTERS, PARENT_TAG, tags_of

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
        elif isinstance(event, Ticked):
            self._tick(event.job, event.tick.done, event.tick.values, when)
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
            for tick in self._store.ticks(job.key):
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
