"""MLflow shows what the store holds: a run for each recipe and seed, with all its curves and metrics.

Several seeds hang below a run with their mean and standard deviation, the members of an ablation or a sweep below a run
of its own, and each floor is a run, logged once a data set. Any failure here ends in one warning line. Results that are
tracked already are not logged twice, and a finished run replaces what was logged by half.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import polars

import reaemb_bench
from reaemb_bench.core.artifacts import Alignment, Corpus, Floors, Ranker, Ranks, Vectors
from reaemb_bench.core.execute import Event, Finished, Planned, Progressed
from reaemb_bench.core.plan import Job, Plan, flatten
from reaemb_bench.core.recipe import Recipe
from reaemb_bench.core.runs import ALONE, Group, Run, as_run
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.summary import over_seeds, summarise
from reaemb_bench.tracking.addresses import database_file
from reaemb_bench.tracking.connection import FAILED_AT, SECONDS_TO_ANSWER, connect, failure, is_away, is_silence, within

Outcome = Literal["waiting", "tracked", "known", "failed"]

EXPERIMENT = "reaemb-bench"
"""Experiment of runs without data, and the first part of all other experiments' names."""
TABLE = "table.md"
"""The text among a run's results that also becomes its description."""
IDENTITY_TAG = "reaemb_bench.identity"
VIEW = "reaemb-bench"
"""Name of the arrangement of the list of runs, in an address's `viewStateShareKey` and in a tag of each experiment."""
PARENT_TAG = "mlflow.parentRunId"
HEADLINE, ALIGNMENT, SPREAD = "1 NDCG_at_10", "2 alignment", "3 sd of NDCG_at_10"
"""What the names of the first metrics begin with; MLflow sorts by name, and charts have a section for each of these."""
_BINS = re.compile(r".*-q\d+$")
_GROUP_KINDS = {"run": "run", "ablation": "ablation", "trial": "sweep", "bench": "suite"}
_HEADLINES = {"full/ndcg@10": "all", "full/ndcg@10/tail": "tail", "full/ndcg@10/head": "head"}
_WIDTHS = {
    "attributes.`Run Name`": 240,
    **{f"metrics.`{HEADLINE}/{part}`": 130 for part in ("all", "tail", "head")},
    f"metrics.`{ALIGNMENT}/unseen_percentile`": 210,
    "metrics.`cost/minutes`": 110,
    "tags.`kind`": 80,
    "tags.`part of`": 180,
}
_VIEW = {
    "searchFilter": "tags.kind != 'seed' and tags.kind != 'trial'",
    "orderByKey": f"metrics.`{HEADLINE}/all`",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": list(_WIDTHS)[1:],
    "columnOrder": list(_WIDTHS),
    "columnWidths": _WIDTHS,
    "runsHiddenMode": "SHOWALL",
}
"""Which runs and columns the address of VIEW shows: one row a method and floor, the best first."""
_LONGEST_TAG = 8000
_LONGEST_PARAM = 6000
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_SECONDS_BETWEEN_FLUSHES = 10.0


