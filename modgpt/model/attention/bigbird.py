"""Causal softmax attention over blocks: the last ones, the first ones, and some drawn at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modgpt.model.attention.flash import KVCache
from modgpt.model.attention.gathered import Keys, in_blocks, softmax_over
from modgpt.model.attention.pattern import PatternAttention, Rule
from modgpt.model.attention.softmax import softmax_weights
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import State

ALL_BITS = 2**32 - 1


def bigbird_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    sink: Tensor | None = None,
    *,
    scale: float,
    softcap: float | None,
    block: int,
    n_window: int,
    n_global: int,
    n_random: int,
    seed: int,
    layer: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """softmax(scale·QKᵀ + bias) V, each query over the keys of a few blocks.

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them.
    """

    def blocks_seen(n: int) -> set[int]:
        """Those of the queries in block n: the window, the first ones, and some drawn at random."""
        window = set(range(max(0, n - n_window + 1), n + 1))
        others = [m for m in range(n_global, n) if m not in window]
        drawn: set[int] = set()  # n_random of the others, by Floyd's method
        for d in range(n_random):
            last = len(others) - n_random + d
            if last >= 0:
                random = scrambled(scrambled(scrambled(scrambled(seed & ALL_BITS) + layer) + n) + d)
                pick = others[random % (last + 1)]
                drawn.add(others[last] if pick in drawn else pick)
        return window | set(range(min(n_global, n))) | drawn

    q, k, rows = pos.rotate(q), pos.rotate(k), []
    for i in range(len(q)):
        blocks = blocks_seen(i // block)
        seen = [j for j in range(i + 1) if j // block in blocks]
        scores, bias = scale * q[i] @ k[seen].T, pos.bias([i - j for j in seen])
        rows.append(softmax_weights(scores, bias, None if sink is None else sink[i], softcap) @ v[seen])
    return torch.stack(rows), {"k": k, "v": v}


class BigBirdAttention(PatternAttention):
    """softmax(QKᵀ/√D + bias) V, the queries of each block of b tokens over the keys of a few blocks.

    Query block n sees, up to the query's own position,
      - the window, blocks n−w+1 … n;
      - the first g blocks;
      - r blocks drawn at random among those that are left, g … n−w, or all of these if there are fewer.
    The draw depends on (seed, layer, n) alone, not on T: text that goes on changes nothing before.

    Source: Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", section 2, in blocks as in
    appendix D, here causal: the window reaches back alone, and the global tokens, which the paper lets
    see everything, see their past.

    Cost per token and head: 4·D FLOPs for each key seen, at most b·(w+g+r). Cache: 2·T·D numbers, any
    block may be drawn later; a step reads only the blocks that it sees.

    Args:
        block: b.
        n_window: w, the query's own block included.
        n_global: g.
        n_random: r.
        seed: of the draw.

    Raises:
        ValueError: block < 1, n_window < 1, n_global < 0 or n_random < 0.
    """

    definition = staticmethod(bigbird_attention)
    variants = (
        {"block": 2},
        {"block": 1, "n_window": 2, "n_global": 2, "n_random": 3},
        {"block": 2, "n_window": 1, "n_random": 2},
        {"block": 4, "n_window": 3, "n_global": 0, "seed": 7},
        {"block": 64, "n_random": 0},
        {"block": 2, "sinks": True, "softcap": 2.0},
    )
    key: Tensor

    def __init__(
        self,
        *,
        block: int = 8,
        n_window: int = 2,
        n_global: int = 1,
        n_random: int = 1,
        seed: int = 0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        for name, value in {"block": block, "n_window": n_window}.items():
            if value < 1:
                raise ValueError(f"attention.{name} must be at least 1, got {value}")
        for name, value in {"n_global": n_global, "n_random": n_random}.items():
            if value < 0:
                raise ValueError(f"attention.{name} must be at least 0, got {value}")
        self.block, self.n_window, self.n_global, self.n_random = block, n_window, n_global, n_random
        self.seed = seed
        # A tensor, so that compiled code is the same for all layers; made anew, so never stored.
        key = torch.tensor(scrambled(scrambled(seed & ALL_BITS) + self.layer))
        self.register_buffer("key", key, persistent=False)

    def rule(self, length: int, device: torch.device) -> Rule:
        size = self.block
        n = torch.arange(-(-length // size), device=device)
        earlier = self.earlier_blocks(n)  # (N,w−1+g+r)
        seen = (earlier.unsqueeze(-1) == n).any(1) | (n[:, None] == n)  # (N,N)
        return lambda i, j: (j <= i) & seen[i // size, j // size]

    def gathered(
        self, q: Tensor, k: Tensor, v: Tensor, pos: Position, state: State | None
    ) -> tuple[Tensor, State | None]:
        length, device, start = q.shape[2], q.device, 0
        if state is not None:
            assert isinstance(state, KVCache)
            start = state.length
            k, v = state.append(k, v)
        first, before = divmod(start, self.block)  # the block of the first query, and its place there
        if length == 1:  # a block of one query: the others of its block are not asked
            padding, size, n_own = 0, 1, before + 1
        else:
            padding, size, n_own = before, self.block, self.block
        q = in_blocks(q, size, padding)  # (B,H,N,R,D)
        block = torch.arange(first, first + q.shape[2], device=device)  # (N,)
        place = torch.arange(size, device=device)[None, :, None] + (before - padding)  # (1,R,1)

        back = place - torch.arange(n_own, device=device)  # (1,R,S)
        own = Keys(
            in_blocks(k[:, :, first * self.block :], n_own),
            in_blocks(v[:, :, first * self.block :], n_own),
            per="block",
            distance=back,
            allowed=back >= 0,
        )
        blocks = self.earlier_blocks(block)  # (N,w−1+g+r)
        k_positions = blocks.unsqueeze(-1) * self.block + torch.arange(self.block, device=device)
        k_positions = k_positions.flatten(1)[:, None, :]  # (N,1,S), below 0 where there is no block
        earlier = Keys(
            self.gather(k, blocks, k_positions, length == 1),
            self.gather(v, blocks, k_positions, length == 1),
            per="block",
            distance=block[:, None, None] * self.block + place - k_positions,
            allowed=k_positions >= 0,
        )
        y = softmax_over(q, [earlier, own], pos, self)
        return y.flatten(2, 3)[:, :, padding : padding + length], state

    def gather(self, x: Tensor, blocks: Tensor, positions: Tensor, single: bool) -> Tensor:
        """Keys or values of blocks (N,·), at positions (N,1,S): x (B,Hkv,T,D) -> (B,Hkv,N,S,D)."""
        if single:  # of the cache of the whole text a step reads these rows and no others
            return x.index_select(2, positions.flatten().clamp(min=0)).unsqueeze(2)
        x = in_blocks(x, self.block, before=self.block)  # behind a block of zeros, for −1
        x = x.index_select(2, (blocks + 1).clamp(min=0).flatten())
        return x.unflatten(2, blocks.shape).flatten(3, 4)

    def earlier_blocks(self, n: Tensor) -> Tensor:
        """Those that query blocks n see beside themselves, all different: (N,) -> (N,w−1+g+r).

        Below 0 stands for none.
        """
        oldest = n[:, None] - self.n_window + 1  # of the window
        window = oldest + torch.arange(self.n_window - 1, device=n.device)
        first = torch.arange(self.n_global, device=n.device).expand(len(n), -1)
        first = first.masked_fill(first >= oldest, -1)  # those the window has already
        return torch.cat([first, *self.draw(n[:, None], oldest - self.n_global), window], dim=1)

    def draw(self, n: Tensor, choices: Tensor) -> list[Tensor]:
        """r different blocks from g on, for each query block n (N,1) one of `choices` (N,1) many.

        After Floyd (Bentley & Floyd 1987, "A sample of brilliance"): the d-th draw is one of the first
        choices−r+d+1, or the last of them if it was drawn before.
        """
        drawn: list[Tensor] = []  # (N,1) each
        for d in range(self.n_random):
            last = choices - self.n_random + d
            random = scrambled(scrambled(self.key + n) + d)
            picked = self.n_global + random % (last + 1).clamp(min=1)
            for other in drawn[:d]:
                picked = picked.where(picked != other, self.n_global + last)
            drawn.append(picked.masked_fill(last < 0, -1))
        return drawn

    def initial_state(self, batch_size: int, capacity: int) -> KVCache:
        shape = (batch_size, self.n_kv_heads, capacity, self.head_dim)
        return KVCache(k=self.qkv.weight.new_empty(shape), v=self.qkv.weight.new_empty(shape))

    def mixing_flops(self, length: int) -> float:
        whole, rest = divmod(length, self.block)
        # Block n has n before it and sees s of them at most.
        s = self.n_window - 1 + self.n_global + self.n_random
        few = min(whole, s)
        earlier = few * (few - 1) / 2 + s * (whole - few)  # Σ min(n, s) over whole blocks n
        pairs = self.block**2 * earlier + self.block * rest * min(whole, s)
        pairs += whole * self.block * (self.block + 1) / 2 + rest * (rest + 1) / 2  # in its own block
        return 4 * self.n_heads * self.head_dim * pairs / length

    def state_size(self, length: int) -> int:
        return 2 * self.n_kv_heads * length * self.head_dim


def scrambled(x: Any) -> Any:
    """32 bits that look random, of an integer ≥ 0 or a tensor of such: Mueller's hash, as in H2.

    A hash gives the random number of a place (seed, layer, block) directly. A random sequence would have
    to be drawn from its beginning.
    """
    for _ in range(2):
        x = ((x >> 16) ^ x) * 0x45D9F3B & ALL_BITS
    return (x >> 16) ^ x
