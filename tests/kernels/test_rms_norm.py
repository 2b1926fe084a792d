"""RMSNorm by hand is the definition, and is taken on a CPU alone."""

from __future__ import annotations

import pytest
import torch

from modgpt.kernels import rms_norm as kernel
from modgpt.model.norm.rmsnorm import RMSNorm, rms_norm


@pytest.mark.parametrize("eps", [1e-5, 1.0])
@pytest.mark.parametrize("shape", [(2, 5, 24), (7, 1), (9,)], ids=str)
def test_outputs_and_gradients(shape: tuple[int, ...], eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).requires_grad_()
    weight = torch.randn(shape[-1], generator=generator).requires_grad_()
    toward = torch.randn(shape, generator=generator)
    fast = kernel.rms_norm(x, weight=weight, eps=torch.tensor(eps))
    slow = rms_norm(x.double(), weight=weight.double(), eps=eps, zero_centred=False)
    torch.testing.assert_close(fast, slow.float(), rtol=1e-5, atol=1e-6)
    for got, wanted in zip(
        torch.autograd.grad(fast, (x, weight), toward),
        torch.autograd.grad(slow, (x, weight), toward.double()),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_it_is_for_fp32_and_narrower_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.is_faster(torch.zeros(1)) and kernel.is_faster(torch.zeros(1).bfloat16())
    assert not kernel.is_faster(torch.zeros(1).double())
    assert not kernel.is_faster(torch.zeros(1, device="meta"))
    calls = []
    monkeypatch.setattr(kernel, "rms_norm", lambda x, **_: calls.append(1) or x)
    RMSNorm(4)(torch.zeros(2, 4))
    RMSNorm(4).double()(torch.zeros(2, 4).double())
    assert len(calls) == 1
