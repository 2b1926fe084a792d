"""What a person sees at the end of a training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def print_summary(folder: Path, result: dict[str, Any], sample: str) -> None:
    """The result in a few lines, a sample of text, and how to look further."""
    loss, best, accuracy = (
        result[name] for name in ("final_val_loss", "best_val_loss", "final_val_accuracy")
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    bits = loss / math.log(2) * result["tokens_per_character"]
    equal = "" if accuracy is not None else f" = {bits:.4f} bits per character"
    table.add_row("validation loss", f"{loss:.4f} nats{equal}")
    if result["best_step"] != result["final_step"]:
        table.add_row("best", f"{best:.4f} nats at step {result['best_step']}")
    if accuracy is not None:
        table.add_row("accuracy", f"{accuracy:.2%}")
    else:
        table.add_row("perplexity", f"{math.exp(loss):.3f}")
    table.add_row(
        "parameters", f"{result['parameters']:,} ({result['active_parameters']:,} active per token)"
    )
    if result["tokens_per_second"]:
        table.add_row("speed", f"{result['tokens_per_second']:,.0f} tokens/s")
    table.add_row("wall time", f"{result['wall_seconds']:.1f} s on {result['device']}")
    table.add_row("folder", shown(folder))
    further = Text(f"tensorboard --logdir {shown(folder.parent)}\nmodgpt generate --run {shown(folder)}")
    names = " + ".join(result["choices"][part] for part in ("attention", "ffn", "norm", "pos"))
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
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
