"""Tables of the documentation, as Markdown."""

from __future__ import annotations

import math
from statistics import variance

from drawing.runs import Group, family, option_name
from drawing.trained import (
    BINS,
    extrapolation_groups,
    extrapolation_name,
    loss_by_position,
    with_default_budget,
)
from drawing.untrained import VOCABULARY

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.keys import PARTS
from modgpt.model.cost import cost_of, count_parameters


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
