"""The kit accepts every option of ours, and refuses parts that are wrong in one place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modgpt.config.keys import PARTS
from modgpt.model.attention.flash import FlashAttention
from modgpt.model.attention.linear import LinearAttention, LinearState
from modgpt.model.ffn.standard import StandardFeedForward
from modgpt.model.init import Initializer
from modgpt.model.norm.rmsnorm import RMSNorm, rms_norm
from modgpt.model.pos.rope import RotaryPosition
from modgpt.testing import check, check_attention, check_ffn, check_norm, check_position, models
from modgpt.testing.build import Make, options_of, small_model

OURS = [
    pytest.param(make, id=f"{group}={option}")
    for group in PARTS
    if group != "block"
    for option, make in options_of(group).items()
]


@pytest.mark.slow
@pytest.mark.parametrize("make", OURS)
def test_every_option_passes(make: Make) -> None:
    check(make)


class FutureAttention(FlashAttention):
    """Lets the first token see the last one."""

    def mix(self, *args: Any, **kwargs: Any) -> Any:
        y, state = super().mix(*args, **kwargs)
        v = kwargs["v"].repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)
        return torch.cat([y[:, :, :1] + v[:, :, -1:], y[:, :, 1:]], dim=2), state


class FreeAttention(FlashAttention):
    """Declares no cost."""

    def mixing_flops(self, length: int) -> float:
        return 0.0


class ForgetfulAttention(LinearAttention):
    """Loses half of its state between two pieces of a text."""

    def mix(self, *args: Any, **kwargs: Any) -> Any:
        y, state = super().mix(*args, **kwargs)
        if isinstance(state, LinearState):
            state.s = state.s / 2
        return y, state


class UndefinedAttention(FlashAttention):
    definition = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (FutureAttention, "output"),
        (FreeAttention, "declares flops"),
        (ForgetfulAttention, "state.s"),
    ],
)
def test_wrong_attentions_are_refused(make: Make, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_attention(make)


def test_each_check_of_a_model_finds_its_fault() -> None:
    """Also where the definition had the same fault."""
    with pytest.raises(AssertionError, match="output 0 sees the future"):
        models.check_causality(small_model(attention=FutureAttention))
    with pytest.raises(AssertionError, match="decoding in pieces of"):
        models.check_decoding(small_model(attention=ForgetfulAttention))
    with pytest.raises(AssertionError, match="one sequence alone"):
        models.check_batch(small_model(norm=BatchNorm))
    with pytest.raises(AssertionError, match="idle takes no part in the output"):
        models.check_gradients(small_model(norm=IdleNorm))
    for holds in (models.check_causality, models.check_decoding, models.check_batch):
        holds(small_model())


class BatchNorm(nn.Module):
    """Norms over the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean((0, 2), keepdim=True) + 1e-5).sqrt()


class IdleNorm(RMSNorm):
    """Has a weight that does nothing."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.idle = nn.Parameter(torch.zeros(1))


def test_an_attention_without_a_definition_is_told_what_to_write() -> None:
    with pytest.raises(TypeError, match="UndefinedAttention has no definition: write the formula"):
        check_attention(UndefinedAttention)


class LazyFeedForward(StandardFeedForward):
    """Leaves its weights to torch."""

    def reset_parameters(self, init: Initializer) -> None:
        init.linear(self.down, residual=True)


def test_weights_that_nobody_draws_are_found() -> None:
    with pytest.raises(AssertionError, match=r"up\.weight is not drawn by reset_parameters"):
        check_ffn(LazyFeedForward)


class OffNorm(RMSNorm):
    """Adds eps outside of the root."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-5)


class NarrowNorm(nn.Module):
    """Correct in fp32, and in fp32 alone."""

    definition = staticmethod(rms_norm)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), 1e-5
        self.zero_centred = False

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x.float(), weight=self.weight, eps=self.eps, zero_centred=False).type_as(x)


@pytest.mark.parametrize("make", [OffNorm, NarrowNorm])
def test_wrong_norms_are_refused(make: Make) -> None:
    with pytest.raises(AssertionError, match="output"):
        check_norm(make)


class BackwardRotation(RotaryPosition):
    """Turns the other way."""

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return super().rotate(x, -positions)


def test_a_wrong_rotation_is_refused() -> None:
    with pytest.raises(AssertionError, match="rotate"):
        check_position(BackwardRotation)
