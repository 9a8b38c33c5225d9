"""Errors that a user can cause and cure, each told in one line; numbers that must be finite are checked here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

Whose = Literal["item", "user"]
Numbers: TypeAlias = "Sequence[int] | npt.NDArray[np.integer]"


class UserError(Exception):
    """A mistake that a user can cure; the command line prints it as one line and exits with code 2.

    A message of more than 2,000 characters, which text out of a file can make so long, loses its middle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 2_000 else f"{message[:1_000]} […] {message[-1_000:]}")


class RecipeError(UserError):
    """A mistake in a recipe, with its dotted TOML path.

    Nested components raise it with a relative path; every level that passes it on adds its own name in front,
    so that the user reads `lrcl.loss.temprature` and not `temprature`.
    """

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        self.message = message
        self.path = path
        super().__init__(f"{'.'.join(path)}: {message}" if path else message)

    def under(self, *parents: str) -> RecipeError:
        """The same error as seen from outside the table named by `parents`."""
        return RecipeError(self.message, (*parents, *self.path))


class ArrayError(UserError):
    """Numbers of an artefact that are not an array of its type and shape; the pipeline adds the step's name."""


def reason_of(error: BaseException) -> str:
    """Why something failed, in at most 300 characters; the type of an error that is not a UserError leads."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:300]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is used up: errors of Python and numpy, and those of torch on a GPU and on a CPU."""
    by_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and by_torch)


class NotFiniteError(UserError):
    """A number that is NaN or infinite: what it is, where it arose and from which items or users.

    It is raised with their numbers; `naming` puts in the step's name and their keys.
    """

    def __init__(
        self, what: str, numbers: Numbers = (), *, where: str = "", whose: Whose = "item", cure: str = ""
    ) -> None:
        """what: such as `the loss is nan`. where: such as `step 3`. numbers: of items or users, as `whose` says."""
        self.what, self.where, self.whose, self.cure = what, where, whose, cure or "lower its learning_rate"
        self.numbers = [int(number) for number in numbers]
        super().__init__(str(self.naming("", None)))

    def naming(self, step: str, keys: Sequence[str] | None) -> UserError:
        """The same error with the step's name, and with the keys of its items or users if they are known."""
        named = [keys[number] if keys else str(number) for number in self.numbers[:3]]
        position = " of ".join(filter(None, (self.where, step)))
        more = f" and {len(self.numbers) - len(named)} more" if len(self.numbers) > len(named) else ""
        plural = "s" if len(self.numbers) > 1 else ""
        owners = f" ({self.whose}{plural} {', '.join(named)}{more})" if named else ""
        return UserError(f"{self.what}{f' in {position}' if position else ''}{owners}; {self.cure}")


def check_finite(what: str, value: float, where: str, numbers: Numbers = (), whose: Whose = "item") -> None:
    """Raise NotFiniteError if `value` is NaN or infinite; what: its name, such as `loss`."""
    if not math.isfinite(value):
        raise NotFiniteError(f"the {what} is {value}", numbers, where=where, whose=whose)


def check_rows(what: str, values: npt.NDArray[np.floating], first: int = 0, *, cure: str) -> None:
    """Raise NotFiniteError naming the rows of `values` (items, ...) that hold NaN or infinity.

    what: of an item, such as `vector`. first: number of the first row.
    """
    import numpy as np

    if np.isfinite(values).all():
        return
    bad = first + np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    subject = f"{len(bad)} {what}s are" if len(bad) > 1 else f"a {what} is"
    raise NotFiniteError(f"{subject} not finite", bad, cure=cure)


def check_parameters(parameters: Iterable[Tensor], where: str) -> None:
    """Raise NotFiniteError if a trained parameter holds NaN or infinity: a finite gradient can still overshoot."""
    if not all(bool(parameter.detach().isfinite().all()) for parameter in parameters):
        raise NotFiniteError("a trained parameter is not finite", where=where)


def gradient_norm(parameters: Sequence[nn.Parameter], largest: float | None) -> Tensor:
    """The norm of the whole gradient, a scalar on its device; a norm above `largest` is clipped to it, in place."""
    from torch.nn import utils

    if largest is not None:
        return utils.clip_grad_norm_(parameters, largest)
    return utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
