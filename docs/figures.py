"""Every figure and table of the documentation, made by the code it documents.

python docs/figures.py                                figures that need no trained model
python docs/figures.py --runs outputs/runs            those, and the ones made from finished runs
python docs/figures.py --runs outputs/runs --tables   the tables, as Markdown
python docs/figures.py --only rope alibi              some figures, by the names of their files
"""

from __future__ import annotations

import argparse
import csv
import inspect
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, variance
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor, nn

from modgpt.attention.base import Attention
from modgpt.attention.flash import FlashAttention
from modgpt.attention.linear import LinearAttention
from modgpt.attention.local_window import LocalWindowAttention
from modgpt.build import build_model
from modgpt.composition import PARTS, compose
from modgpt.cost import cost_of, count_parameters
from modgpt.data.shakespeare import prepare_shakespeare
from modgpt.model import GPT
from modgpt.norm.scalenorm import ScaleNorm
from modgpt.optimizer import adamw
from modgpt.pos.alibi import AlibiPosition, alibi_slopes
from modgpt.pos.base import Position
from modgpt.pos.rope import RotaryPosition
from modgpt.pos.sinusoidal import SinusoidalPosition
from modgpt.run import load_run
from modgpt.schedule import constant, cosine
from modgpt.sweep.figures import BASELINE, COLOURS, STYLE

FOLDER = Path(__file__).parent / "figures"
DATA = Path(__file__).parents[1] / "data"
VOCABULARY = 65  # characters of Tiny Shakespeare
LINE = "ROMEO:\nBut, soft! what light thr"  # 32 characters: as many as a head of model=mini is wide


# ------------------------------------------------------------------ figures that need no training


def attention_patterns() -> Figure:
    """How much of each key reaches each query when all scores are equal: what the structure allows."""
    n_tokens = 32
    sizes = {"d_model": 128, "n_heads": 4, "block_size": 64, "init_std": 0.02}
    none, alibi = Position(**sizes), AlibiPosition(**sizes)
    build: dict[str, Any] = {"d_model": 128, "n_heads": 4}
    panels: list[tuple[str, Attention, Position]] = [
        ("flash", FlashAttention(**build), none),
        ("local_window, W = 8", LocalWindowAttention(**build, window=8), none),
        ("linear", LinearAttention(**build), none),
        ("linear + alibi, head 1", LinearAttention(**build), alibi),
    ]
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), sharey=True)
    zeros = torch.zeros(1, 4, n_tokens, n_tokens)
    images = []
    for axis, (title, attention, pos) in zip(axes, panels, strict=True):
        weights = probe(attention, zeros, zeros, pos)[0]
        images.append(show_weights(axis, weights / weights.amax(-1, keepdim=True)))
        axis.set(title=title, xlabel="key position j")
    axes[0].set_ylabel("query position i")
    figure.colorbar(images[0], ax=axes, label="weight / largest in row", fraction=0.02, shrink=0.8)
    return figure


def probe(attention: Attention, q: Tensor, k: Tensor, pos: Position) -> Tensor:
    """Weights (H,T,T) of each key in each query's output, read off by running the module.

    The values are one-hot, key j carrying the unit vector j, so that the output of query i is its row of
    weights. That needs D = T.
    """
    n_heads, n_tokens, width = q.shape[1:]
    assert n_tokens == width == attention.head_dim
    values = torch.eye(n_tokens).expand(1, n_heads, -1, -1)
    y, _ = attention.eval().mix(q, k, values, pos, torch.arange(n_tokens), None)
    return y[0]


def show_weights(axis: Axes, weights: Tensor) -> Any:
    axis.grid(False)
    shown = weights.masked_fill(weights == 0, math.nan)  # white: never seen
    return axis.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")


