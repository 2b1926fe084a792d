"""What must hold for every combination of parts, whatever parts there are: checked on all pairs."""

from __future__ import annotations

import itertools

import pytest

from modgpt.model.pos.base import Position
from modgpt.testing import models
from modgpt.testing.build import Make, options_of, small, small_model, variants
from tests import compositions

every_combination = pytest.mark.parametrize("choices", compositions.covering(), ids=compositions.name_of)
drawn = pytest.mark.parametrize("choices", compositions.drawn(), ids=compositions.name_of)


@every_combination
def test_no_output_depends_on_later_inputs(choices: dict[str, str]) -> None:
    models.check_causality(compositions.small_model(choices))


@every_combination
def test_decoding_equals_the_forward_pass(choices: dict[str, str]) -> None:
    models.check_decoding(compositions.small_model(choices))


@every_combination
def test_every_parameter_gets_a_finite_gradient(choices: dict[str, str]) -> None:
    models.check_gradients(compositions.small_model(choices))


@every_combination
def test_any_length(choices: dict[str, str]) -> None:
    """One token, the window exactly, several windows; later tokens change nothing before them."""
    models.check_lengths(compositions.small_model(choices))


@every_combination
def test_the_batch_does_not_matter(choices: dict[str, str]) -> None:
    """Each sequence is on its own: nothing leaks from one to another."""
    models.check_batch(compositions.small_model(choices))


@every_combination
def test_cloned_states_branch(choices: dict[str, str]) -> None:
    models.check_branches(compositions.small_model(choices))


@pytest.mark.slow
@drawn
def test_attention_and_positions_with_other_parts(choices: dict[str, str]) -> None:
    """The parts beside them are drawn by MODGPT_TEST_SEED, which the head of the output gives."""
    models.check_causality(compositions.small_model(choices))
    models.check_decoding(compositions.small_model(choices))
    models.check_gradients(compositions.small_model(choices))


def test_every_pair_of_options_is_covered() -> None:
    def pairs(every: list[dict[str, str]]) -> set[tuple[object, ...]]:
        return {pair for choices in every for pair in itertools.combinations(choices.items(), 2)}

    assert pairs(compositions.covering()) == pairs(compositions.combinations())


BLOCKS = [
    pytest.param(variant, id=f"{option}-{n}")
    for option, block in options_of("block").items()
    for n, variant in enumerate(variants(block))
]


@pytest.mark.parametrize("attention", options_of("attention"))
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_decode_too(block: Make, attention: str) -> None:
    model = small_model(block=block, attention=small(options_of("attention")[attention]))
    models.check_decoding(model, pieces=[[8, 6]])


def test_a_width_of_heads_that_the_positions_cannot_use_is_refused() -> None:
    class Reluctant(Position):
        def unsupported(self, head_dim: int) -> str | None:
            return f"no heads of {head_dim}" if head_dim == 16 else None

    with pytest.raises(ValueError, match="no heads of 16"):
        small_model(pos=Reluctant)
    assert small_model(pos=Reluctant, n_heads=4).blocks[0].attention.head_dim == 12
