"""Every positional encoding against its reference, hook by hook."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.search import options
from modgpt.model.pos.alibi import alibi_slopes
from modgpt.model.pos.base import Position
from tests.reference import (
    POS,
    NoPosition,
    assert_same,
    assert_same_gradients,
    component,
    configured,
    knobs_of,
    reference_of,
)
from tests.reference import alibi_slopes as slow_alibi_slopes

every_option = pytest.mark.parametrize("option", options("pos"))


def pair(
    option: str, *, d_model: int = 24, n_heads: int = 6, **knobs: Any
) -> tuple[Position, NoPosition]:
    """An encoding with a table of 300 positions where it has one, and its reference."""
    node = configured("pos", option, **knobs)
    sizes = {"d_model": d_model, "n_heads": n_heads, "block_size": 300, "init_std": 0.02}
    module = component(node, **sizes)
    return module, reference_of("pos", option)(
        module.state_dict(keep_vars=True), **sizes, **knobs_of(node)
    )


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def each(hook: Any, x: Tensor, positions: Tensor) -> Tensor:
    """The hook of a reference, asked about one vector after the other: x (…,T,D)."""
    rows = [
        [hook(vector, t) for vector, t in zip(sequence, positions.tolist(), strict=True)]
        for sequence in x.flatten(0, -3)
    ]
    return torch.stack([torch.stack(row) for row in rows]).view_as(x)


POSITIONS = [torch.arange(9), torch.arange(250, 260), torch.tensor([7])]


# --- every option against its reference -----------------------------------------------------------


@every_option
def test_there_is_a_reference(option: str) -> None:
    assert option in POS, f"pos={option} needs an entry in tests/reference.py: POS"


@pytest.mark.parametrize("positions", POSITIONS, ids=["first", "later", "single"])
@pytest.mark.parametrize("width", [24, 7])
@every_option
def test_embed(option: str, width: int, positions: Tensor) -> None:
    module, slow = pair(option, d_model=width)
    x = inputs(2, len(positions), width).requires_grad_()
    fast, wanted = module.embed(x, positions), each(slow.embed, x, positions)
    assert_same(fast, wanted, "embed")
    assert_same_gradients(fast, wanted, {"x": x, **dict(module.named_parameters())})


@pytest.mark.parametrize("positions", POSITIONS, ids=["first", "later", "single"])
@pytest.mark.parametrize("width", [8, 2, 6])
@every_option
def test_rotate(option: str, width: int, positions: Tensor) -> None:
    module, slow = pair(option)
    x = inputs(2, 3, len(positions), width).requires_grad_()
    fast, wanted = module.rotate(x, positions), each(slow.rotate, x, positions)
    assert_same(fast, wanted, "rotate")
    assert_same_gradients(fast, wanted, {"x": x})


@pytest.mark.parametrize("n_heads", [1, 4, 6])
@every_option
def test_score_bias(option: str, n_heads: int) -> None:
    """Only pairs with j ≤ i are compared: what hides the others is the attention's."""
    module, slow = pair(option, n_heads=n_heads)
    q_positions, k_positions = torch.arange(3, 8), torch.arange(8)
    bias = module.score_bias(q_positions, k_positions)
    if bias is None:
        bias = torch.zeros(n_heads, 5, 8)
    for h in range(n_heads):
        for row, i in enumerate(q_positions.tolist()):
            for j in range(i + 1):
                assert bias[h, row, j].item() == pytest.approx(-slow.slope(h) * (i - j), rel=1e-6)


@pytest.mark.parametrize("n_heads", [1, 4, 6])
@every_option
def test_log_decay(option: str, n_heads: int) -> None:
    """The decay of a recurrent state is the score bias for a distance of 1."""
    module, slow = pair(option, n_heads=n_heads)
    decay = module.log_decay()
    found = [0.0] * n_heads if decay is None else decay.tolist()
    assert found == pytest.approx([-slow.slope(h) for h in range(n_heads)])


@every_option
def test_relative_means_that_only_distances_count(option: str) -> None:
    """Moving all positions changes no score, exactly where the option says so."""
    module, _ = pair(option)
    x = inputs(2, 9, 24)

    def scores(positions: Tensor) -> Tensor:
        rotated = module.rotate(module.embed(x, positions)[:, None], positions)
        bias = module.score_bias(positions, positions)
        return rotated @ rotated.mT + (0 if bias is None else bias)

    here, there = scores(torch.arange(9)), scores(torch.arange(9) + 40)
    assert torch.allclose(here, there, rtol=1e-4, atol=1e-4) == module.relative


@every_option
def test_bf16_keeps_its_dtype(option: str) -> None:
    module, _ = pair(option)
    positions = torch.arange(9)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.embed(inputs(2, 9, 24).bfloat16(), positions).dtype == torch.bfloat16
        assert module.rotate(inputs(2, 3, 9, 8).bfloat16(), positions).dtype == torch.bfloat16


@pytest.mark.parametrize("hook", ["embed", "rotate"])
@every_option
def test_positions_past_256_differ_in_bf16(option: str, hook: str) -> None:
    """In bf16 the number 257 is 256; angles taken from it would be the same."""
    knobs: dict[str, Any] = {"scale": 1.0} if option == "sinusoidal" else {}
    module, slow = pair(option, **knobs)
    positions = torch.tensor([256, 257])
    x = torch.ones(1, 1, 2, 24, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = getattr(module, hook)(x, positions).float()
        wanted = each(getattr(slow, hook), x.float(), positions)
    torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-2)
    if not torch.equal(wanted[:, :, 0], wanted[:, :, 1]):
        assert (got[:, :, 0] - got[:, :, 1]).abs().max() > 0.1


