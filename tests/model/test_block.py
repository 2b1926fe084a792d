"""The residual branches: gains, the embedding mixed in again, branches left out in training."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from modgpt.model.block import Block
from modgpt.testing.build import small_model
from modgpt.testing.models import tokens


def model_with(**knobs: Any) -> Any:
    return small_model(block=partial(Block, **knobs))


def test_what_starts_as_the_identity_changes_nothing_at_the_start() -> None:
    """Gains of 1, and shares of 1 and 0, are the plain block."""
    plain, gained = model_with(), model_with(layer_scale=1.0, embedding_residual=True)
    with torch.no_grad():
        assert torch.equal(plain(tokens()), gained(tokens()))
    assert gained.blocks[0].shares.tolist() == [1, 0]


def test_gains_and_shares_do_what_they_say() -> None:
    model = model_with(layer_scale=0.25, embedding_residual=True)
    assert all((gain == 0.25).all() for block in model.blocks for gain in block.gains)
    with torch.no_grad():
        for block in model.blocks:
            for gain in block.gains:
                gain.zero_()
            block.shares.copy_(torch.tensor([0.5, 2.0]))
        embedded = model.embedding(tokens())
        x = 0.5 * (0.5 * embedded + 2 * embedded) + 2 * embedded  # two layers without branches
        assert torch.allclose(model(tokens()), model.logits(model.norm(x)), atol=1e-6)


def test_stochastic_depth_leaves_out_branches_of_single_sequences() -> None:
    """The mean over many draws is the output without it, and some sequences lose a branch."""
    block = model_with(stochastic_depth=0.4).blocks[0]
    y = torch.ones(20_000, 1, 1)
    block.train()
    torch.manual_seed(0)
    added = block.added(y, 0)
    assert added.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (added == 0).float().mean() == pytest.approx(0.4, abs=0.02)
    assert added.mean() == pytest.approx(1.0, abs=0.03)
    block.eval()
    assert torch.equal(block.added(y, 0), y)


def test_a_sequence_is_left_out_as_a_whole() -> None:
    block = model_with(stochastic_depth=0.5).blocks[0].train()
    added = block.added(torch.ones(64, 7, 3), 1).flatten(1)
    assert ((added == 0).all(1) | (added == 2).all(1)).all()


@pytest.mark.parametrize(
    ("knobs", "text"),
    [
        ({"layer_scale": 0.0}, "block.layer_scale must be positive, got 0.0"),
        ({"layer_scale": float("nan")}, "block.layer_scale must be positive, got nan"),
        ({"stochastic_depth": 1.0}, r"block.stochastic_depth must lie in \[0, 1\), got 1.0"),
        ({"one_norm": True}, "block.one_norm=true needs block=parallel"),
        ({"one_norm": True, "parallel": True, "norm_at": "out"}, "not two norms of one x"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        model_with(**knobs)


def test_one_norm_has_one_norm() -> None:
    """Half of the norms, and the same output as two norms with the same gains."""
    one = model_with(parallel=True, one_norm=True)
    two = model_with(parallel=True)
    state = one.state_dict()
    extra = {
        name: state[name.replace("ffn_norm_in", "attention_norm_in")]
        for name in two.state_dict()
        if "ffn_norm_in" in name
    }
    assert len(extra) == 2 and not extra.keys() & state.keys()
    two.load_state_dict(state | extra)
    with torch.no_grad():
        assert torch.equal(one(tokens()), two(tokens()))
