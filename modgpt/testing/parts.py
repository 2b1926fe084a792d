"""Feed-forwards, norms and positional encodings beside their definitions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modgpt.model.definition import defined
from modgpt.model.ffn.base import FeedForward
from modgpt.model.pos.base import Position
from modgpt.testing.build import Make, component
from modgpt.testing.compare import assert_same, assert_same_gradients


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)


def check_ffn_definition(
    make: Make, *shape: int, dtype: torch.dtype = torch.float32, d_model: int = 24
) -> None:
    """Outputs, aux and gradients are the definition's, for x of (*shape, C)."""
    module: FeedForward = component(make, d_model=d_model).to(dtype)
    x = inputs(*shape, d_model, dtype=dtype).requires_grad_()
    (fast, aux), (slow, slow_aux) = module(x), defined(module)(x)
    assert_same(fast, slow, "output")
    assert sorted(aux) == sorted(slow_aux)
    for name in aux:
        assert_same(aux[name], slow_aux[name].type_as(aux[name]), name)
    every = {"x": x, **dict(module.named_parameters())}
    assert_same_gradients(fast, slow, every)
    if "loss" in aux:
        assert_same_gradients(aux["loss"], slow_aux["loss"], every)


def check_norm_definition(make: Make, *shape: int, dtype: torch.dtype = torch.float32) -> None:
    """Outputs and gradients are the definition's, also where one of x and the weights has none."""
    module: nn.Module = component(make, shape[-1]).to(dtype)
    # Rows of different sizes, and away from a mean of 0.
    x = (inputs(*shape, dtype=dtype) * (inputs(*shape[:-1], 1, dtype=dtype).abs() + 0.1) + 0.5).detach()
    x.requires_grad_()
    fast, slow = module(x), defined(module)(x)
    assert_same(fast, slow, "output")
    weights = dict(module.named_parameters())
    assert_same_gradients(fast, slow, {"x": x, **weights})
    with torch.no_grad():
        assert_same(module(x), slow, "output where no gradient is wanted")
    if weights:
        assert_same_gradients(module(x.detach()), slow, weights)


def check_position_definition(
    make: Make, positions: Tensor, *, head_dim: int = 8, n_heads: int = 6, d_model: int = 24
) -> None:
    """Every hook is what its definition says, at the given positions."""
    module: Position = component(make, d_model=d_model, n_heads=n_heads, block_size=300, init_std=0.02)
    formulas = module.defined()
    x = inputs(2, len(positions), d_model).requires_grad_()
    check_hook(module.embed, formulas.on_embedding, x, positions, dict(module.named_parameters()))
    if module.unsupported(head_dim) is None:
        q = inputs(2, 3, len(positions), head_dim).requires_grad_()
        check_hook(module.rotate, formulas.on_query, q, positions, {})
    on_score = formulas.on_score
    # Only pairs with j ≤ i are compared: what hides the others is the attention's.
    keys = torch.arange(int(positions[-1]) + 1)
    bias, decay = module.score_bias(positions, keys), module.log_decay()
    for h in range(n_heads):
        for row, i in enumerate(positions.tolist()):
            wanted = [float(on_score(h, i - j)) if on_score else 0.0 for j in range(i + 1)]
            got = torch.zeros(i + 1) if bias is None else bias[h, row, : i + 1]
            assert_same(got, torch.tensor(wanted), f"bias of head {h} at position {i}")
        if module.needs_scores:
            continue  # no decay stands for it
        fade = float(on_score(h, 1)) if on_score else 0.0
        got = 0.0 if decay is None else float(decay[h])
        assert abs(got - fade) < 1e-6, f"log_decay of head {h} is not its bias at a distance of 1"


def check_hook(
    hook: Callable[[Tensor, Tensor], Tensor],
    formula: Callable[[Tensor, int], Tensor] | None,
    x: Tensor,
    positions: Tensor,
    weights: dict[str, nn.Parameter],
) -> None:
    """A hook on x (…,T,·) does what the formula does with each vector."""
    got, wanted = hook(x, positions), by_formula(formula, x, positions)
    assert_same(got, wanted, getattr(hook, "__name__", "hook"))
    assert_same_gradients(got, wanted, {"x": x, **weights})


def by_formula(formula: Callable[[Tensor, int], Tensor] | None, x: Tensor, positions: Tensor) -> Tensor:
    """The formula for one vector after the other: x (…,T,·)."""
    if formula is None:
        return x
    rows = [
        torch.stack([formula(row[n], t) for n, t in enumerate(positions.tolist())])
        for row in x.flatten(0, -3)
    ]
    return torch.stack(rows).view_as(x)
