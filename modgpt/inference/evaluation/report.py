"""Write an evaluation: two CSV files and two figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from modgpt.compare.style import STYLE
from modgpt.files import replaced
from modgpt.inference.evaluation.evaluate import Evaluation
from modgpt.inference.evaluation.figures import draw_by_length, draw_by_position
from modgpt.inference.evaluation.tables import length_rows, position_rows, write_csv


def write_report(evaluations: Sequence[Evaluation], folder: Path) -> list[Path]:
    """Write `loss_by_length` and `loss_by_position`, each as CSV and PNG; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"loss_by_length": length_rows, "loss_by_position": position_rows}
    figures = {"loss_by_length": draw_by_length, "loss_by_position": draw_by_position}
    written = []
    for name, rows_of in tables.items():
        written.append(folder / f"{name}.csv")
        write_csv(rows_of(evaluations), written[-1])
    with plt.rc_context(STYLE):
        for name, draw in figures.items():
            figure = draw(evaluations)
            written.append(folder / f"{name}.png")
            with replaced(written[-1]) as beside:
                figure.savefig(beside, format="png")
            plt.close(figure)
    return written