def attention_cost() -> Figure:
    """FLOPs of mixing and size of the decoding state against length, as the modules declare them."""
    options: dict[str, Attention] = {
        "flash": FlashAttention(d_model=128, n_heads=4),
        "flash, n_kv_heads=1": FlashAttention(d_model=128, n_heads=4, n_kv_heads=1),
        "local_window, W = 32": LocalWindowAttention(d_model=128, n_heads=4),
        "linear": LinearAttention(d_model=128, n_heads=4),
    }
    lengths = [2**n for n in range(3, 15)]
    figure, (work, memory) = plt.subplots(1, 2, figsize=(9, 3.4))
    for (name, attention), colour in zip(options.items(), (BASELINE, *COLOURS), strict=False):
        dashes = "--" if "kv" in name else "-"
        flops = [attention.mixing_flops(n) for n in lengths]
        work.loglog(lengths, flops, dashes, base=2, color=colour, label=name)
        state = [4 * attention.state_size(n) for n in lengths]
        memory.loglog(lengths, state, dashes, base=2, color=colour, label=name)
    work.set(
        xlabel="sequence length T (tokens)",
        ylabel="mixing (FLOPs per token, forward)",
        title="work per token of one layer (C = 128, H = 4, D = 32)",
    )
    memory.set(
        xlabel="tokens read so far",
        ylabel="state (bytes per sequence, fp32)",
        title="memory to decode the next token, one layer",
    )
    for axis in (work, memory):
        axis.set_yscale("log", base=10)
        axis.legend()
    return figure


def activations() -> Figure:
    """The nonlinearities of the feed-forward layers."""
    x = torch.linspace(-4, 4, 401)
    figure, (axis, gate) = plt.subplots(1, 2, figsize=(9, 3.2))
    axis.plot(x, F.relu(x), color="#999999", label="ReLU (the original)")
    axis.plot(x, F.gelu(x), label="GELU (ffn=standard)")
    axis.plot(x, F.silu(x), label="SiLU (ffn=swiglu)")
    axis.set(xlabel="input", ylabel="output", title="elementwise nonlinearities", ylim=(-0.6, 4))
    axis.legend()
    for up, colour in zip((-1.0, -0.5, 0.5, 1.0, 2.0), COLOURS, strict=False):
        gate.plot(x, F.silu(x) * up, color=colour, label=f"W₃x = {up:g}")
    gate.set(xlabel="W₁x", ylabel="SiLU(W₁x) · W₃x", title="one hidden unit of SwiGLU", ylim=(-4, 8))
    gate.legend()
    return figure


def norm_geometry() -> Figure:
    """Where the norms put a cloud of vectors of width 3."""
    generator = torch.Generator().manual_seed(1)
    cloud = torch.randn(500, 3, generator=generator) * 1.5 + 0.7
    rms_gained = nn.RMSNorm(3, eps=1e-5)
    rms_gained.weight.data = torch.tensor([1.5, 1.0, 0.4])
    panels = {
        "input x": cloud,
        "layernorm": nn.LayerNorm(3, eps=1e-5, bias=False)(cloud),
        "rmsnorm, gains 1\n= scalenorm, g = √3": ScaleNorm(3)(cloud),
        "rmsnorm, gains\n(1.5, 1, 0.4)": rms_gained(cloud),
    }
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.9), subplot_kw={"projection": "3d"})
    colours = matplotlib.colormaps["viridis"](cloud.norm(dim=-1) / cloud.norm(dim=-1).max())
    for axis, (title, points) in zip(axes, panels.items(), strict=True):
        axis.scatter(*points.detach().T, c=colours, s=5, depthshade=False)
        axis.set_title(title)
        axis.set_box_aspect((1, 1, 1), zoom=1.0)
        axis.view_init(elev=15, azim=25)
        ticks = (-4, 0, 4) if title == "input x" else (-2, 0, 2)
        for dimension in "xyz":
            limits = {f"{dimension}lim": (1.3 * ticks[0], 1.3 * ticks[2]), f"{dimension}ticks": ticks}
            axis.set(**limits)
        axis.tick_params(labelsize=8, pad=-3)
    return figure


