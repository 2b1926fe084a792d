"""What a search varies: lists, ranges and intervals of Hydra's grammar as distributions of Optuna's."""

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
    """What differs between the trials of a search, and what does not.

    Attributes:
        searched: a distribution per key. Options and listed values are their texts.
        fixed: the overrides that all trials share.
    """

    searched: dict[str, BaseDistribution]
    fixed: list[str]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The job of a trial."""
        return [*self.fixed, *(f"{key}={params[key]}" for key in self.searched)]

    def probes(self) -> list[list[str]]:
        """Jobs in which each listed value and both ends of each interval occur, one at a time."""
        ends = {key: ends_of(distribution) for key, distribution in self.searched.items()}
        first = {key: values[0] for key, values in ends.items()}
        jobs = [first, *({**first, key: v} for key, values in ends.items() for v in values[1:])]
        return [self.overrides(job) for job in jobs]

    def described(self) -> dict[str, str]:
        """The distributions for a person to read, and to compare."""
        return {key: describe(distribution) for key, distribution in self.searched.items()}


def space_of(overrides: Sequence[Override]) -> Space:
    """The space that overrides span.

    Args:
        overrides: parsed; of several about one key the last counts, so that the command line can narrow
            what a sweep file lists.

    Raises:
        UserError: nothing is searched, or something that cannot be.
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
            raise UserError(f"{key} cannot be searched: it is the same for the whole search")
    return Space(searched, fixed)


def distribution_of(override: Override) -> BaseDistribution:
    """The distribution of one key. A range leaves out its stop, as everywhere in Hydra.

    Raises:
        UserError: an empty or endless one, an unknown tag, or a logarithm of what has none.
    """
    sweep: Any = override.value()
    tags = getattr(sweep, "tags", set())
    try:
        if tags - {"log"}:
            raise ValueError(f"unknown tag {', '.join(sorted(tags - {'log'}))}; there is log")
        log = bool(tags)
        if isinstance(sweep, IntervalSweep):
            assert sweep.start is not None and sweep.end is not None
            return numbers(sweep.start, sweep.end, None, log)
        if isinstance(sweep, RangeSweep):
            steps = sweep.range()
            values = steps if isinstance(steps, range) else list(steps)
            if not values:
                raise ValueError("an empty range")
            return numbers(min(values), max(values), abs(sweep.step), log)
        if log:
            raise ValueError("values that are listed have no logarithm")
        # Sorted, so that another order of the same values is the same space.
        return CategoricalDistribution(sorted(set(override.sweep_string_iterator())))
    except ValueError as error:
        raise UserError(f"cannot search {override.input_line}: {error}") from error


def numbers(low: float, high: float, step: float | None, log: bool) -> BaseDistribution:
    if not (isfinite(low) and isfinite(high)):
        raise ValueError("it has no end")
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
