"""How Lightning's checkpoints reach the disk: whole, with a digest, and the one before them kept.

Apart from `modgpt.runs.checkpoint`, so that what only reads a run need not import Lightning.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from modgpt.files import replaced
from modgpt.runs.checkpoint import read_checkpoint, write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, done by `write_checkpoint` and `read_checkpoint`.

    A `last.ckpt` that this process has written or read stays as `previous.ckpt` when the next one takes
    its place. So a run goes on if one of them is damaged.

    Attributes:
        check: called before and after a checkpoint is written, and before it takes its place.
    """

    def __init__(self) -> None:
        self.check: Callable[[], None] = lambda: None
        self.whole: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        self.check()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as beside:
                write_checkpoint(checkpoint, beside)
                self.check()  # writing may have taken long
                if path.name == "last.ckpt" and path in self.whole:
                    keep_as(path, path.with_name("previous.ckpt"))
        except OSError as error:
            error.filename, error.filename2 = str(path), None
            raise
        self.whole.add(path)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        content = read_checkpoint(Path(path))
        self.whole.add(Path(path))
        return content


def keep_as(path: Path, other: Path) -> None:
    """Give a file a second name, in place of what had it; `path` stays."""
    beside = other.with_name(f".{other.name}.{os.getpid()}")
    try:
        os.link(path, beside)
    except OSError:  # a file system without links: there the previous one is not kept
        return
    try:
        beside.replace(other)
    finally:
        beside.unlink(missing_ok=True)