def residual_growth() -> Figure:
    """Size of the residual stream behind each block of a fresh model, by the place of the norms."""
    variants = {
        "norm_at=in": ["block.norm_at=in"],
        "norm_at=in, residual_std=0.02": ["block.norm_at=in", "model.residual_std=0.02"],
        "norm_at=out": ["block.norm_at=out"],
        "norm_at=both": ["block.norm_at=both"],
    }
    figure, axis = plt.subplots(figsize=(9, 3.4))
    for (name, overrides), colour in zip(variants.items(), (BASELINE, *COLOURS), strict=False):
        torch.manual_seed(1)
        model = build_model(compose(["model.n_layers=12", *overrides]), VOCABULARY)
        tokens = torch.randint(VOCABULARY, (8, 64))
        inputs = captured(model, list(model.blocks), tokens)  # type: ignore[arg-type]
        behind = [*inputs[1:], captured(model, [model.norm], tokens)[0]]
        sizes = [float(x.square().mean().sqrt()) for x in (inputs[0], *behind)]
        axis.semilogy(
            range(13), sizes, "-" if name != "norm_at=both" else "--", color=colour, marker="o",
            markersize=4, label=name,
        )  # fmt: skip
    axis.set(
        xlabel="blocks passed (0: the embedding)",
        ylabel="root mean square of x",
        title="residual stream at initialisation, model.n_layers=12",
        xticks=range(13),
    )
    axis.legend(ncols=2)
    return figure


def captured(model: GPT, modules: Sequence[nn.Module], tokens: Tensor) -> list[Tensor]:
    """The first input of each module when the model reads `tokens`."""
    inputs: dict[int, Tensor] = {}

    def keep(index: int, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[index] = arguments[0]

    hooks = [m.register_forward_pre_hook(partial(keep, i)) for i, m in enumerate(modules)]
    with torch.no_grad():
        model.eval()(tokens)
    for hook in hooks:
        hook.remove()
    return [inputs[i] for i in range(len(modules))]


def sinusoidal() -> Figure:
    """The table that pos=sinusoidal adds, divided by its scale, and how alike two positions are."""
    pos = SinusoidalPosition(d_model=128, n_heads=4, block_size=64, init_std=0.02)
    table = pos.embed(torch.zeros(1, 129, 128), torch.arange(129))[0] / pos.scale
    figure, (heat, like) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=(1.5, 1))
    heat.grid(False)
    image = heat.imshow(table[:64], cmap="RdBu_r", aspect="auto", interpolation="nearest")
    heat.set(xlabel="dimension of x (C = 128)", ylabel="position t", title="PE(t)")
    figure.colorbar(image, ax=heat, label="value")
    similarity = F.cosine_similarity(table[64:65], table)
    like.plot(torch.arange(-64, 65), similarity, color=BASELINE)
    like.set(xlabel="distance (tokens)", ylabel="cosine of PE(t) and PE(t + distance)",
             title="near positions are alike", ylim=(0, 1.05))  # fmt: skip
    return figure


