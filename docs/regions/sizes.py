"""Sizes and costs, as the modules declare them: of the models, the feed-forwards, the attentions."""

from __future__ import annotations

from modgpt.config.compose import compose
from modgpt.config.search import options
from regions.markdown import table

VOCABULARY = 65  # characters of Tiny Shakespeare
SIZES = ("mini", "small", "nanogpt")
LENGTHS = (64, 4096)


def model_sizes() -> str:
    """Return the table of the model sizes: parameters, FLOPs, decoding state with the default parts."""
    from modgpt.model.cost import cost_of, count_parameters

    columns = []
    for size in SIZES:
        cfg = compose([f"model={size}"])
        model, length = built(f"model={size}"), cfg.model.block_size
        cost = cost_of(model, length)
        attentions = [block.attention for block in model.blocks]
        columns.append({
            "width C": f"{cfg.model.d_model}",
            "layers": f"{cfg.model.n_layers}",
            "heads H, each D wide": f"{cfg.model.n_heads}, {attentions[0].head_dim}",
            "`block_size` T": f"{length}",
            "embedding = head": f"{count_parameters(model.embedding):,}",
            "attention, all layers": f"{sum(map(count_parameters, attentions)):,}",
            "feed-forward, all layers": f"{sum(count_parameters(b.ffn) for b in model.blocks):,}",
            "norms": f"{sum(p.numel() for p in model.parameters() if p.dim() < 2):,}",
            "**parameters**": f"{cost.parameters:,}",
            "… with `ffn=moe`": f"{built(f'model={size}', 'ffn=moe').cost(length).parameters:,}",
            "forward FLOPs per token at T": f"{cost.flops:,.0f}",
            "decoding state after T tokens, bytes in fp32": f"{4 * cost.state:,}",
        })  # fmt: skip
    head = ["", *(f"`model={size}`" for size in SIZES)]
    return table(head, [[name, *(column[name] for column in columns)] for name in columns[0]])


def ffn_sizes() -> str:
    """Return the table of the weights in one feed-forward layer, by the width of the model."""
    rows = []
    for size in SIZES:
        models = {ffn: built(f"model={size}", f"ffn={ffn}") for ffn in options("ffn")}
        costs = {
            ffn: model.blocks[0].ffn.cost(1)
            for ffn, model in models.items()
            if len({type(block.ffn) for block in model.blocks}) == 1  # no pattern of the others
        }
        cells = []
        for cost in costs.values():
            same = cost.parameters == cost.active_parameters
            cells.append(
                f"{cost.parameters:,}" + ("" if same else f" ({cost.active_parameters:,} active)")
            )
        rows.append([f"{compose([f'model={size}']).model.d_model}", *cells])
    return table(("C", *(f"`{ffn}`" for ffn in costs)), rows)


def attention_costs() -> str:
    """Return the table of every attention's FLOPs of mixing and decoding state, in one layer."""
    rows = []
    for option in options("attention"):
        attentions = [block.attention for block in built(f"attention={option}").blocks]
        if len({type(attention) for attention in attentions}) > 1:
            continue  # a pattern of the others
        flops = [f"{attentions[0].mixing_flops(length):,.0f}" for length in LENGTHS]
        states = [f"{attentions[0].state_size(length):,}" for length in LENGTHS]
        rows.append([f"`{option}`", *flops, *states])
    what = ("mixing, FLOPs per token", "decoding state, numbers")
    return table(("", *(f"{name}, T = {length:,}" for name in what for length in LENGTHS)), rows)


def built(*overrides: str):
    """Return the model of these overrides, with the vocabulary of Tiny Shakespeare."""
    from modgpt.config.build import build_model

    return build_model(compose(overrides), VOCABULARY)
