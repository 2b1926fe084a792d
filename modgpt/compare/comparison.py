"""A comparison from folders to files: read, analyse, write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from modgpt.console import Output
from modgpt.errors import UserError
from modgpt.text import visible

NEEDED = ("pandas", "scipy", "statsmodels", "arch", "altair", "vl_convert", "jinja2", "matplotlib")


def compare(
    folders: Sequence[Path],
    out: Path | None = None,
    console: Console | None = None,
    figures: str | None = None,
    best: Sequence[str] = (),
    same_within: float | None = None,
) -> Path:
    """Write `results.csv`, `results.md` and `report.html`, and print a summary.

    Args:
        folders: of sweeps or of single runs, searched downwards.
        out: where to write; None for the first of the folders.
        console: where to print; None for the standard output.
        figures: also write the figures, in this format: png, svg or pdf.
        best: keys of which every combination is compared with its best value only (`best_of`); the CSV
            has all runs.
        same_within: differences below this many nats per token count as the same; None for the default.

    Returns:
        The report.

    Raises:
        UserError: a package is missing, there is no run, the runs do not differ in a key of `best`, or
            `out` cannot be written to.
    """
    check_packages()
    # Imported here: training does not need these packages.
    from modgpt.compare.best import best_of
    from modgpt.compare.curves import read_curves
    from modgpt.compare.figures.drawn import figures as draw
    from modgpt.compare.figures.drawn import write_figures
    from modgpt.compare.folders import Problem
    from modgpt.compare.load import load_results
    from modgpt.compare.report.page import write_report
    from modgpt.compare.results_files import write_csv, write_markdown
    from modgpt.compare.sentences import describe
    from modgpt.compare.statistics import analyse
    from modgpt.compare.terminal import print_summary
    from modgpt.statistics.verdict import DELTA

    console = console or Output()
    everything = load_results(folders)
    out = out or next(folder for folder in folders if folder.is_dir())
    if os.path.isfile(out):  # a name that is too long is refused below
        raise UserError(f"cannot write to {visible(out)}: it is a file; name a folder with --out")
    curves = {path: read_curves(Path(path)) for path in everything.table["path"]}
    everything.problems.extend(
        Problem(Path(path), f"{found.problem}; the run counts, its curves are missing")
        for path, found in curves.items()
        if found.problem
    )
    results = best_of(everything, best) if best else everything
    statistics = analyse(results, DELTA if same_within is None else same_within)
    words = describe(results, statistics)
    drawn = draw(results, statistics, curves)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(everything, out / "results.csv")
        write_markdown(results, statistics, words, out / "results.md")
        write_report(results, statistics, words, curves, drawn, out / "report.html")
        if figures is not None:
            write_figures(drawn, out, figures)
    except OSError as error:
        raise UserError(f"cannot write to {visible(out)}: {error.strerror}") from error
    print_summary(console, results, statistics, words)
    console.print(
        visible(out / "report.html"), style="dim", markup=False, highlight=False, soft_wrap=True
    )
    return out / "report.html"


def check_packages() -> None:
    """Check that the packages of the extra `report` are installed.

    Raises:
        UserError: a package is missing; the message has the command that installs it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"comparing needs {', '.join(missing)}: install with python -m pip install -e '.[report]'"
        )
