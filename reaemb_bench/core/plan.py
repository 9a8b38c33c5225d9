"""Plan a recipe: give each step the latest artefacts of the types that it takes, and each result its key.

Held-out data stays behind a wall: a step sees validation or test targets only if it declares so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from reaemb_bench.core.artifacts import Artifact, Encoder, TestTargets, ValidationTargets
from reaemb_bench.core.component import Context, Foreseen, Step, components_in
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import Recipe
from reaemb_bench.core.store import Store


@dataclass(frozen=True)
class Job:
    """One planned step.

    inputs: parameter -> (artefact type, key of the job that makes it). makes: artefact types. key: address of the
    result in the store. context: name of the parameter that takes a Context, if any. identity: what the key hashes.
    """

    name: str
    step: Step
    inputs: Mapping[str, tuple[type, str]]
    makes: tuple[type, ...]
    seed: int | None
    key: str
    context: str | None
    identity: Mapping[str, Any]

    @property
    def input_keys(self) -> list[str]:
        """Keys of the results that the step is given."""
        return [key for _, key in self.inputs.values()]


@dataclass(frozen=True)
class Plan:
    """The jobs of one recipe and one seed, in order; leaks names the steps that look at held-out data on purpose."""

    recipe: Recipe
    seed: int
    jobs: tuple[Job, ...]
    leaks: tuple[str, ...]

    def job_of(self, artifact: type) -> Job | None:
        """The last job that makes this type of artefact."""
        return next((job for job in reversed(self.jobs) if artifact in job.makes), None)


def plan(recipe: Recipe, seed: int) -> Plan:
    """The jobs of a recipe: each input is the latest artefact of its type.

    Raises RecipeError if a step lacks an input, asks for held-out data that it may not see, or has settings that do not
    fit its inputs.
    """
    makers: dict[type, Job] = {}
    foreseen: dict[type, Foreseen] = {}
    jobs: list[Job] = []
    for name, step in recipe.steps.items():
        wants, makes, context = signature(step, name)
        for artifact in wants.values():
            if artifact not in makers:
                raise RecipeError(f"needs {artifact.__name__}, which no earlier step makes", (name,))
            if not step.leaks:
                _check_wall(name, step, artifact, makers[artifact])
        if step.leaks and not recipe.allow_leaks:
            cure = "say allow_leaks = true at the top of the recipe"
            raise RecipeError(f"'{step.use}' looks at held-out data on purpose; {cure}", (name,))
        try:
            known = step.foresee({artifact: foreseen[artifact] for artifact in wants.values()})
        except RecipeError as error:
            raise error.under(name) from None
        foreseen.update(dict.fromkeys(makes, known))
        inputs = {parameter: (artifact, makers[artifact].key) for parameter, artifact in wants.items()}
        embedder_seed = seed if recipe.embedder_seed is None else recipe.embedder_seed
        seeds = {"data": recipe.data_seed, "embedder": embedder_seed, "recommender": seed}
        step_seed = None if step.randomness == "none" else derive_seed(seeds[step.randomness], name)
        identity = {
            "step": step.identity(),
            "inputs": {parameter: f"{key}/{artifact.__name__}" for parameter, (artifact, key) in inputs.items()},
            "seed": step_seed,
        }
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        job = Job(name, step, inputs, makes, step_seed, key, context, identity)
        makers.update(dict.fromkeys(makes, job))
        jobs.append(job)
    return Plan(recipe, seed, tuple(jobs), tuple(job.name for job in jobs if job.step.leaks))


def signature(step: Step, name: str) -> tuple[dict[str, type], tuple[type, ...], str | None]:
    """What `run` takes (parameter -> artefact type), what it makes, and its Context parameter, from its type hints."""
    run = getattr(step, "run", None)
    if run is None:
        raise RecipeError(f"{step.use} has no method run; add it", (name,))
    try:
        hints = get_type_hints(run)
    except (NameError, TypeError, AttributeError) as error:
        raise RecipeError(f"{step.use}.run names a type that does not exist ({error}); correct it", (name,)) from None
    returned = hints.pop("return", type(None))
    makes = get_args(returned) if get_origin(returned) is tuple else (returned,)
    context = next((parameter for parameter, hint in hints.items() if hint is Context), None)
    wants = {parameter: hint for parameter, hint in hints.items() if hint is not Context}
    for hint in (*wants.values(), *makes):
        if not (isinstance(hint, type) and issubclass(hint, Artifact)):
            raise RecipeError(f"{step.use}.run names {hint}, not an artefact type: it needs save and load", (name,))
    return wants, makes, context


def _check_wall(name: str, step: Step, artifact: type, maker: Job) -> None:
    """Raise RecipeError if a step reads held-out data that it does not declare, directly or through a judge."""
    problem = ""
    if artifact is TestTargets and step.data_access != "test":
        problem = 'asks for test targets but is not a judge (data_access = "test")'
    elif artifact is ValidationTargets and step.data_access == "training":
        problem = 'asks for validation targets but declares data_access = "training"'
    elif maker.step.data_access == "test" and not maker.step.leaks and step.data_access != "test":
        problem = f"reads {artifact.__name__} of the judge '{maker.name}'"
    if problem:
        raise RecipeError(f"'{step.use}' {problem}", (name,))


def derive_seed(seed: int, name: str) -> int:
    """The seed of one step, in [0, 2**31): independent streams for different steps and recipe seeds."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def check_unchanged(planned: Plan, job: Job) -> None:
    """Raise UserError naming the settings of a job whose files were changed after it was planned.

    The weights of an encoder stay where they are until a step opens them, so the jobs that made it are checked too.
    """
    before, now = flatten(job.identity["step"]), flatten(job.step.identity())
    changed = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
    if changed:
        paths = flatten(job.step.spec())
        names = [name.removesuffix("_sha256").removesuffix(".sha256").removesuffix(".missing") for name in changed]
        files = ", ".join(f"{name} ({paths[name]})" if name in paths else name for name in dict.fromkeys(names))
        raise UserError(f"step '{job.name}': {files} was changed after this run was planned; run again to use it so")
    for artifact, key in job.inputs.values():
        if artifact is Encoder:
            check_unchanged(planned, next(maker for maker in planned.jobs if maker.key == key))


