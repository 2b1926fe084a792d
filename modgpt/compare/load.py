"""The runs below some folders as one table: a row per job, whatever became of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, prod
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from modgpt.compare.factors import Factor, defaults, find_budgets, find_factors, plain, select, value_at
from modgpt.config.keys import PARTS, command_keys
from modgpt.errors import UserError
from modgpt.sweep.design import TUNED, TUNING

FINISHED, FAILED, UNREADABLE = "FINISHED", "FAILED", "UNREADABLE"

# The numbers of a run, in the order of the table; the headline metric comes first.
LOSS = "final_val_loss"
ACCURACY = "final_val_accuracy"  # of tasks; texts have none
NUMBERS = (
    *(LOSS, ACCURACY, "final_step", "best_val_loss", "best_step", "parameters", "active_parameters"),
    *("flops_per_token", "tokens_seen", "tokens_per_second", "wall_seconds", "peak_memory_bytes"),
)
# How and where a run was trained.
CONDITIONS = ("device", "attention_backend", "precision", "threads", "match")
# Read for the checks, not shown as columns of their own.
HIDDEN = (
    *("path", "corpus_sha256", "git_revision", "started_at"),
    *("matched_hidden", "match_reference"),
)
# What decides how a run is watched, or which jobs there are, and not what is learnt.
NOT_FACTORS = {
    *(
        "callbacks",
        "logger",
        "sweep",
        "sweep_name",
        "seed",
        "threads",
        "compile",
        "dry_run",
        "retry_failed",
    ),
    *("match", *command_keys()),  # `match` has a column of its own
}


@dataclass(frozen=True)
class Results:
    """The jobs and what they differ in.

    Attributes:
        table: a row per job: run, status, reason, a column per group and per overridden key, seed, the
            numbers and the conditions.
        factors: the columns that vary, groups of the model first.
        folders: where the runs were looked for.
        tunings: how hyperparameters were chosen, the contents of the `tuning.json` beside runs.
    """

    table: pd.DataFrame
    factors: list[Factor]
    folders: list[Path]
    tunings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tuned(self) -> set[str]:
        """The keys that were chosen for each combination, and so are no factors."""
        return {key for tuning in self.tunings for key in tuning["keys"]}

    @property
    def finished(self) -> pd.DataFrame:
        """The rows that count: finished, with a finite final loss."""
        return self.table[self.table["status"] == FINISHED]


def load_results(folders: Sequence[Path]) -> Results:
    """Read every `result.json` below the folders.

    Raises:
        UserError: a folder does not exist, or there is no run below any of them.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
    paths = list(find_runs(folders))
    if not paths:
        raise UserError(
            f"no run (a folder with a result.json) below {', '.join(map(str, folders))}: "
            "name the folder of a sweep, or of single runs"
        )
    jobs = [read_job(path) for path in paths]
    keys = overridden_keys(jobs)
    groups = sorted({g for job in jobs for g in job["choices"]}, key=group_order)
    rows = []
    for path, name, job in zip(paths, names_of(paths), jobs, strict=True):
        numbers = {n: number(job.get(n)) for n in NUMBERS}
        status, reason = outcome(job, numbers[LOSS])
        if status != FINISHED:
            numbers[LOSS] = None  # a running or failed job's latest loss is not a final one
        rows.append(
            {"run": name, "status": status, "reason": reason}
            | {group: choice_of(group, job) for group in groups}
            | {key: value_of(key, job, path) for key in keys}
            | {"seed": job.get("seed")}
            | numbers
            | {c: job.get(c) for c in (*CONDITIONS, *HIDDEN) if c != "path"}
            | {"path": str(path)}
        )
    table = pd.DataFrame(rows)
    table = table.astype({n: "float64" for n in NUMBERS} | {"seed": "Int64", "threads": "Int64"})
    tunings = read_tunings(paths)
    not_factors = NOT_FACTORS | {key for tuning in tunings for key in tuning["keys"]}
    factors = find_factors(table, [g for g in (*groups, *keys) if g not in not_factors])
    if table["match"].notna().any():
        unknown = table["status"].map({FINISHED: "none"}).fillna("")
        table["match"] = table["match"].fillna(unknown)
        factors += find_factors(table, ["match"])
    return Results(table, factors + find_budgets(table, factors), list(folders), tunings)


