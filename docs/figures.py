"""Draw the figures of the documentation.

python docs/figures.py                                       figures that need no trained model
python docs/figures.py --runs outputs/runs outputs/sweeps/s  those, and the ones that show these runs
python docs/figures.py --only rope alibi                     some figures, by the names of their files
"""

from __future__ import annotations

import argparse
import inspect
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from drawing.runs import Group, read_runs
from drawing.trained import curves, default_run, expert_load, trained_attention
from drawing.untrained import (
    activations,
    alibi,
    attention_cost,
    attention_patterns,
    norm_geometry,
    parameters,
    residual_growth,
    rope,
    schedule,
    sinusoidal,
)
from matplotlib.figure import Figure
from PIL import Image

from modgpt.compare.style import STYLE

FOLDER = Path(__file__).parent / "figures"

UNTRAINED = [attention_patterns, attention_cost, activations, norm_geometry, residual_growth,
             sinusoidal, rope, alibi, parameters, schedule]  # fmt: skip
TRAINED: dict[str, Callable[[dict[str, Group]], Figure]] = {
    "curves_pos": partial(curves, "pos"),
    "default_run": default_run,
    "expert_load": expert_load,
    "trained_attention": trained_attention,
}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours: it is a third of the size of one of all colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(main)))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="folders of finished runs")
    parser.add_argument("--only", nargs="+", help="the names of some figures")
    arguments = parser.parse_args()
    groups = read_runs(arguments.runs)
    if arguments.runs and "default" not in groups:
        parser.error("no finished run of the default composition in these folders")
    torch.set_num_threads(1)
    todo: dict[str, Callable[[], Figure]] = {make.__name__: make for make in UNTRAINED}
    if groups:
        todo |= {name: partial(make, groups) for name, make in TRAINED.items()}
        if "ffn=moe" not in groups:
            del todo["expert_load"]
    if unknown := set(arguments.only or ()) - set(todo):
        parser.error(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(todo)}")
    FOLDER.mkdir(exist_ok=True)
    for name in arguments.only or todo:
        with plt.rc_context(STYLE):
            figure = todo[name]()
            save(figure, FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
