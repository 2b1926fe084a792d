"""What makes a training fit: the first change that does, the cheap ones first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from modgpt.planning.memory import Layout, Needs, fits, largest_batch

MOST_DEVICES = 2**16


@dataclass(frozen=True)
class Advice:
    """A change that makes a training fit.

    Attributes:
        layout: that fits.
        accumulated: batches per step, so that a step sees as many tokens as before.
        change: what to give, overrides and flags.
    """

    layout: Layout
    accumulated: int
    change: str


def advise(needs: Needs, layout: Layout, accumulated: int, memory: float) -> Advice | None:
    """The first change after which a training fits; None where it fits as it is, or none helps.

    In this order: checkpointing, a smaller batch with accumulation, both; the same with fsdp; more
    devices, twice as many each time, with fsdp and checkpointing.

    Args:
        needs: of the model.
        layout: as asked for.
        accumulated: `trainer.accumulate_grad_batches`.
        memory: bytes of a device.
    """
    if fits(needs, layout, memory):
        return None
    for changed, words, smaller in changes(layout):
        advice = fitted(needs, changed, accumulated, memory, words, smaller)
        if advice is not None:
            return advice
    return None


def changes(asked: Layout) -> Iterator[tuple[Layout, list[str], bool]]:
    """Layouts to try: what one has to give for each, and whether its batch may be made smaller."""
    checkpointing = [] if asked.checkpointing else ["activation_checkpointing=true"]
    strategies: list[tuple[Layout, list[str]]] = [(asked, [])]
    if asked.strategy == "ddp":
        strategies.append((replace(asked, strategy="fsdp"), ["fsdp"]))
    for layout, words in strategies:
        cheaper = replace(layout, checkpointing=True)
        yield layout, words, False
        yield cheaper, [*words, *checkpointing], False
        yield layout, words, True
        yield cheaper, [*words, *checkpointing], True
    devices, windows = asked.devices, asked.batch * asked.devices
    while devices < MOST_DEVICES:
        devices *= 2
        spread = Layout("fsdp", devices, -(-windows // devices), checkpointing=True)
        yield spread, ["fsdp", *checkpointing, f"--gpus {devices}"], False
        yield spread, ["fsdp", *checkpointing, f"--gpus {devices}"], True


def fitted(
    needs: Needs, layout: Layout, accumulated: int, memory: float, words: list[str], smaller: bool
) -> Advice | None:
    """A layout as it is, or with a smaller batch, where that fits."""
    if not smaller:
        if words and fits(needs, layout, memory):
            return Advice(layout, accumulated, " + ".join(words))
        return None
    most = largest_batch(needs, layout, memory)
    batch = max(
        (b for b in range(1, min(most, layout.batch - 1) + 1) if not layout.batch % b), default=0
    )
    if not batch:
        return None
    times = accumulated * layout.batch // batch
    given = [
        f"data.batch_size={batch * layout.devices} trainer.accumulate_grad_batches={times}",
    ]
    return Advice(replace(layout, batch=batch), times, " + ".join([*words, *given]))