def obstacles(planned: Plan, keys: Collection[str], machine: Machine) -> dict[str, str]:
    """Key of a job -> why it cannot run on a machine, in one line with the cure, for those of the jobs `keys`.

    Only what is known without computing: paths that lead nowhere, packages that are not installed.
    """
    reasons = {}
    for job in planned.jobs:
        for path, component in components_in(job.step, job.name) if job.key in keys else ():
            settings = ((f"{path}.{name}", value) for name, value in component if isinstance(value, Path))
            missing = [
                f"{setting}: there is no {value}; put it there, or correct the path"
                for setting, value in settings
                if not os.path.exists(value.expanduser())  # noqa: PTH110 - False for a name that no file can have
            ]
            reason = missing[0] if missing else component.obstacle(machine)
            if reason:
                reasons[job.key] = reason if missing else f"{path}: {reason}"
                break
    return reasons


def needed_jobs(planned: Plan, store: Store) -> frozenset[str]:
    """Keys of the jobs that must run: absent results on which a last step, or another such job, depends."""
    consumed = {key for job in planned.jobs for key in job.input_keys}
    wanted = {job.key for job in planned.jobs if job.key not in consumed}
    for job in reversed(planned.jobs):
        if job.key in wanted and not store.has(job.key):
            wanted.update(job.input_keys)
    return frozenset(key for key in wanted if not store.has(key))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two flat tables, as `rate: 0.1 → 0.2`; `step.` is left out."""
    texts = []
    for path in sorted({*before, *after}):
        if before.get(path) == after.get(path):
            continue
        name = path.removeprefix("step.")
        if "code" in name.split(".") and path in before and path in after:
            texts.append(f"{name.rpartition('code.')[2]} was edited")
        elif path not in before:
            texts.append(f"{name} is new")
        elif path not in after:
            texts.append(f"{name} is gone")
        else:
            old, new = (text if len(text) <= 24 else f"{text[:23]}…" for text in (str(before[path]), str(after[path])))
            texts.append(f"{name}: {old} → {new}")
    return texts


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables and lists as `a.b.0.c` -> value."""
    if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        value = dict(enumerate(value))
    elif not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, part in value.items():
        flat |= flatten(part, f"{prefix}.{name}" if prefix else str(name))
    return flat
