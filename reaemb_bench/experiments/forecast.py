"""What a run lacks and what it will take, said before anything is computed.

Time, memory and disk are those of the most similar results in the store, scaled by what is known of both.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine, circumstances
from reaemb_bench.core.plan import Job, Plan, flatten, needed_jobs, obstacles
from reaemb_bench.core.store import MANIFEST, PROGRESS_FILE, Store
from reaemb_bench.encoder.memory import free_memory
from reaemb_bench.experiments.memory import gigabytes, shortages
from reaemb_bench.tracking.terminal import in_words

_OTHER_MODEL = (".layers", ".attention", ".dtype")
"""Ends of the paths of a backbone's settings that leave it the same model."""


def why_not(planned: Plan, store: Store, machine: Machine) -> dict[str, str]:
    """Name of a step that would run -> why it cannot run on this machine, in one line with the cure."""
    needed = needed_jobs(planned, store)
    reasons = {**shortages(planned, needed, store, machine), **obstacles(planned, needed, machine)}
    return {job.name: reasons[job.key] for job in planned.jobs if job.key in reasons}


def check_ready(plans: Iterable[Plan], store: Store, machine: Machine, what: str = "") -> None:
    """Raise UserError naming the first step that cannot run, and how many more. what: begins the error."""
    reasons = {name: reason for planned in plans for name, reason in why_not(planned, store, machine).items()}
    if reasons:
        more = f" (and {len(reasons) - 1} more of its steps cannot run)" if len(reasons) > 1 else ""
        raise UserError(f"{what}{next(iter(reasons.values()))}{more}; nothing was computed")


@dataclass(frozen=True)
class Cost:
    """What a step takes. rough: whether only results of other components, or of another machine, tell.

    seconds: on an idle machine. memory: the most bytes held. disk: bytes of the result.
    """

    seconds: float
    memory: float
    disk: float
    rough: bool

    def __str__(self) -> str:
        return f"~{in_words(self.seconds)}{'?' if self.rough else ''}"


@dataclass(frozen=True)
class _Past:
    """A result in the store. lineage: all settings that decided it, of the steps before it too. done: units it took."""

    manifest: Mapping[str, Any]
    lineage: Mapping[str, str]
    corpus: Mapping[str, float]
    done: int | None

    @cached_property
    def traits(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.lineage.items())


class Forecast:
    """Estimates of jobs from the results of a store, whose manifests are read once."""

    def __init__(self, store: Store, machine: Machine) -> None:
        self._store = store
        self._gpu = machine.device_name() != "cpu"
        self._processor = str(circumstances(machine)["device"]).removesuffix(" (cpu)")
        self._manifests: dict[str, dict[str, Any]] = {}
        for file in sorted(store.root.glob(f"results/*/{MANIFEST}")):
            # The step that needs a damaged result reports it.
            with suppress(OSError, ValueError, KeyError, TypeError):
                manifest = json.loads(file.read_text(encoding="utf-8"))
                if isinstance(manifest["identity"]["step"]["use"], str):
                    self._manifests[file.parent.name] = manifest
        self._of_component: dict[str, list[_Past]] = {}
        self._costs: dict[str, Cost | None] = {}

    def earlier(self, step: str) -> list[dict[str, Any]]:
        """What decided each result of a step in the store, as flat tables."""
        return [flatten(manifest["identity"]) for manifest in self._manifests.values() if manifest["step"] == step]

    def cost(self, planned: Plan, job: Job) -> Cost | None:
        """What a job takes, from the results of the same component; None if nothing similar is in the store."""
        if job.key not in self._costs:
            self._costs[job.key] = self._estimate(planned, job)
        return self._costs[job.key]

    def _estimate(self, planned: Plan, job: Job) -> Cost | None:
        lineage, corpus = dict[str, str](), dict[str, float]()
        waiting, jobs = [job], {other.key: other for other in planned.jobs}
        while waiting:
            ancestor = waiting.pop()
            lineage |= _settings(ancestor.identity)
            waiting += [jobs[key] for key in ancestor.input_keys]
            if ancestor is not job and Corpus in ancestor.makes and ancestor.key in self._manifests:
                corpus = _corpus(self._manifests[ancestor.key])
        texts = any(Encoder in (artifact, *job.makes) for artifact, _ in job.inputs.values())
        traits, models = frozenset(lineage.items()), _models(lineage) if texts else {}
        ranked: dict[tuple[bool, int, int], list[_Past]] = {}
        for past in self._results_of(job.step.use):
            unlike, same_model = past.traits ^ traits, not texts or _models(past.lineage) == models
            # Without its corpus, only results on data of the same source tell something of a step.
            if same_model and ((corpus and past.corpus) or not any(".source." in path for path, _ in unlike)):
                components = sum(path.endswith(".use") for path, _ in unlike)
                ranked.setdefault((self._elsewhere(past), components, len(unlike)), []).append(past)
        if not ranked:
            return None
        (elsewhere, components, _), nearest = min(ranked.items())
        ratios = [_ratio(lineage, corpus, past, job.step.use, texts=texts) for past in nearest]
        seconds = [past.manifest["seconds"] * (ratio or 1) for past, ratio in zip(nearest, ratios, strict=True)]
        return Cost(
            seconds=fmean(seconds),
            memory=max(float(past.manifest["peak_memory_bytes"]) for past in nearest),
            disk=max(sum(file["bytes"] for file in past.manifest["files"].values()) for past in nearest),
            rough=elsewhere or components > 0 or None in ratios,
        )

    def _results_of(self, use: str) -> list[_Past]:
        if use not in self._of_component:
            known = use.rpartition("/")[2] if ".py:" in use else use
            keys = [key for key, manifest in self._manifests.items() if manifest["identity"]["step"]["use"] == known]
            self._of_component[use] = [self._past(key) for key in keys]
        return self._of_component[use]

    def _past(self, key: str) -> _Past:
        lineage, corpus, waiting = dict[str, str](), dict[str, float](), [key]
        while waiting:
            ancestor = waiting.pop()
            manifest = self._manifests.get(ancestor)
            if manifest is not None:
                lineage |= _settings(manifest["identity"])
                waiting += [text.partition("/")[0] for text in manifest["identity"]["inputs"].values()]
                if ancestor != key and any(name.startswith("corpus/") for name in manifest["files"]):
                    corpus = _corpus(manifest)
        done = None
        with suppress(OSError, ValueError, IndexError, KeyError):
            curve = (self._store.folder(key) / PROGRESS_FILE).read_text("utf-8").splitlines()
            done = int(json.loads(curve[-1])["done"])
        return _Past(self._manifests[key], lineage, corpus, done)

    def _elsewhere(self, past: _Past) -> bool:
        """Whether a result was computed on another processor or GPU than this machine would use."""
        device = str(past.manifest["machine"]["device"])
        return device.endswith("(cpu)") if self._gpu else device.removesuffix(" (cpu)") != self._processor


