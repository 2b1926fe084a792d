"""Which keys the sparse attentions see, at any length, and what they never make or keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils._pytree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modgpt.model.attention.base import Attention
from modgpt.model.pos.base import Position
from modgpt.testing.build import component, options_of, with_knobs

NO_POSITION = Position(d_model=8, n_heads=2, block_size=8, init_std=0.02)


def made(option: str, layer: int = 0, **knobs: Any) -> Attention:
    """An attention of two heads of four."""
    make = with_knobs(options_of("attention")[option], **knobs)
    return component(make, d_model=8, n_heads=2, layer=layer)


def seen(attention: Attention, length: int) -> list[list[int]]:
    """The keys of every query, read off by running the module on equal scores and one-hot values."""
    zeros = torch.zeros(1, 2, length, length)
    values = torch.eye(length).expand(1, 2, -1, -1)
    y, _ = attention.mix(zeros, zeros, values, NO_POSITION, torch.arange(length), None)
    assert torch.equal(y[0, 0], y[0, 1])
    for i, row in enumerate(y[0, 0]):
        weights = row[row > 0]
        # A key that was counted twice would weigh twice as much.
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / len(weights)), msg=f"query {i}")
    return [row.nonzero().flatten().tolist() for row in y[0, 0]]


def lengths(size: int) -> list[int]:
    """Less than, exactly, and one more than a block; two blocks and around them; many."""
    return sorted({1, max(1, size - 1), size, size + 1, 2 * size, 2 * size + 1, 5 * size + 2})


# --- patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7])
def test_strided_sees_the_last_ones_and_multiples_of_the_stride(stride: int) -> None:
    for length in lengths(stride):
        wanted = [
            [j for j in range(i + 1) if i - j < stride or (i - j) % stride == 0] for i in range(length)
        ]
        assert seen(made("sparse", pattern="strided", stride=stride), length) == wanted


@pytest.mark.parametrize(("stride", "summary"), [(1, 1), (2, 1), (3, 2), (4, 1), (4, 4), (7, 3)])
def test_fixed_sees_its_block_and_the_last_ones_of_each(stride: int, summary: int) -> None:
    for length in lengths(stride):
        wanted = [
            [j for j in range(i + 1) if j // stride == i // stride or j % stride >= stride - summary]
            for i in range(length)
        ]
        attention = made("sparse", pattern="fixed", stride=stride, summary=summary)
        assert seen(attention, length) == wanted


@pytest.mark.parametrize("pattern", ["fixed", "strided"])
def test_two_steps_connect_any_two_tokens(pattern: str) -> None:
    """What makes the factorization one: some token in between sees the one and is seen by the other.

    With fixed that is the summary token of the block, unless both are in one.
    """
    rows = seen(made("sparse", pattern=pattern, stride=4, summary=1), 30)
    reached = [set().union(*(rows[j] for j in row)) for row in rows]
    assert all(reached[i] == set(range(i + 1)) for i in range(30))


def blocks_of(attention: Attention, n_blocks: int, block: int) -> list[list[int]]:
    """The blocks that each query block sees: all queries of one the same, up to their own position."""
    rows = seen(attention, n_blocks * block)
    blocks = []
    for n in range(n_blocks):
        last = sorted({j // block for j in rows[n * block + block - 1]})
        for i in range(n * block, (n + 1) * block):
            assert rows[i] == [j for j in range(i + 1) if j // block in last]
        blocks.append(last)
    return blocks


@pytest.mark.parametrize("n_random", [0, 1, 3])
@pytest.mark.parametrize("n_global", [0, 1, 2])
@pytest.mark.parametrize("n_window", [1, 2, 3])
def test_bigbird_sees_window_first_and_random_blocks(
    n_window: int, n_global: int, n_random: int
) -> None:
    for block in (1, 3):
        knobs = {"n_window": n_window, "n_global": n_global, "n_random": n_random}
        for n, found in enumerate(blocks_of(made("bigbird", block=block, **knobs), 14, block)):
            window = set(range(max(0, n - n_window + 1), n + 1))
            sure = window | set(range(min(n_global, n)))
            assert sure <= set(found)
            assert len(found) == len(sure) + min(n_random, n + 1 - len(sure)), f"block {n}: {found}"


def test_bigbird_draws_the_same_at_any_length() -> None:
    attention = made("bigbird", block=2, n_random=2)
    rows = seen(attention, 60)
    for length in (1, 2, 7, 30, 59):
        assert seen(attention, length) == rows[:length]


def test_bigbird_draws_by_layer_and_seed() -> None:
    def drawn(layer: int, seed: int) -> list[list[int]]:
        return seen(made("bigbird", layer=layer, seed=seed, block=1, n_random=2), 40)

    assert drawn(0, 0) == drawn(0, 0)
    different = [drawn(0, 0), drawn(1, 0), drawn(2, 0), drawn(0, 1), drawn(1, 1), drawn(0, -1)]
    assert all(a != b for n, a in enumerate(different) for b in different[:n])


@pytest.mark.parametrize("layer", [0, 1, 5])
def test_bigbird_draws_all_blocks_equally_often(layer: int) -> None:
    """Over many seeds, each of the ten that query block 12 may draw, and each pair of them."""
    singles, pairs, draws = Counter[int](), Counter[tuple[int, ...]](), 1800
    n = torch.tensor([12])
    for seed in range(draws):
        attention: Any = made("bigbird", layer=layer, seed=seed, n_window=2, n_global=1, n_random=2)
        first, *drawn, window = attention.earlier_blocks(n)[0].tolist()
        assert (first, window) == (0, 11)
        singles.update(drawn)
        pairs[tuple(sorted(drawn))] += 1
    assert sorted(singles) == list(range(1, 11)) and len(pairs) == 45
    # χ² of 9 and of 44 degrees of freedom; beyond these values in one case of 10,000.
    assert chi_square(singles, 2 * draws / 10) < 33.7
    assert chi_square(pairs, draws / 45) < 88.0


def chi_square(counts: Counter[Any], expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in counts.values())


# --- what is kept and what is made ----------------------------------------------------------------


def test_fixed_forgets_all_but_the_summaries() -> None:
    attention = made("sparse", pattern="fixed", stride=5, summary=2)
    state: Any = attention.initial_state(1, 40)
    for t in range(40):
        x = torch.randn(1, 1, 8)
        _, state = attention(x, NO_POSITION, torch.arange(t, t + 1), state)
        whole, rest = divmod(t + 1, 5)
        assert state.length == t + 1
        assert state.k.shape[2] == state.v.shape[2] == 2 * whole + rest


def test_fixed_holds_no_more_than_it_says() -> None:
    """A view of what is kept would keep the whole prompt in memory."""
    attention = made("sparse", pattern="fixed", stride=8)
    with torch.no_grad():
        state: Any = attention.initial_state(1, 100)
        _, state = attention(torch.randn(1, 100, 8), NO_POSITION, torch.arange(100), state)
    held = sum(x.untyped_storage().nbytes() for x in (state.k, state.v))
    assert held == state.nbytes


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor holds that any operation makes, views left out."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {memory(x) for x in torch.utils._pytree.tree_leaves(args) if isinstance(x, Tensor)}
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor) and memory(value) not in given:
                self.numbers = max(self.numbers, value.numel())
        return out


def memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


SUBQUADRATIC = [
    ("sparse", {"pattern": "fixed", "stride": 32, "summary": 1}),
    ("sparse", {"pattern": "strided", "stride": 32}),
    ("bigbird", {}),
]


def largest(attention: Attention, length: int, pos: Position) -> int:
    """The largest tensor of a forward and a backward pass over one sequence."""
    x = torch.randn(1, length, 8, requires_grad=True)
    with Largest() as record:
        attention(x, pos, torch.arange(length))[0].sum().backward()
    return record.numbers


@pytest.mark.parametrize("pos", ["none", "alibi"])
@pytest.mark.parametrize(("option", "knobs"), SUBQUADRATIC, ids=str)
def test_nothing_of_t_by_t_is_made(option: str, knobs: dict[str, Any], pos: str) -> None:
    """With two heads full attention has 2·T² scores; here no tensor has even a fifth of T²."""
    sizes = {"d_model": 8, "n_heads": 2, "block_size": 1024, "init_std": 0.02}
    position = component(options_of("pos")[pos], **sizes)
    length = 1024
    assert largest(made(option, **knobs), length, position) < length**2 / 5


def test_the_recorder_would_see_it() -> None:
    sizes = {"d_model": 8, "n_heads": 2, "block_size": 1024, "init_std": 0.02}
    alibi = component(options_of("pos")["alibi"], **sizes)
    assert largest(made("flash"), 256, alibi) >= 256**2


def test_bigbird_grows_with_the_length_alone() -> None:
    short, long = (largest(made("bigbird"), length, NO_POSITION) for length in (512, 2048))
    assert long <= 4.1 * short


@pytest.mark.parametrize(("option", "knobs"), SUBQUADRATIC[1:], ids=str)
def test_a_step_reads_only_what_it_sees(option: str, knobs: dict[str, Any]) -> None:
    """With keys of 4096 tokens in the cache, no operation makes a copy of it."""
    length, attention = 4096, made(option, **knobs)
    state: Any = attention.initial_state(1, length)
    state.k.normal_()
    state.v.normal_()
    state.length = length - 1
    q = torch.randn(1, 2, 1, 4)
    with torch.no_grad(), Largest() as record:
        attention.mix(q, q, q, NO_POSITION, torch.arange(length - 1, length), state)
    assert record.numbers <= max(length, 200 * 2 * 4) < state.k.numel() / 4
