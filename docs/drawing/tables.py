"""Tables of finished runs, as Markdown."""

from __future__ import annotations

import math
from statistics import variance

from drawing.runs import Group, family, option_name
from drawing.trained import (
    BINS,
    extrapolation_groups,
    extrapolation_name,
    loss_by_position,
    with_default_budget,
)

from modgpt.config.keys import PARTS


def markdown(rows: list[list[str]]) -> str:
    """Return a Markdown table; the second row holds the alignments."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def print_tables(groups: dict[str, Group]) -> None:
    """Print the results of each group and of the recipes, and the losses past the training window."""
    for part in PARTS:
        print(f"\n### {part}\n\n{table(family(groups, part), part)}")
    recipes = [g for label, g in groups.items() if label.startswith("experiment=")]
    if recipes:
        print(f"\n### recipes\n\n{table([groups['default'], *recipes], 'experiment')}")
    print(f"\n### seeds\n\n{seed_table(groups)}")
    print(f"\n### past the training window\n\n{extrapolation_table(groups)}")


def table(members: list[Group], part: str) -> str:
    """Return final losses seed by seed, and their difference to the default."""
    base = members[0]
    seeds = sorted({run.seed for group in members for run in group.runs})
    head = [
        "option",
        *(f"seed {s}" for s in seeds),
        "mean",
        "− default",
        "spread",
        "parameters",
    ]
    rows = [head, [":--"] + ["--:"] * (len(head) - 1)]
    for group in members:
        by_seed = {run.seed: run for run in group.runs}
        total, active = (group.runs[0].result[k] for k in ("parameters", "active_parameters"))
        name = option_name(group, part).removesuffix(" (default)")
        rows.append([
            f"`{name}` (default)" if group is base else f"`{name}`",
            *(f"{by_seed[s].loss:.4f}" if s in by_seed else "" for s in seeds),
            f"{group.mean:.4f}",
            "" if group is base else f"{group.mean - base.mean:+.4f}".replace("-", "−"),
            f"{group.spread:.4f}" if len(group.runs) > 1 else "",
            f"{total:,}" + (f" ({active:,} active)" if active != total else ""),
        ])  # fmt: skip
    return markdown(rows)


def seed_table(groups: dict[str, Group]) -> str:
    """Return the standard deviation between seeds, pooled over all compositions, in a sentence."""
    repeated = [g for g in with_default_budget(groups) if len(g.runs) > 1]
    if not repeated:
        return "One seed each: the spread between seeds is unknown."
    freedom = sum(len(g.runs) - 1 for g in repeated)
    deviation = math.sqrt(sum((len(g.runs) - 1) * variance(g.losses) for g in repeated) / freedom)
    return (
        f"Standard deviation between seeds, pooled over {len(repeated)} compositions: {deviation:.4f}. "
        f"Standard error of a difference of means of two seeds each: {deviation:.4f}, "
        f"of three: {deviation * math.sqrt(2 / 3):.4f}."
    )


def extrapolation_table(groups: dict[str, Group]) -> str:
    """Return the mean loss in ranges of positions, up to far past the training window."""
    rows = [["option", *(f"positions {a}–{b - 1}" for a, b in BINS)], [":--"] + ["--:"] * len(BINS)]
    for group in extrapolation_groups(groups):
        losses = loss_by_position(group)
        rows.append([extrapolation_name(group), *(f"{losses[a:b].mean():.3f}" for a, b in BINS)])
    return markdown(rows)