def rope() -> Figure:
    """A score depends on the distance only, and each pair of coordinates has a wavelength of its own."""
    width = 32
    pos = RotaryPosition(d_model=128, n_heads=4, block_size=64, init_std=0.02)
    ones = torch.ones(1, 1, 1, width)
    figure, (scores, pairs) = plt.subplots(1, 2, figsize=(9, 3.4))
    distances = torch.arange(64)
    for (query, size), colour in zip(((63, 7), (563, 4), (5063, 1.5)), COLOURS, strict=False):
        q = pos.rotate(ones, torch.tensor([query]))
        k = pos.rotate(ones.expand(1, 1, 64, width), query - distances)
        label = f"query at position {query:,}"
        scores.plot(distances, (q @ k.mT).squeeze() / width, color=colour, linewidth=size, label=label)
    scores.set(xlabel="distance i − j (tokens)", ylabel="⟨q, k⟩ / ⟨q, k unrotated⟩",
               title="same q and k, three places: one curve")  # fmt: skip
    scores.legend()
    for i in (0, 4, 8, 12):
        pair = torch.zeros(1, 1, 64, width)
        pair[..., i] = 1
        cosine_of_angle = pos.rotate(pair, distances)[0, 0, :, i]
        wavelength = 2 * math.pi * pos.theta ** (2 * i / width)
        pairs.plot(distances, cosine_of_angle, label=f"pair {i}: {wavelength:,.0f} tokens per turn")
    pairs.set(xlabel="distance i − j (tokens)", ylabel="cosine of the angle turned",
              title="fast and slow pairs (D = 32)", ylim=(-1.1, 2.3), yticks=(-1, 0, 1))  # fmt: skip
    pairs.legend(ncols=1, loc="upper right", fontsize=9)
    return figure


def alibi() -> Figure:
    """The bias of every head against distance, and the factor it puts on a key's weight."""
    pos = AlibiPosition(d_model=128, n_heads=4, block_size=64, init_std=0.02)
    bias = pos.score_bias(torch.tensor([63]), torch.arange(64))[:, 0].flip(-1)  # (H, distance)
    figure, (scores, factors) = plt.subplots(1, 2, figsize=(9, 3.2))
    for head, slope in enumerate(alibi_slopes(4)):
        scores.plot(bias[head], label=f"head {head + 1}: m = 1/{1 / slope:.0f}")
        factors.plot(bias[head].exp())
    scores.set(xlabel="distance i − j (tokens)", ylabel="bias of the score (nats)",
               title="what is added to the score (H = 4)")  # fmt: skip
    factors.set(xlabel="distance i − j (tokens)", ylabel="factor on the weight",
                title="e^bias: also the decay of linear attention", ylim=(0, 1.03))  # fmt: skip
    scores.legend()
    return figure


def parameters() -> Figure:
    """Where the parameters and the FLOPs of the three model sizes are."""
    names = ("mini", "small", "nanogpt")
    share: dict[str, list[float]] = {}
    work: dict[str, list[float]] = {}
    labels = []
    for name in names:
        cfg = compose([f"model={name}"])
        length = cfg.model.block_size
        model = build_model(cfg, VOCABULARY)
        total = cost_of(model, length)
        attentions = [block.attention for block in model.blocks]
        mixing = sum(a.mixing_flops(length) for a in attentions)
        ffn = sum(count_parameters(block.ffn) for block in model.blocks)
        attention = sum(map(count_parameters, attentions))
        embedding = count_parameters(model.embedding)
        for key, value in {
            "embedding = head": embedding,
            "attention": attention,
            "feed-forward": ffn,
            "norms": total.parameters - embedding - attention - ffn,
        }.items():
            share.setdefault(key, []).append(100 * value / total.parameters)
        head = 2 * model.head.weight.numel()
        ffn_work = sum(block.ffn.cost(length).flops for block in model.blocks)
        for key, value in {
            "head": head,
            "attention: projections": total.flops - mixing - ffn_work - head,
            "attention: mixing": mixing,
            "feed-forward": ffn_work,
        }.items():
            work.setdefault(key, []).append(100 * value / total.flops)
        size = f"{total.parameters / 1e6:.2f} M parameters"
        flops = f"{total.flops / 1e6:.1f} MFLOPs per token"
        labels.append(f"{name}\n{size}\n{flops}")
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True)
    tints = {"embedding = head": "#999999", "head": "#999999", "norms": "#E69F00",
             "attention": "#0072B2", "attention: projections": "#0072B2",
             "attention: mixing": "#56B4E9", "feed-forward": "#D55E00"}  # fmt: skip
    for axis, parts in zip(axes, (share, work), strict=True):
        left = [0.0] * len(names)
        for key, values in parts.items():
            axis.barh(labels, values, left=left, color=tints[key], label=key)
            for row, (start, value) in enumerate(zip(left, values, strict=True)):
                if value > 8:
                    axis.text(start + value / 2, row, f"{value:.0f} %", ha="center", va="center",
                              color="white")  # fmt: skip
            left = [a + b for a, b in zip(left, values, strict=True)]
        axis.invert_yaxis()
        axis.grid(False)
        axis.set_xlim(0, 100)
        axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
    axes[1].invert_yaxis()
    axes[0].set_xlabel("share of the parameters (%)")
    axes[1].set_xlabel("share of the forward FLOPs at T = block_size (%)")
    return figure


