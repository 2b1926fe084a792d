"""A comparison from folders to files: read, analyse, write."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from modgpt.errors import UserError

NEEDED = ("pandas", "scipy", "statsmodels", "plotly", "jinja2", "matplotlib")


def compare(
    folders: Sequence[Path],
    out: Path | None = None,
    console: Console | None = None,
    figures: str | None = None,
    best: Sequence[str] = (),
) -> Path:
    """Write `results.csv`, `results.md` and `report.html`, and print the top of the table.

    Args:
        folders: of sweeps or of single runs, searched downwards.
        out: where to write; None for the first of the folders.
        console: where to print; None for the standard output.
        figures: also draw them, in this format: png, svg or pdf.
        best: keys of which every combination is compared with its best value alone (`best_of`); the CSV
            has all runs.

    Returns:
        The report.

    Raises:
        UserError: a package is missing, there is no run, `best` is not what they differ in, or `out`
            cannot be written to.
    """
    check_packages()
    # Only now: training does not need these packages.
    from modgpt.compare.best import best_of
    from modgpt.compare.load import load_results
    from modgpt.compare.report.page import write_report
    from modgpt.compare.sentences import describe
    from modgpt.compare.statistics import analyse
    from modgpt.compare.tables import print_top, write_csv, write_markdown

    console = console or Console()
    everything = load_results(folders)
    results = best_of(everything, best) if best else everything
    statistics = analyse(results)
    words = describe(results, statistics)
    out = out or folders[0]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(everything, out / "results.csv")
        write_markdown(results, statistics, words, out / "results.md")
        write_report(results, statistics, words, out / "report.html")
        if figures is not None:
            from modgpt.compare.figures import write_figures

            write_figures(results, statistics, out, figures)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from error
    print_top(console, results, statistics, words)
    console.print(f"{out / 'report.html'}", style="dim", highlight=False, soft_wrap=True)
    return out / "report.html"


def check_packages() -> None:
    """Refuse to begin without the packages of the extra `report`.

    Raises:
        UserError: one is missing; with the command that installs them.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"comparing needs {', '.join(missing)}: install with python -m pip install -e '.[report]'"
        )
