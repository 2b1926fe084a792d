"""Error rates and power of the verdicts, from simulated sweeps with a known truth.

    python -m benchmarks.calibration [--sweeps 4000] [--scenario NAME]
    python -m benchmarks.calibration --stopping --sweeps 200

Every simulated sweep goes through the functions that judge real ones. A *false verdict* is `better` or
`worse` with the wrong sign or for an option without a difference, or `same` for one that differs by δ or
more. The family-wise error is the share of sweeps with at least one false verdict.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from modgpt.statistics.differences import Difference, differences
from modgpt.statistics.looks import look, look_confidence, seeds_at
from modgpt.statistics.noise import CELL, LOSS, seed_noise
from modgpt.statistics.pairs import Factor
from modgpt.statistics.verdict import BETTER, CONFIDENCE, DELTA, OPEN, SAME, WORSE

SIGMA = 0.0125  # nats per token, between the 0.010 and 0.0145 of the default run at 300 steps
OPTIONS = 16
Random = np.random.Generator
Truth = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Simulated:
    """A sweep with known differences: its runs, its factors and the truth."""

    frame: pd.DataFrame
    factors: list[Factor]
    truth: Truth


def frame_of(rows: Sequence[tuple[dict[str, str], int, float]]) -> pd.DataFrame:
    """The table that the comparison makes of runs: choices, seed, loss, cell."""
    frame = pd.DataFrame([choices | {"seed": seed, LOSS: loss} for choices, seed, loss in rows])
    names = [name for name in frame.columns if name not in ("seed", LOSS)]
    frame[CELL] = frame.groupby(names, sort=False).ngroup()
    return frame


def one_factor(
    draw: Callable[[int, int], float],
    effects: Sequence[float] = (0.0,) * OPTIONS,
    seeds: int = 3,
    baseline_seeds: int = 3,
    lost: Callable[[int, int], bool] = lambda option, seed: False,
) -> Simulated:
    """A baseline and options with these true differences; `draw(option, seed)` is the noise of a run."""
    rows = []
    for option, effect in enumerate((0.0, *effects)):
        for seed in range(1, (baseline_seeds if option == 0 else seeds) + 1):
            if not lost(option, seed):
                rows.append(({"part": str(option)}, seed, 1.8 + effect + draw(option, seed)))
    levels = tuple(str(option) for option in range(len(effects) + 1))
    truth = {("part", str(option + 1)): effect for option, effect in enumerate(effects)}
    return Simulated(frame_of(rows), [Factor("part", levels)], truth)


def grid(rng: Random, scatter: float, seeds: int = 1) -> Simulated:
    """A grid of 4 × 3 × 3 × 2 options without main effects; every combination is off by `scatter`."""
    sizes = {"a": 4, "b": 3, "c": 3, "d": 2}
    rows = []
    for levels in product(*(map(str, range(size)) for size in sizes.values())):
        own = rng.normal(0, scatter)
        for seed in range(seeds):
            choices = dict(zip(sizes, levels, strict=True))
            rows.append((choices, seed, 1.8 + own + rng.normal(0, SIGMA)))
    factors = [Factor(name, tuple(map(str, range(size)))) for name, size in sizes.items()]
    truth = {(f.name, option): 0.0 for f in factors for option in f.levels[1:]}
    return Simulated(frame_of(rows), factors, truth)


def normal(rng: Random, sigma: float = SIGMA) -> Callable[[int, int], float]:
    return lambda option, seed: float(rng.normal(0, sigma))


def shifted(rng: Random) -> Callable[[int, int], float]:
    """Every seed shifts all runs alike, by as much as the noise."""
    shifts = rng.normal(0, SIGMA, 100)
    return lambda option, seed: float(shifts[seed] + rng.normal(0, SIGMA))


def heavy(rng: Random) -> Callable[[int, int], float]:
    """Student's t with 3 degrees of freedom, scaled to the same standard deviation."""
    return lambda option, seed: float(rng.standard_t(3) * SIGMA / np.sqrt(3))


def spread(rng: Random, factor: float, noisy: Callable[[int], bool]) -> Callable[[int, int], float]:
    """Some options scatter more than the others."""
    return lambda option, seed: float(rng.normal(0, SIGMA * (factor if noisy(option) else 1)))