def schedule() -> Figure:
    """The learning rate of the default training, step by step, from the schedule functions."""
    figure, axis = plt.subplots(figsize=(9, 3))
    peak, steps = compose().optimizer.lr, range(700)
    shapes: dict[str, Callable[[int], float]] = {
        "cosine, warmup_steps=50, final=0.1 (default)": partial(
            cosine, warmup_steps=50, max_steps=700, final=0.1
        ),
        "cosine, warmup_steps=150, final=0": partial(cosine, warmup_steps=150, max_steps=700, final=0.0),
        "constant, warmup_steps=50": partial(constant, warmup_steps=50),
    }
    for (name, shape), colour in zip(shapes.items(), (BASELINE, *COLOURS), strict=False):
        optimizer = adamw(nn.Linear(1, 1), lr=peak, weight_decay=0.0, beta1=0.9, beta2=0.99)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        rates = []
        for _ in steps:
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        axis.plot(steps, rates, color=colour, label=name)
    axis.set(xlabel="optimizer step", ylabel="learning rate", ylim=(0, None))
    axis.legend(loc="upper right", bbox_to_anchor=(1.0, 0.9))
    return figure


# ------------------------------------------------------------------ finished runs


@dataclass
class Trained:
    """A finished run: what was asked for, what came out."""

    path: Path
    result: dict[str, Any]
    label: str  # what it changes of the default: `ffn=moe`, `default` for nothing

    @property
    def seed(self) -> int:
        return self.result["seed"]

    @property
    def loss(self) -> float:
        return self.result["final_val_loss"]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged metric."""
        with (self.path / "metrics.csv").open(newline="") as file:
            rows = [
                (int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)
            ]
        return [step for step, _ in rows], [value for _, value in rows]


@dataclass
class Group:
    """The runs of one composition, one per seed, in the order of the seeds."""

    label: str
    runs: list[Trained] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return [run.loss for run in self.runs]

    @property
    def mean(self) -> float:
        return mean(self.losses)

    @property
    def spread(self) -> float:
        return max(self.losses) - min(self.losses)


def read_runs(folder: Path) -> dict[str, Group]:
    """All finished runs below a folder, grouped by what they change of the default composition."""
    same_as_default = default_choices()
    groups: dict[str, Group] = {}
    for file in sorted(folder.glob("*/result.json")):
        result = json.loads(file.read_text())
        if result["status"] != "finished" or not file.with_name("metrics.csv").exists():
            continue
        changes = [
            override
            for override in result["overrides"]
            if override not in same_as_default and not override.startswith(("seed=", "threads="))
        ]
        label = " ".join(sorted(changes)) or "default"
        groups.setdefault(label, Group(label)).runs.append(Trained(file.parent, result, label))
    for group in groups.values():
        group.runs.sort(key=lambda run: run.seed)
    return groups


def default_choices() -> list[str]:
    """The options of the default composition, as overrides."""
    text = (Path(__file__).parents[1] / "configs" / "train.yaml").read_text()
    lines = [line.strip() for line in text.splitlines()]
    return [f"{p}={line.split(': ')[1]}" for p in PARTS for line in lines if line.startswith(f"- {p}:")]


def family_of(label: str) -> str:
    """The component family a single change belongs to: `ffn` for `ffn=moe`."""
    if " " in label:
        return "several"
    key = label.split("=")[0]
    return key.split("@")[-1].split(".")[0]


def family(groups: dict[str, Group], name: str) -> list[Group]:
    """The default and the groups that change one thing of a family, in alphabetical order."""
    own = [group for label, group in sorted(groups.items()) if family_of(label) == name]
    return [groups["default"], *own]


def option_name(group: Group, part: str) -> str:
    """`flash (default)` for the default, else the override."""
    if group.label != "default":
        return group.label
    chosen = [choice for choice in default_choices() if choice.startswith(f"{part}=")]
    return f"{chosen[0]} (default)" if chosen else f"{part}=null (default)"


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


def with_default_budget(groups: dict[str, Group]) -> list[Group]:
    """The compositions that have seen as many tokens as the default."""
    budget = groups["default"].runs[0].result["tokens_seen"]
    return [g for g in groups.values() if g.runs[0].result["tokens_seen"] == budget]


def spread(groups: dict[str, Group]) -> Figure:
    """Final loss of every composition that was trained as long as the default, seed by seed."""
    base = groups["default"]
    members = [group for group in with_default_budget(groups) if group is not base]
    members.sort(key=lambda g: (family_of(g.label), g.label))
    figure, axis = plt.subplots(figsize=(9, 0.32 * len(members) + 1.3))
    axis.axvspan(
        min(base.losses), max(base.losses), color="#dddddd", label="range of the default's seeds"
    )
    colours = dict(zip(dict.fromkeys(family_of(g.label) for g in members), COLOURS, strict=False))
    for row, group in enumerate([base, *members]):
        colour = colours.get(family_of(group.label), BASELINE)
        axis.plot(group.losses, [row] * len(group.runs), "o", color=colour, alpha=0.75)
        axis.plot([group.mean], [row], "|", color=colour, markersize=16, markeredgewidth=2)
    axis.set_yticks(range(len(members) + 1), [g.label for g in [base, *members]])
    axis.invert_yaxis()
    axis.set(xlabel="final val/loss (nats per character): seeds (dots), mean (bar)")
    axis.legend(loc="best")
    return figure


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


LENGTH = 512
BINS = ((0, 64), (64, 128), (128, 256), (256, 512))


def extrapolation_groups(groups: dict[str, Group]) -> list[Group]:
    extra = [groups["attention=local_window"]] if "attention=local_window" in groups else []
    return [g for g in (*family(groups, "pos"), *extra) if g.label != "pos=learned"]


def extrapolation_name(group: Group) -> str:
    names = {
        "default": "pos=rope (default)",
        "attention=local_window": "attention=local_window pos=rope",
    }
    return names.get(group.label, group.label)


def loss_by_position(group: Group) -> Tensor:
    """Mean loss (512,) at each position of windows far longer than those trained on, over all seeds."""
    text = prepare_shakespeare(DATA).read_text(encoding="utf-8")
    total = torch.zeros(LENGTH, dtype=torch.float64)
    for trained in group.runs:
        run = load_run(trained.path, "last")
        tokens = run.tokenizer.encode(text)[int(0.9 * len(text)) :]
        windows = tokens.unfold(0, LENGTH + 1, LENGTH)
        losses = []
        with torch.no_grad():
            for batch in windows.split(16):
                logits = run.model(batch[:, :-1])
                losses.append(F.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none"))
        total += torch.cat(losses).double().mean(0) / len(group.runs)
    return total


def extrapolation(groups: dict[str, Group]) -> Figure:
    """Loss by position, far past the 64 positions of training."""
    figure, axis = plt.subplots(figsize=(9, 3.4))
    labels = [group.label for group in family(groups, "pos")]  # the colours are those of curves_pos
    colours = dict(zip(labels, (BASELINE, *COLOURS), strict=False))
    for group in extrapolation_groups(groups):
        losses = loss_by_position(group).unflatten(0, (-1, 16)).mean(1)
        colour = colours.get(group.label, COLOURS[-1])
        axis.plot(torch.arange(8, LENGTH, 16), losses, color=colour, label=extrapolation_name(group))
    axis.axvline(64, color="#999999", linestyle=":")
    axis.text(67, axis.get_ylim()[1], "end of the training window", va="top", fontsize=9)
    axis.set(xlabel="position in the window (means of 16)", ylabel="loss (nats per character)")
    axis.legend(loc="center", bbox_to_anchor=(0.6, 0.68), ncols=3)
    return figure


def trained_attention(groups: dict[str, Group]) -> Figure:
    """Attention weights of a trained default model's third layer on one line of the corpus."""
    run = load_run(groups["default"].runs[0].path, "last")
    model, tokens, layer = run.model, run.tokenizer.encode(LINE)[None], 2
    attention = model.blocks[layer].attention
    x = captured(model, [attention], tokens)[0]
    with torch.no_grad():
        q, k, _ = attention.project(x, model.pos, torch.arange(len(LINE)))
        weights = probe(attention, q, k, model.pos)
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


