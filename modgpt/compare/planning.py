"""How many seeds a next sweep needs, from the noise of the runs found."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path

from rich.console import Console
from rich.table import Table

from modgpt.compare.comparison import check_packages, read_comparison
from modgpt.compare.counting import several
from modgpt.compare.terminal import print_plain
from modgpt.console import Output
from modgpt.errors import UserError
from modgpt.statistics.power import Plan, plan
from modgpt.statistics.verdict import CONFIDENCE, MOST_SEEDS, POWER

SIZES = (0.02, 0.01, 0.005)  # differences to plan for, nats per token


def print_plan(
    folders: Sequence[Path],
    best: Sequence[str] = (),
    same_within: float | None = None,
    console: Console | None = None,
) -> None:
    """Print the seeds that show differences of 0.02, 0.01 and 0.005; nothing is written.

    Args:
        folders, best: as for `read_comparison`.
        same_within: a further difference to plan for, in nats per token.
        console: where to print; None for the standard output.

    Raises:
        UserError: as `read_comparison`; or there is no noise to plan from.
    """
    check_packages()
    console = console or Output()
    found = read_comparison(folders, best)
    noise, options = found.statistics.noise, len(found.statistics.differences)
    if found.statistics.solved:
        raise UserError(
            "--plan: these runs solve a task or do not, and are judged by counts; the plan is for losses"
        )
    if noise.sigma is None:
        raise UserError("--plan: the seed noise is unknown; run a combination with two seeds or more")
    options = max(1, options)
    share = sqrt(options)
    low, high = noise.interval()
    print_plain(
        console,
        [
            f"Seed noise of these runs: σ = {noise.sigma:.4f} (95 % interval {low:.4f} to {high:.4f}, "
            f"{several(noise.df, 'degree')} of freedom).",
            f"Plan for {several(options, 'option')} and one baseline, each option changed alone. A "
            f"verdict comes with {100 * POWER:.0f} % chance, and all intervals hold together with "
            f"{100 * CONFIDENCE:.0f} % confidence.",
        ],
    )
    asked = SIZES if same_within is None else (*SIZES, same_within)
    sizes = tuple(sorted(set(asked), reverse=True))
    equal, shared = (plan(noise.sigma, options, sizes, of_baseline) for of_baseline in (1, share))
    console.print(plan_table(equal, shared, options))
    if options > 1:
        more = (
            f"√k = {share:.1f}: every option is compared with the baseline, so {share:.1f} times as "
            "many runs of it make all differences more exact."
        )
        print_plain(console, [more])


def plan_table(equal: Sequence[Plan], shared: Sequence[Plan], options: int) -> Table:
    """A row per size of difference: seeds and runs to show it, and to call an option the same.

    Args:
        equal: with as many runs of the baseline as of an option.
        shared: with √k times as many.
        options: k, the number of options.
    """
    table = Table(title="seeds per option (runs in all)", header_style="bold")
    table.add_column("difference, nats", justify="right")
    table.add_column("better or worse", justify="right")
    table.add_column("same within ±", justify="right")
    if options > 1:
        table.add_column("better or worse, √k baselines", justify="right")
        table.add_column("same within ±, √k baselines", justify="right")
    for one, other in zip(equal, shared, strict=True):
        cells = [f"{one.difference:g}", *(entry(n, options, 1) for n in (one.to_show, one.to_call_same))]
        if options > 1:
            share = sqrt(options)
            cells += [entry(n, options, share) for n in (other.to_show, other.to_call_same)]
        table.add_row(*cells)
    return table


def entry(seeds: int | None, options: int, share: float) -> str:
    """The seeds of an option, and the runs of all options with their baseline."""
    if seeds is None:
        return f"more than {MOST_SEEDS:,}"
    return f"{seeds} ({seeds * options + ceil(seeds * share):,})"
