"""The loss of a large vocabulary in slices is the plain one, with its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modgpt.data.batch import IGNORED
from modgpt.kernels import head_loss
from modgpt.testing.build import small_model
from modgpt.testing.compare import assert_same, relative_error
from modgpt.training.lit_module import LitGPT
from modgpt.training.objective import cross_entropy

V, C, N = 3000, 24, 700  # 700 rows are three slices


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, C, generator=generator, dtype=torch.float64) for n in (N, V))
    targets = torch.randint(V, (N,), generator=generator)
    targets[::5] = IGNORED
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0], ids="logits times {}".format)
def test_loss_and_gradients(dtype: torch.dtype, factor: float) -> None:
    """Also where the largest logit is far above all others, or a target is very improbable."""
    x, weight, targets = inputs(dtype)
    got = head_loss.head_loss(x * factor, weight, targets, IGNORED)
    wanted = F.cross_entropy(x * factor @ weight.mT, targets, ignore_index=IGNORED)
    assert_same(got, wanted, "loss")
    ours, plain = (torch.autograd.grad(3 * loss, [x, weight]) for loss in (got, wanted))
    for mine, theirs, name in zip(ours, plain, ("x", "weight"), strict=True):
        assert relative_error(mine, theirs) < (1e-5 if dtype == torch.float32 else 1e-12), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("smoothing", "z"), [(0.1, 0.0), (0.0, 0.02), (0.2, 0.01)])
def test_label_smoothing_and_z_loss(smoothing: float, z: float, dtype: torch.dtype) -> None:
    """PyTorch's label smoothing and the z-loss by its formula; the cross-entropy stays apart."""
    x, weight, targets = inputs(dtype)
    got, parts = head_loss.head_objective(x, weight, targets, IGNORED, smoothing, z)
    logits = x @ weight.mT
    smooth = F.cross_entropy(logits, targets, ignore_index=IGNORED, label_smoothing=smoothing)
    squares = z * logits.logsumexp(-1).square()[targets != IGNORED].mean()
    assert_same(got, smooth + squares, "objective")
    plain = F.cross_entropy(logits, targets, ignore_index=IGNORED)
    assert_same(parts, torch.stack([plain, smooth - plain, squares]), "parts")
    ours, theirs = (torch.autograd.grad(3 * loss, [x, weight]) for loss in (got, smooth + squares))
    for mine, wanted, name in zip(ours, theirs, ("x", "weight"), strict=True):
        assert relative_error(mine, wanted) < (1e-5 if dtype == torch.float32 else 1e-12), name


def test_under_autocast() -> None:
    x, weight, targets = inputs(torch.float32)
    wanted = head_loss.head_loss(x, weight, targets, IGNORED)
    with torch.autocast("cpu", torch.bfloat16):
        got = head_loss.head_loss(x, weight, targets, IGNORED)
        plain = cross_entropy((x @ weight.mT)[None], targets[None])
    assert got.dtype == torch.float32
    assert abs(got - wanted) < 2 * abs(plain - wanted) + 1e-3, "as exact as the plain way"
    ours, exact = (torch.autograd.grad(loss, [x, weight]) for loss in (got, wanted))
    assert all(relative_error(a, b) < 0.02 for a, b in zip(ours, exact, strict=True))


def test_no_target_counts() -> None:
    x, weight, targets = inputs(torch.float32)
    loss = head_loss.head_loss(x, weight, torch.full_like(targets, IGNORED), IGNORED)
    assert loss == 0 and not any(g.any() for g in torch.autograd.grad(loss, [x, weight]))


@pytest.mark.parametrize("tied", [True, False])
def test_training_with_a_large_vocabulary(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step of the LightningModule: the loss and all gradients are those of the plain way."""
    model = small_model(vocab_size=V, tied_head=tied)
    lit = LitGPT(model, torch.optim.SGD, lambda step: 1.0)  # type: ignore[arg-type]
    batch = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    fast = lit.training_step(batch, 0)
    ours = torch.autograd.grad(fast, list(model.parameters()))
    monkeypatch.setattr(head_loss, "is_better", lambda *_: False)
    slow = lit.training_step(batch, 0)
    assert_same(fast, slow, "loss")
    for a, b in zip(ours, torch.autograd.grad(slow, list(model.parameters())), strict=True):
        assert_same(a, b, "gradient")


def test_a_small_vocabulary_goes_the_plain_way() -> None:
    large, small = torch.empty(head_loss.SMALLEST, 4), torch.empty(65, 4)
    assert head_loss.is_better(large) and not head_loss.is_better(small)
    with torch.autocast("cpu", torch.float16):
        assert not head_loss.is_better(large), "small gradients would be lost before the loss is scaled"


@pytest.mark.parametrize("knobs", [{"logit_softcap": 5.0}, {"logit_scale": 0.5}, {"head_bias": True}])
def test_a_head_that_is_more_than_a_product_goes_the_plain_way(knobs: dict[str, Any]) -> None:
    model = small_model(vocab_size=V, tied_head=False, **knobs)
    if model.head.bias is not None:
        torch.nn.init.normal_(model.head.bias)
    lit = LitGPT(model, torch.optim.SGD, lambda step: 1.0)  # type: ignore[arg-type]
    batch = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    wanted = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    assert_same(lit.training_step(batch, 0), wanted, "loss")
