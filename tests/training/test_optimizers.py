"""Decay groups and schedules."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from modgpt import build_model, compose
from modgpt.training.optimizers import Together, adamw, muon
from modgpt.training.schedules import constant, cosine, linear, wsd


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
    assert constant(0, warmup_steps=0) == 1
    assert constant(0, warmup_steps=3) == pytest.approx(0.25)
    assert constant(1000, warmup_steps=3) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"warmup_steps": -1}, "schedule.warmup_steps must not be negative, got -1"),
        ({"warmup_steps": 20}, "schedule.warmup_steps=20 must be below trainer.max_steps=20"),
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
    parts = ["ffn=moe", "attention.bias=true", "pos=learned", "model.tied_head=false"]
    model = build_model(compose(parts), vocab_size=5)
    optimizer = muon(model, **MUON)
    names = {id(p): name for name, p in model.named_parameters()}
    matrices, decayed, others = ([names[id(p)] for p in g["params"]] for g in optimizer.param_groups)
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in matrices)
    assert {name.split(".", 2)[2] for name in matrices} == {
        "attention.qkv.weight", "attention.out.weight", "ffn.router.weight",
    }  # fmt: skip
    assert {"embedding.weight", "head.weight", "blocks.0.ffn.experts.down.weight"} <= set(decayed)
    assert sorted(matrices + decayed + others) == sorted(names.values()), "each parameter once"


def test_muon_makes_updates_of_equal_size_in_all_directions() -> None:
    model = build_model(compose([]), vocab_size=5)
    weight = model.blocks[0].attention.out.weight
    before = weight.detach().clone()
    optimizer = muon(model, **(MUON | {"weight_decay": 0.0}))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    # A gradient with directions of very different sizes.
    left, _, right = torch.linalg.svd(torch.randn(weight.shape), full_matrices=False)
    weight.grad = left @ torch.diag(torch.logspace(0, -1, len(left))) @ right
    optimizer.step()
    sizes = torch.linalg.svdvals(before - weight.detach()) / 0.02
    assert sizes.min() > 0.4 and sizes.max() < 1.6, "near 1, as the paper's coefficients leave them"


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
