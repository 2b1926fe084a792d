"""FlexAttention is what gathering is: the same keys seen, the same outputs, one mask for all calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from modgpt.kernels.flex_attention import FlexAttention
from modgpt.model.attention.gathered import distance_bias
from modgpt.model.attention.pattern import PatternAttention
from modgpt.model.pos.base import Position
from modgpt.testing.build import component, options_of, small, small_model, with_knobs
from modgpt.testing.compare import assert_same
from modgpt.training.callbacks.measuring import KernelRecorder
from tests.model.attention.test_patterns import NO_POSITION, made, seen


def flex(attention: Any, q: Tensor, k: Tensor, v: Tensor, pos: Position = NO_POSITION) -> Tensor:
    """What an attention makes of a whole sequence by FlexAttention, on any device."""
    bias = distance_bias(pos, torch.arange(q.shape[2]))
    return attention.flex(q, k, v, rule=attention.rule, bias=bias, scale=attention.scale)


def by_flex(attention: Any, q: Tensor, k: Tensor, v: Tensor, pos: Position, **_: Any) -> Any:
    """`mix` of whole sequences by FlexAttention."""
    return flex(attention, q, k, v, pos), None


PATTERNS = [
    ("sparse", {"pattern": "fixed", "stride": 8, "summary": 2}),
    ("sparse", {"pattern": "strided", "stride": 8}),
    ("bigbird", {"block": 4, "n_window": 2, "n_global": 1, "n_random": 2}),
]


@pytest.mark.parametrize("length", [1, 7, 8, 33, 300])
@pytest.mark.parametrize(("option", "knobs"), PATTERNS)
def test_flex_sees_what_gathering_sees(option: str, knobs: dict[str, Any], length: int) -> None:
    attention: Any = made(option, layer=1, kernel="flex", **knobs)
    sees = attention.rule(length, torch.device("cpu"))
    i, j = torch.arange(length)[:, None], torch.arange(length)
    assert [row.nonzero().flatten().tolist() for row in sees(i, j)] == seen(attention, length)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("pos", options_of("pos"))
@pytest.mark.parametrize("heads", [(3, 3), (6, 2), (4, 1)])
@pytest.mark.parametrize(("option", "knobs"), PATTERNS)
def test_flex_equals_gathering(
    option: str, knobs: dict[str, Any], heads: tuple[int, int], pos: str
) -> None:
    """More than one block of scores; on a CPU there are no gradients to compare."""
    n_heads, n_kv_heads = heads
    make = with_knobs(options_of("attention")[option], n_kv_heads=n_kv_heads, scale=0.5, **knobs)
    attention = component(make, d_model=8 * n_heads, n_heads=n_heads)
    sizes = {"d_model": 8 * n_heads, "n_heads": n_heads, "block_size": 200, "init_std": 0.02}
    position = component(options_of("pos")[pos], **sizes).of_layer(attention.layer)
    for length in (200, 130):  # the second one needs a mask of its own
        x = torch.randn(2, length, 8 * n_heads, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            q, k, v = attention.project(x, position, torch.arange(length)).values()
            gathered, _ = attention.gathered(q, k, v, position, None)
            assert_same(flex(attention, q, k, v, position), gathered, f"{length} tokens")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("option", "knobs"), PATTERNS)
def test_flex_makes_its_mask_once(option: str, knobs: dict[str, Any]) -> None:
    """One that training can use, even where a validation in inference mode was the first to ask."""
    attention: Any = made(option, kernel="flex", **knobs)
    q = torch.randn(1, 2, 30, 4)
    with torch.inference_mode():
        flex(attention, q, q, q)
    mask = attention.flex.latest
    assert not any(x.is_inference() for x in mask.as_tuple() if isinstance(x, Tensor))
    flex(attention, q, q, q)
    assert attention.flex.latest is mask


@pytest.mark.parametrize("option", ["sparse", "bigbird"])
def test_compiled_layers_share_the_code_of_flex(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each has its own pattern: bigbird's layers draw differently."""
    model = small_model(attention=small(options_of("attention")[option]), n_layers=4)
    tokens = torch.randint(11, (2, 30), generator=torch.Generator().manual_seed(1))
    graphs: list[Any] = []

    def keeping(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with torch.no_grad():
        wanted = model(tokens)
        monkeypatch.setattr(PatternAttention, "mix", by_flex)
        torch.compiler.reset()
        model.compile_blocks(backend=keeping)
        for _ in range(3):
            torch.testing.assert_close(model(tokens), wanted)
    torch.compiler.reset()
    assert len(graphs) == 2, "one that makes the mask and one that has it"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("option", "knobs"), PATTERNS)
def test_flex_in_bf16_behind_a_norm_in_fp32(option: str, knobs: dict[str, Any]) -> None:
    """As under autocast. The recorder of kernels, which sees single operations, knows it by its name."""
    attention: Any = made(option, kernel="flex", **knobs)
    q, v = torch.randn(2, 1, 2, 140, 4, generator=torch.Generator().manual_seed(2))
    v = v.bfloat16()
    wanted, _ = attention.gathered(q, q, v, NO_POSITION, None)
    recorder = KernelRecorder()
    with torch.compiler.set_stance("force_eager"), recorder:
        got = flex(attention, q, q, v)
    assert got.dtype == torch.bfloat16 and recorder.seen == {"flex"}
    torch.testing.assert_close(got, wanted, rtol=0, atol=0.03)


@pytest.mark.parametrize(("option", "knobs"), PATTERNS)
def test_flex_is_for_whole_sequences_on_a_gpu(
    option: str, knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere keys are gathered: on a CPU, in decoding, where weights are dropped, unless asked."""

    def taken(kernel: str = "flex", device: str = "meta", decode: bool = False, **more: Any) -> str:
        attention: Any = made(option, kernel=kernel, **more, **knobs).to(device)
        taken: list[str] = []
        monkeypatch.setattr(FlexAttention, "__call__", lambda *_, **__: taken.append("flex"))
        monkeypatch.setattr(attention, "gathered", lambda *_: taken.append("gathered") or (None, None))
        q = torch.zeros(1, 2, 6, 4, device=device)
        state = attention.initial_state(1, 6) if decode else None
        attention.mix(q, q, q, NO_POSITION, torch.arange(6), state)
        return taken[0]

    assert taken() == "flex"
    assert taken(kernel="gathered") == taken(device="cpu") == taken(decode=True) == "gathered"
    assert taken(dropout=0.1) == "gathered"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has gradients on a GPU alone")
@pytest.mark.parametrize(("option", "knobs"), PATTERNS)
def test_flex_on_a_gpu_has_the_gradients_of_gathering(option: str, knobs: dict[str, Any]) -> None:
    sizes = {"d_model": 64, "n_heads": 2, "block_size": 300, "init_std": 0.02}
    position = component(options_of("pos")["alibi"], **sizes).cuda()
    grads = []
    for kernel in ("gathered", "flex"):
        make = with_knobs(options_of("attention")[option], kernel=kernel, **knobs)
        attention = component(make, d_model=64, n_heads=2).cuda()
        x = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(2)).cuda().requires_grad_()
        y, _ = attention(x, position, torch.arange(300, device="cuda"))
        grads.append((y, *torch.autograd.grad(y.square().mean(), [x, *attention.parameters()])))
    for gathered, flex in zip(*grads, strict=True):
        torch.testing.assert_close(flex, gathered, rtol=1e-3, atol=1e-3 * float(gathered.abs().max()))
