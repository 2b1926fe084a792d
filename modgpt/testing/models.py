"""What must hold for every model, whatever its parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modgpt.model.gpt import GPT
from modgpt.testing.compare import TOLERANCE, relative_error

# Not a multiple of a window, block or chunk of 4 or 5, and past two of them.
LENGTH = 14


def tokens(length: int = LENGTH, batch: int = 2) -> Tensor:
    """Random ids (B,T) of the small model's vocabulary."""
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(1))


def check_causality(model: GPT, at: Sequence[int] = (0, 4, 9, LENGTH - 2)) -> None:
    """The gradient of output t with respect to later inputs is exactly zero."""
    for t in at:
        gradient = input_gradient(model, tokens(), t)
        assert gradient[:, t + 1 :].abs().max() == 0, f"output {t} sees the future"
        assert gradient[:, t].abs().max() > 0, f"output {t} does not see its own input"
        if t:
            assert gradient[:, t - 1].abs().max() > 0, f"output {t} does not see its predecessor"


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


# Token by token; after a prefill within the window; after one past it, in two parts.
PIECES = ([1] * LENGTH, [3] + [1] * (LENGTH - 3), [7, 4, 1, 1, 1])


def check_decoding(model: GPT, pieces: Sequence[Sequence[int]] = PIECES) -> None:
    """Logits of tokens that come in pieces are those of one forward pass."""
    model.eval()
    ids = tokens()
    with torch.no_grad():
        wanted = model(ids)
        for lengths in pieces:
            state, got = model.initial_state(len(ids), LENGTH), []
            for piece in ids.split(list(lengths), dim=1):
                logits, state = model.decode(piece, state)
                got.append(logits)
            assert state.length == LENGTH
            near(torch.cat(got, dim=1), wanted, f"decoding in pieces of {lengths}")


def near(got: Tensor, wanted: Tensor, what: str) -> None:
    """Equal to within the rounding of fp32 or fp64; in bf16 near, on average."""
    if got.dtype in TOLERANCE:
        tolerance = TOLERANCE[got.dtype]
        torch.testing.assert_close(
            got, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
        )
    else:
        error = relative_error(got, wanted)
        assert error < 0.05, f"{what}: off by {error:.1%} on average"


def check_gradients(model: GPT) -> None:
    """Every parameter takes part in the loss, and gets a finite gradient."""
    x, aux = model.hidden(tokens())
    loss = model.logits(x).logsumexp(-1).mean() + sum(v.sum() for k, v in aux.items() if k == "loss")
    model.zero_grad()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} takes no part in the output"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert parameter.grad.abs().max() > 0, f"{name} has no gradient at all"


def check_lengths(model: GPT, lengths: Sequence[int] = (1, 2, 5, 20)) -> None:
    """Any length will do, and later tokens change nothing before them."""
    model.eval()
    ids = tokens(20)
    with torch.no_grad():
        whole = model(ids)
        for length in lengths:
            logits = model(ids[:, :length])
            assert logits.isfinite().all(), f"{length} tokens"
            near(logits, whole[:, :length], f"{length} tokens")


def check_batch(model: GPT) -> None:
    """Each sequence of a batch is on its own."""
    model.eval()
    ids = tokens(batch=3)
    with torch.no_grad():
        near(model(ids)[1:2], model(ids[1:2]), "one sequence alone")


def check_branches(model: GPT) -> None:
    """A clone of a decoding state goes on as its original does."""
    model.eval()
    ids = tokens()
    with torch.no_grad():
        _, state = model.decode(ids[:, :6], model.initial_state(len(ids), LENGTH))
        branch = state.clone()
        assert branch.nbytes == state.nbytes
        wanted, _ = model.decode(ids[:, 6:9], state)
        model.decode(ids[:, 9:12], branch.clone())
        got, _ = model.decode(ids[:, 6:9], branch)
    torch.testing.assert_close(got, wanted)


def check_precision(model: GPT, dtype: torch.dtype) -> None:
    """Forward pass, gradients and decoding with all weights in another precision."""
    ids = tokens()
    with torch.no_grad():
        wanted = model(ids)
    model = model.to(dtype)
    got = model(ids)
    assert got.dtype == dtype
    error = relative_error(got, wanted)
    limit = 1e-5 if dtype == torch.float64 else 0.1
    assert error < limit, f"{dtype} is off by {error:.1e} on average"
    check_gradients(model)
    check_decoding(model)


def check_model(model: GPT) -> None:
    """All of the above that leave the model's precision alone."""
    for check in (check_causality, check_decoding, check_gradients, check_lengths, check_batch):
        check(model)
    check_branches(model)
