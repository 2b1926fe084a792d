"""Decay groups and schedules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from modgpt import build_model, compose
from modgpt.config.search import options
from modgpt.model.attention.gated_delta import GatedDeltaAttention
from modgpt.model.attention.kda import KimiDeltaAttention
from modgpt.model.attention.mamba2 import Mamba2Attention
from modgpt.model.ffn.moe import MixtureOfExperts
from modgpt.model.ffn.swiglu import SwiGLUFeedForward
from modgpt.model.gpt import GPT
from modgpt.training.muon import Muon
from modgpt.training.optimizers import Together, adamw, muon
from modgpt.training.schedules import WARMUP, constant, cosine, linear, wsd


def test_only_matrices_decay() -> None:
    parts = ["ffn=moe", "ffn.expert.bias=true", "attention.bias=true", "norm=scalenorm"]
    model = build_model(compose(parts), vocab_size=5)
    optimizer = adamw(model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99)
    decayed, others = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and others["weight_decay"] == 0
    assert all(p.dim() >= 2 for p in decayed["params"])
    names = {id(p): name for name, p in model.named_parameters()}
    assert not any(names[id(p)].endswith("bias") for p in decayed["params"])
    assert all(p.dim() < 2 or names[id(p)].endswith("bias") for p in others["params"])
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters()), "each parameter once"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"lr": -1.0}, "optimizer.lr must not be negative, got -1.0"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay"),
        ({"beta1": 1.0}, r"optimizer.beta1 must lie in \[0, 1\), got 1.0"),
        ({"beta2": -0.5}, "optimizer.beta2"),
    ],
)
def test_optimizer_arguments(arguments: dict[str, float], text: str) -> None:
    good = {"lr": 1e-3, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99}
    with pytest.raises(ValueError, match=text):
        adamw(build_model(compose([]), vocab_size=5), **(good | arguments))


def test_cosine() -> None:
    def at(step: int) -> float:
        return cosine(step, warmup_steps=10, max_steps=110, final=0.1)

    assert [at(0), at(4), at(9)] == pytest.approx([1 / 11, 5 / 11, 10 / 11])
    assert at(10) == pytest.approx(1)
    assert at(60) == pytest.approx(0.55)  # half way down
    assert at(35) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert at(110) == at(500) == pytest.approx(0.1)
    values = [at(step) for step in range(10, 111)]
    assert values == sorted(values, reverse=True)


def test_constant() -> None:
    assert constant(0, warmup_steps=0, max_steps=9) == 1
    assert constant(0, warmup_steps=3, max_steps=9) == pytest.approx(0.25)
    assert constant(1000, warmup_steps=3, max_steps=9) == 1


SCHEDULES: list[Callable[..., float]] = [
    constant,
    partial(cosine, final=0.1),
    partial(linear, final=0.0),
    partial(wsd, final=0.0, decay_share=0.4),
]
by_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=["constant", "cosine", "linear", "wsd"])


@by_schedule
def test_the_warm_up_is_a_share_of_the_steps(schedule: Callable[..., float]) -> None:
    for max_steps, length in ((700, 49), (100, 7), (40, 3), (1, 0)):
        by_share = [schedule(step, max_steps=max_steps) for step in range(max_steps)]
        by_steps = [schedule(s, max_steps=max_steps, warmup_steps=length) for s in range(max_steps)]
        assert by_share == by_steps
    assert schedule(0, max_steps=10, warmup=0.5) == pytest.approx(1 / 6)
    assert schedule(0, max_steps=10, warmup=0.99) > 0, "always room for one step"


@by_schedule
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"warmup": 1.0}, r"schedule.warmup must lie in \[0, 1\), got 1.0"),
        ({"warmup": -0.1}, r"schedule.warmup must lie in \[0, 1\), got -0.1"),
        ({"warmup_steps": -1}, "schedule.warmup_steps must not be negative, got -1"),
        ({"warmup_steps": 20}, "schedule.warmup_steps=20 must be below trainer.max_steps=20"),
        (
            {"warmup": 0.1, "warmup_steps": 5},
            r"schedule.warmup=0.1 \(2 of trainer.max_steps=20\) and schedule.warmup_steps=5 contradict",
        ),
    ],
)
def test_warm_ups_that_are_refused(
    schedule: Callable[..., float], arguments: dict[str, float], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        schedule(0, max_steps=20, **arguments)


def test_warm_ups_that_agree() -> None:
    assert constant(0, max_steps=20, warmup=0.1, warmup_steps=2) == pytest.approx(1 / 3)


@pytest.mark.parametrize("option", options("schedule"))
def test_every_schedule_has_the_same_default_warm_up(option: str) -> None:
    node = compose([f"schedule={option}", "trainer.max_steps=40"]).schedule
    assert (node.warmup, node.warmup_steps, node.max_steps) == (WARMUP, None, 40)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"final": 1.5}, r"schedule.final must lie in \[0, 1\], got 1.5"),
    ],
)
def test_schedule_arguments(arguments: dict[str, float], text: str) -> None:
    good = {"warmup_steps": 5, "max_steps": 20, "final": 0.1}
    with pytest.raises(ValueError, match=text):
        cosine(0, **(good | arguments))  # type: ignore[arg-type]


def test_linear_and_wsd() -> None:
    assert linear(10, warmup_steps=10, max_steps=110, final=0.2) == pytest.approx(1)
    assert linear(60, warmup_steps=10, max_steps=110, final=0.2) == pytest.approx(0.6)
    assert linear(110, warmup_steps=10, max_steps=110, final=0.2) == pytest.approx(0.2)

    def at(step: int) -> float:
        return wsd(step, warmup_steps=10, max_steps=100, final=0.0, decay_share=0.4)

    assert at(4) == pytest.approx(5 / 11)
    assert at(10) == at(60) == 1, "stable"
    assert at(80) == pytest.approx(0.5) and at(100) == 0
    with pytest.raises(ValueError, match=r"schedule\.decay_share must lie in"):
        wsd(0, warmup_steps=1, max_steps=10, final=0, decay_share=0)


MUON = {
    "lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "adamw_lr": 6e-3, "beta1": 0.9, "beta2": 0.99,
}  # fmt: skip


def test_muon_takes_the_matrices_of_the_blocks() -> None:
    parts = [
        "ffn=moe",
        "ffn.expert.bias=true",
        "attention.bias=true",
        "pos=learned",
        "model.tied_head=false",
    ]
    model = build_model(compose(parts), vocab_size=5)
    optimizer = muon(model, **MUON)
    names = {id(p): name for name, p in model.named_parameters()}
    matrices, decayed, others = ([names[id(p)] for p in g["params"]] for g in optimizer.param_groups)
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in matrices)
    assert {name.split(".", 2)[2] for name in matrices} == {
        "attention.qkv.weight", "attention.out.weight", "ffn.router.weight",
        "ffn.experts.gate_up.weight", "ffn.experts.down.weight",
    }  # fmt: skip
    assert set(decayed) == {"embedding.weight", "head.weight", "pos.table.weight"}
    assert sorted(matrices + decayed + others) == sorted(names.values()), "each parameter once"


def projections(model: GPT) -> dict[str, Tensor]:
    """The first block's projections, one matrix each, by hand: views of the weights."""
    attention, ffn = model.blocks[0].attention, model.blocks[0].ffn
    named = {"attention.out": attention.out.weight}
    h, d = attention.n_heads, attention.head_dim
    rows = {"q": h * d, "k": attention.n_kv_heads * d, "v": attention.n_kv_heads * d}
    if isinstance(attention, KimiDeltaAttention):
        named["alpha"], named["beta"] = attention.gates.weight.split([d, h])
        named["alpha up"] = attention.decay_up.weight
    elif isinstance(attention, GatedDeltaAttention):
        named["alpha"], named["beta"] = attention.gates.weight.chunk(2)
    elif isinstance(attention, Mamba2Attention):
        named["step"], named["z"] = attention.steps.weight, attention.z.weight
        rows = {"q": d, "k": d, "v": h * d}
    named |= zip(rows, attention.qkv.weight.split(list(rows.values())), strict=True)
    if isinstance(ffn, MixtureOfExperts):
        named["router"] = ffn.router.weight
        for e in range(ffn.n_experts):
            named[f"gate {e}"], named[f"up {e}"] = ffn.experts.gate_up.weight[e].chunk(2)
            named[f"down {e}"] = ffn.experts.down.weight[e]
    elif isinstance(ffn, SwiGLUFeedForward):
        named["gate"], named["up"] = ffn.gate_up.weight.chunk(2)
        named["down"] = ffn.down.weight
    else:
        named["up"], named["down"] = ffn.up.weight, ffn.down.weight
    return named


