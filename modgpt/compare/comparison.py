"""A comparison from folders to files: read, analyse, write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from modgpt.console import Output
from modgpt.errors import UserError
from modgpt.text import visible

if TYPE_CHECKING:
    from modgpt.compare.analysis import Statistics
    from modgpt.compare.curves import Curves
    from modgpt.compare.load import Results
    from modgpt.compare.other_texts import OverTexts
    from modgpt.compare.sentences import Words

NEEDED = ("pandas", "scipy", "statsmodels", "arch", "altair", "vl_convert", "jinja2", "matplotlib")


@dataclass(frozen=True)
class Comparison:
    """Runs with their statistics.

    Attributes:
        everything: all runs that could be read.
        results: those that are compared; without the runs that `best` leaves out.
        statistics, words: of `results`.
        texts: the differences over other validation texts.
        curves: of all runs, by the paths of their folders.
    """

    everything: Results
    results: Results
    statistics: Statistics
    words: Words
    texts: OverTexts
    curves: dict[str, Curves]


def compare(
    folders: Sequence[Path],
    out: Path | None = None,
    console: Console | None = None,
    figures: str | None = None,
    best: Sequence[str] = (),
    same_within: float | None = None,
    baselines: Sequence[str] = (),
) -> Path:
    """Write `results.csv`, `results.md` and `report.html`, and print a summary.

    Args:
        folders, best, same_within, baselines: as for `read_comparison`.
        out: where to write; None for the first of the folders.
        console: where to print; None for the standard output.
        figures: also write the figures, in this format: png, svg or pdf.

    Returns:
        The report.

    Raises:
        UserError: as `read_comparison`, or `out` cannot be written to.
    """
    check_packages()
    out = out_folder(folders, out)
    found = read_comparison(folders, best, same_within, baselines)
    report = write_comparison(found, out, figures)
    print_comparison(console, found, report)
    return report


def read_comparison(
    folders: Sequence[Path],
    best: Sequence[str] = (),
    same_within: float | None = None,
    baselines: Sequence[str] = (),
) -> Comparison:
    """Read the runs and analyse them.

    Args:
        folders: of sweeps or of single runs, searched downwards.
        best: keys of which every combination is compared with its best value only (`best_of`).
        same_within: differences below this many nats per token count as the same; None for the default,
            or for that of a sweep that adds seeds.
        baselines: `factor=option`, each another baseline of a factor (`with_baselines`).

    Raises:
        UserError: there is no run, or the runs do not differ in a key of `best` or of `baselines`.
    """
    # Imported here: training does not need the packages of the comparison.
    from modgpt.compare.analysis import analyse
    from modgpt.compare.best import best_of
    from modgpt.compare.curves import read_curves
    from modgpt.compare.factors import with_baselines
    from modgpt.compare.folders import Problem
    from modgpt.compare.load import load_results
    from modgpt.compare.other_texts import over_texts
    from modgpt.compare.sentences import describe
    from modgpt.compare.units import curves_in_unit

    everything = with_baselines(load_results(folders), baselines)
    table = everything.table
    curves = {
        path: curves_in_unit(read_curves(Path(path)), per_byte, everything.unit)
        for path, per_byte in zip(table["path"], table["tokens_per_byte"], strict=True)
    }
    everything.problems.extend(
        Problem(Path(path), f"{found.problem}; the run counts, its curves are missing")
        for path, found in curves.items()
        if found.problem
    )
    results = best_of(everything, best) if best else everything
    looks = results.looks
    delta = looks.same_within if same_within is None else same_within
    statistics = analyse(results, delta, looks.confidence)
    texts = over_texts(results, statistics)
    words = describe(results, statistics, texts)
    return Comparison(everything, results, statistics, words, texts, curves)


def out_folder(folders: Sequence[Path], out: Path | None) -> Path:
    """Where to write: `out`, else the first of the folders.

    Raises:
        UserError: it is a file.
    """
    found = out or next((folder for folder in folders if folder.is_dir()), folders[0])
    if out and os.path.isfile(out):  # a name that is too long is refused when it is written to
        raise UserError(f"cannot write to {visible(out)}: it is a file; name a folder with --out")
    return found


def write_comparison(
    found: Comparison, out: Path, figures: str | None = None, refresh: float | None = None
) -> Path:
    """Write all files; returns the report.

    Args:
        found: the comparison.
        out: the folder.
        figures: also write the figures, in this format.
        refresh: seconds after which the open page loads itself again; None for never.

    Raises:
        UserError: `out` cannot be written to.
    """
    from modgpt.compare.figures.drawn import figures as draw
    from modgpt.compare.figures.drawn import write_figures
    from modgpt.compare.report.page import write_report
    from modgpt.compare.results_files import write_csv, write_markdown

    drawn = draw(found.results, found.statistics, found.curves)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(found.everything, out / "results.csv")
        write_markdown(found, out / "results.md")
        write_report(found, drawn, out / "report.html", refresh)
        if figures is not None:
            write_figures(drawn, out, figures)
    except OSError as error:
        raise UserError(f"cannot write to {visible(out)}: {error.strerror}") from error
    return out / "report.html"


def print_comparison(console: Console | None, found: Comparison, report: Path) -> None:
    """Print the summary and the path of the report."""
    from modgpt.compare.terminal import print_summary

    console = console or Output()
    print_summary(console, found.results, found.statistics, found.words)
    console.print(visible(report), style="dim", markup=False, highlight=False, soft_wrap=True)


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
