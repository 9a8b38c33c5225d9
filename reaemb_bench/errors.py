"""Errors that a person can cause and cure."""

from __future__ import annotations

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
