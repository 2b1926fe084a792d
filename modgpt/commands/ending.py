"""How a command ends: its exit code, and at most one line of error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from modgpt.text import visible


def exit_code(command: Callable[[], int], mistakes: type[Exception] = ValueError) -> int:
    """Run a command; returns its exit code, as a shell expects it.

    2 after a mistake, or where a file cannot be read or written; one line on stderr explains it. 130
    after Ctrl-C. 141 when the reader of a pipe has gone, as after `| head`.

    Args:
        command: returns the exit code where nothing goes wrong.
        mistakes: what the command raises about a mistake of its user.
    """
    try:
        code = command()
        sys.stdout.flush()  # a pipe without a reader is noticed here at the latest
        return code
    except mistakes as error:
        return tell(error)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # the shell's prompt comes on a line of its own
        return 130
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go: Python would complain of it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f": {error.filename}" if error.filename is not None else ""
        return tell(OSError(f"{error.strerror or error}{where}"))


def tell(mistake: Exception) -> int:
    """Explain a mistake in one line on stderr; returns the exit code 2."""
    sys.stdout.flush()
    print(f"error: {visible(mistake)}", file=sys.stderr)  # it may quote what stands in a file
    return 2
