"""The dotted paths by which an edit names a step of a recipe, a part of one or a setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reaemb_bench.component import Component
from reaemb_bench.errors import RecipeError
from reaemb_bench.recipe import Raw, Recipe
from reaemb_bench.registry import nearest


def check_paths(recipe: Recipe, wanted: Iterable[str]) -> None:
    """Raises RecipeError where the recipe has nothing at one of the paths, naming the nearest that it has."""
    known = {path: whole for name, step in recipe.steps.items() for path, whole in _below(step, name)}
    for path in wanted:
        # What lies inside a setting that is no component is for its own validation to judge.
        if path not in known and not any(whole and path.startswith(f"{each}.") for each, whole in known.items()):
            last = path.rpartition(".")[2]
            elsewhere = [each for each in known if each.rpartition(".")[2] == last]
            hint = nearest(path, elsewhere) or nearest(path, known)
            raise RecipeError(f"the recipe has nothing at '{path}'.{hint} Steps: {', '.join(recipe.steps)}")


def paths_in(tables: Raw) -> Iterator[str]:
    """The paths that tables would change; a table with a `use` of its own is one, for its settings belong to that."""
    for key, value in tables.items():
        if isinstance(value, dict) and "use" not in value:
            yield from (f"{key}.{path}" for path in paths_in(value))
        else:
            yield key


def _below(component: Component, place: str) -> Iterator[tuple[str, bool]]:
    """Each path from `place` on, and whether it is a setting that holds no component."""
    yield place, False
    yield f"{place}.use", False
    for name in type(component).model_fields:
        value, path = getattr(component, name), f"{place}.{name}"
        if isinstance(value, Component):
            yield from _below(value, path)
        else:
            yield path, True
