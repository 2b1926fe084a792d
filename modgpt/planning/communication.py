"""Bytes that each device sends per optimizer step, and how long that takes beside the computing.

    ddp:  2 (N−1)/N · P·r               a ring all-reduce of the gradients, once per step
    fsdp: A (N−1)/N · P·(2n + n)        for each of A batches: weights gathered for the forward and the
                                        backward pass, gradients scattered in the type of the products

Legend: N devices, P parameters, r bytes of a gradient, n bytes of a number in products, A
`trainer.accumulate_grad_batches`. A mixture's experts count in full: every device has all of them.
Assumption: one link per device at full rate, no latency, nothing hidden behind the computing.
"""

from __future__ import annotations

from modgpt.planning.memory import Layout, Needs

RATES = (100, 400)  # Gbit/s


def volume(needs: Needs, layout: Layout, accumulated: int) -> float:
    """Bytes that each device sends, and receives, per optimizer step."""
    n = layout.devices
    if layout.strategy == "one device" or n == 1:
        return 0.0
    if layout.strategy == "ddp":
        return 2 * (n - 1) / n * needs.states.gradients
    parameters = needs.states.parameters / needs.widths.parameter
    return accumulated * (n - 1) / n * parameters * 3 * needs.widths.product


def seconds(volume: float, gigabits: float) -> float:
    """Time to send so many bytes over one link."""
    return 8 * volume / (gigabits * 1e9)
