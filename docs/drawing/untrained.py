"""Figures that need no training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from modgpt.compare.style import BASELINE, COLOURS
from modgpt.config.build import build_model
from modgpt.config.compose import compose, compose_job
from modgpt.inference.play.contributions import inputs_of, mixing_weights
from modgpt.model.attention.base import Attention
from modgpt.model.cost import cost_of, count_parameters
from modgpt.model.norm.scalenorm import ScaleNorm
from modgpt.model.pos.alibi import AlibiPosition
from modgpt.model.pos.base import Position
from modgpt.model.pos.rope import RotaryPosition
from modgpt.model.pos.sinusoidal import SinusoidalPosition
from modgpt.testing.build import Make, class_of, options_of, with_knobs
from modgpt.training.optimizers import adamw
from modgpt.training.schedules import constant, cosine

VOCABULARY = 65  # characters of Tiny Shakespeare


def attention_patterns() -> Figure:
    """How much of each key reaches each query when all scores are equal: what the structure allows.

    Every attention has the knobs of its YAML, and T and H are those of the default model.
    """
    panels = {title: weights_of(make) for title, make in by_structure().items()}
    linear, alibi = options_of("attention")["linear"], options_of("pos")["alibi"]
    panels["linear + alibi\nhead 1"] = weights_of(linear, alibi)
    rows = math.ceil(len(panels) / 4)
    figure, grid = plt.subplots(rows, 4, figsize=(9, 2.75 * rows), sharex=True, sharey=True)
    axes = grid.flatten()
    images = []
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for axis, (title, weights) in zip(axes, panels.items(), strict=False):
        images.append(show_weights(axis, weights / weights.amax(-1, keepdim=True)))
        axis.set_title(title)
        axis.tick_params(labelbottom=True)
    figure.supxlabel("key position j")
    figure.supylabel("query position i")
    figure.colorbar(images[0], ax=axes, label="weight / largest in row", fraction=0.02, shrink=0.8)
    return figure


def default_sizes() -> dict[str, Any]:
    """The sizes of the default model that a position option takes."""
    model = compose([]).model
    return {name: model[name] for name in ("d_model", "n_heads", "block_size", "init_std")}


def attentions() -> dict[str, Make]:
    """The attentions by name, the default first."""
    default = compose_job().choices["attention"]
    return dict(sorted(options_of("attention").items(), key=lambda item: item[0] != default))


def by_structure() -> dict[str, Make]:
    """The attentions whose weights depend on positions alone, by a title; one for each pattern."""
    found = {}
    for option, make in attentions().items():
        part, kinds = class_of(make), set()
        if not isinstance(part, type) or part.gates_definition is not Attention.gates_definition:
            continue  # a pattern of other options, or weights that depend on x
        for knobs in part.variants:
            kind = {name: value for name, value in knobs.items() if isinstance(value, str)}
            if (name := ", ".join((option, *kind.values()))) not in kinds:
                kinds.add(name)
                title = titled(name, deciding(make, weights_of, **kind))
                found[title] = with_knobs(make, **kind)
    return found


def deciding(make: Make, result: Callable[[Make], Tensor], **kind: str) -> dict[str, int]:
    """The whole numbers among an option's own knobs on which a result depends: adding 1 changes it."""
    own = [name for name in inspect.signature(class_of(make)).parameters if name in make.keywords]
    numbers = {name: make.keywords[name] for name in own if type(make.keywords[name]) is int}
    before = result(with_knobs(make, **kind))
    return {
        name: value
        for name, value in numbers.items()
        if not torch.allclose(before, result(with_knobs(make, **kind, **{name: value + 1})))
    }


def titled(name: str, knobs: dict[str, int]) -> str:
    """A name, and below it the knobs, two in a line."""
    pairs = [f"{key}={value}" for key, value in knobs.items()]
    lines = [", ".join(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    return "\n".join([name, *lines])


def weights_of(make: Make, make_pos: Make = Position) -> Tensor:
    """The weights (T,T) of an attention's first head when all scores are equal."""
    sizes = default_sizes()
    n_heads, n_tokens = sizes["n_heads"], sizes["block_size"]
    attention = make(d_model=sizes["d_model"], n_heads=n_heads).eval()
    zeros = torch.zeros(1, n_heads, n_tokens, attention.head_dim)
    return mixing_weights(attention, dict.fromkeys("qkv", zeros), make_pos(**sizes))[0]


def show_weights(axis: Axes, weights: Tensor) -> Any:
    axis.grid(False)
    shown = weights.masked_fill(weights == 0, math.nan)  # white: never seen
    return axis.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")


def attention_cost() -> Figure:
    """FLOPs of mixing and size of the decoding state against length, as the modules declare them.

    Every attention has the knobs of its YAML and the sizes of the default model.
    """
    lengths = [2**n for n in range(3, 15)]
    sizes = {name: default_sizes()[name] for name in ("d_model", "n_heads")}

    def costs(make: Make) -> Tensor:
        attention = make(**sizes)  # (2, lengths): FLOPs per token, bytes of the state
        rows = [
            [attention.mixing_flops(n) for n in lengths],
            [4 * attention.state_size(n) for n in lengths],
        ]
        return torch.tensor(rows, dtype=torch.float64)

    makes = {n: make for n, make in attentions().items() if isinstance(class_of(make), type)}
    lines = {titled(name, deciding(make, costs)): (costs(make), "-") for name, make in makes.items()}
    lines["flash\nn_kv_heads=1"] = costs(with_knobs(makes["flash"], n_kv_heads=1)), "--"
    figure, (work, memory) = plt.subplots(1, 2, figsize=(9, 4.2))
    for (name, (values, dashes)), colour in zip(
        lines.items(), cycle((BASELINE, *COLOURS)), strict=False
    ):
        for axis, cost in zip((work, memory), values, strict=True):
            axis.loglog(lengths, cost, dashes, base=2, color=colour, label=name)
    d_model, n_heads = sizes["d_model"], sizes["n_heads"]
    work.set(
        xlabel="sequence length T (tokens)",
        ylabel="mixing (FLOPs per token, forward)",
        title=f"work per token of one layer (C = {d_model}, H = {n_heads}, D = {d_model // n_heads})",
    )
    memory.set(
        xlabel="tokens read so far",
        ylabel="state (bytes per sequence, fp32)",
        title="memory to decode the next token, one layer",
    )
    for axis in (work, memory):
        axis.set_yscale("log", base=10)
    figure.legend(*work.get_legend_handles_labels(), loc="outside lower center", ncols=4)
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
        inputs = inputs_of(model, list(model.blocks), tokens)  # type: ignore[arg-type]
        behind = [*inputs[1:], inputs_of(model, [model.norm], tokens)[0]]
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
    for head in range(len(bias)):
        slope = -bias[head, 1]
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
        "constant, warmup_steps=50": partial(constant, warmup_steps=50, max_steps=700),
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