@dataclass
class _Seed:
    """One seed of a recipe: its plan, its run in MLflow, and what has happened and is not logged yet.

    new: whether this tracker created the run. steps: rows of the table of steps. ended: when, in milliseconds.
    """

    plan: Plan
    run: str = ""
    new: bool = False
    needed: frozenset[str] = frozenset()
    held: list[tuple[Event, int]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    ended: int | None = None


class Tracker:
    """Logs the plans of one recipe: `tracker(event)` while they run, then `arrange()`, `results(...)` and `close(...)`.

    The experiment is that of the data set. Until its name is known nothing is sent; events are kept and logged with
    their time. outcome: `known` if all was logged before, `failed` if MLflow failed. new: seeds that were not.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        store: Store,
        uri: str,
        warn: Callable[[str], None],
        group: Group | None = None,
        models: bool = False,
        record: Run | None = None,
    ) -> None:
        """plans: one a seed. models: whether to log rankers and vectors too. record: of a run that finished earlier."""
        if record is not None:
            # A push tries MLflow again although it failed before.
            FAILED_AT.pop(uri, None)
        self.outcome: Outcome = "waiting"
        self.new = 0
        self._seeds = {planned.seed: _Seed(planned) for planned in plans}
        self._seed = self._seeds[plans[0].seed]
        self._recipe = plans[0].recipe
        self._store, self._uri, self._warn = store, uri, warn
        self._groups = record.groups if record is not None else (group or ALONE,)
        self._models, self._record = models, record
        self._client: Any = None
        self._experiment = self._above = ""
        self._monitor: Any = None
        self._metrics: dict[str, list[Any]] = {}
        self._flushed = time.monotonic()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Gives MLflow up after the first failure, with one line for all trackers of this process if it is away."""
        if self.outcome in ("waiting", "tracked") and is_away(self._uri):
            self.outcome = "failed"
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a tracking server must never cost anybody a result
            self.outcome = "failed"
            if not any(seed.run for seed in self._seeds.values()) or is_silence(error):
                FAILED_AT[self._uri] = time.monotonic()
            self._warn(f"{failure(error, self._uri)}; later: reaemb-bench push {quote(self._recipe.name)}")

    def __call__(self, event: Event) -> None:
        """Takes one event of the pipeline."""
        with self._harmless():
            if self.outcome == "failed":
                return
            if isinstance(event, Planned):
                self._stop_watching()
                self._seed = self._seeds[event.plan.seed]
                self._seed.needed = event.needed
            seed, data = self._seed, self._seed.plan.job_of(Corpus)
            seed.held.append((event, _now()))
            if seed.run or data is None or data.key not in seed.needed or self._store.has(data.key):
                self._catch_up(seed)

    def _catch_up(self, seed: _Seed) -> None:
        """Creates the seed's run, if its results are not tracked yet, and logs what has happened to it so far."""
        if not seed.run:
            self._begin(seed)
        held, seed.held = seed.held, []
        for event, when in held if seed.new else ():
            self._log(seed, event, when)

    def _begin(self, seed: _Seed) -> None:
        self._client = client = self._client or connect(self._uri)
        planned, recipe = seed.plan, self._recipe
        tags = {**self._tags(planned), IDENTITY_TAG: _identity(recipe.name, *_keys(planned))}
        self._experiment = _experiment(client, self._uri, tags.get("data", ""))
        FAILED_AT.pop(self._uri, None)
        same = client.search_runs([self._experiment], f"tags.`{IDENTITY_TAG}` = '{tags[IDENTITY_TAG]}'")
        if finished := [other for other in same if other.info.status == "FINISHED"]:
            seed.run = min(finished, key=_age).info.run_id
            self.outcome = "known" if self.outcome == "waiting" else self.outcome
            return
        created = client.create_run(self._experiment, start_time=seed.held[0][1], tags=tags, run_name=recipe.name)
        seed.run, seed.new, self.outcome, self.new = created.info.run_id, True, "tracked", self.new + 1
        embedder_seed = planned.seed if recipe.embedder_seed is None else recipe.embedder_seed
        self._log_params(seed.run, {"seed": planned.seed, "embedder_seed": embedder_seed, **_params(recipe)})
        client.log_text(seed.run, recipe.toml(), "recipe.toml")
        torch = sys.modules.get("torch")
        if self._record is None and torch is not None and torch.cuda.is_available():
            # The load of machine and GPU while the seed runs; of the GPU only with the extra `gpu`.
            with suppress(ImportError):
                from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

                self._monitor = SystemMetricsMonitor(seed.run, tracking_uri=self._uri)
                self._monitor.start()

    def _tags(self, planned: Plan) -> dict[str, str]:
        tags = tags_of(planned, self._record or as_run([planned], self._store), self._store)
        return {**tags, "kind": "trial" if self._groups[0].kind == "trial" else "run"}

    def _stop_watching(self) -> None:
        if self._monitor is not None:
            monitor, self._monitor = self._monitor, None
            within(SECONDS_TO_ANSWER + 1, monitor.finish)

    def _log(self, seed: _Seed, event: Event, when: int) -> None:
        """Logs what happened to a step at a time in milliseconds."""
        seed.ended = when
        if isinstance(event, Progressed):
            self._log_curve(seed, event.job, event.progress.values, event.progress.done, when)
        elif isinstance(event, Finished):
            job, folder, manifest = event.job, self._store.folder(event.job.key), event.manifest
            for recorded in self._store.progress(job.key) if event.cached else ():
                values = {name: value for name, value in recorded.items() if name not in ("done", "total", "unit")}
                self._log_curve(seed, job, values, int(recorded["done"]), when)
            head = {"step": job.name, "component": job.step.use, "key": job.key, "cached": event.cached}
            cost = {name: manifest.get(name) for name in ("seconds", "peak_memory_bytes")}
            seed.steps.append({**head, **cost, "facts": json.dumps(manifest.get("facts", {}), ensure_ascii=False)})
            if Corpus in job.makes:
                self._log_corpus(seed, job, folder / "corpus")
            if Ranks in job.makes:
                self._client.log_artifact(seed.run, str(folder / "ranks" / "ranks.parquet"), job.name)
            for artifact in {Ranker, Vectors} & set(job.makes) if self._models else ():
                name = artifact.__name__.lower()
                self._client.log_artifacts(seed.run, str(folder / name), f"{job.name}/{name}")

    def _log_curve(self, seed: _Seed, job: Job, values: Mapping[str, float], done: int, when: int) -> None:
        curves = {f"{job.name}/{name.replace('/', '_')}": value for name, value in values.items()}
        self._log_metrics(seed.run, curves, done, when)

    def _log_corpus(self, seed: _Seed, job: Job, folder: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        corpus = Corpus.load(folder)
        counts = {"users": corpus.users, "items": corpus.items, "training_interactions": len(corpus.training.items)}
        source = json.dumps({"uri": folder.resolve().as_uri()})
        # MLflow takes digests of up to 36 characters.
        digest = str(self._store.manifest(job.key)["facts"].get("sha256", job.key))[:36]
        dataset = Dataset(corpus.name or job.name, digest, "local", source, profile=json.dumps(counts))
        self._client.log_inputs(seed.run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

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

    def arrange(self) -> None:
        """Logs what the finished plans measured, and hangs seeds below their mean, and that below its group."""
        with self._harmless():
            if self.outcome == "failed":
                return
            seeds, name = list(self._seeds.values()), self._recipe.name
            for seed in seeds:
                self._catch_up(seed)
            self._stop_watching()
            client, top = self._client, seeds[0].run
            by_seed = [measured(seed.plan, self._store) for seed in seeds]
            for seed, metrics in zip(seeds, by_seed, strict=True):
                if seed.new:
                    self._log_metrics(seed.run, metrics)
                    client.log_text(seed.run, polars.DataFrame(seed.steps).write_csv(), "steps.csv")
            if len(seeds) > 1:
                identity = _identity(name, *(key for seed in seeds for key in _keys(seed.plan)))
                tags = {**self._tags(seeds[0].plan), "seed": ", ".join(map(str, self._seeds))}
                top, empty = the_run(client, self._experiment, identity, name, tags)
                if empty:
                    self.outcome, self._above = "tracked", top
                    self._log_params(top, _params(self._recipe))
                    spread = over_seeds(by_seed)
                    self._log_metrics(top, {metric: of.mean for metric, of in spread.items()})
                    deviations = {metric: of.sd for metric, of in spread.items() if of.sd is not None}
                    headline = {metric.replace(HEADLINE, SPREAD): sd for metric, sd in deviations.items()}
                    self._log_metrics(top, {metric: sd for metric, sd in headline.items() if SPREAD in metric})
                for seed in seeds:
                    before = client.get_run(seed.run).data.tags.get(PARENT_TAG)
                    client.set_tag(seed.run, PARENT_TAG, top)
                    client.set_tag(seed.run, "kind", "seed")
                    client.update_run(seed.run, name=f"{name}, seed {seed.plan.seed}")
                    # The mean of fewer of these seeds says nothing next to that of all.
                    if before and before != top and not self._having(PARENT_TAG, before):
                        client.delete_run(before)
            tags = client.get_run(top).data.tags
            mentions = list(filter(None, tags.get("part of", "").split(", ")))
            client.set_tag(top, "part of", ", ".join(dict.fromkeys([*mentions, *map(str, self._groups)])))
            if ALONE not in self._groups and not mentions:
                client.set_tag(top, PARENT_TAG, group_run(client, self._experiment, self._groups[0]))
            elif ALONE in self._groups and PARENT_TAG in tags and tags["kind"] != "seed":
                # What was run alone, too, is not hidden below an ablation.
                client.delete_tag(top, PARENT_TAG)
            floors = seeds[0].plan.job_of(Floors)
            if floors is not None and self._store.has(floors.key):
                for floor, ranks in self._store.load(floors.key, Floors).by_name.items():
                    parts = (ranks.users, ranks.targets, ranks.better, ranks.tied)
                    bits = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
                    run, empty = the_run(client, self._experiment, _identity(floor, bits), floor, {"kind": "floor"})
                    if empty:
                        self._log_metrics(run, shown_metrics(summarise(ranks, (10,))))
            self._flush()

    def results(self, texts: Mapping[str, str]) -> None:
        """Logs tables and report as texts by file name."""
        with self._harmless():
            if self.outcome == "tracked":
                for run in [seed.run for seed in self._seeds.values() if seed.new] + [self._above] * bool(self._above):
                    _log_texts(self._client, run, texts)

    def close(self, finished: bool) -> None:
        """Ends the runs of all seeds that started, as finished or failed."""
        with self._harmless():
            if self.outcome == "failed":
                return
            if self._seed.held:
                self._catch_up(self._seed)
            self._stop_watching()
            if self._client is None:
                return
            self._flush()
            for seed in self._seeds.values():
                if seed.new:
                    ended = finished or seed is not self._seed
                    self._client.set_terminated(seed.run, "FINISHED" if ended else "FAILED", end_time=seed.ended)
                    if ended:
                        # One run of these results stays: the oldest finished one.
                        same = self._having(IDENTITY_TAG, self._client.get_run(seed.run).data.tags[IDENTITY_TAG])
                        kept = min((run for run in same if run.info.status == "FINISHED"), key=_age, default=None)
                        for run in same:
                            if run is not kept and (run.info.status != "FINISHED" or run.info.run_id == seed.run):
                                self._client.delete_run(run.info.run_id)

    def _having(self, tag: str, value: str) -> list[Any]:
        return list(self._client.search_runs([self._experiment], f"tags.`{tag}` = '{value}'"))


# What runs, parameters, metrics and tags are called.


def experiment_name(data: str) -> str:
    """Returns the experiment of all runs on one data set, such as `reaemb-bench/MovieLens-100K`."""
    return f"{EXPERIMENT}/{data}" if data else EXPERIMENT


def clean(name: str) -> str:
    """Returns the name in the characters that MLflow accepts: `ndcg@10` becomes `ndcg_at_10`."""
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))


def shown_metrics(summary: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics to log: `1 NDCG_at_10/tail`, `test full/hr@10 tail`, ... without counts and bins."""
    shown = {}
    for name, value in summary.items():
        protocol, _, metric = name.partition("/")
        if name in _HEADLINES:
            shown[f"{HEADLINE}/{_HEADLINES[name]}"] = value
        elif protocol in ("full", "sampled") and not _BINS.match(name):
            shown[f"test {protocol}/{metric.replace('/', ' ')}"] = value
    return dict(sorted(shown.items()))


def measured(planned: Plan, store: Store) -> dict[str, float]:
    """Returns what the finished plan of one seed measured: of test users, of its vectors, and what it cost."""
    metrics: dict[str, float] = {}
    stored = [job for job in planned.jobs if store.has(job.key)]
    judges = [job for job in stored if Ranks in job.makes]
    for job in judges:
        summary = shown_metrics(summarise(store.load(job.key, Ranks), (10,)))
        # The last one's are the recipe's.
        metrics |= summary if job is judges[-1] else {f"{job.name} {name}": value for name, value in summary.items()}
    for job in [job for job in stored if Alignment in job.makes][-1:]:
        figures = store.load(job.key, Alignment).values.items()
        numbers = {name: value for name, value in figures if value == value and not name.endswith("_pairs")}
        metrics |= {f"{ALIGNMENT}/{name}": value for name, value in numbers.items()}
    manifests = [store.manifest(job.key) for job in stored]
    minutes = sum(float(manifest["seconds"]) for manifest in manifests) / 60
    memory = max(float(manifest["peak_memory_bytes"]) for manifest in manifests) / 1e9
    # MLflow's page of a run lists metrics in the order in which they come.
    return dict(sorted({**metrics, "cost/minutes": minutes, "cost/peak memory GB": memory}.items()))


def tags_of(planned: Plan, run: Run, store: Store) -> dict[str, str]:
    """Returns the tags of one recipe and seed, without those of parts that the recipe does not have.

    run: the record of the plan, as far as it is known.
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
    tags = {
        "method": planned.recipe.name,
        "data": run.data,
        "backbone": used("backbone"),
        "head": used("head"),
        "protocol": ", ".join(filter(None, protocol)) if planned.job_of(Ranks) is not None else "",
        "seed": str(planned.seed),
        "steps": ", ".join(planned.recipe.steps),
        "leaks": ", ".join(planned.leaks) or "none",
        "git": run.git,
        "version": version,
        "mlflow.source.name": f"reaemb-bench {version}",
        "mlflow.source.git.commit": run.git.removesuffix("-dirty"),
    }
    return {name: value for name, value in tags.items() if value}


def _keys(planned: Plan) -> list[str]:
    return [str(planned.seed), *(f"{job.name}={job.key}" for job in planned.jobs)]


def _identity(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:32]


def _params(recipe: Recipe) -> dict[str, Any]:
    header = {"data_seed": recipe.data_seed, "allow_leaks": recipe.allow_leaks}
    return {**header, **flatten({name: step.spec() for name, step in recipe.steps.items()})}


def the_run(client: Any, experiment: str, identity: str, name: str, tags: Mapping[str, str]) -> tuple[str, bool]:
    """Returns the id of the run that all processes share under an identity, and whether it has no metrics yet.

    Two processes may create one each at the same moment: all take the older, and its creator deletes the other.
    """

    wanted = f"tags.`{IDENTITY_TAG}` = '{identity}'"
    run = min(client.search_runs([experiment], wanted), key=_age, default=None)
    if run is None:
        own = run = client.create_run(experiment, tags={**tags, IDENTITY_TAG: identity}, run_name=name)
        # What is logged to it comes at once; it is never under way itself.
        client.set_terminated(own.info.run_id, "FINISHED")
        run = min(client.search_runs([experiment], wanted), key=_age, default=own)
        if run.info.run_id != own.info.run_id:
            client.delete_run(own.info.run_id)
    return str(run.info.run_id), not run.data.metrics


def group_run(client: Any, experiment: str, group: Group) -> str:
    """Returns the id of the group's run in this experiment, created if there is none."""
    kind = _GROUP_KINDS[group.kind]
    run, _ = the_run(client, experiment, _identity(str(group)), f"{kind} {group.name}", {"kind": kind})
    return run


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
            tags = {
                "mlflow.experimentKind": "custom_model_development",
                f"mlflow.sharedViewState.{VIEW}": json.dumps(_VIEW),
            }
            client.create_experiment(name, files, tags=tags)
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
