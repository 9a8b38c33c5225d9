"""A sweep: a recipe without its judges, the space that is searched, and where its trials are kept."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reaemb_bench.artifacts import Ranker
from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import plan
from reaemb_bench.recipe import Raw, Recipe, from_raw
from reaemb_bench.tuning.settings import Settings
from reaemb_bench.tuning.space import Space, Values, applied, read_space

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Sweep:
    """What every process that takes part has to know.

    name: of the study. recipe: the whole recipe, written out. storage: a URL, or the path of a journal file. space:
    the table `[space]`.
    """

    name: str
    recipe: str
    recipe_name: str
    space: Raw
    settings: Settings
    machine: Machine
    storage: str

    @property
    def folder(self) -> Path:
        """Where reports of this sweep lie, in the store."""
        return self.machine.store / "sweeps" / self.name

    @property
    def locks(self) -> Path:
        """Where processes see which others live: beside the journal, or in the store where a database is shared."""
        return self.folder if is_url(self.storage) else Path(self.storage).parent / self.name

    def searched(self) -> Space:
        """The space."""
        try:
            return read_space(self.space)
        except RecipeError as error:
            raise error.under("space") from None

    def trial_recipe(self, values: Values, name: str) -> Recipe:
        """The recipe of a trial, up to the recommender: no step of it may open the test targets. Raises RecipeError."""
        made = from_raw(applied(self._to_ranker, values), name)
        plan(made, made.seeds[0])
        return made

    def whole_recipe(self, values: Values) -> Recipe:
        """The recipe with these settings and all its steps, the judges among them."""
        return from_raw(applied(tomllib.loads(self.recipe), values), self.recipe_name)

    def identity(self) -> str:
        """What two sweeps must share to share a study: recipe, space and objectives."""
        searched = [self.recipe, self.space, self.settings.objectives]
        return hashlib.sha256(json.dumps(searched, ensure_ascii=False).encode()).hexdigest()[:16]

    def check(self) -> None:
        """Raises RecipeError where a path, a bound or a choice of the space does not fit the recipe."""
        kept = self._to_ranker["steps"]
        whole = tomllib.loads(self.recipe)["steps"]
        space = self.searched()
        for path, values in space.probes():
            first = path.partition(".")[0]
            if first in whole and first not in kept:
                raise RecipeError(f"a sweep ends with the recommender, so '{first}' never runs in it", ("space", path))
            try:
                self.trial_recipe(values, self.recipe_name)
            except RecipeError as error:
                tried = json.dumps(values[path], ensure_ascii=False)
                said = error.message if ".".join(error.path) == path else f"{tried} does not fit: {error}"
                raise RecipeError(said, ("space", path)) from None

    @cached_property
    def _to_ranker(self) -> Raw:
        raw = tomllib.loads(self.recipe)
        planned = plan(from_raw(raw, self.recipe_name), raw.get("seeds", [42])[0])
        ranker = planned.job_of(Ranker)
        if ranker is None:
            raise UserError("the recipe trains no recommender, so there is nothing to tune; add a step that does")
        if planned.leaks:
            raise UserError(
                f"'{', '.join(planned.leaks)}' looks at held-out data on purpose, and a sweep would tune on them; "
                "choose its sound variant"
            )
        jobs = planned.jobs[: planned.jobs.index(ranker) + 1]
        kept = [job.name for job in jobs if job.step.sees != "test"]
        tables = {name: table for name, table in raw.items() if not isinstance(table, dict) or name in kept}
        # The planner then refuses whatever a choice would bring in that looks at held-out data.
        return {**tables, "steps": kept, "allow_leaks": False}

    def message(self) -> dict[str, Any]:
        """The sweep as JSON data that another process understands, with absolute folders."""
        folders = {"store": str(self.machine.store.absolute()), "cache": str(self.machine.cache.absolute())}
        return {
            "name": self.name,
            "recipe": self.recipe,
            "recipe_name": self.recipe_name,
            "space": self.space,
            "settings": self.settings.model_dump(mode="json"),
            "machine": {**self.machine.model_dump(mode="json"), **folders},
            "storage": self.storage if is_url(self.storage) else str(Path(self.storage).absolute()),
        }

    @classmethod
    def of_message(cls, sent: dict[str, Any]) -> Sweep:
        """The sweep from `message`."""
        return cls(
            **{
                **sent,
                "settings": Settings.model_validate(sent["settings"]),
                "machine": Machine.model_validate(sent["machine"]),
            }
        )


def sweep_of(
    recipe: Recipe, space: Raw, settings: Settings, machine: Machine, name: str | None, storage: str | None
) -> Sweep:
    """A sweep that has been checked. name: by default the recipe's. storage: by default a journal file in the store.

    Raises RecipeError where the space is wrong, and UserError where a sweep of this recipe is not possible.
    """
    named = name or recipe.name
    if not _NAME.fullmatch(named):
        raise UserError(f"--name: '{named}' is to be the name of a file; use letters, digits, dots and dashes")
    place = storage or str(machine.store / "sweeps" / f"{named}.journal")
    made = Sweep(named, recipe.toml(), recipe.name, space, settings, machine, place)
    made.check()
    return made


def is_url(storage: str) -> bool:
    """Whether a storage is a database, and not a journal file."""
    return "://" in storage
