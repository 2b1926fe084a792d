"""All weights in fp64 or bf16 (trainer.precision=64-true, bf16-true): forwards, backwards, decoding."""

from __future__ import annotations

import pytest
import torch

from modgpt.testing.build import options_of
from modgpt.testing.models import check_precision
from tests.compositions import fitting_pairs, small_model

# Every option of every group, attentions with every positional encoding.
CASES = [{"attention": attention, "pos": pos} for attention, pos in fitting_pairs()] + [
    {"ffn": ffn, "norm": norm, "block": block}
    for ffn in options_of("ffn")
    for norm in options_of("norm")
    for block in options_of("block")
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("choices", CASES, ids=lambda choices: "-".join(choices.values()))
def test_every_option(choices: dict[str, str], dtype: torch.dtype) -> None:
    check_precision(small_model(choices), dtype)


@pytest.mark.parametrize("choices", CASES, ids=lambda choices: "-".join(choices.values()))
def test_states_of_fp64_are_fp64(choices: dict[str, str]) -> None:
    model = small_model(choices).double()
    state = model.initial_state(1, 4)
    _, state = model.decode(torch.zeros(1, 2, dtype=torch.long), state)
    tensors = [value for layer in state.layers for value in vars(layer).values()]
    found = {value.dtype for value in tensors if isinstance(value, torch.Tensor)}
    assert found == {torch.float64}