def steps(sigmas: float) -> tuple[float, ...]:
    """Half of the options differ by so many σ, in turns up and down; the others do not differ."""
    return tuple(
        (1 if i % 4 == 0 else -1) * sigmas * SIGMA if i % 2 == 0 else 0.0 for i in range(OPTIONS)
    )


# name → (what makes a sweep, whether the family-wise error is promised to stay at 5 %)
SCENARIOS: dict[str, tuple[Callable[[Random], Simulated], bool]] = {
    "no difference": (lambda r: one_factor(normal(r)), True),
    "no difference, 12 runs of the baseline": (
        lambda r: one_factor(normal(r), baseline_seeds=12), True),
    "no difference, seeds shift all runs": (lambda r: one_factor(shifted(r)), True),
    "differences of 1 σ": (lambda r: one_factor(normal(r), steps(1)), True),
    "differences of 2 σ": (lambda r: one_factor(normal(r), steps(2)), True),
    "differences of 3 σ": (lambda r: one_factor(normal(r), steps(3)), True),
    "differences of 4 σ": (lambda r: one_factor(normal(r), steps(4)), True),
    "all differ by δ, 12 seeds": (
        lambda r: one_factor(normal(r, 0.008), (DELTA,) * OPTIONS, 12, 12), True),
    "one bad option": (lambda r: one_factor(normal(r), (0.5, *(0.0,) * (OPTIONS - 1))), True),
    "a cell in six missing": (
        lambda r: one_factor(normal(r), lost=lambda o, s: o % 6 == 5), True),
    "a run in five failed": (
        lambda r: one_factor(normal(r), seeds=4, baseline_seeds=4, lost=failed), True),
    "heavy tails": (lambda r: one_factor(heavy(r)), False),
    "one seed": (lambda r: one_factor(normal(r), seeds=1, baseline_seeds=1), True),
    "grid, interactions of 2 σ": (lambda r: grid(r, 2 * SIGMA), True),
    "grid, interactions of 2 σ, 3 seeds": (lambda r: grid(r, 2 * SIGMA, 3), True),
    "grid, no interactions": (lambda r: grid(r, 0.0), True),
    "half of the options scatter twice as much": (
        lambda r: one_factor(spread(r, 2, lambda o: o % 2 == 1), seeds=5, baseline_seeds=5), False),
    "the baseline scatters three times as much": (
        lambda r: one_factor(spread(r, 3, lambda o: o == 0)), False),
    "the baseline scatters three times as much, 12 runs of it": (
        lambda r: one_factor(spread(r, 3, lambda o: o == 0), baseline_seeds=12), False),
}  # fmt: skip


def failed(option: int, seed: int) -> bool:
    """One run in five is lost, but no cell loses its first."""
    return seed > 1 and (7 * option + 3 * seed) % 5 == 0


def judge(sweep: Simulated) -> list[Difference]:
    """The differences and verdicts, as the comparison computes them."""
    names = [factor.name for factor in sweep.factors]
    return differences(sweep.frame, sweep.factors, names, seed_noise(sweep.frame))


def false(found: Difference, truth: float) -> bool:
    """Whether a verdict contradicts the truth."""
    if found.verdict == SAME:
        return abs(truth) >= DELTA
    return (found.verdict == BETTER and truth >= 0) or (found.verdict == WORSE and truth <= 0)


