"""What each step of a recipe reads and makes, and which held-out rows can reach it."""

from __future__ import annotations

from dataclasses import dataclass

from reaemb_bench.artifacts import Holdout, Signal
from reaemb_bench.component import Sight, Step
from reaemb_bench.pipeline import signature
from reaemb_bench.recipe import Recipe

SIGHTS: tuple[Sight, ...] = ("training", "validation", "test")
"""What a step may see, from least to most; each includes those before it."""

HELD_OUT = (Signal, Holdout)


@dataclass(frozen=True)
class Reading:
    """One step as its signature and its declaration have it; sights are places in SIGHTS.

    direct: what its own inputs hold. allowed: the most that it declares or that its inputs were made from, so what may
    change its results. through: the steps by which more than `direct` first came into its inputs. divides: it makes
    the division into training and held-out rows, so it reads all of them.
    """

    name: str
    step: Step
    reads: tuple[type, ...]
    makes: tuple[type, ...]
    direct: int
    allowed: int
    through: tuple[str, ...]
    divides: bool

    @property
    def judge(self) -> bool:
        """Whether it may see test rows because it learns nothing from them."""
        return self.step.sees == "test" and not self.step.leaks

    @property
    def undeclared(self) -> bool:
        """Whether its inputs hold more than it declares; the planner refuses such a step."""
        return not self.step.leaks and self.direct > SIGHTS.index(self.step.sees)


def readings(recipe: Recipe) -> tuple[Reading, ...]:
    """One reading a step, in the recipe's order. Raises RecipeError where a step's signature names no artefacts."""
    maker: dict[type, Reading] = {}
    found = []
    for name, step in recipe.steps.items():
        reading = _reading(name, step, maker)
        maker.update(dict.fromkeys(reading.makes, reading))
        found.append(reading)
    return tuple(found)


def _reading(name: str, step: Step, maker: dict[type, Reading]) -> Reading:
    wants, makes, _ = signature(step, name)
    reads = tuple(wants.values())
    before = {each: maker[each] for each in reads if each in maker and each not in HELD_OUT}
    of_judges = any(each.judge for each in before.values())
    direct = 2 if Holdout in reads or of_judges else 1 if Signal in reads else 0
    inherited = [each for each in before.values() if not each.divides]
    declared = 2 if step.leaks else SIGHTS.index(step.sees)
    return Reading(
        name=name,
        step=step,
        reads=reads,
        makes=makes,
        direct=direct,
        allowed=max(direct, declared, *(each.allowed for each in inherited)),
        through=tuple(
            dict.fromkeys(
                first for each in inherited if each.allowed > direct for first in each.through or (each.name,)
            )
        ),
        divides=any(each in HELD_OUT for each in makes),
    )
