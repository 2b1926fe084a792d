"""Decay groups and schedules."""

from __future__ import annotations

import math

import pytest

from modgpt import build_model, compose
from modgpt.optimizer import adamw
from modgpt.schedule import constant, cosine


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
