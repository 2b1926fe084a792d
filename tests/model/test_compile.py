"""compile=true: the same numbers from compiled blocks, one code for all layers, decoding left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modgpt.config.keys import PARTS
from modgpt.config.search import options
from modgpt.errors import UserError
from modgpt.runs.checkpoint import model_weights, read_checkpoint
from modgpt.runs.saved import job_of
from modgpt.training.hardware import best_compile, has_compiler
from modgpt.training.loop import train
from tests.compositions import name_of, small_model

DEFAULT = {
    "attention": "flash",
    "ffn": "swiglu",
    "norm": "rmsnorm",
    "pos": "rope",
    "block": "sequential",
}
# Each option once, among the defaults.
CASES = [DEFAULT, *(DEFAULT | {g: o} for g in PARTS for o in options(g) if o != DEFAULT[g])]

needs_compiler = pytest.mark.skipif(
    not has_compiler(),
    reason="torch.compile needs a C++ compiler on a CPU",
)


def tokens(length: int = 14) -> torch.Tensor:
    return torch.randint(11, (2, length), generator=torch.Generator().manual_seed(1))


def counting(graphs: list[Any]) -> Callable[..., Any]:
    """A compiler that compiles nothing and keeps what it was given."""

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return backend


def test_layers_share_one_code_and_decoding_has_none() -> None:
    counts = []
    for n_layers in (1, 4):
        torch.compiler.reset()
        graphs: list[Any] = []
        model = small_model(DEFAULT, n_layers=n_layers)
        model.compile_blocks(backend=counting(graphs))
        for _ in range(2):
            model(tokens()).sum().backward()
        counts.append(len(graphs))
        _, state = model.decode(tokens(3), model.initial_state(2, 10))
        model.decode(tokens(1), state)
        assert len(graphs) == counts[-1]
    torch.compiler.reset()
    assert counts[0] == counts[1] > 0


def test_without_a_compiler_one_line_says_so(
    overrides: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name == "clang++" else None)
    assert best_compile("gpu") and not best_compile("cpu")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not best_compile("gpu")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="compile=true needs a C\\+\\+ compiler"):
        train(job_of(overrides("compile=true")))


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("choices", CASES, ids=name_of)
def test_outputs_and_gradients(choices: dict[str, str]) -> None:
    torch.compiler.reset()
    plain, compiled = small_model(choices), small_model(choices)
    compiled.compile_blocks()
    for length in (14, 9):
        weights = torch.randn(2, length, 11, generator=torch.Generator().manual_seed(2))
        ys = [model(tokens(length)) for model in (plain, compiled)]
        torch.testing.assert_close(ys[1], ys[0], rtol=1e-4, atol=1e-4)
        for model, y in zip((plain, compiled), ys, strict=True):
            model.zero_grad()
            (y * weights).sum().backward()
        for (name, p), q in zip(plain.named_parameters(), compiled.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None, name
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: n + m)


@pytest.mark.slow
@needs_compiler
def test_a_resumed_training_goes_on_as_if_nothing_had_been(overrides: Callable[..., list[str]]) -> None:
    torch.compiler.reset()

    def run(name: str, steps: int, *more: str) -> Any:
        budget = (
            f"trainer.max_steps={steps}",
            "schedule=constant",
            "callbacks.last.every_n_train_steps=4",
        )
        return train(job_of(overrides("compile=true", f"run_name={name}", *budget, *more)))

    whole, half = run("whole", 8), run("half", 4)
    assert whole.record.compiled and whole.record.tokens_per_second > 0
    rest = run("half", 8, f"resume={half.folder}")
    ends = [model_weights(read_checkpoint(r.folder / "checkpoints/last.ckpt")) for r in (whole, rest)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert rest.record.final_val_loss == whole.record.final_val_loss