# ------------------------------------------------------------------ tables


def size_tables() -> None:
    """Parameters, FLOPs and decoding state of the model sizes and of the feed-forwards, as Markdown."""
    rows = [["", "`mini`", "`small`", "`nanogpt`"], [":--", "--:", "--:", "--:"]]
    values: dict[str, list[str]] = {}
    widths: dict[int, list[str]] = {}
    for name in ("mini", "small", "nanogpt"):
        cfg = compose([f"model={name}"])
        sizes = cfg.model
        model = build_model(cfg, VOCABULARY)
        cost = cost_of(model, sizes.block_size)
        attentions = [block.attention for block in model.blocks]
        cells = {
            "width C": sizes.d_model,
            "layers": sizes.n_layers,
            "heads H, each D wide": f"{sizes.n_heads}, {attentions[0].head_dim}",
            "`block_size` T": sizes.block_size,
            "embedding = head": count_parameters(model.embedding),
            "attention, all layers": sum(map(count_parameters, attentions)),
            "feed-forward, all layers": sum(count_parameters(block.ffn) for block in model.blocks),
            "norms": sum(p.numel() for p in model.parameters() if p.dim() < 2),
            "**parameters**": cost.parameters,
            "… with `ffn=moe`": build_model(compose([f"model={name}", "ffn=moe"]), VOCABULARY)
            .cost(sizes.block_size)
            .parameters,
            "forward FLOPs per token at T": round(cost.flops),
            "decoding state after T tokens, bytes in fp32": 4 * cost.state,
        }
        for key, value in cells.items():
            values.setdefault(key, []).append(value if isinstance(value, str) else f"{value:,}")
        costs = {
            ffn: build_model(compose([f"model={name}", f"ffn={ffn}"]), VOCABULARY).blocks[0].ffn.cost(1)
            for ffn in ("standard", "swiglu", "moe")
        }
        widths[sizes.d_model] = [
            f"{costs['standard'].parameters:,}",
            f"{costs['swiglu'].parameters:,}",
            f"{costs['moe'].active_parameters:,}",
            f"{costs['moe'].parameters:,}",
        ]
    print("### model sizes\n\n" + markdown(rows + [[key, *cells] for key, cells in values.items()]))
    head = ["C", "`standard`", "`swiglu`", "`moe`: active", "`moe`: all"]
    print(
        "\n### feed-forward\n\n"
        + markdown([head, ["--:"] * 5, *([str(c), *w] for c, w in widths.items())])
    )


def markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def print_tables(groups: dict[str, Group]) -> None:
    """The results of each family and of the recipes, and the losses past the training window."""
    for part in PARTS:
        print(f"\n### {part}\n\n{table(family(groups, part), part)}")
    recipes = [g for label, g in groups.items() if label.startswith("experiment=")]
    if recipes:
        print(f"\n### recipes\n\n{table([groups['default'], *recipes], 'experiment')}")
    print(f"\n### seeds\n\n{seed_table(groups)}")
    print(f"\n### past the training window\n\n{extrapolation_table(groups)}")


def table(members: list[Group], part: str) -> str:
    """Final losses seed by seed, and their difference to the default."""
    base = members[0]
    seeds = sorted({run.seed for group in members for run in group.runs})
    head = [
        "option",
        *(f"seed {s}" for s in seeds),
        "mean",
        "− default",
        "spread",
        "parameters",
    ]
    rows = [head, [":--"] + ["--:"] * (len(head) - 1)]
    for group in members:
        by_seed = {run.seed: run for run in group.runs}
        total, active = (group.runs[0].result[k] for k in ("parameters", "active_parameters"))
        name = option_name(group, part).removesuffix(" (default)")
        rows.append([
            f"`{name}` (default)" if group is base else f"`{name}`",
            *(f"{by_seed[s].loss:.4f}" if s in by_seed else "" for s in seeds),
            f"{group.mean:.4f}",
            "" if group is base else f"{group.mean - base.mean:+.4f}".replace("-", "−"),
            f"{group.spread:.4f}" if len(group.runs) > 1 else "",
            f"{total:,}" + (f" ({active:,} active)" if active != total else ""),
        ])  # fmt: skip
    return markdown(rows)


