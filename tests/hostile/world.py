"""The world of a hostile file: a copy of a small run, a canary, a secret, and the commands it meets."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from modgpt.runs.checkpoint import DIGEST, DIGEST_BYTES, read_checkpoint
from modgpt.training.checkpoint_io import AtomicCheckpointIO

SECRET = "hunter2-do-not-print"  # in the environment and in a file: no command may print it


@dataclass(frozen=True)
class World:
    """A folder of its own for one hostile file.

    Attributes:
        folder: everything lies in here.
        run: a copy of a finished run, to be made hostile.
        canary: the file that a payload makes when it runs.
        corpus: the text the run was trained on.
    """

    folder: Path
    run: Path
    canary: Path
    corpus: Path

    @property
    def secret(self) -> Path:
        """A file outside the run that no command has a reason to read."""
        return self.folder / "secret.json"

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.run / "checkpoints").glob("*.ckpt"))

    # --- edits of the run -----------------------------------------------------------------------

    def write_checkpoints(self, content: bytes) -> None:
        """Put these bytes in place of all checkpoints."""
        for path in self.checkpoints:
            path.write_bytes(content)

    def save_checkpoints(self, content: Any) -> None:
        """Save this object in place of all checkpoints."""
        for path in self.checkpoints:
            AtomicCheckpointIO().save_checkpoint(content, path)

    def change_checkpoints(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the content of all checkpoints."""
        for path in self.checkpoints:
            content = read_checkpoint(path)
            change(content)
            AtomicCheckpointIO().save_checkpoint(content, path)

    def seal_checkpoints(self) -> None:
        """Add the digest that belongs to their bytes, as any attacker can."""
        for path in self.checkpoints:
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                if DIGEST not in content[-DIGEST_BYTES:]:
                    digest = hashlib.sha256(content).hexdigest().encode()
                    path.write_bytes(content + DIGEST + digest)

    def change_config(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the configuration wherever the run keeps it: config.yaml and all checkpoints."""
        self.change_checkpoints(lambda content: change(content["modgpt"]["config"]))
        self.change_yaml(change)

    def change_yaml(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change config.yaml alone."""
        path = self.run / "config.yaml"
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config))

    def change_record(self, **values: Any) -> None:
        """Set values of result.json."""
        path = self.run / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


def set_in(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets a dotted key."""

    def change(config: dict[str, Any]) -> None:
        *outer, last = key.split(".")
        for name in outer:
            config = config.setdefault(name, {})
        config[last] = value

    return change


def new_world(folder: Path, run: Path, corpus: Path) -> World:
    """A world around a fresh copy of a run."""
    copy = folder / "run"
    shutil.copytree(run, copy)
    world = World(folder, copy, folder / "canary", corpus)
    world.secret.write_text(json.dumps({"type": "char", "vocabulary": SECRET}))
    return world


def commands(world: World) -> dict[str, list[str]]:
    """The commands that open a run, with the arguments that make each of them read the files."""
    run, out = str(world.run), str(world.folder / "out")
    quick = ["trainer.max_steps=5", "trainer.accelerator=cpu", "threads=1", "schedule.warmup_steps=1"]
    data = ["data=text", f"data.path={world.corpus}", "data.batch_size=4", f"output_dir={out}"]
    return {
        "generate": ["generate", "--run", run, "--prompt", "to", "--max-new-tokens", "3"],
        "evaluate": ["evaluate", "--run", run, "--lengths", "8", "--device", "cpu", "--out", out],
        "export": ["export", "--run", run, "--out", out],
        "init_from": ["train", f"init_from={run}", *data, *quick, "trainer.val_check_interval=5"],
        "resume": ["train", f"resume={run}", "trainer.max_steps=5"],
        "compare": ["compare", run, "--out", out],
    }


def hostile_files(module: ModuleType) -> list[Callable[[World], None]]:
    """The functions of a module that each build one hostile file."""
    return [
        value
        for name, value in vars(module).items()
        if callable(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
