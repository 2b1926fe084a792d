"""Drawing the next token: ties, edges, extreme temperatures, logits that are not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modgpt import generate
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.errors import UserError
from modgpt.inference.sampling import MOST_SEED, Sampling, sample
from tests.compositions import small_model

LETTERS = CharTokenizer("\nabcdefghij")


def drawn(logits: torch.Tensor, n: int = 2000, **options: Any) -> set[int]:
    generator = torch.Generator().manual_seed(0)
    rows = logits.expand(n, -1)
    return set(sample(rows, generator, **({"temperature": 1.0} | options)).tolist())


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_keeps_k_of_equal_logits(k: int) -> None:
    """The lowest ids among those that tie at the border; all that lie above it."""
    assert drawn(torch.zeros(1, 10), top_k=k) == set(range(k))
    logits = torch.tensor([[0.0, 1.0, 0.0, 2.0, 0.0]])
    assert drawn(logits, top_k=3) == {3, 1, 0}


def test_rows_keep_their_own_ties() -> None:
    logits = torch.tensor([[0.0, 0.0, -5.0], [-5.0, 0.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    assert sample(logits, generator, 1.0, top_k=1).tolist() == [0, 1]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    logits=st.lists(st.sampled_from([-1e30, -3.0, -1.0, 0.0, 0.5, 2.0, 80.0]), min_size=2, max_size=12),
    k=st.integers(1, 14),
    p=st.floats(1e-300, 1.0),
)
def test_what_is_drawn_lies_in_the_definition(logits: list[float], k: int, p: float) -> None:
    """Top-k and the nucleus, one token after the other from the definition."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:k]
    weights = [math.exp(logits[i] - logits[order[0]]) for i in order]
    allowed, mass = set(), 0.0
    for token, weight in zip(order, weights, strict=True):
        if mass >= p * sum(weights) * (1 + 1e-6):  # rounding may decide at the border
            break
        allowed.add(token)
        mass += weight
    found = drawn(torch.tensor([logits]), n=50, top_k=k, top_p=p)
    assert found <= allowed


def test_edges_of_top_p() -> None:
    half = torch.zeros(1, 2)
    assert drawn(half, top_p=0.5) == {0}, "one half is enough"
    assert drawn(half, top_p=0.5001) == {0, 1}
    assert drawn(torch.zeros(1, 8), top_p=1.0) == set(range(8))
    for p in (1e-7, 1e-45, 5e-324):  # the last two are 0 in single precision
        assert drawn(torch.zeros(1, 8), top_p=p) == {0}


def test_no_limit_changes_no_draw() -> None:
    logits = torch.randn(64, 30, generator=torch.Generator().manual_seed(1))
    texts = [
        sample(logits, torch.Generator().manual_seed(3), 1.0, **options).tolist()  # type: ignore[arg-type]
        for options in ({}, {"top_k": 30}, {"top_k": 10**30}, {"top_p": 1.0})
    ]
    assert all(text == texts[0] for text in texts)


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 1e-45, 5e-324])
def test_the_limit_of_low_temperatures_is_greedy(temperature: float) -> None:
    logits = torch.randn(500, 65, generator=torch.Generator().manual_seed(0)) * 30
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(sample(logits, generator, temperature), logits.argmax(-1))
    assert drawn(torch.tensor([[1.0, 3.0, 3.0]]), temperature=temperature) == {1, 2}, "ties are equal"
    assert drawn(torch.tensor([[1.0, 3.0, 3.0]]), temperature=temperature, top_k=1) == {1}


@pytest.mark.parametrize("temperature", [1e30, 1e308])
def test_the_limit_of_high_temperatures_is_uniform(temperature: float) -> None:
    logits = torch.tensor([[0.0, 30.0, -30.0]])
    assert drawn(logits, temperature=temperature) == {0, 1, 2}
    assert drawn(logits, temperature=temperature, top_k=1) == {1}, "the order is that of the logits"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(bad: float, temperature: float) -> None:
    logits = torch.zeros(2, 5)
    logits[1, 3] = bad
    with pytest.raises(UserError, match="the model's logits are not finite"):
        sample(logits, torch.Generator(), temperature)
    with pytest.raises(UserError, match="the model's logits are not finite"):
        sample(torch.full((1, 3), -math.inf), torch.Generator(), temperature)
    masked = torch.tensor([[0.0, -math.inf]])
    assert drawn(masked) == {0}, "a masked token is none of them"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": math.nan}, r"temperature must be 0 \(greedy\) or a positive number, got nan"),
        ({"temperature": math.inf}, "got inf"),
        ({"temperature": -1e-300}, "got -1e-300"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": math.nan}, r"top_p must lie in \(0, 1\], got nan"),
        ({"top_p": 1.0000001}, "top_p must lie"),
        ({"seed": -1}, "seed must lie between 0 and 9223372036854775807, got -1"),
        ({"seed": 2**63}, "seed must lie between"),
        ({"context": 0}, "context must be at least 1 token, got 0"),
        ({"context": -1}, "context must be at least 1 token, got -1"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, got -1"),
    ],
    ids=str,
)
def test_options_out_of_their_range(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        Sampling(**options)
    with pytest.raises(UserError, match=text):
        generate(small_model({}), LETTERS, "a", **options)


def test_seeds_at_their_end() -> None:
    last = Sampling(seed=MOST_SEED)
    assert last.next_seed().seed == 0 and Sampling().next_seed().seed is None
    assert generate(small_model({}), LETTERS, "a", max_new_tokens=3, seed=MOST_SEED)