def _settings(identity: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a step as flat table, its component's name in front of each path; without code."""
    step = identity["step"]
    return {f"{step['use']}.{path}": str(value) for path, value in flatten(step).items() if "code" not in path}


def _models(lineage: Mapping[str, str]) -> dict[str, str]:
    """The settings that say which language model was used."""
    return {path: value for path, value in lineage.items() if ".backbone." in path and not path.endswith(_OTHER_MODEL)}


def _corpus(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Interactions of a corpus, and the bytes of its texts by item."""
    facts, files = manifest["facts"], manifest["files"]
    texts = files.get("corpus/corpus.json", {}).get("bytes", 0) / max(1, float(facts.get("items", 1)))
    return {"interactions": float(facts.get("interactions", 0)), "items": float(facts.get("items", 0)), "text": texts}


def _ratio(
    lineage: Mapping[str, str], corpus: Mapping[str, float], past: _Past, use: str, *, texts: bool
) -> float | None:
    """How much more a step has to do than an earlier result of it had; None if that is not known.

    By its steps times its batch, or its epochs times interactions, or texts to read, and by blocks of a model.
    """

    def number(path: str, settings: Mapping[str, str]) -> float | None:
        name = use.rpartition("/")[2] if ".py:" in use else use
        with suppress(KeyError, ValueError):
            return float(settings[f"{name}.{path}"])
        return None

    def work(settings: Mapping[str, str], data: Mapping[str, float]) -> float | None:
        rows = data.get("interactions", 0.0) if not texts else data.get("items", 0.0) * data.get("text", 0.0)
        steps, epochs = number("steps", settings), number("epochs", settings)
        if steps is not None:
            batch = number("batch_size", settings) or number("rollouts_per_step", settings) or 1.0
            return steps * batch * (data.get("text", 0.0) if texts else 1.0)
        if epochs is not None:
            # Training may stop early, as it did before.
            return min(epochs, past.done or epochs) * rows
        return rows

    if not past.corpus and not corpus:
        return 1.0
    now, then = work(lineage, corpus), work(past.lineage, past.corpus)
    if not now or not then:
        return None
    blocks = [
        [float(value) for path, value in settings.items() if path.endswith("backbone.layers") and value != "None"]
        for settings in (lineage, past.lineage)
    ]
    return now / then * (blocks[0][0] / blocks[1][0] if all(blocks) else 1.0)


def totals(costs: Mapping[str, tuple[str, Cost | None]], store: Store, machine: Machine) -> str:
    """What jobs take together, one after another, in one line. costs: by key, a step's name and what it takes."""
    known = [cost for _, cost in costs.values() if cost is not None]
    unknown = list(dict.fromkeys(name for name, cost in costs.values() if cost is None))
    if not known:
        return "time, memory and disk: unknown, the store holds nothing similar; try --limit"
    rough = any(cost.rough for cost in known)
    without = f", without {', '.join(unknown)}, of which the store holds nothing similar" if unknown else ""
    folder = next(parent for parent in (store.root.absolute(), *store.root.absolute().parents) if parent.is_dir())
    parts = [
        f"time: {Cost(sum(cost.seconds for cost in known), 0, 0, rough)}{without}",
        f"memory: {gigabytes(max(cost.memory for cost in known))} at most",
        f"disk: {gigabytes(sum(cost.disk for cost in known))} of {gigabytes(shutil.disk_usage(folder).free)} free",
    ]
    if free := free_memory(machine.device_name()):
        parts[1] += f", {gigabytes(free)} free"
    return f"{'; '.join(parts)}{'; ? means: from unlike results or another machine' if rough else ''}"
