"""`report.html`: one page with the whole comparison, which opens without a network."""

from __future__ import annotations

import shlex
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import vl_convert
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from modgpt.compare.analysis import Statistics
from modgpt.compare.columns import FINISHED, NUMBERS, RUNNING
from modgpt.compare.comparison import Comparison
from modgpt.compare.counting import several
from modgpt.compare.difference_tables import (
    TEXTS_NOTE,
    budget_rows,
    effect_rows,
    part_rows,
    task_rows,
)
from modgpt.compare.evidence import evidence
from modgpt.compare.figures.costs import front_rows
from modgpt.compare.figures.figure import Figure
from modgpt.compare.findings import Name, findings
from modgpt.compare.load import Results
from modgpt.compare.report.links import SAMPLE, job_links
from modgpt.compare.report.overview import overview
from modgpt.compare.report.payload import as_json, payload
from modgpt.compare.tables import (
    LABELS,
    cell_rows,
    interaction_rows,
    job_columns,
    problem_rows,
    ranked,
    records,
    shared,
    shown,
    tuning_rows,
    unfinished_rows,
)
from modgpt.files import replaced
from modgpt.text import visible

HERE = Path(__file__).parent
SCRIPTS = ("tables.js", "plots.js", "refresh.js", "report.js")


def write_report(
    found: Comparison, figures: list[Figure], path: Path, refresh: float | None = None
) -> None:
    """Write the page.

    Args:
        found: the comparison.
        figures: as `figures.drawn.figures` returns them.
        path: the file.
        refresh: seconds after which the open page loads itself again; None for never.
    """
    results, statistics, words = found.results, found.statistics, found.words
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True)
    environment.globals["shown"] = shown
    environment.globals["links_of"] = lambda row: job_links(row["path"], path)
    environment.tests["name"] = lambda piece: isinstance(piece, Name)
    made = datetime.now().astimezone()
    rows = ranked(results.table).reset_index(drop=True)
    page = environment.get_template("report.html.j2").render(
        title=" · ".join(visible(folder.resolve().name) for folder in results.folders[:3]),
        made=f"{made:%Y-%m-%d %H:%M %Z}",
        counts=[(status, int(n)) for status, n in results.table["status"].value_counts().items()],
        finished=FINISHED,
        provisional=provisional(results),
        words=words,
        shared=shared(results),
        factors=filters(results),
        columns=[(c, LABELS.get(c, c), c in NUMBERS) for c in job_columns(results)],
        rows=records(rows),
        cells=cell_rows(statistics),
        findings=findings(statistics),
        evidence=evidence(results, statistics),
        overview=overview(statistics),
        delta=statistics.delta,
        unit=statistics.unit,
        confidence=statistics.confidence,
        samples=any((Path(path) / SAMPLE).is_file() for path in results.table["path"]),
        tensorboard=shlex.join(["tensorboard", "--logdir", *map(visible, results.folders[:1])]),
        effects=effect_rows(statistics, found.texts),
        texts_note=TEXTS_NOTE if found.texts else "",
        budgets=budget_rows(statistics),
        tasks=task_rows(statistics),
        parts=part_rows(statistics),
        noisy=statistics.noise.sigma is not None,
        tuned=tuning_rows(results),
        interactions=interaction_rows(statistics),
        maps=pair_tables(statistics),
        figures={figure.name: figure for figure in figures},
        front=front_rows(statistics) if len(statistics.cells) else [],
        unfinished=unfinished_rows(results),
        problems=problem_rows(results),
        data=as_json(payload(found, rows, figures) | {"made": made.timestamp(), "refresh": refresh}),
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        js=Markup(script()),
        vega=Markup(vega()),
    )
    with replaced(path) as beside:
        beside.write_text(page, encoding="utf-8")


def script() -> str:
    """The page's own script: its files share one scope."""
    files = ((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{"".join(files)}}})();\n'


@cache
def vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script, from the installed package."""
    script = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]: it has a default
    assert "</script" not in script.lower()
    return script


def provisional(results: Results) -> str:
    """Why the verdicts may still change; empty where they are final."""
    running = int((results.table["status"] == RUNNING).sum())
    if running:
        return f"{several(running, 'job')} still {'runs' if running == 1 else 'run'}"
    return "" if results.looks.complete else "the sweep will add seeds to what is undecided"


def filters(results: Results) -> list[tuple[str, list[str]]]:
    """What the jobs can be filtered by: the factors' options and the status."""
    states = sorted(results.table["status"].unique())
    found = [(factor.name, list(factor.levels)) for factor in results.factors]
    return [*found, ("status", states)] if len(states) > 1 else found


def pair_tables(statistics: Statistics) -> list[dict[str, Any]]:
    """Mean losses of each pair of factors, each with its place between the smallest and the largest."""
    maps = []
    crossed = statistics.interactions.set_index(["a", "b"])["df"].to_dict()
    for (a, b), (mean, count) in statistics.maps.items():
        low, high = np.nanmin(mean.to_numpy()), np.nanmax(mean.to_numpy())
        lines = []
        for (option, values), (_, counts) in zip(mean.iterrows(), count.iterrows(), strict=True):
            line = []
            for value, n in zip(values, counts, strict=True):
                place = (value - low) / (high - low) if high > low else 0.0
                line.append({"value": value, "place": place, "n": int(n), "best": value == low})
            lines.append((option, line))
        met = bool(crossed[a, b] > 0)
        maps.append({"a": a, "b": b, "options": list(mean.columns), "lines": lines, "crossed": met})
    return maps
