"""Finished runs, grouped by what they change of the default composition."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from modgpt.config.keys import PARTS
from modgpt.config.search import CONFIG_DIR


@dataclass
class Trained:
    """A finished run: what was asked for, what came out."""

    path: Path
    result: dict[str, Any]
    label: str  # what it changes of the default: `ffn=moe`, `default` for nothing

    @property
    def seed(self) -> int:
        return self.result["seed"]

    @property
    def loss(self) -> float:
        return self.result["final_val_loss"]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged metric."""
        with (self.path / "metrics.csv").open(newline="") as file:
            rows = [
                (int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)
            ]
        return [step for step, _ in rows], [value for _, value in rows]


@dataclass
class Group:
    """The runs of one composition, one per seed, in the order of the seeds."""

    label: str
    runs: list[Trained] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return [run.loss for run in self.runs]

    @property
    def mean(self) -> float:
        return mean(self.losses)


def read_runs(folders: Iterable[Path]) -> dict[str, Group]:
    """All finished runs in some folders, grouped by what they change of the default composition."""
    same_as_default = default_choices()
    groups: dict[str, Group] = {}
    for file in sorted(file for folder in folders for file in folder.glob("*/result.json")):
        result = json.loads(file.read_text())
        if result["status"] != "finished" or not file.with_name("metrics.csv").exists():
            continue
        changes = [
            override
            for override in result["overrides"]
            if override not in same_as_default and not override.startswith(("seed=", "threads="))
        ]
        label = " ".join(sorted(changes)) or "default"
        groups.setdefault(label, Group(label)).runs.append(Trained(file.parent, result, label))
    for group in groups.values():
        group.runs.sort(key=lambda run: run.seed)
    return groups


def default_choices() -> list[str]:
    """The options of the default composition, as overrides."""
    text = (CONFIG_DIR / "train.yaml").read_text()
    lines = [line.strip() for line in text.splitlines()]
    return [f"{p}={line.split(': ')[1]}" for p in PARTS for line in lines if line.startswith(f"- {p}:")]


def family_of(label: str) -> str:
    """The component family a single change belongs to: `ffn` for `ffn=moe`."""
    if " " in label:
        return "several"
    key = label.split("=")[0]
    return key.split("@")[-1].split(".")[0]


def family(groups: dict[str, Group], name: str) -> list[Group]:
    """The default and the groups that change one thing of a family, in alphabetical order."""
    own = [group for label, group in sorted(groups.items()) if family_of(label) == name]
    return [groups["default"], *own]


def option_name(group: Group, part: str) -> str:
    """`flash (default)` for the default, else the override."""
    if group.label != "default":
        return group.label
    chosen = [choice for choice in default_choices() if choice.startswith(f"{part}=")]
    return f"{chosen[0]} (default)" if chosen else f"{part}=null (default)"
