"""`report.html`: one page with everything in it, that opens without a network."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from modgpt.compare.curves import Curves, Points, read_curves, thinned
from modgpt.compare.load import FAILED, FINISHED, LOSS, NUMBERS, Results, tokens_per_step
from modgpt.compare.sentences import Words
from modgpt.compare.statistics import COSTS, Statistics
from modgpt.compare.tables import (
    LABELS,
    cell_rows,
    effect_rows,
    interaction_rows,
    job_columns,
    ranked,
    records,
    shared,
    shown,
    tuning_rows,
)
from modgpt.runs.files import replaced

HERE = Path(__file__).parent
# Points of all curves of one kind together: it bounds the page's size however many runs there are.
MOST_POINTS, FEWEST_PER_CURVE, MOST_PER_CURVE = 60_000, 16, 100


def write_report(results: Results, statistics: Statistics, words: Words, path: Path) -> None:
    """Write the page."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True)
    environment.globals["shown"] = shown
    rows = ranked(results.table).reset_index(drop=True)
    page = environment.get_template("report.html.j2").render(
        title=" · ".join(folder.resolve().name for folder in results.folders[:3]),
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        counts=[(status, int(n)) for status, n in results.table["status"].value_counts().items()],
        words=words,
        shared=shared(results),
        factors=filters(results),
        columns=[(c, LABELS.get(c, c), c in NUMBERS or c == "seed") for c in job_columns(results)],
        rows=records(rows),
        cells=cell_rows(statistics),
        effects=effect_rows(statistics),
        noisy=statistics.noise.sigma is not None,
        tuned=tuning_rows(results),
        interactions=interaction_rows(statistics),
        maps=heat_maps(statistics),
        failures=failures(rows),
        data=as_json(payload(results, statistics, rows)),
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
    )
    with replaced(path) as beside:
        beside.write_text(page, encoding="utf-8")


def filters(results: Results) -> list[tuple[str, list[str]]]:
    """What the jobs can be filtered by: the factors' options and the status."""
    states = sorted(results.table["status"].unique())
    found = [(factor.name, list(factor.levels)) for factor in results.factors]
    return [*found, ("status", states)] if len(states) > 1 else found


def failures(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The jobs that have no final loss, with the reasons; failed ones first."""
    lost = rows[rows["status"] != FINISHED]
    order = lost["status"].map({FAILED: 0, "SKIPPED": 2}).fillna(1)
    return records(lost.assign(order=order).sort_values("order", kind="stable"))


def heat_maps(statistics: Statistics) -> list[dict[str, Any]]:
    """Per pair of factors the mean losses, each with its place between the least and the largest."""
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


def payload(results: Results, statistics: Statistics, rows: pd.DataFrame) -> dict[str, Any]:
    """What the page's plots are drawn from."""
    per_curve = max(FEWEST_PER_CURVE, min(MOST_PER_CURVE, MOST_POINTS // len(rows)))
    names = [factor.name for factor in results.factors]
    cells = {tuple(c[n] for n in names): i for i, c in enumerate(records(statistics.cells))}
    runs = []
    for row in records(rows):
        curves = read_curves(Path(row["path"]))
        finished = row["status"] == FINISHED
        runs.append(
            {
                "name": row["run"],
                "status": row["status"],
                "choices": {n: row[n] for n in names} | {"status": row["status"]},
                "cell": cells[tuple(row[n] for n in names)] if finished else None,
                "loss": row[LOSS],
                "per_step": tokens_per_step(row) if curves.val or curves.train else None,
                "speed": speed(row, curves),
                "costs": {c: row[c] for c in COSTS},
                "val": packed(thinned(curves.val, per_curve)),
                "train": packed(thinned(curves.train, per_curve)),
                "load": load(curves, per_curve),
            }
        )
    return {
        "factors": [{"name": f.name, "levels": list(f.levels)} for f in results.factors],
        "effects": effects(statistics),
        "runs": runs,
    }


def effects(statistics: Statistics) -> list[dict[str, Any]]:
    wanted = ["factor", "option", "baseline", "verdict"]
    for kind in ("deviation", "difference"):
        wanted += [kind, f"{kind}_low", f"{kind}_high"]
    return records(statistics.effects[wanted]) if len(statistics.effects) else []


def packed(points: Points) -> list[list[Any]]:
    """[steps, values], the values to five significant digits."""
    return [[step for step, _ in points], [float(f"{value:.5g}") for _, value in points]]


def load(curves: Curves, most: int) -> list[list[list[Any]]] | None:
    """Per expert its load over the steps; None for a run without experts."""
    most = max(8, most // 3)
    return [packed(thinned(points, most)) for points in curves.load.values()] or None


def speed(row: dict[str, Any], curves: Curves) -> float | None:
    """Tokens per second: as measured over the whole run, else the median of what was logged."""
    if row["tokens_per_second"] > 0:
        return row["tokens_per_second"]
    logged = [value for _, value in curves.tokens_per_second]
    return float(np.median(logged)) if logged else None


def as_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(plain_json(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def plain_json(value: Any) -> Any:
    """Missing and non-finite numbers as null, NumPy's types as Python's."""
    if isinstance(value, dict):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return int(value) if isinstance(value, float) and value == int(value) else value
