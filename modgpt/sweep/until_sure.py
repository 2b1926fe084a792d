"""A sweep that adds seeds to options without a verdict, until each has one or a limit is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from modgpt.config.keys import SEEDS
from modgpt.config.overrides import key_of
from modgpt.errors import UserError
from modgpt.files import write_json
from modgpt.runs.record import status_of
from modgpt.statistics.looks import look, look_confidence, seeds_at
from modgpt.statistics.noise import CELL
from modgpt.statistics.verdict import CONFIDENCE, DELTA
from modgpt.sweep.design import LOOKS
from modgpt.sweep.display import make_console
from modgpt.sweep.launch import folder_of, run_sweep, with_name
from modgpt.sweep.plan import Planned
from modgpt.sweep.progress import Engine
from modgpt.sweep.verdicts import compared_for, finished_jobs, verdict_table

Combination = tuple[str, ...]  # overrides without a seed


@dataclass(frozen=True)
class Settings:
    """`hydra.sweeper.until_sure`.

    Attributes:
        looks: seeds per combination at each look, rising.
        same_within: differences below it count as the same, nats per token.
    """

    looks: tuple[int, ...] = (3, 4, 6, 8, 11, 15, 20)
    same_within: float = DELTA


def settings(given: Mapping[str, object], tune: Mapping[str, object]) -> Settings:
    """The settings, checked.

    Raises:
        UserError: an unknown key, a value of another kind, looks that do not rise, or `tune` beside it.
    """
    if tune:
        raise UserError(
            "hydra.sweeper.until_sure cannot be combined with hydra.sweeper.tune: choose one"
        )
    unknown = sorted(set(given) - {"looks", "same_within"})
    if unknown:
        raise UserError(f"hydra.sweeper.until_sure has looks and same_within, not {', '.join(unknown)}")
    looks = given.get("looks", Settings.looks)
    rising = (
        isinstance(looks, Sequence)
        and len(looks) > 0
        and all(type(n) is int for n in looks)
        and all(a < b for a, b in pairwise([1, *looks]))
    )
    if not rising:
        raise UserError(
            f"hydra.sweeper.until_sure.looks must rise from 2 or more, got {looks}: give the seeds per "
            "combination at each look, such as [3,4,6,8]"
        )
    same = given.get("same_within", DELTA)
    if not isinstance(same, int | float) or isinstance(same, bool) or not 0 < same < float("inf"):
        raise UserError(f"hydra.sweeper.until_sure.same_within must be a number above 0, got {same}")
    return Settings(tuple(looks), float(same))  # pyright: ignore[reportArgumentType]


def run_until_sure(
    jobs: Sequence[Sequence[str]], settings: Settings, make_engine: Callable[[int], Engine]
) -> int:
    """Train every combination with the seeds of the first look, then only those that are undecided.

    At each look the intervals have the confidence of `look_confidence`, so that the verdicts of all
    looks hold together however often the sweep looks. A look waits until all its trainings have ended.
    The baseline of k open options gets √k times as many seeds. The same command goes on where it
    stopped: finished runs are not trained again, and the looks come to the same decisions.

    Args:
        jobs: the overrides of every combination, without seeds.
        settings: when to look, and what counts as the same.
        make_engine: makes an engine for a number of jobs.

    Returns:
        The exit code.

    Raises:
        UserError: a job sets a seed, or is wrong.
    """
    refuse_seeds(jobs)
    looks, same_within = settings.looks, settings.same_within
    named = with_name(jobs)
    combinations = list(dict.fromkeys(map(tuple, named)))
    sweep = folder_of(named)
    confidence = look_confidence(looks, CONFIDENCE)
    console = make_console()
    seeds = dict.fromkeys(combinations, 0)
    extend = dict(zip(combinations, compared_for(combinations), strict=True))
    everything, of_job, code = list[Planned](), dict[int, Combination](), 0
    for number, n in enumerate(looks, start=1):
        wanted = {c: max(seeds[c], seeds_at(n, options)) for c, options in extend.items()}
        new = [[*c, f"seed={s}"] for c, most in wanted.items() for s in range(seeds[c] + 1, most + 1)]
        seeds |= wanted
        console.print(
            f"look {number} of at most {len(looks)}: {len(extend)} combinations, {len(new)} runs more",
            style="bold",
        )
        ended = run_sweep(new, make_engine(len(new)))
        if ended.dry or ended.code > 128 or not all(map(closed, ended.jobs)):
            return ended.code
        of_job |= {id(entry): tuple(o[:-1]) for entry, o in zip(ended.jobs, new, strict=True)}
        everything += ended.jobs
        code = max(code, ended.code)
        found = finished_jobs(everything)
        judged, open_cells = look(found.frame, found.factors, found.names, same_within, confidence)
        jobs_of_cells = dict(zip(found.frame[CELL].tolist(), found.jobs, strict=True))
        extend = {of_job[id(jobs_of_cells[cell])]: k for cell, k in open_cells.items()}
        write_json(
            sweep / LOOKS,
            {
                "looks": list(looks[:number]),
                "confidence": confidence,
                "same_within": same_within,
                "complete": not extend or number == len(looks),
            },
        )
        console.print(verdict_table(judged, same_within, found.unit))
        if not extend:
            break
    return code


def refuse_seeds(jobs: Sequence[Sequence[str]]) -> None:
    """Refuse jobs that set the seed."""
    for override in {override for job in jobs for override in job}:
        if key_of(override) in SEEDS:
            raise UserError(
                f"{override}: this sweep chooses the seeds itself (hydra.sweeper.until_sure.looks)"
            )


def closed(entry: Planned) -> bool:
    """Whether a job has ended, by this process or another."""
    return entry.skipped is not None or status_of(entry.folder) in ("finished", "failed", "diverged")
