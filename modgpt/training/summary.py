"""What a person sees at the end of a training."""

from __future__ import annotations

import math
from pathlib import Path

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from modgpt.console import Output
from modgpt.runs.record import RunRecord


def print_summary(folder: Path, record: RunRecord, sample: str, chance: float | None) -> None:
    """The result in a few lines, a sample of text, and how to look further.

    Args:
        folder, record: of the run.
        sample: what the model writes or answers.
        chance: accuracy of a guess, of a task.
    """
    loss, accuracy = record.final_val_loss, record.final_val_accuracy
    assert loss is not None
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("validation loss", f"{loss:.4f} nats per token")
    if record.final_val_bits_per_byte is not None and record.tokens_per_character is not None:
        bits = loss / math.log(2) * record.tokens_per_character
        per_byte = record.final_val_bits_per_byte
        table.add_row("in bits", f"{bits:.4f} bits per character, {per_byte:.4f} bits per byte")
    if record.best_step != record.final_step:
        best = f"{record.best_val_loss:.4f} nats at step {record.best_step}"
        if record.best_val_windows != record.final_val_windows:
            best += f", on a sample of {record.best_val_windows:,} windows"
        table.add_row("best", best)
    if accuracy is not None:
        table.add_row("accuracy", f"{accuracy:.2%}" + (f" (chance {chance:.2%})" if chance else ""))
    else:
        table.add_row("perplexity", f"{math.exp(loss):.3f}")
    table.add_row("parameters", f"{record.parameters:,} ({record.active_parameters:,} active per token)")
    if record.tokens_per_second:
        table.add_row("speed", f"{record.tokens_per_second:,.0f} tokens/s")
    if record.skipped_steps:
        table.add_row("skipped", f"{record.skipped_steps} steps, for a spike of the gradient norm")
    if record.status == "partial":
        table.add_row("partial", str(record.reason))
    elif record.reason is not None:
        table.add_row("early", record.reason)
    table.add_row("wall time", f"{record.wall_seconds:.1f} s on {record.device}")
    table.add_row("folder", shown(folder))
    further = Text(f"tensorboard --logdir {shown(folder.parent)}\nmodgpt generate --run {shown(folder)}")
    names = " + ".join(record.choices[part] for part in ("attention", "ffn", "norm", "pos"))
    console = Output(highlight=False, soft_wrap=not Output().is_terminal)
    console.print(
        Group(
            Panel(table, title=names, box=box.ROUNDED, expand=False),
            Panel(Text(sample.strip("\n")), title="sample", box=box.ROUNDED, expand=False),
            Text("look further", style="bold"),
            further,
        )
    )


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
