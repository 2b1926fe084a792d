"""Write a learning-rate range test: find_lr.csv and find_lr.png."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from modgpt.compare.style import COLOURS, STYLE
from modgpt.files import replaced
from modgpt.training.rate_range import RateRange


def write_rates(test: RateRange, folder: Path) -> list[Path]:
    """Write table and picture into a folder, in the place of earlier ones; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / "find_lr.csv", folder / "find_lr.png"
    rows = zip(test.rates, test.losses, test.smoothed, strict=True)
    with replaced(table) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "lr", "loss", "smoothed_loss"))
        writer.writerows((step, *row) for step, row in enumerate(rows, start=1))
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(6.5, 4))
        ax.plot(
            test.rates, test.losses, color=COLOURS[0], alpha=0.3, linewidth=1, label="loss of a step"
        )
        ax.plot(test.rates, test.smoothed, color=COLOURS[0], linewidth=1.6, label="smoothed")
        for rate, name, colour in (
            (test.suggestion, "steepest", COLOURS[1]),
            (test.lowest, "lowest", COLOURS[2]),
        ):
            ax.axvline(rate, color=colour, linestyle=":", linewidth=1.4, label=f"{name}: {rate:.2g}")
        low, high = min(test.smoothed), max(test.smoothed)
        ax.set_ylim(low - 0.2 * (high - low), high + 0.2 * (high - low))  # single losses may leave it
        ax.set_xscale("log")
        ax.set_xlabel("optimizer.lr")
        ax.set_ylabel("training loss, nats per token")
        ax.legend(fontsize=8)
        with replaced(picture) as beside:
            figure.savefig(beside, format="png")
        plt.close(figure)
    return [table, picture]
