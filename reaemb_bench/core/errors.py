"""Errors that a person can cause and cure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn


_LONGEST = 2_000
_REASON_CHARACTERS = 300


class UserError(Exception):
    """A mistake that a person can cure; the command line prints it as one line and exits with code 2.

    A message of more than 2,000 characters, which something out of a file made so long, loses its middle.
    """

    def __init__(self, message: str) -> None:
        half = _LONGEST // 2
        super().__init__(message if len(message) <= _LONGEST else f"{message[:half]} […] {message[-half:]}")


class RecipeError(UserError):
    """A mistake in a recipe, with the dotted TOML path at which it stands.

    Nested components raise it with a relative path; every level that passes it on adds its own name in front,
    so that the reader sees `lrcl.loss.temprature` and not `temprature`.
    """

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        self.message = message
        self.path = path
        super().__init__(f"{'.'.join(path)}: {message}" if path else message)

    def under(self, *parents: str) -> RecipeError:
        """The same error as seen from outside the table named by `parents`."""
        return RecipeError(self.message, (*parents, *self.path))


def reason_of(error: BaseException) -> str:
    """Why something failed, in at most 300 characters: the message, and its type where nobody foresaw it."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:_REASON_CHARACTERS]


# Numbers that must be finite: NaN and infinity stop a step at the place where they arise.


Whose = Literal["item", "user"]

_NAMED = 3
_LOWER = "lower its learning_rate"


class NotFiniteError(UserError):
    """A number that is NaN or infinite: what it is, where it arose and from which items or users.

    Whoever raises it knows their numbers; the pipeline puts in the step's name and their keys (`told`).
    """

    def __init__(
        self,
        what: str,
        numbers: Sequence[int] | npt.NDArray[np.integer] = (),
        *,
        where: str = "",
        whose: Whose = "item",
        cure: str = _LOWER,
    ) -> None:
        """what: such as `the loss is nan`. where: such as `step 3`. numbers: of items or users, as `whose` says."""
        self.what, self.where, self.whose, self.cure = what, where, whose, cure
        self.numbers = [int(number) for number in numbers]
        super().__init__(self._line("", None))

    def told(self, step: str, keys: Sequence[str] | None) -> UserError:
        """The same error with the step's name, and with keys in place of numbers where they are known."""
        return UserError(self._line(step, keys))

    def _line(self, step: str, keys: Sequence[str] | None) -> str:
        place = " of ".join(filter(None, (self.where, step)))
        named = [str(number) if keys is None else keys[number] for number in self.numbers[:_NAMED]]
        more = len(self.numbers) - len(named)
        listed = ", ".join(named) + (f" and {more} more" if more else "")
        plural = "s" if len(self.numbers) > 1 else ""
        of = f" ({self.whose}{plural} {listed})" if named else ""
        return f"{self.what}{f' in {place}' if place else ''}{of}; {self.cure}"


def check_finite(
    what: str, value: float, where: str, numbers: Sequence[int] | npt.NDArray[np.integer] = (), whose: Whose = "item"
) -> None:
    """Raise NotFiniteError where `value` is NaN or infinite; what: its name, such as `loss`."""
    if not np.isfinite(value):
        raise NotFiniteError(f"the {what} is {value}", numbers, where=where, whose=whose)


def check_rows(what: str, values: npt.NDArray[np.floating], first: int = 0, *, cure: str) -> None:
    """Raise NotFiniteError naming the rows of `values` (items, ...) that hold NaN or infinity.

    what: of an item, such as `vector`. first: number of the first row.
    """
    if np.isfinite(values).all():
        return
    bad = first + np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    many = f"{len(bad)} {what}s are" if len(bad) > 1 else f"a {what} is"
    raise NotFiniteError(f"{many} not finite", bad, cure=cure)


def check_parameters(parameters: Iterable[Tensor], where: str) -> None:
    """Raise NotFiniteError where a trained parameter holds NaN or infinity: a finite gradient can still overshoot."""
    if not all(bool(parameter.detach().isfinite().all()) for parameter in parameters):
        raise NotFiniteError("a trained parameter is not finite", where=where)


def gradient_norm(parameters: Sequence[nn.Parameter], largest: float | None) -> Tensor:
    """The norm of the whole gradient, a scalar on its device; beyond `largest` the gradient is clipped to it, in place.

    largest: None clips nothing.
    """
    from torch.nn import utils

    if largest is not None:
        return utils.clip_grad_norm_(parameters, largest)
    return utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
