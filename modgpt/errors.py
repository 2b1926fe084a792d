"""The mistakes a user can make."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something the user asked for cannot be done; its one line says what, and what would work."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class TrainingError(RuntimeError):
    """A training that has begun and failed; its one line says why. The exit code is 1.

    Attributes:
        status: of the run.
    """

    status = "failed"

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` when something known is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Turn what constructors raise about their arguments into a `UserError`.

    Hydra wraps such an error into its own, with the traceback in the message; the cause is what counts.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except UserError:
        raise
    except HydraException as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, ValueError | TypeError | OSError):
            raise
        raise UserError(str(cause or error)) from error
    except (ValueError, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error