def find_runs(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders with a `result.json` below these, each once, in the order of their names.

    Runs that only chose hyperparameters for others are left out, unless they are what is asked for.
    """
    seen: set[Path] = set()
    for top in folders:
        for folder, below, files in os.walk(top):
            below[:] = sorted(b for b in below if not (b == TUNING and TUNED in files))
            if "result.json" in files:
                below.clear()  # a run holds checkpoints, no further runs
                if (real := Path(folder).resolve()) not in seen:
                    seen.add(real)
                    yield Path(folder)


def read_tunings(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """How the hyperparameters of the runs in these folders were chosen, where they were."""
    tunings = []
    for parent in sorted({path.parent for path in paths}):
        try:
            tunings.append(json.loads((parent / TUNED).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return tunings


def names_of(paths: list[Path]) -> list[str]:
    """The folders' names, with so much of their parents that no two are the same."""
    real = [path.resolve() for path in paths]
    for depth in range(1, 1 + max(len(path.parts) for path in real)):
        names = ["/".join(path.parts[-depth:]) for path in real]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in real]


def read_job(path: Path) -> dict[str, Any]:
    """A run's record with `choices` and `overrides` in it, whatever the file holds."""
    job: dict[str, Any]
    try:
        job = json.loads((path / "result.json").read_text(encoding="utf-8"))
        if not isinstance(job, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        job = {"status": UNREADABLE, "reason": f"result.json: {error}"}
    for key, kind in (("choices", dict), ("overrides", list)):
        if not isinstance(job.get(key), kind):
            job[key] = kind()
    job["given"] = dict(split_override(str(o)) for o in job["overrides"])
    job["match"] = job.get("match") or job["given"].get("match")
    for key in ("seed", "threads"):
        job[key] = int(job[key]) if isinstance(job.get(key), int | float) else None
    return job


def outcome(job: dict[str, Any], loss: float | None) -> tuple[str, str]:
    """Status and reason; a run that finished without a finite loss has failed."""
    status, reason = str(job.get("status") or UNREADABLE).upper(), str(job.get("reason") or "")
    if status == FINISHED and loss is None:
        return FAILED, reason or "finished without a finite final loss"
    return status, reason


def number(value: object) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None


def split_override(override: str) -> tuple[str, str]:
    """`+optimizer.lr=1e-3` as key and value; values that are the same number read the same."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), plain(value)


def overridden_keys(jobs: list[dict[str, Any]]) -> list[str]:
    """The keys that some runs override and that are no choice in a group already."""
    groups = {g for job in jobs for g in job["choices"]} | NOT_FACTORS
    keys = {k for job in jobs for k in job["given"]}
    return sorted(k for k in keys - groups if not k.startswith("hydra"))


def choice_of(group: str, job: dict[str, Any]) -> str:
    """The option a run has in a group; empty when its record cannot be read."""
    return str(job["choices"].get(group, "none")) if job["choices"] else ""


def value_of(key: str, job: dict[str, Any], path: Path) -> str:
    """What a key was in a run: as overridden, else as configured, else as it is by default."""
    if not job["choices"]:
        return ""
    if key in job["given"]:
        return job["given"][key]
    if "config" not in job:
        job["config"] = read_config(path) or defaults(job["choices"].get("experiment"))[0]
    return value_at(key, job["config"])


def read_config(path: Path) -> dict[str, Any]:
    """A run's `config.yaml`; empty when there is none, as for a skipped job."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    try:
        config = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), loader)
    except (OSError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def tokens_per_step(row: dict[str, Any]) -> float | None:
    """Tokens that a run sees in a step: counted, or as configured where the run has not finished."""
    if row["status"] == FINISHED and row["final_step"] > 0:
        return row["tokens_seen"] / row["final_step"]
    config = read_config(Path(row["path"]))
    keys = ("data.batch_size", "data.block_size", "trainer.accumulate_grad_batches")
    factors = [select(config, key) for key in keys]
    return float(prod(f for f in factors if isinstance(f, int))) if all(factors) else None


def group_order(group: str) -> tuple[int, str]:
    """The parts of the model first, the rest by name."""
    return (PARTS.index(group) if group in PARTS else len(PARTS), group)
