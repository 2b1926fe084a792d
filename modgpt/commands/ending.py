"""How a command ends: its exit code, and at most one line of error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def exit_code(command: Callable[[], int]) -> int:
    """Run a command; returns its exit code, as a shell expects it.

    2 after a mistake, which one line on stderr explains. 130 after Ctrl-C. 141 when the reader of a pipe
    has gone, as after `| head`.
    """
    try:
        code = command()
        sys.stdout.flush()  # a pipe without a reader is noticed here at the latest
        return code
    except ValueError as error:
        from modgpt.inference.terminal import visible  # a message can quote what stands in a file

        sys.stdout.flush()
        line = visible(" ".join(str(error).split()), sys.stderr.encoding)
        print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # the shell's prompt comes on a line of its own
        return 130
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go: Python would complain of it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
