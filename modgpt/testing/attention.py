"""An attention beside its definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from modgpt.model.attention.base import Attention
from modgpt.model.definition import defined
from modgpt.model.pos.base import Position
from modgpt.model.state import State
from modgpt.testing.build import Make, component
from modgpt.testing.compare import assert_same, assert_same_gradients

D_MODEL = 24
# All at once; several tokens, more than a window of 4 at once, single ones; from an empty state one by
# one; pieces that end where a window or chunk of 4 does, and one longer than two of them.
PIECES = ([12], [3, 6, 1, 1, 1], [1] * 12, [4, 8], [2, 10])


class AttentionPair:
    """An attention and its definition, with the same weights and the same positions.

    Args:
        make: makes the attention.
        pos: makes the positional encoding.
        n_heads: query heads.
        d_model: width.
        dtype: of weights and inputs.
    """

    def __init__(
        self,
        make: Make,
        pos: Make = Position,
        *,
        n_heads: int = 6,
        d_model: int = D_MODEL,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        sizes = {"d_model": d_model, "n_heads": n_heads}
        self.module: Attention = component(make, **sizes).to(dtype)
        self.pos: Position = component(pos, **sizes, block_size=64, init_std=0.02).to(dtype)
        self.definition, self.defined_pos = defined(self.module), defined(self.pos)
        self.dtype = dtype

    def inputs(self, length: int, batch: int = 2) -> Tensor:
        """Random x (B,T,C)."""
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(batch, length, self.module.qkv.in_features, generator=generator)
        return x.to(self.dtype)

    def fast(self, x: Tensor, state: State | None = None, start: int = 0) -> tuple[Tensor, Any]:
        """What the module makes of x at positions from `start` on."""
        return self.module(x, self.pos, torch.arange(start, start + x.shape[1]), state)

    def slow(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the definition makes of x."""
        return self.definition(x, self.defined_pos)

    def in_pieces(self, x: Tensor, pieces: Sequence[int]) -> tuple[Tensor, Any]:
        """What the module makes of x when its tokens come piece by piece."""
        state: State | None = self.module.initial_state(len(x), x.shape[1])
        ys, start = [], 0
        for piece in x.split(list(pieces), dim=1):
            y, state = self.fast(piece, state, start)
            ys.append(y)
            start += piece.shape[1]
        return torch.cat(ys, dim=1), state

    def check(self, length: int) -> None:
        """Outputs and all gradients are the definition's, for a sequence of `length` tokens."""
        x = self.inputs(length).requires_grad_()
        (fast, state), (slow, _) = self.fast(x), self.slow(x)
        assert state is None, "forward returned a state, and none was given"
        assert_same(fast, slow, "output")
        assert_same_gradients(fast, slow, {"x": x, **dict(self.module.named_parameters())})

    def check_pieces(self, *pieces: Sequence[int]) -> None:
        """Outputs and final states are the definition's, for tokens that come in pieces."""
        x = self.inputs(sum(pieces[0]))
        with torch.no_grad():
            wanted, final = self.slow(x)
            for lengths in pieces:
                y, state = self.in_pieces(x, lengths)
                assert_same(y, wanted, f"output in pieces of {lengths}")
                self.check_state(state, final)

    def check_state(self, state: State, wanted: dict[str, Tensor]) -> None:
        """A state holds the tensors of the definition's, by name; heads may share keys and values."""
        found = tensors_of(state)
        assert sorted(found) == sorted(wanted), f"the state has {sorted(found)}, not {sorted(wanted)}"
        for name, tensor in found.items():
            every = wanted[name].shape[1] // tensor.shape[1]
            assert_same(tensor, wanted[name][:, ::every], f"state.{name}")


def tensors_of(state: State) -> dict[str, Tensor]:
    """The tensors of a state, by name."""
    values = {f.name: getattr(state, f.name) for f in fields(state)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def check_clone(pair: AttentionPair) -> None:
    """Two texts that begin alike may go on from clones of one state; neither disturbs the other."""
    x = pair.inputs(6)
    other = x.flip(1)
    with torch.no_grad():
        _, state = pair.fast(x[:, :4], pair.module.initial_state(len(x), 6))
        branch = state.clone()
        assert branch.nbytes == state.nbytes, "a clone is as large as its original"
        # By turns, so that each would overwrite what the other reads if they shared a buffer.
        _, state = pair.fast(x[:, 4:5], state, start=4)
        _, branch = pair.fast(other[:, 4:5], branch, start=4)
        y, _ = pair.fast(x[:, 5:], state, start=5)
        branch_y, _ = pair.fast(other[:, 5:], branch, start=5)
        assert_same(y, pair.slow(x)[0][:, 5:], "the original")
        wanted = pair.slow(torch.cat([x[:, :4], other[:, 4:]], dim=1))[0][:, 5:]
        assert_same(branch_y, wanted, "the branch")


def check_large_inputs(pair: AttentionPair, length: int, factor: float, *, narrow: bool) -> None:
    """Outputs and all gradients stay finite where inputs are so large that gates saturate.

    Args:
        pair: the attention.
        length: of each of three parts, the second of which is `factor` times as large as usual.
        factor: of the second part.
        narrow: under bf16 autocast.
    """
    usual = pair.inputs(length)
    x = torch.cat([usual, factor * usual, usual], dim=1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        y, _ = pair.fast(x)
    assert y.isfinite().all()
    y.float().square().mean().backward()
    for name, tensor in {"x": x, **dict(pair.module.named_parameters())}.items():
        assert tensor.grad is not None and tensor.grad.isfinite().all(), f"gradient of {name}"
        assert tensor.grad.any(), f"gradient of {name} is zero"
