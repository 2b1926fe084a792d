"""Learning-rate schedules: the factor on the peak rate at each step, all with a linear warm-up."""

from __future__ import annotations

import math


def warmup(step: int, warmup_steps: int) -> float:
    """Linear from 1/(warmup_steps+1) to 1: the first step already moves."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def constant(step: int, *, warmup_steps: int) -> float:
    """1 after the warm-up."""
    _check(warmup_steps)
    return warmup(step, warmup_steps)


def cosine(step: int, *, warmup_steps: int, max_steps: int, final: float) -> float:
    """Half a cosine from 1 after the warm-up down to `final` at the last step (SGDR,
    Loshchilov & Hutter 2017, without restarts).

    Raises:
        ValueError: warmup_steps is negative or not below max_steps, or final is not in [0, 1].
    """
    _check_decay(warmup_steps, max_steps, final)
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * _share(step, warmup_steps, max_steps))) / 2


def linear(step: int, *, warmup_steps: int, max_steps: int, final: float) -> float:
    """A straight line from 1 after the warm-up down to `final` at the last step: with `final=0`, what
    theory recommends for a known budget (Defazio et al. 2023, "Optimal linear decay").

    Raises:
        ValueError: as `cosine`.
    """
    _check_decay(warmup_steps, max_steps, final)
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return 1 - (1 - final) * _share(step, warmup_steps, max_steps)


def wsd(step: int, *, warmup_steps: int, max_steps: int, final: float, decay_share: float) -> float:
    """Warm-up, stable, decay: 1 until the last `decay_share` of the steps, then a straight line down to
    `final` (MiniCPM, Hu et al. 2024, section 4). A run can be prolonged from where it is still stable.

    Raises:
        ValueError: as `cosine`, or decay_share is not in (0, 1].
    """
    _check_decay(warmup_steps, max_steps, final)
    if not 0 < decay_share <= 1:
        raise ValueError(f"schedule.decay_share must lie in (0, 1], got {decay_share}")
    remaining = max(0.0, (max_steps - step) / (decay_share * max_steps))
    return min(warmup(step, warmup_steps), final + (1 - final) * min(1.0, remaining))


def _share(step: int, warmup_steps: int, max_steps: int) -> float:
    """How much of the way from the end of the warm-up to the last step is done."""
    return min(1.0, (step - warmup_steps) / (max_steps - warmup_steps))


def _check(warmup_steps: int) -> None:
    if warmup_steps < 0:
        raise ValueError(f"schedule.warmup_steps must not be negative, got {warmup_steps}")


def _check_decay(warmup_steps: int, max_steps: int, final: float) -> None:
    _check(warmup_steps)
    if warmup_steps >= max_steps:
        raise ValueError(
            f"schedule.warmup_steps={warmup_steps} must be below trainer.max_steps={max_steps}"
        )
    if not 0 <= final <= 1:
        raise ValueError(f"schedule.final must lie in [0, 1], got {final}")
