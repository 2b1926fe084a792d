"""Figures of finished runs."""

from __future__ import annotations

import math
from statistics import mean

import matplotlib
import matplotlib.pyplot as plt
from drawing.runs import Group, family, option_name
from drawing.untrained import VOCABULARY, show_weights
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modgpt.compare.style import BASELINE, COLOURS
from modgpt.inference.play.contributions import contributions, inputs_of
from modgpt.runs.folder import load_run

LINE = "ROMEO:\nBut, soft! what light thr"


def curves(part: str, groups: dict[str, Group]) -> Figure:
    """Validation loss of a family's options: over the steps, and after the last one."""
    members = family(groups, part)
    figure, (lines, dots) = plt.subplots(1, 2, figsize=(9, 3.5), width_ratios=(1.25, 1))
    for row, (group, colour) in enumerate(zip(members, (BASELINE, *COLOURS), strict=False)):
        series = [run.series("val/loss") for run in group.runs]
        for steps, values in series:
            lines.plot(steps, values, color=colour, linewidth=0.6, alpha=0.5)
        steps = series[0][0]
        means = [mean(values) for values in zip(*(values for _, values in series), strict=True)]
        lines.plot(steps, means, color=colour, linewidth=1.8, label=option_name(group, part))
        dots.plot(group.losses, [row] * len(group.runs), "o", color=colour, alpha=0.75, markersize=6)
        dots.plot([group.mean], [row], "|", color=colour, markersize=22, markeredgewidth=2)
    lines.set(
        xlabel="optimizer step",
        ylabel="val/loss (nats per character)",
        title="mean (thick), seeds (thin)",
    )
    lines.legend(fontsize=8)
    dots.set(xlabel="val/loss (nats per character)", title="last step: seeds (dots), mean (bar)")
    dots.set_yticks(range(len(members)), [wrapped(option_name(g, part)) for g in members], fontsize=9)
    dots.set_ylim(len(members) - 0.5, -0.5)
    low, high = dots.get_xlim()
    middle, half = (low + high) / 2, max((high - low) / 2, 0.03)  # do not magnify what is small
    dots.set_xlim(middle - half, middle + half)
    dots.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def wrapped(name: str) -> str:
    return name.replace(" (default)", "\n(default)").replace("norm@attention.", "norm@attention.\n")


def default_run(groups: dict[str, Group]) -> Figure:
    """One training of the default composition: losses, learning rate, gradient norm."""
    run = groups["default"].runs[0]
    figure, (losses, norms) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1.3, 1))
    losses.plot(
        *run.series("train/loss"), color=COLOURS[0], linewidth=0.9, label="train/loss, one batch"
    )
    losses.plot(
        *run.series("val/loss"),
        "o-",
        color=BASELINE,
        markersize=4,
        label="val/loss, all 111,539 targets",
    )
    losses.axhline(math.log(VOCABULARY), color="#999999", linestyle=":")
    losses.text(700, math.log(VOCABULARY) - 0.04, "ln 65: guessing", ha="right", va="top", fontsize=9)
    losses.set(xlabel="optimizer step", ylabel="loss (nats per character)", ylim=(1.3, 4.4))
    losses.legend(loc="center right")
    norms.plot(*run.series("train/grad_norm"), color=COLOURS[1], linewidth=0.9)
    norms.axhline(1, color="#999999", linestyle=":")
    norms.set(xlabel="optimizer step", ylabel="gradient norm before clipping", ylim=(0, None))
    norms.text(700, 1.02, "gradient_clip_val=1", ha="right", va="bottom", fontsize=9)
    return figure


def expert_load(groups: dict[str, Group]) -> Figure:
    """How evenly the router of ffn=moe spreads the tokens, over training."""
    run = groups["ffn=moe"].runs[0]
    figure, (load, losses) = plt.subplots(1, 2, figsize=(9, 3))
    for expert in range(8):
        steps, values = run.series(f"expert_load/{expert}")
        load.plot(
            steps, [100 * v for v in values], linewidth=0.9, color=matplotlib.colormaps["tab10"](expert)
        )
    load.axhline(100 / 8, color=BASELINE, linestyle=":")
    load.set(xlabel="optimizer step", ylabel="share of assignments (%)", ylim=(0, None),
             title="the eight experts, mean over layers")  # fmt: skip
    losses.plot(*run.series("aux/balance_loss"), color=COLOURS[0], label="balance loss (1 = uniform)")
    losses.plot(*run.series("aux/router_z_loss"), color=COLOURS[1], label="router z-loss (nats²)")
    losses.set(xlabel="optimizer step", ylabel="mean over layers", ylim=(0, None),
               title="auxiliary losses, before their coefficients")  # fmt: skip
    losses.legend()
    return figure


def trained_attention(groups: dict[str, Group]) -> Figure:
    """Attention weights of a trained default model's third layer on one line of the corpus."""
    run = load_run(groups["default"].runs[0].path, "last")
    model, tokens, layer = run.model, run.tokenizer.encode(LINE)[None], 2
    attention = model.blocks[layer].attention
    [x] = inputs_of(model, [attention], tokens)
    weights = contributions(attention, x, model.pos)
    figure, axes = plt.subplots(2, 2, figsize=(9, 8.6), sharex=True, sharey=True)
    names = ["¶" if c == "\n" else "␣" if c == " " else c for c in LINE]
    images = [show_weights(axis, weights[head].sqrt()) for head, axis in enumerate(axes.flat)]
    for head, axis in enumerate(axes.flat):
        axis.set_xticks(range(len(LINE)), names, fontsize=8, family="monospace")
        axis.set_yticks(range(len(LINE)), names, fontsize=8, family="monospace")
        axis.tick_params(length=0, pad=2, labelbottom=True, labelleft=True)
        axis.set_title(f"layer {layer + 1}, head {head + 1}")
    bar = figure.colorbar(images[0], ax=axes, label="attention weight", fraction=0.02, shrink=0.6)
    bar.set_ticks([0, 0.1**0.5, 0.5, 0.5**0.5, 1], labels=["0", "0.1", "0.25", "0.5", "1"])
    figure.supxlabel("key (the character looked at)", fontsize=10)
    figure.supylabel("query (the character that looks)", fontsize=10)
    return figure
