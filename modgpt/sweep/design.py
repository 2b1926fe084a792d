"""From lists of values to the jobs of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.types import Override

from modgpt.config.keys import SEEDS
from modgpt.errors import UserError

DESIGNS = ("grid", "one_at_a_time")
# Below a sweep's folder, the folder of the runs that only choose hyperparameters, and what came of them.
TUNING = "tuning"
TUNED = "tuning.json"
LOOKS = "until_sure.json"  # the looks of a sweep that adds seeds until it is sure


def expand(
    overrides: Sequence[Override],
    design: str,
    defaults: Mapping[str, str],
    baseline_seeds: Sequence[int] = (),
) -> list[list[str]]:
    """The overrides of every job.

    `grid` crosses all values with all. `one_at_a_time` takes a baseline and changes one key after the
    other; seeds are crossed with everything in both. The baseline of a key is its default where that is
    among the values, else the first of them.

    Args:
        overrides: parsed; of several about one key the last counts, so that the command line can
            narrow what a sweep file lists.
        design: one of `DESIGNS`.
        defaults: the option chosen in each group without the sweep.
        baseline_seeds: where there are several seeds, more of them for the baseline of `one_at_a_time`
            alone: it is in every comparison, so its noise is in all of them.

    Raises:
        UserError: an unknown design, a range without an end, or `baseline_seeds` in a grid.
    """
    if design not in DESIGNS:
        raise UserError(f"hydra.sweeper.design must be {' or '.join(DESIGNS)}, got {design!r}")
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UserError(f"{override.input_line} has no end: list the values, as in key=a,b,c")
    if design == "grid":
        if baseline_seeds:
            raise UserError(
                "hydra.sweeper.baseline_seeds needs hydra.sweeper.design=one_at_a_time: a grid has a "
                "baseline in every context"
            )
        return [list(job) for job in itertools.product(*values.values())]
    baseline = {key: baseline_of(key, listed, defaults) for key, listed in values.items()}
    jobs = []
    seeds = [key for key in SEEDS if key in values]
    for chosen in itertools.product(*(values[key] for key in seeds)):
        center = baseline | dict(zip(seeds, chosen, strict=True))
        jobs.append(list(center.values()))
        for key, listed in values.items():
            others = [value for value in listed if value != baseline[key]] if key not in seeds else []
            jobs += [list({**center, key: value}.values()) for value in others]
    listed = values.get("seed", [])
    if seeds == ["seed"] and len(listed) > 1:
        more = [seed for n in baseline_seeds if (seed := f"seed={n}") not in listed]
        jobs += [list({**baseline, "seed": seed}.values()) for seed in more]
    return jobs


def baseline_of(key: str, listed: list[str], defaults: Mapping[str, str]) -> str:
    default = f"{key}={defaults.get(key)}"
    return default if default in listed else listed[0]
