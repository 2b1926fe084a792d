"""Initial weights: equal for parameters of one name, shape and seed, whatever the other parts are."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from modgpt import build_model, compose
from modgpt.config.keys import PARTS
from modgpt.config.search import options
from modgpt.model.init import Initializer

SIZES = ["model.d_model=32", "model.n_layers=2", "model.n_heads=4", "model.block_size=16"]


def initial(*overrides: str) -> dict[str, Tensor]:
    model = build_model(compose([*SIZES, *overrides]), vocab_size=11)
    return {name: p.detach() for name, p in model.named_parameters()}


def differing(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """The parameters of one name and shape whose values differ."""
    shared = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    assert shared
    return [name for name in shared if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize(
    "swap",
    [f"{group}={option}" for group in PARTS for option in options(group)]
    + ["model.tied_head=false", "attention.bias=true", "model.block_size=8", "model.n_layers=1"],
)
def test_a_swap_changes_nothing_else(swap: str) -> None:
    torch.manual_seed(0)
    default = initial()
    torch.manual_seed(1)  # what torch has drawn before does not matter
    # The standard deviation of residual projections follows from the depth; here it is given.
    swapped = initial(swap, "model.residual_std=0.01")
    assert not differing(initial("model.residual_std=0.01"), swapped)
    assert default.keys() & swapped.keys()


def test_most_parameters_are_shared_by_two_attentions() -> None:
    ours, theirs = initial(), initial("attention=gated_delta")
    assert set(ours) < set(theirs)
    assert not differing(ours, theirs)


def test_parameters_of_different_names_differ() -> None:
    drawn = {name: p for name, p in initial().items() if p.std() > 0}
    for (a, x), (b, y) in itertools.combinations(drawn.items(), 2):
        if x.shape == y.shape:
            assert not torch.equal(x, y), f"{a} and {b}"


def test_the_seed_is_a_knob_of_its_own() -> None:
    assert differing(initial(), initial("seed=2"))
    assert not differing(initial(), initial("seed=2", "model.seed=1"))
    assert compose(["model.seed=7"]).data.seed == 1


def test_the_default_device_does_not_matter() -> None:
    """A model of shapes alone draws nothing."""
    with torch.device("meta"):
        model = build_model(compose(SIZES), vocab_size=11)
    assert all(p.is_meta for p in model.parameters())


def test_precision_does_not_matter() -> None:
    wanted = initial()
    torch.set_default_dtype(torch.float64)
    try:
        got = initial()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(p.dtype == torch.float64 for p in got.values())
    assert not differing({name: p.float() for name, p in got.items()}, wanted)


def test_the_draws() -> None:
    layer = nn.Linear(300, 300)
    init = Initializer(layer, seed=3, std=0.02, residual_std=0.005)
    init.linear(layer)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02) and not layer.bias.any()
    usual = layer.weight.detach().clone()
    init.linear(layer, residual=True)
    torch.testing.assert_close(layer.weight.detach(), usual / 4)
    init.uniform(layer.weight, 1, 16)
    assert 1 <= layer.weight.min() < 1.1 and 15.9 < layer.weight.max() <= 16
