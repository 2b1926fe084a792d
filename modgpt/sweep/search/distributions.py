"""The search space: Hydra's lists, ranges and intervals as Optuna distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from modgpt.config.keys import command_keys
from modgpt.errors import UserError


@dataclass(frozen=True)
class Space:
    """The keys that a search varies, and the overrides that all trials share.

    Attributes:
        searched: a distribution for each key. Options and listed values are text.
        fixed: the overrides that all trials share.
    """

    searched: dict[str, BaseDistribution]
    fixed: list[str]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial's job."""
        return [*self.fixed, *(f"{key}={params[key]}" for key in self.searched)]

    def probes(self) -> list[list[str]]:
        """Jobs that together contain each listed value and both ends of each interval."""
        ends = {key: ends_of(distribution) for key, distribution in self.searched.items()}
        first = {key: values[0] for key, values in ends.items()}
        jobs = [first, *({**first, key: v} for key, values in ends.items() for v in values[1:])]
        return [self.overrides(job) for job in jobs]

    def described(self) -> dict[str, str]:
        """The distributions as text, to read and to compare."""
        return {key: describe(distribution) for key, distribution in self.searched.items()}


def space_of(overrides: Sequence[Override]) -> Space:
    """The search space of some overrides.

    Args:
        overrides: parsed. The last override of a key counts, so that the command line can replace what
            a sweep file lists.

    Raises:
        UserError: there is nothing to search, or a key or its values cannot be searched.
    """
    last = {override.get_key_element(): override for override in overrides}
    searched = {k: distribution_of(o) for k, o in last.items() if o.is_sweep_override()}
    fixed = [str(o.input_line) for o in last.values() if not o.is_sweep_override()]
    if not searched:
        raise UserError(
            "nothing to search: give lists, ranges or intervals, such as ffn=standard,moe or "
            "'optimizer.lr=tag(log, interval(1e-3, 1e-2))'"
        )
    for key in searched:
        if key in command_keys():
            raise UserError(f"{key} cannot be searched: give it one value for the whole search")
    return Space(searched, fixed)


def distribution_of(override: Override) -> BaseDistribution:
    """The distribution of one key. The stop of a range is excluded, as everywhere in Hydra.

    Raises:
        UserError: the range is empty or infinite, a tag is unknown, or log is given for values that
            have no logarithm.
    """
    sweep: Any = override.value()
    tags = getattr(sweep, "tags", set())
    try:
        if tags - {"log"}:
            raise ValueError(f"unknown tag {', '.join(sorted(tags - {'log'}))}; the only tag is log")
        log = bool(tags)
        if isinstance(sweep, IntervalSweep):
            assert sweep.start is not None and sweep.end is not None
            return numbers(sweep.start, sweep.end, None, log)
        if isinstance(sweep, RangeSweep):
            steps = sweep.range()
            values = steps if isinstance(steps, range) else list(steps)
            if not values:
                raise ValueError("the range is empty")
            return numbers(min(values), max(values), abs(sweep.step), log)
        if log:
            raise ValueError("listed values cannot have the tag log; a range or an interval can")
        # Sorted, so that another order of the same values is the same space.
        return CategoricalDistribution(sorted(set(override.sweep_string_iterator())))
    except ValueError as error:
        raise UserError(f"cannot search {override.input_line}: {error}") from error


def numbers(low: float, high: float, step: float | None, log: bool) -> BaseDistribution:
    if not (isfinite(low) and isfinite(high)):
        raise ValueError("it must have a finite start and end")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, step=int(step or 1), log=log)
    return FloatDistribution(low, high, step=step, log=log)


def ends_of(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def describe(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    text = f"{distribution.low} to {distribution.high}"
    if distribution.step:
        text += f" by {distribution.step}"
    return text + (" (log)" if distribution.log else "")
