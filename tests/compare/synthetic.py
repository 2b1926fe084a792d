"""Run folders with known truth: effects of the options, shifts of the seeds, noise, and what went wrong.

As a script, folders to try the comparison on: python -m tests.compare.synthetic FOLDER [RUNS].
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from modgpt.runs.record import RunRecord

OPTIONS = {
    "attention": ("flash", "linear", "local_window"),
    "ffn": ("swiglu", "standard", "moe"),
    "norm": ("rmsnorm", "layernorm", "scalenorm"),
    "pos": ("rope", "alibi", "learned", "sinusoidal"),
}
DEFAULT = {group: options[0] for group, options in OPTIONS.items()}
FIXED = {"block": "sequential", "data": "shakespeare", "model": "mini", "optimizer": "adamw"}
# Added to the loss of the default, 1.7.
EFFECTS = {
    ("attention", "linear"): 0.2,
    ("ffn", "standard"): 0.07,
    ("norm", "layernorm"): 0.0,
    ("pos", "alibi"): 0.05,
    ("pos", "learned"): 0.12,
    ("pos", "sinusoidal"): 0.25,
}
STEPS, TOKENS_PER_STEP = 700, 2048
Choices = Mapping[str, str]


def grid(options: Mapping[str, Iterable[str]] = OPTIONS) -> list[dict[str, str]]:
    """Every combination, the groups left out at their defaults."""
    every = itertools.product(*options.values())
    return [DEFAULT | dict(zip(options, chosen, strict=True)) for chosen in every]


def one_at_a_time() -> list[dict[str, str]]:
    """The default, and every option of every group beside the defaults of the others."""
    others = [(g, option) for g, options in OPTIONS.items() for option in options[1:]]
    return [DEFAULT, *(DEFAULT | {group: option} for group, option in others)]


def losses(
    cells: Iterable[Choices],
    seeds: Iterable[int] = (1, 2, 3),
    *,
    effects: Mapping[tuple[str, str], float] = EFFECTS,
    noise: float = 0.01,
    shift: float = 0.0,
    rng: int = 0,
) -> list[tuple[Choices, int, float]]:
    """(choices, seed, loss) = 1.7 + effects + shift of the seed + noise, all normal and independent."""
    random, seeds = np.random.default_rng(rng), list(seeds)
    shifts = {seed: shift * random.standard_normal() for seed in seeds}
    runs = []
    for cell, seed in itertools.product(cells, seeds):
        truth = 1.7 + sum(effects.get(choice, 0.0) for choice in cell.items())
        runs.append((cell, seed, truth + shifts[seed] + noise * random.standard_normal()))
    return runs


def write_run(
    folder: Path,
    choices: Choices,
    seed: int,
    loss: float | None,
    *,
    curves: bool = False,
    overrides: Iterable[str] = (),
    **values: Any,
) -> Path:
    """A run's folder; `values` replace those of the record."""
    name = folder_name("-".join(choices[g] for g in OPTIONS))
    given = [f"{g}={option}" for g, option in choices.items() if option != DEFAULT.get(g)]
    record = {
        "status": "finished",
        "choices": FIXED | dict(choices) | {"callbacks": "default", "logger": "csv"},
        "overrides": [*given, f"seed={seed}", "threads=1", *overrides],
        "seed": seed,
        "final_val_loss": loss,
        "final_step": STEPS,
        "best_val_loss": loss,
        "best_step": STEPS,
        "parameters": 2_340_096 if choices["ffn"] == "moe" else 800_000,
        "active_parameters": 791_808 if choices["ffn"] == "moe" else 800_000,
        "flops_per_token": 1_664_256.0,
        "tokens_seen": STEPS * TOKENS_PER_STEP,
        "tokens_per_second": 9_000.0 if choices["attention"] == "linear" else 14_000.0,
        "wall_seconds": 120.0,
        "peak_memory_bytes": 600_000_000,
        "device": "cpu: x86_64",
        "threads": 1,
        "precision": "32-true",
        "attention_backend": "flash",
        "corpus_sha256": "86c4",
        "git_revision": "abc",
        "started_at": f"2026-11-22T16:00:{len(name) % 60:02d}+00:00",
        "reason": None,
    } | values
    path = folder / f"{name}-s{seed}"
    while path.exists():
        path = path.with_name(f"{path.name}x")
    path.mkdir(parents=True)
    write_record(path, record)
    if curves:
        write_curves(path, choices, seed, 3.0 if loss is None else loss)
    return path


def folder_name(text: str) -> str:
    """The text with what no file name can hold replaced."""
    return text.replace("/", "∕").replace("\0", "0").encode("utf-8", "replace").decode()


def write_skipped(
    folder: Path, choices: Choices, seed: int, reason: str, overrides: Iterable[str] = ()
) -> Path:
    """The folder of a job that was skipped because its parts do not fit together."""
    path = write_run(folder, choices, seed, None)
    record = {"status": "skipped", "reason": reason, "choices": FIXED | dict(choices), "seed": seed}
    write_record(path, record | {"overrides": list(overrides)})
    return path


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """A `result.json` with these values; also with losses that are not finite."""
    record = asdict(RunRecord(**values))
    (path / "result.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def write_curves(path: Path, choices: Choices, seed: int, final: float) -> None:
    """A `metrics.csv` as the loggers leave it: training rows every 10 steps, validations every 100."""
    random = np.random.default_rng(seed)
    loads = [f"expert_load/{i}" for i in range(8)] if choices["ffn"] == "moe" else []
    header = [*loads, "lr", "step", "tokens_per_second", "train/loss", "val/loss"]
    with (path / "metrics.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, header, restval="")
        rows.writeheader()
        for step in range(10, STEPS + 1, 10):
            loss = final + 1.9 * (1 - step / STEPS) ** 3
            train = {"lr": 0.001, "step": step, "tokens_per_second": 14_000.0}
            train |= dict(zip(loads, random.dirichlet(np.full(8, 200.0)), strict=False))
            rows.writerow(train | {"train/loss": loss + 0.05 * random.standard_normal()})
            if step % 100 == 0:
                rows.writerow({"step": step, "val/loss": loss})


def write_sweep(folder: Path, runs: Iterable[tuple[Choices, int, float]], **more: Any) -> Path:
    """A folder of finished runs."""
    for choices, seed, loss in runs:
        write_run(folder, choices, seed, loss, **more)
    return folder


def main(folder: str, runs: str = "324") -> None:
    count = int(runs)
    seeds = range(1, 2 + (count - 1) // 108)
    made = sorted(losses(grid(), seeds, shift=0.005), key=lambda run: run[1])
    write_sweep(Path(folder), made[:count], curves=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