def seed_table(groups: dict[str, Group]) -> str:
    """How much the final loss varies with the seed alone, pooled over all compositions."""
    repeated = [g for g in with_default_budget(groups) if len(g.runs) > 1]
    if not repeated:
        return "one seed each: nothing is known of their spread"
    freedom = sum(len(g.runs) - 1 for g in repeated)
    deviation = math.sqrt(sum((len(g.runs) - 1) * variance(g.losses) for g in repeated) / freedom)
    return (
        f"Standard deviation between seeds, pooled over {len(repeated)} compositions: {deviation:.4f}. "
        f"Standard error of a difference of means of two seeds each: {deviation:.4f}, "
        f"of three: {deviation * math.sqrt(2 / 3):.4f}."
    )


def extrapolation_table(groups: dict[str, Group]) -> str:
    rows = [["option", *(f"positions {a}–{b - 1}" for a, b in BINS)], [":--"] + ["--:"] * len(BINS)]
    for group in extrapolation_groups(groups):
        losses = loss_by_position(group)
        rows.append([extrapolation_name(group), *(f"{losses[a:b].mean():.3f}" for a, b in BINS)])
    return markdown(rows)


# ------------------------------------------------------------------ command line

UNTRAINED = [attention_patterns, attention_cost, activations, norm_geometry, residual_growth,
             sinusoidal, rope, alibi, parameters, schedule]  # fmt: skip
TRAINED: dict[str, Callable[[dict[str, Group]], Figure]] = {
    **{f"curves_{part}": partial(curves, part) for part in PARTS},
    "spread": spread,
    "default_run": default_run,
    "expert_load": expert_load,
    "extrapolation": extrapolation,
    "trained_attention": trained_attention,
}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours, which is a third of the size of one of all colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(main)))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=Path, help="folder of finished runs")
    parser.add_argument("--only", nargs="+", help="names of figures")
    parser.add_argument("--tables", action="store_true", help="print the tables instead of drawing")
    arguments = parser.parse_args()
    groups = read_runs(arguments.runs) if arguments.runs else {}
    if arguments.runs and "default" not in groups:
        parser.error(f"no finished run of the default composition in {arguments.runs}")
    torch.set_num_threads(1)
    if arguments.tables:
        size_tables()
        return print_tables(groups) if groups else None
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
