"""The forget gate: what it keeps and cuts off, its two neighbours `flash` and ALiBi, and long texts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt import build_model, compose
from modgpt.kernels import attention_products
from modgpt.model.attention.forgetting import ForgettingAttention, ForgettingCache
from modgpt.model.init import Initializer
from modgpt.model.pos.alibi import AlibiPosition
from modgpt.testing.attention import AttentionPair, check_large_inputs
from modgpt.testing.compare import assert_same, relative_error
from modgpt.training.optimizers import adamw
from tests.model.attention.test_attention import option


def with_gates(bias: Tensor, pos: str = "none") -> AttentionPair:
    """An attention whose gates depend on the head alone: sigmoid(bias) (H,)."""
    pair = option("forgetting", pos)
    with torch.no_grad():
        pair.module.forget_gate.weight.zero_()
        pair.module.forget_gate.bias.copy_(bias)
    return pair


def beside(pair: AttentionPair, pos: str) -> AttentionPair:
    """Flash attention with the same weights."""
    flash = option("flash", pos)
    shared = flash.module.state_dict().keys()
    flash.module.load_state_dict({n: w for n, w in pair.module.state_dict().items() if n in shared})
    return flash


@pytest.mark.parametrize("pos", ["none", "rope", "alibi"])
def test_gates_of_one_forget_nothing(pos: str) -> None:
    pair = with_gates(torch.full((6,), 1e4), pos)
    x = pair.inputs(11)
    assert_same(pair.fast(x)[0], beside(pair, pos).fast(x)[0], "output")


def test_a_gate_of_its_own_for_each_head_is_alibi() -> None:
    """log f = −m for all tokens is the bias −m·(i−j)."""
    flash = option("flash", "alibi")
    assert isinstance(flash.pos, AlibiPosition)
    decay = flash.pos.log_decay()
    assert decay is not None
    pair = with_gates(-torch.log(torch.expm1(-decay)))  # log sigmoid of it is `decay`
    x = pair.inputs(11)
    assert_same(pair.fast(x)[0], beside(pair, "alibi").fast(x)[0], "output")


def test_a_gate_of_zero_cuts_off_what_came_before() -> None:
    pair = option("forgetting", "rope")
    x = pair.inputs(11)
    positions = torch.arange(11)
    projected = pair.module.project(x, pair.pos, positions)
    projected["log_f"] = projected["log_f"].clone()
    projected["log_f"][:, :, 5] = -1e4
    v = projected["v"].detach().requires_grad_()
    y, _ = pair.module.mix(**projected | {"v": v}, pos=pair.pos, positions=positions, state=None)
    (gradient,) = torch.autograd.grad(y[:, :, 5:].sum(), v, retain_graph=True)
    assert not gradient[:, :, :5].any() and gradient[:, :, 5:].abs().amin() > 0
    (gradient,) = torch.autograd.grad(y[:, :, 4].sum(), v)
    assert gradient[:, :, :5].abs().amin() > 0


def test_each_sequence_has_gates_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the kernel for bf16 takes the sequences of a batch in parts."""
    pair = option("forgetting")
    x = pair.inputs(11, batch=3)
    wanted = pair.fast(x)[0]
    monkeypatch.setattr(attention_products, "is_faster", lambda q, k: True)
    for at_once in (1, 2, 3):
        monkeypatch.setattr(attention_products, "SCORES_AT_ONCE", at_once * 6 * 11 * 11)
        assert_same(pair.fast(x)[0], wanted, f"{at_once} sequences at once")


# --- long texts -----------------------------------------------------------------------------------


def test_thousands_of_tokens_in_fp32() -> None:
    """Beside fp64, with the gates of the start, whose logarithms add up to −2,839."""
    made = [AttentionPair(ForgettingAttention, dtype=dtype) for dtype in (torch.float32, torch.float64)]
    outputs = []
    for pair in made:
        pair.module.reset_parameters(Initializer(pair.module, std=0.02))
        x = torch.randn(1, 4096, 24, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            outputs.append(pair.fast(x.to(pair.dtype))[0])
    assert relative_error(*outputs) < 3e-4


@pytest.mark.parametrize("narrow", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("softcap", [None, 5.0], ids=["kernel", "scores"])
def test_gates_that_saturate_leave_everything_finite(softcap: float | None, narrow: bool) -> None:
    """Inputs up to 100 times the usual: before the mask, later keys have a bias of many thousands."""
    check_large_inputs(option("forgetting", "alibi", softcap=softcap), 300, 100, narrow=narrow)


def test_sums_of_the_gates_are_kept_in_fp32() -> None:
    """With weights in bf16, in which a sum of about −1 per token would stand still at −256."""
    pair = AttentionPair(ForgettingAttention, dtype=torch.bfloat16)
    x = pair.inputs(1000)
    pieces = [400] + [1] * 600
    with torch.no_grad():
        # Piece by piece, for a product in bf16 is rounded as its shape has it.
        gates = torch.cat([pair.module.forget_gate(piece) for piece in x.split(pieces, dim=1)], dim=1)
        log_f = F.logsigmoid(gates.double()).transpose(1, 2)
        _, state = pair.in_pieces(x, pieces)
    assert isinstance(state, ForgettingCache)
    assert state.k.dtype == torch.bfloat16 and state.log_f.dtype == torch.float32
    torch.testing.assert_close(state.log_f.double(), log_f.cumsum(2), rtol=1e-4, atol=1e-4)


# --- initial weights ------------------------------------------------------------------------------


def test_initial_gates_are_near_one_half() -> None:
    module = ForgettingAttention(d_model=64, n_heads=1000, head_dim=1)
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.005))
    assert module.forget_gate.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not module.forget_gate.bias.any()
    x = torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        log_f = module.forget_gate(x).sigmoid().log()
    assert log_f.mean().item() == pytest.approx(math.log(0.5), abs=0.02)


def test_other_weights_start_as_those_of_flash() -> None:
    ours, theirs = (
        build_model(compose([f"attention={name}", "model.n_layers=1"]), vocab_size=5).state_dict()
        for name in ("forgetting", "flash")
    )
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    assert {name.rsplit(".", 2)[-2] for name in ours.keys() - theirs.keys()} == {"forget_gate"}


def test_only_the_matrix_of_the_gates_decays() -> None:
    model = build_model(compose(["attention=forgetting", "model.n_layers=1"]), vocab_size=5)
    groups = adamw(model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99).param_groups
    decayed, others = ({id(p) for p in group["params"]} for group in groups)
    attention = model.blocks[0].attention
    assert isinstance(attention, ForgettingAttention)
    assert id(attention.forget_gate.weight) in decayed
    assert id(attention.forget_gate.bias) in others
