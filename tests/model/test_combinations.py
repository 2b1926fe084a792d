"""What must hold for every combination of parts, whatever parts there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modgpt.model.gpt import GPT
from tests.compositions import combinations, name_of, part, small_model

every_combination = pytest.mark.parametrize("choices", combinations(), ids=name_of)
# Not a multiple of the window (5) or the chunk (4), and past both.
LENGTH = 14


def tokens(length: int = LENGTH, batch: int = 2) -> Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(1))


def input_gradient(model: GPT, ids: Tensor, t: int) -> Tensor:
    """Gradient of the logits of token t with respect to the embeddings of all tokens: (B,T,C)."""
    kept: list[Tensor] = []

    def keep(module: object, inputs: object, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        kept.append(leaf)
        return leaf

    handle = model.embedding.register_forward_hook(keep)
    logits = model(ids)
    handle.remove()
    weights = torch.randn(logits.shape[-1], generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((logits[:, t] * weights).sum(), kept)
    return gradient


@every_combination
def test_no_output_depends_on_later_inputs(choices: dict[str, str]) -> None:
    model = small_model(choices)
    for t in (0, 4, 9, LENGTH - 2):
        gradient = input_gradient(model, tokens(), t)
        assert gradient[:, t + 1 :].abs().max() == 0, f"output {t} sees the future"
        assert gradient[:, t].abs().max() > 0, f"output {t} does not see its own input"
        if t:
            assert gradient[:, t - 1].abs().max() > 0, f"output {t} does not see its predecessor"


@every_combination
def test_decoding_equals_the_forward_pass(choices: dict[str, str]) -> None:
    model = small_model(choices).eval()
    ids = tokens()
    with torch.no_grad():
        wanted = model(ids)
        # Token by token; after a prefill within the window; after one past it, in two parts.
        for parts in ([1] * LENGTH, [3] + [1] * (LENGTH - 3), [7, 4, 1, 1, 1]):
            state = model.initial_state(len(ids), LENGTH)
            got = []
            for piece in ids.split(parts, dim=1):
                logits, state = model.decode(piece, state)
                got.append(logits)
            assert state.length == LENGTH
            torch.testing.assert_close(torch.cat(got, dim=1), wanted, rtol=1e-4, atol=1e-4)


@every_combination
def test_every_parameter_gets_a_finite_gradient(choices: dict[str, str]) -> None:
    model = small_model(choices)
    x, aux = model.hidden(tokens())
    loss = model.head(x).logsumexp(-1).mean() + sum(v.sum() for k, v in aux.items() if k == "loss")
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} takes no part in the output"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert parameter.grad.abs().max() > 0, f"{name} has no gradient at all"


@every_combination
@pytest.mark.parametrize("length", [1, 2, 5, 20])
def test_any_length(choices: dict[str, str], length: int) -> None:
    """One token, the window exactly, several windows; later tokens change nothing before them."""
    model = small_model(choices).eval()
    ids = tokens(20)
    with torch.no_grad():
        logits = model(ids[:, :length])
        assert logits.isfinite().all()
        torch.testing.assert_close(logits, model(ids)[:, :length], rtol=1e-4, atol=1e-4)


@every_combination
def test_the_batch_does_not_matter(choices: dict[str, str]) -> None:
    """Each sequence is on its own: nothing leaks from one to another."""
    model = small_model(choices).eval()
    ids = tokens(batch=3)
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[1:2], model(ids[1:2]), rtol=1e-4, atol=1e-4)


@every_combination
def test_cloned_states_branch(choices: dict[str, str]) -> None:
    model = small_model(choices).eval()
    ids = tokens()
    with torch.no_grad():
        _, state = model.decode(ids[:, :6], model.initial_state(len(ids), LENGTH))
        branch = state.clone()
        assert branch.nbytes == state.nbytes
        wanted, _ = model.decode(ids[:, 6:9], state)
        model.decode(ids[:, 9:12], branch.clone())
        got, _ = model.decode(ids[:, 6:9], branch)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("option", [c for c in combinations() if c["ffn"] == "standard"], ids=name_of)
@pytest.mark.parametrize("block", ["sequential", "parallel"])
@pytest.mark.parametrize("norm_at", ["in", "out", "both"])
def test_blocks_decode_too(option: dict[str, str], block: str, norm_at: str) -> None:
    part("block", block).norm_at = norm_at
    try:
        model = small_model({**option, "block": block}).eval()
    finally:
        part("block", block).norm_at = "in"
    ids = tokens()
    with torch.no_grad():
        state = model.initial_state(len(ids), LENGTH)
        first, state = model.decode(ids[:, :8], state)
        second, state = model.decode(ids[:, 8:], state)
        torch.testing.assert_close(torch.cat([first, second], 1), model(ids), rtol=1e-4, atol=1e-4)
