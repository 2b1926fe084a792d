"""What every command line is held to."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.fuzz.children import TIMED_OUT, Ended

USER_ERROR, FAILED = 2, 1


def complaint(line: list[str], ended: Ended, before: dict, after: dict) -> str | None:
    """What is wrong with how a command line ended; None if nothing is.

    Args:
        line: the arguments of `modgpt`.
        ended: how it ended.
        before, after: snapshots of its working directory.
    """
    errors = [text for text in ended.err.splitlines() if text.startswith("error: ")]
    if ended.code == TIMED_OUT:
        return "it took too long"
    if "Traceback" in ended.out + ended.err:
        return "a traceback"
    if ended.code == 0:
        return "an error with exit code 0" if errors else None
    if ended.code == FAILED:
        if line[0] != "train":
            return "exit code 1 belongs to a training"
        several = "-m" in line or "--multirun" in line  # the table tells which jobs have failed
        return None if errors or several else "a training failed and does not say why"
    if ended.code == USER_ERROR:
        if not ended.err.startswith("error: ") or ended.err.count("\n") != 1:
            return "a mistake is told in one line, which begins with error:"
        changed = {
            path for path in after if after[path] != before.get(path)
        } | before.keys() - after.keys()
        # A trained tokenizer is kept also where another value is found to be wrong afterwards.
        changed = {path for path in changed if not is_cache(Path(path), changed)}
        return f"a mistake has written {sorted(changed)}" if changed else None
    return f"exit code {ended.code}"


def is_cache(path: Path, changed: set) -> bool:
    """Whether a path is a trained tokenizer in the cache, or a folder that holds one."""
    if path.name.startswith("tokenizer-"):
        return True
    inside = [p for p in map(Path, changed) if path in p.parents]
    return bool(inside) and all(is_cache(p, changed) for p in inside)


def report(line: list[str], ended: Ended, why: str) -> str:
    """The command line, how it ended, and what is wrong with it."""
    shown = f"modgpt {shlex.join(line)}\n{why} (exit code {ended.code}, {ended.seconds:.1f} s)"
    return f"{shown}\n--- stdout\n{ended.out[-1500:]}\n--- stderr\n{ended.err[-3000:]}"