@pytest.mark.parametrize(
    "parts",
    [
        [],
        ["ffn=standard", "attention.n_kv_heads=2", "attention=linear"],
        ["ffn=moe", "ffn.n_experts=4"],
        ["attention=gated_delta"],
        ["attention=mamba2"],
        ["attention=kda"],
    ],
    ids=str,
)
def test_muon_orthogonalises_each_projection(parts: list[str]) -> None:
    """Fused, q and k would get almost nothing: their gradients are far smaller than v's at the start."""
    model = build_model(compose([*parts, "model.init_std=0.1"]), vocab_size=5)
    before = {name: p.detach().clone() for name, p in projections(model).items()}
    optimizer = muon(model, **(MUON | {"weight_decay": 0.0}))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for n, gradient in enumerate(projections_of_gradients(model).values()):
        # Full rank, singular values within a factor of ten, projections of very different sizes.
        left, _, right = torch.linalg.svd(torch.randn(gradient.shape), full_matrices=False)
        sizes = torch.logspace(0, -1, left.shape[1])
        gradient.copy_(10.0 ** -(n % 4) * left @ torch.diag(sizes) @ right)
    optimizer.step()
    for name, p in projections(model).items():
        rows, columns = p.shape
        update = (before[name] - p.detach()) / (0.02 * math.sqrt(max(1, rows / columns)))
        values = torch.linalg.svdvals(update)
        assert values.min() > 0.6 and values.max() < 1.3, (name, values.min(), values.max())