# --- one option alone -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_heads", "exponents"),
    [
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (16, [h / 2 for h in range(1, 17)]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
        (6, [2, 4, 6, 8, 1, 3]),
        (3, [4, 8, 2]),
        (1, [8]),
    ],
)
def test_alibi_slopes(n_heads: int, exponents: list[float]) -> None:
    """Powers 2^(−exponent): the paper's for 8 and 16 heads, by the authors' rule for the others."""
    slopes = [2**-e for e in exponents]
    assert alibi_slopes(n_heads) == pytest.approx(slopes)
    assert slow_alibi_slopes(n_heads) == pytest.approx(slopes)


@pytest.mark.parametrize("option", [o for o in options("pos") if o != "learned"])
def test_nothing_to_store(option: str) -> None:
    """What follows from the configuration alone is kept out of checkpoints."""
    module, _ = pair(option)
    assert not module.state_dict()


def test_alibi_biases_no_key_of_the_future() -> None:
    module, _ = pair("alibi")
    bias = module.score_bias(torch.arange(4), torch.arange(4))
    assert bias is not None
    assert bias.isfinite().all()
    assert (bias <= 0).all()


@pytest.mark.parametrize("theta", [100.0, 10000.0])
def test_rope_reads_theta(theta: float) -> None:
    module, slow = pair("rope", theta=theta)
    x, positions = inputs(1, 1, 9, 8), torch.arange(9)
    assert_same(module.rotate(x, positions), each(slow.rotate, x, positions), "rotate")


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.7, 1.0])
def test_rope_rotates_a_share(fraction: float) -> None:
    module, slow = pair("rope", fraction=fraction)
    x, positions = inputs(2, 3, 9, 8), torch.arange(4, 13)
    if fraction == 0.7:
        with pytest.raises(ValueError, match="rotated head width must be even, got 5"):
            module.rotate(x, positions)
        return
    rotated, untouched = module.rotate(x, positions), int(8 * fraction)
    assert_same(rotated, each(slow.rotate, x, positions), "rotate")
    assert torch.equal(rotated[..., untouched:], x[..., untouched:])


def test_rope_remembers_the_tables_of_no_other_positions() -> None:
    module, slow = pair("rope")
    for positions, width in ((torch.arange(5), 8), (torch.arange(5) + 3, 8), (torch.arange(2), 4)):
        x = inputs(1, 1, len(positions), width)
        for _ in range(2):  # computed, then remembered
            assert_same(module.rotate(x, positions), each(slow.rotate, x, positions), "rotate")
    same = torch.arange(3)
    for width in (8, 4):
        x = inputs(1, 1, 3, width)
        assert_same(module.rotate(x, same), each(slow.rotate, x, same), "another head width")


def test_rope_keeps_lengths() -> None:
    module, _ = pair("rope")
    x = inputs(2, 3, 9, 8)
    assert_same(module.rotate(x, torch.arange(9) + 1000).norm(dim=-1), x.norm(dim=-1), "length")


def test_sinusoidal_has_the_size_of_the_embeddings() -> None:
    module, _ = pair("sinusoidal")
    encoding = module.embed(torch.zeros(1, 300, 24), torch.arange(300))
    assert encoding.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-4)


def test_sinusoidal_reads_scale() -> None:
    module, _ = pair("sinusoidal", scale=0.5)
    encoding = module.embed(torch.zeros(1, 300, 24), torch.arange(300))
    assert encoding.square().mean().sqrt().item() == pytest.approx(0.5 / math.sqrt(2), rel=1e-4)


def test_learned_initial_weights() -> None:
    torch.manual_seed(0)
    module, _ = pair("learned")
    module.reset_parameters(std=0.02, residual_std=0.005)
    (table,) = module.parameters()
    assert table.std().item() == pytest.approx(0.02, rel=0.05)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.0, -1.0])
def test_rope_theta_is_positive(theta: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"pos.theta must be positive, got {theta}")):
        pair("rope", theta=theta)


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_rope_rotates_no_more_than_all(fraction: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"must lie in (0, 1], got {fraction}")):
        pair("rope", fraction=fraction)


def test_rope_wants_an_even_head_width() -> None:
    module, _ = pair("rope")
    with pytest.raises(ValueError, match="rotated head width must be even, got 5"):
        module.rotate(inputs(1, 1, 3, 5), torch.arange(3))


def test_learned_ends_with_its_table() -> None:
    """Both ways into the model raise for the first position past the table, and not before it."""
    sizes = ["model.d_model=8", "model.n_heads=2", "model.n_layers=1", "model.block_size=5"]
    model = build_model(compose(["pos=learned", *sizes]), vocab_size=3)
    tokens = torch.zeros(1, 6, dtype=torch.long)
    message = re.escape(
        "position 5 does not exist: the table of positions ends at 4 (model.block_size=5)"
    )
    model(tokens[:, :5])
    _, state = model.decode(tokens[:, :5], model.initial_state(1, 6))
    with pytest.raises(ValueError, match=message):
        model(tokens)
    with pytest.raises(ValueError, match=message):
        model.decode(tokens[:, 5:], state)
