"""What is compared is of the same size, and does what it is said to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import operators, sampling, startup
from benchmarks.peers import SIZES, Loop, PlainGPT, Size
from benchmarks.training import COMPOSITIONS, PEERS, sized
from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.model.cost import count_parameters
from modgpt.model.gpt import GPT

TINY = Size(n_layers=2, d_model=32, n_heads=2, block_size=16, batch_size=2)


def ours(name: str, size: Size) -> GPT:
    return build_model(compose([*COMPOSITIONS[name], *sized(size)]), size.vocab_size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("peer", "name"),
    [("plain GPT-2", "GPT-2"), ("transformers GPT-2", "GPT-2"), ("transformers Llama", "Llama")],
)
def test_peers_have_as_many_parameters(peer: str, name: str, size: str) -> None:
    if peer.startswith("transformers"):
        pytest.importorskip("transformers")
    theirs = count_parameters(PEERS[peer](SIZES[size]))
    assert count_parameters(ours(name, SIZES[size])) == theirs


@pytest.mark.parametrize("peer", PEERS)
def test_peers_read_and_learn(peer: str) -> None:
    if peer != "plain GPT-2":
        pytest.importorskip("x_transformers" if peer.startswith("x-") else "transformers")
    torch.manual_seed(0)
    model = PEERS[peer](TINY)
    tokens = torch.zeros(1, 5, dtype=torch.long)
    changed = tokens.clone()
    changed[0, -1] = 1
    assert model(tokens).shape == (1, 5, TINY.vocab_size)
    torch.testing.assert_close(model(tokens)[:, :-1], model(changed)[:, :-1])  # causal
    before = [p.detach().clone() for p in model.parameters()]
    assert Loop(model, TINY, bf16=False).tokens_per_second(1) > 0
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_plain_loop_samples_from_its_window() -> None:
    model = PlainGPT(TINY).eval()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    out = model.generate(torch.zeros(1, 1, dtype=torch.long), 20, TINY.block_size)
    assert out.shape == (1, 21) and seen == [min(n, 16) for n in range(1, 21)]


def test_every_sampler_writes_what_it_is_asked_for() -> None:
    pytest.importorskip("transformers")
    for turn in (
        *(sampling.ours(name, TINY, 20) for name in COMPOSITIONS),
        sampling.plain(TINY, 20),
        *(sampling.cached(name, TINY, 20) for name in sampling.TRANSFORMERS),
    ):
        assert turn() > 0


@pytest.mark.parametrize(
    ("operation", "name"), [(o, n) for o, names in operators.OPERATIONS.items() for n in names]
)
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_operators_run_forwards_and_backwards(operation: str, name: str) -> None:
    size = replace(TINY, d_model=64)
    assert operators.turn_of(operation, name, size, 1)() > 0


def test_both_ways_to_rotate_are_the_same() -> None:
    results = []
    for name in ("RoPE", "RoPE, elementwise"):
        torch.manual_seed(0)
        call, _ = operators.rotation(name, TINY)
        results.append(call())
    torch.testing.assert_close(*results, rtol=2e-2, atol=2e-2)


def test_a_typo_is_answered() -> None:
    assert startup.typo() > 0