@dataclass(frozen=True)
class Rates:
    """What many simulated sweeps of one scenario gave.

    Attributes:
        wrong: number of sweeps with a false verdict.
        sweeps: number of sweeps.
        power: share of the options that differ which are called better or worse; None without any.
        same, undecided: share of all verdicts.
    """

    wrong: int
    sweeps: int
    power: float | None
    same: float
    undecided: float

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the family-wise error."""
        share = stats.binomtest(self.wrong, self.sweeps).proportion_ci(0.95, "exact")
        return float(share.low), float(share.high)


def simulate(make: Callable[[Random], Simulated], sweeps: int, seed: int = 1) -> Rates:
    """Judge many sweeps; the same seed gives the same sweeps."""
    rng = np.random.default_rng(seed)
    wrong, shown, differing, same, undecided, verdicts = 0, 0, 0, 0, 0, 0
    for _ in range(sweeps):
        sweep = make(rng)
        found = judge(sweep)
        truths = [sweep.truth[d.factor, d.option] for d in found]
        wrong += any(false(d, t) for d, t in zip(found, truths, strict=True))
        said = [d.verdict for d in found]
        differing += sum(t != 0 for t in truths)
        shown += sum(t != 0 and v in (BETTER, WORSE) for v, t in zip(said, truths, strict=True))
        same, undecided = same + said.count(SAME), undecided + said.count(OPEN)
        verdicts += len(said)
    power = shown / differing if differing else None
    return Rates(wrong, sweeps, power, same / verdicts, undecided / verdicts)


@dataclass(frozen=True)
class Stopping:
    """What many sweeps that stop when sure gave, beside fixed designs of equal power.

    Attributes:
        wrong, sweeps: as of `Rates`.
        decided: share of the options with a verdict at the end.
        runs: mean number of runs.
        fixed_runs: runs of the fixed design that decides as large a share of the options.
    """

    wrong: int
    sweeps: int
    decided: float
    runs: float
    fixed_runs: float


def stop_when_sure(
    effects: Sequence[float], sweeps: int, looks: Sequence[int], seed: int = 1
) -> Stopping:
    """Simulate sweeps that add seeds to undecided options.

    The fixed design has √k times as many runs of its baseline as of an option; its number of seeds grows
    until it decides as many of the options.
    """
    rng = np.random.default_rng(seed)
    confidence = look_confidence(looks, CONFIDENCE)
    k = len(effects)
    wrong = runs = decided = 0
    for _ in range(sweeps):
        whole = one_factor(normal(rng), effects, looks[-1], seeds_at(looks[-1], k))
        seeds = dict.fromkeys(range(k + 1), 0)
        extend, found = {0: k} | dict.fromkeys(range(1, k + 1), 1), list[Difference]()
        for n in looks:
            seeds |= {cell: max(seeds[cell], seeds_at(n, options)) for cell, options in extend.items()}
            inside = whole.frame["seed"] <= whole.frame[CELL].map(seeds)
            found, extend = look(whole.frame[inside], whole.factors, ["part"], DELTA, confidence)
            if not extend:
                break
        runs += sum(seeds.values())
        truths = [whole.truth[d.factor, d.option] for d in found]
        wrong += any(false(d, t) for d, t in zip(found, truths, strict=True))
        decided += sum(d.verdict != OPEN for d in found)
    reached = decided / sweeps / k
    few = max(50, sweeps // 10)
    fixed = next((n for n in range(2, 400) if share_decided(effects, n, few) >= reached), 400)
    return Stopping(wrong, sweeps, reached, runs / sweeps, fixed * k + seeds_at(fixed, k))


def share_decided(effects: Sequence[float], seeds: int, sweeps: int) -> float:
    """The share of options that a fixed design decides."""
    rng = np.random.default_rng(2)
    decided = 0
    for _ in range(sweeps):
        found = judge(one_factor(normal(rng), effects, seeds, seeds_at(seeds, len(effects))))
        decided += sum(d.verdict != OPEN for d in found)
    return decided / sweeps / len(effects)


# The differences of the 16 options of docs/results/one_at_a_time, in nats.
MEASURED = (-0.045, -0.006, -0.004, -0.004, -0.004, -0.003, 0.009, 0.012, 0.037, 0.068, 0.087, 0.198,
            0.22, 0.289, 0.388, 0.54)  # fmt: skip
LOOKS = (3, 4, 6, 8, 11, 15, 20)


def main() -> None:
    """Print the tables of docs/statistics.md, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=4000, help="simulated sweeps per scenario")
    parser.add_argument("--scenario", help="only those whose name contains this")
    parser.add_argument("--stopping", action="store_true", help="sweeps that stop when sure instead")
    arguments = parser.parse_args()
    if arguments.stopping:
        found = stop_when_sure(MEASURED, arguments.sweeps, LOOKS)
        print(
            f"family-wise error {found.wrong} of {found.sweeps}, {found.decided:.1%} decided, ", end=""
        )
        print(f"{found.runs:.0f} runs; the fixed design of equal power has {found.fixed_runs}")
        return
    print("| scenario | family-wise error | 95 % interval | power | same | cannot tell |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, (make, _) in SCENARIOS.items():
        if arguments.scenario and arguments.scenario not in name:
            continue
        rates = simulate(make, arguments.sweeps)
        low, high = rates.interval
        power = "" if rates.power is None else f"{rates.power:.0%}"
        print(
            f"| {name} | {rates.wrong / rates.sweeps:.1%} | {low:.1%} to {high:.1%} | {power} "
            f"| {rates.same:.0%} | {rates.undecided:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
