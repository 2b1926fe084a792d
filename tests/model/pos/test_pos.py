"""Every positional encoding against its definition, hook by hook."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.errors import UserError
from modgpt.model.init import Initializer
from modgpt.model.pos.alibi import alibi_exponents
from modgpt.testing.build import Make, component, options_of, variants
from modgpt.testing.compare import assert_same
from modgpt.testing.initial import check_initial_weights
from modgpt.testing.parts import by_formula, check_position_definition

OPTIONS = options_of("pos")
SIZES = {"d_model": 24, "n_heads": 6, "block_size": 300, "init_std": 0.02}

every_option = pytest.mark.parametrize("make", OPTIONS.values(), ids=OPTIONS)
every_case = pytest.mark.parametrize(
    "make",
    [
        pytest.param(variant, id=f"{option}-{n}")
        for option, make in OPTIONS.items()
        for n, variant in enumerate(variants(make))
    ],
)


def built(make: Make, **sizes: int) -> Any:
    """An encoding with a table of 300 positions where it has one."""
    return component(make, **(SIZES | sizes))


def option(name: str, n_heads: int = 6, **knobs: Any) -> Any:
    """One option of the configs with some knobs changed."""
    return built(partial(OPTIONS[name], **knobs), n_heads=n_heads)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


POSITIONS = [torch.arange(9), torch.arange(250, 260), torch.tensor([7])]


# --- every option against its definition ----------------------------------------------------------


@pytest.mark.parametrize("positions", POSITIONS, ids=["first", "later", "single"])
@pytest.mark.parametrize("n_heads", [1, 4, 6])
@every_case
def test_hooks(make: Make, n_heads: int, positions: Tensor) -> None:
    """For several widths; the odd ones are asked of those that can have them."""
    for head_dim, d_model in ((8, 24), (2, 7), (6, 24), (5, 24)):
        check_position_definition(make, positions, head_dim=head_dim, n_heads=n_heads, d_model=d_model)


@every_option
def test_initial_weights(make: Make) -> None:
    check_initial_weights(partial(make, init_std=0.02), d_model=24, n_heads=6, block_size=8)


@every_option
def test_relative_means_that_only_distances_count(make: Make) -> None:
    """Moving all positions changes no score, exactly where the option says so."""
    module = built(make)
    x = inputs(2, 9, 24)

    def scores(positions: Tensor) -> Tensor:
        rotated = module.rotate(module.embed(x, positions)[:, None], positions)
        bias = module.score_bias(positions, positions)
        return rotated @ rotated.mT + (0 if bias is None else bias)

    here, there = scores(torch.arange(9)), scores(torch.arange(9) + 40)
    assert torch.allclose(here, there, rtol=1e-4, atol=1e-4) == module.relative


@every_option
def test_bf16_keeps_its_dtype(make: Make) -> None:
    module = built(make)
    positions = torch.arange(9)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.embed(inputs(2, 9, 24).bfloat16(), positions).dtype == torch.bfloat16
        assert module.rotate(inputs(2, 3, 9, 8).bfloat16(), positions).dtype == torch.bfloat16


@pytest.mark.parametrize("hook", ["embed", "rotate"])
@every_option
def test_positions_past_256_differ_in_bf16(make: Make, hook: str) -> None:
    """In bf16 the number 257 is 256; angles taken from it would be the same."""
    module = built(make)
    if hasattr(module, "scale"):  # of what is added to an embedding: 0.03 would not be seen
        module.scale = 1.0
    formulas = module.defined()
    positions = torch.tensor([256, 257])
    x = torch.ones(1, 1, 2, 24, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = getattr(module, hook)(x, positions).float()
        formula = formulas.on_embedding if hook == "embed" else formulas.on_query
        wanted = by_formula(formula, x.float(), positions)
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
    assert alibi_exponents(n_heads) == pytest.approx(exponents)
    module = option("alibi", n_heads=n_heads)
    assert module.slopes.tolist() == pytest.approx(slopes)
    assert module.bfloat16().slopes.tolist() == pytest.approx(slopes)


@every_option
def test_what_follows_from_the_configuration_is_not_stored(make: Make) -> None:
    """A checkpoint holds what is trained and nothing else."""
    module = built(make)
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()}


def test_alibi_biases_no_key_of_the_future() -> None:
    module = option("alibi")
    bias = module.score_bias(torch.arange(4), torch.arange(4))
    assert bias is not None
    assert bias.isfinite().all()
    assert (bias <= 0).all()


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_rope_rotates_a_share(fraction: float) -> None:
    module = option("rope", fraction=fraction)
    x, untouched = inputs(2, 3, 9, 8), int(8 * fraction)
    rotated = module.rotate(x, torch.arange(4, 13))
    assert torch.equal(rotated[..., untouched:], x[..., untouched:])
    assert not torch.equal(rotated[..., :untouched], x[..., :untouched])


def test_rope_keeps_lengths() -> None:
    module = option("rope")
    x = inputs(2, 3, 9, 8)
    assert_same(module.rotate(x, torch.arange(9) + 1000).norm(dim=-1), x.norm(dim=-1), "length")


def test_sinusoidal_has_the_size_of_the_embeddings() -> None:
    module = option("sinusoidal")
    encoding = module.embed(torch.zeros(1, 300, 24), torch.arange(300))
    assert encoding.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-4)


def test_sinusoidal_reads_scale() -> None:
    module = option("sinusoidal", scale=0.5)
    encoding = module.embed(torch.zeros(1, 300, 24), torch.arange(300))
    assert encoding.square().mean().sqrt().item() == pytest.approx(0.5 / math.sqrt(2), rel=1e-4)


def test_learned_initial_weights() -> None:
    module = option("learned")
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.005))
    (table,) = module.parameters()
    assert table.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("scaling", ["linear", "yarn"])
@pytest.mark.parametrize(("theta", "width", "trained"), [(10000.0, 64, 2048), (500.0, 32, 64)])
def test_scaled_rope_is_that_of_transformers(
    scaling: str, theta: float, width: int, trained: int
) -> None:
    utils = pytest.importorskip("transformers.modeling_rope_utils")
    transformers = pytest.importorskip("transformers")
    parameters = {"rope_type": scaling, "factor": 8.0, "rope_theta": theta}
    if scaling == "yarn":
        parameters["original_max_position_embeddings"] = trained
    config = transformers.LlamaConfig(
        hidden_size=4 * width, num_attention_heads=4, max_position_embeddings=8 * trained,
        rope_parameters=parameters,
    )  # fmt: skip
    wanted, stretch = utils.ROPE_INIT_FUNCTIONS[scaling](config, torch.device("cpu"))
    knobs = {"scaling": scaling, "factor": 8.0} | ({"trained": trained} if scaling == "yarn" else {})
    ours = option("rope", theta=theta, **knobs)
    i = torch.arange(width // 2, dtype=torch.float32)
    torch.testing.assert_close(ours.rotation.frequencies(i, width), wanted)
    assert ours.stretch == pytest.approx(stretch)


def test_neighbours_and_halves_are_one_up_to_the_order_of_the_columns() -> None:
    x, positions = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)), torch.arange(9)
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])  # neighbours of one are halves of the other
    halves, neighbours = option("rope"), option("rope", interleaved=True)
    torch.testing.assert_close(
        neighbours.rotate(x[..., order], positions), halves.rotate(x, positions)[..., order]
    )


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.0, -1.0])
def test_rope_theta_is_positive(theta: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"pos.theta must be positive, got {theta}")):
        option("rope", theta=theta)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"scaling": "ntk"}, "pos.scaling must be linear, yarn or null, got 'ntk'"),
        ({"factor": 4.0}, "pos.factor=4.0 must be at least 1, and needs pos.scaling"),
        ({"scaling": "linear", "factor": 0.5}, "pos.factor=0.5 must be at least 1"),
        ({"trained": 64}, "pos.trained=64 is a length for pos.scaling=yarn"),
        ({"scaling": "yarn", "factor": 2.0, "theta": 0.5}, "pos.scaling=yarn needs pos.theta above 1"),
    ],
    ids=str,
)
def test_scaling_of_rope_that_cannot_be(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        option("rope", **knobs)


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_rope_rotates_no_more_than_all(fraction: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"must lie in (0, 1], got {fraction}")):
        option("rope", fraction=fraction)


@pytest.mark.parametrize(
    ("head_dim", "fraction", "rotated"), [(5, 1.0, 5), (8, 0.1, 0), (8, 0.7, 5), (8, 0.5, None)]
)
def test_rope_wants_an_even_head_width(head_dim: int, fraction: float, rotated: int | None) -> None:
    problem = option("rope", fraction=fraction).unsupported(head_dim)
    if rotated is None:
        assert problem is None
    else:
        assert problem is not None
        assert f"rotated head width must be even, got {rotated} (head_dim={head_dim}" in problem


def test_a_model_with_odd_heads_is_one_line() -> None:
    with pytest.raises(UserError, match="rotated head width must be even, got 5"):
        build_model(compose(["attention.head_dim=5"]), vocab_size=3)


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
