"""Learning-rate schedules: the factor on the peak rate at each step, all with a linear warm-up.

Every schedule has two ways to say how long the warm-up takes: `warmup`, a share of the steps of the
training, and `warmup_steps`, a number of steps, which replaces the share where it is given.
"""

from __future__ import annotations

import math

WARMUP = 0.07  # share of the steps, the default


def constant(
    step: int, *, max_steps: int, warmup: float = WARMUP, warmup_steps: int | None = None
) -> float:
    """1 after the warm-up.

    Raises:
        ValueError: the warm-up is negative, leaves no step after it, or is given twice.
    """
    return rise(step, warmup_length(warmup, warmup_steps, max_steps))


def cosine(
    step: int,
    *,
    max_steps: int,
    final: float,
    warmup: float = WARMUP,
    warmup_steps: int | None = None,
) -> float:
    """Half a cosine from 1 after the warm-up down to `final` at the last step (SGDR, Loshchilov & Hutter
    2017, without restarts).

    Raises:
        ValueError: as `constant`, or final is not in [0, 1].
    """
    length = warmup_length(warmup, warmup_steps, max_steps)
    check_share("final", final)
    if step < length:
        return rise(step, length)
    return final + (1 - final) * (1 + math.cos(math.pi * progress(step, length, max_steps))) / 2


def linear(
    step: int,
    *,
    max_steps: int,
    final: float,
    warmup: float = WARMUP,
    warmup_steps: int | None = None,
) -> float:
    """A straight line from 1 after the warm-up down to `final` at the last step.

    With `final=0` it is what theory recommends for a known budget (Defazio et al. 2023, "Optimal linear
    decay").

    Raises:
        ValueError: as `cosine`.
    """
    length = warmup_length(warmup, warmup_steps, max_steps)
    check_share("final", final)
    if step < length:
        return rise(step, length)
    return 1 - (1 - final) * progress(step, length, max_steps)


def wsd(
    step: int,
    *,
    max_steps: int,
    final: float,
    decay_share: float,
    warmup: float = WARMUP,
    warmup_steps: int | None = None,
) -> float:
    """Warm-up, stable, decay: 1 until the last `decay_share` of the steps, then a straight line down to
    `final` (MiniCPM, Hu et al. 2024, section 4). A run can be prolonged from its stable part.

    Raises:
        ValueError: as `cosine`, or decay_share is not in (0, 1].
    """
    length = warmup_length(warmup, warmup_steps, max_steps)
    check_share("final", final)
    if not 0 < decay_share <= 1:
        raise ValueError(f"schedule.decay_share must lie in (0, 1], got {decay_share}")
    remaining = max(0.0, (max_steps - step) / (decay_share * max_steps))
    return min(rise(step, length), final + (1 - final) * min(1.0, remaining))


def rise(step: int, length: int) -> float:
    """Linear from 1/(length + 1) to 1: the first step already moves."""
    return min(1.0, (step + 1) / (length + 1))


def progress(step: int, start: int, max_steps: int) -> float:
    """The share of the way from `start` to the last step."""
    return min(1.0, (step - start) / (max_steps - start))


def warmup_length(warmup: float, warmup_steps: int | None, max_steps: int) -> int:
    """The number of warm-up steps.

    Raises:
        ValueError: it is negative, leaves no step after the warm-up, or share and steps contradict.
    """
    if not 0 <= warmup < 1:
        raise ValueError(
            f"schedule.warmup must lie in [0, 1), got {warmup}: it is a share of trainer.max_steps; "
            "schedule.warmup_steps takes a number of steps"
        )
    share = min(round(warmup * max_steps), max_steps - 1)
    if warmup_steps is None:
        return share
    if warmup_steps < 0:
        raise ValueError(f"schedule.warmup_steps must not be negative, got {warmup_steps}")
    if warmup_steps >= max_steps:
        raise ValueError(
            f"schedule.warmup_steps={warmup_steps} must be below trainer.max_steps={max_steps}; "
            "schedule.warmup_steps=null takes a share of the steps, schedule.warmup"
        )
    # The default share gives way to steps; one that somebody chose does not.
    if warmup != WARMUP and share != warmup_steps:
        raise ValueError(
            f"schedule.warmup={warmup} ({share} of trainer.max_steps={max_steps}) and "
            f"schedule.warmup_steps={warmup_steps} contradict: leave one out; "
            "schedule.warmup_steps=null takes the share"
        )
    return warmup_steps


def check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"schedule.{name} must lie in [0, 1], got {value}")