def projections_of_gradients(model: GPT) -> dict[str, Tensor]:
    """The gradients of `projections`, as views."""
    gradients = copy.deepcopy(model)
    for p, own in zip(gradients.parameters(), model.parameters(), strict=True):
        p.data = cast("Tensor", own.grad)
    return {name: p.detach() for name, p in projections(gradients).items()}


def test_muon_is_that_of_torch_for_single_matrices() -> None:
    """Two steps on matrices that are not fused, wide, tall and square."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (16, 16))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.9}
    optimizers = Muon(ours, {}, **options), torch.optim.Muon(theirs, **options)
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = other.grad = torch.randn(one.shape)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)  # the iteration is in bf16


def test_optimizers_together_are_one() -> None:
    model = build_model(compose([]), vocab_size=5)
    optimizer = muon(model, **MUON)
    assert isinstance(optimizer, Together)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [g["lr"] for m in optimizer.members for g in m.param_groups] == [0.01, 3e-3, 3e-3]
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        assert optimizer.step(lambda: 3.0) == 3.0
        schedule.step()
    kept = copy.deepcopy(optimizer.state_dict())
    other = muon(model, **MUON)
    other.load_state_dict(kept)
    assert str(other.state_dict()) == str(kept)
    other.param_groups[0]["lr"] = 7.0
    assert other.members[0].param_groups[0]["lr"] == 7.0, "still the members' own groups"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"adamw_lr": -1.0}, "optimizer.adamw_lr must not be negative, got -1.0"),
        ({"momentum": 1.0}, r"optimizer.momentum must lie in \[0, 1\), got 1.0"),
        ({"beta2": 1.0}, r"optimizer.beta2 must lie in \[0, 1\)"),
    ],
)
def test_muon_arguments(arguments: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        muon(build_model(compose([]), vocab_size=5), **(MUON | arguments))
