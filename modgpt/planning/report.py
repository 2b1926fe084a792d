"""What `modgpt fit` prints: a table for a person, or JSON for a program."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from rich.markup import escape
from rich.table import Table

from modgpt.console import Output
from modgpt.planning import communication
from modgpt.planning.advice import MOST_DEVICES
from modgpt.planning.memory import Layout, demand, fits, largest_batch, total
from modgpt.planning.plan import Plan

GB = 1e9


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values: bytes, seconds, numbers."""
    hardware, advice, tokens = plan.hardware, plan.advice, plan.tokens_per_step
    return {
        "parameters": plan.cost.parameters,
        "active_parameters": plan.cost.active_parameters,
        "training_flops_per_token": 3 * plan.cost.flops,
        "block_size": plan.needs.length,
        "vocabulary": plan.config.model.vocab_size,
        "precision": plan.config.trainer.precision,
        "hardware": asdict(hardware),
        "layouts": [layout_as_json(plan, layout) for layout in plan.layouts],
        "tokens_per_step": tokens,
        "steps": plan.steps,
        "step_seconds": plan.step_seconds,
        "seconds": plan.steps * plan.step_seconds,
        "chosen": plan.chosen.strategy,
        "fits": advice is None and fits(plan.needs, plan.chosen, hardware.memory),
        "change": None if advice is None else advice.change,
    }


def layout_as_json(plan: Plan, layout: Layout) -> dict[str, Any]:
    """One strategy: its memory as configured, and with and without activation checkpointing."""
    needs, memory = plan.needs, plan.hardware.memory
    both = {
        name: replace(layout, checkpointing=on) for name, on in (("kept", False), ("checkpointed", True))
    }
    sent = communication.volume(needs, layout, plan.accumulated)
    return {
        "strategy": layout.strategy,
        "devices": layout.devices,
        "batch_per_device": layout.batch,
        "bytes": demand(needs, layout),
        "total": total(demand(needs, layout)),
        "fits": fits(needs, layout, memory),
        "activations": {name: demand(needs, other)["activations"] for name, other in both.items()},
        "largest_batch": {name: largest_batch(needs, other, memory) for name, other in both.items()},
        "bytes_sent_per_step": sent,
        "seconds_sending": {f"{r} Gbit/s": communication.seconds(sent, r) for r in communication.RATES},
    }


def print_plan(plan: Plan) -> None:
    """Print the table of memory and the sentences under it."""
    console = Output()
    if not console.is_terminal:  # a file has no width
        console = Output(width=100_000)
    console.print(memory_table(plan), highlight=False)
    for line in sentences(plan):
        console.print(escape(line), highlight=False)


def memory_table(plan: Plan) -> Table:
    """GB on each device, by strategy."""
    made = [layout_as_json(plan, layout) for layout in plan.layouts]
    table = Table(header_style="bold", show_edge=False)
    table.add_column("GB per device")
    for layout in plan.layouts:
        named = (
            layout.strategy if layout.devices == 1 else f"{layout.strategy}, {layout.devices} devices"
        )
        table.add_column(named, justify="right")

    def row(name: str, cells: list[str], style: str = "") -> None:
        table.add_row(name, *cells, style=style)

    row("windows per device", [f"{m['batch_per_device']:,}" for m in made])
    for name in made[0]["bytes"]:
        if any(m["bytes"][name] for m in made):
            row(name, [gigabytes(m["bytes"][name]) for m in made])
    row("total", [gigabytes(m["total"]) for m in made], "bold")
    row(
        f"fits in {gigabytes(plan.hardware.memory)}",
        ["yes" if m["fits"] else "no" for m in made],
        "bold",
    )
    names = {"kept": "without checkpointing", "checkpointed": "with checkpointing"}
    for key, words in names.items():
        row(f"activations {words}", [gigabytes(m["activations"][key]) for m in made])
    for key, words in names.items():
        row(f"largest batch {words}", [f"{m['largest_batch'][key]:,}" for m in made])
    return table


def sentences(plan: Plan) -> list[str]:
    """Size, time, communication, and what to change."""
    hardware, cost, needs = plan.hardware, plan.cost, plan.needs
    active = f", {cost.active_parameters:,} active" if cost.active_parameters != cost.parameters else ""
    lines = [
        f"{cost.parameters:,} parameters{active}, {plan.config.trainer.precision}, windows of "
        f"{needs.length:,}, vocabulary {plan.config.model.vocab_size:,}",
        f"{plan.steps:,} steps of {plan.tokens_per_step:,} tokens: "
        f"{duration(plan.steps * plan.step_seconds)} at {hardware.mfu:.0%} of {hardware.gpus} × "
        f"{hardware.peak / 1e12:,.0f} TFLOP/s ({hardware.name})",
    ]
    for layout in plan.layouts[1:]:
        sent = communication.volume(needs, layout, plan.accumulated)
        ratios = " and ".join(
            f"{plan.step_seconds / communication.seconds(sent, rate):.2g} at {rate} Gbit/s"
            for rate in communication.RATES
        )
        lines.append(
            f"{layout.strategy} sends {gigabytes(sent)} GB per device and step; computing takes so many "
            f"times as long as sending: {ratios}"
        )
    chosen = plan.chosen.strategy
    if plan.advice is not None:
        lines.append(f"{chosen} does not fit; this does: {plan.advice.change}")
    elif not fits(needs, plan.chosen, hardware.memory):
        lines.append(
            f"{chosen} does not fit, nor does fsdp on {MOST_DEVICES:,} devices: lower the sizes in model"
        )
    else:
        lines.append(f"{chosen} fits")
    if len(plan.layouts) > 1 or "fsdp" in (plan.advice.change if plan.advice else ""):
        lines.append("modgpt train runs one device and ddp (trainer.devices); fsdp is planned for only")
    return lines


def gigabytes(count: float) -> str:
    """Bytes in GB with three digits."""
    value = count / GB
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {unit}"
    return f"{seconds:,.3g} seconds"
