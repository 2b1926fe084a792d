"""`result.json`: what a run was, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modgpt.errors import UserError
from modgpt.runs.files import write_json


class Record:
    """`result.json`, rewritten atomically with every change.

    Args:
        folder: the run's.
        values: what is known at the beginning.
        write: keep the values without writing them, when False: of several processes one writes.
        check: called before each writing; raises if this process no longer owns the folder.
    """

    def __init__(
        self,
        folder: Path,
        values: dict[str, Any],
        write: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.values, self.write = folder / "result.json", values, write
        self.check = check
        self.update()

    def update(self, **values: Any) -> None:
        """Set some values and write all."""
        self.values |= values
        if self.write:
            self.check()
            write_json(self.path, self.values)


def read_result(folder: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        UserError: the folder is not one of a run.
    """
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not the folder of a run: no readable result.json") from error
