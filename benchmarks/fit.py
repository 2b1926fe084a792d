"""The tables of docs/scaling.md: how far the sums of `modgpt fit` are off, and models of many sizes.

python -m benchmarks.fit errors   activations by formula against what autograd saves, on a CPU
python -m benchmarks.fit sizes    memory by model size and number of devices, from `modgpt fit --json`
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from modgpt.commands.fit import main as fit
from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.kernels import attention_products, even_groups
from modgpt.model.gpt import GPT
from modgpt.planning.activations import block_kept, embedding_kept, head_kept, is_sliced
from modgpt.planning.kept import Kept, widths_of
from modgpt.planning.report import duration
from modgpt.planning.states import cast_numbers
from modgpt.training.objective import objective

SMALL = ("model.d_model=96", "model.n_layers=2", "model.n_heads=4", "model.block_size=128", "match=none")
COMPOSITIONS = (
    "attention=flash",
    "attention=flash model.tied_head=false ffn=standard norm=layernorm pos=learned",
    "attention=flash attention.n_kv_heads=2 norm@attention.qk_norm=rmsnorm",
    "attention=flash attention.output_gate=element block=parallel",
    "attention=flash attention.sinks=true attention.softcap=20",
    "attention=flash pos=alibi",
    "attention=flash pos=t5",
    "attention=local_window",
    "attention=local_window attention.window=48 pos=none",
    "attention=linear",
    "attention=linear attention.chunk=16 pos=alibi",
    "attention=gated_delta",
    "attention=gated_delta attention.chunk=16 pos=none",
    "attention=sparse",
    "attention=sparse attention.pattern=strided",
    "attention=bigbird",
    "attention=hybrid",
    "ffn=moe",
    "ffn=moe ffn.n_shared=1 ffn.top_k=1",
    "ffn=relu_squared norm=scalenorm",
    "ffn=reglu norm=dyt block.norm_at=both",
)
SEQUENCES = 4
# Width, layers, heads, heads of keys, hidden width and vocabulary, of Llama's shape.
SIZES = (
    (128, 4, 4, 4, 344, 1_024),
    (320, 8, 5, 5, 856, 4_096),
    (768, 12, 12, 12, 2_048, 32_000),
    (1024, 24, 16, 16, 2_736, 32_000),
    (2048, 24, 16, 16, 5_464, 32_000),
    (4096, 32, 32, 32, 11_008, 32_000),
    (5120, 40, 40, 40, 13_824, 32_000),
    (8192, 80, 64, 8, 28_672, 128_256),
)
DEVICES = (1, 8, 64)


def small_model(overrides: str, vocabulary: int = 100) -> GPT:
    """A small model in training mode."""
    cfg = compose([*SMALL, *overrides.split()])
    return build_model(cfg, vocabulary).train()


def measured(model: GPT, mixed: bool) -> int:
    """Bytes of all tensors that autograd saves in a training forward pass, weights left out."""
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in weights:
            saved.setdefault(storage, tensor)
        return tensor

    tokens = torch.randint(model.head.out_features, (SEQUENCES, model.block_size))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        x, _ = model.hidden(tokens)
        objective(model, x, tokens.clone(), label_smoothing=0.0, z_loss=0.0)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def by_formula(model: GPT, mixed: bool) -> float:
    """The same by `modgpt.planning`, with the narrow copies of the weights, which autograd saves too."""
    precision = "bf16-mixed" if mixed else "32-true"
    widths, length = widths_of(precision), model.block_size
    sliced = is_sliced(model, widths, precision)
    blocks = [block_kept(block, model.pos, length, widths) for block in model.blocks]
    kept = sum(blocks, start=Kept())
    kept += embedding_kept(model, length, widths) + head_kept(model, widths, sliced)
    casts = widths.product * cast_numbers(model, sliced) if mixed else 0
    return kept.of(SEQUENCES * length) + casts


@contextmanager
def fused_kernels() -> Iterator[None]:
    """Without the kernels that only a CPU uses in bf16: attention by products, groups filled up."""
    never: dict[str, Any] = {"is_faster": lambda *_: False}
    with patch.multiple(attention_products, **never), patch.multiple(even_groups, **never):
        yield


def error(model: GPT, mixed: bool) -> float:
    """The formula's error, as a share of what is measured."""
    return by_formula(model, mixed) / measured(model, mixed) - 1


def errors() -> Iterator[str]:
    """The lines of the table of errors."""
    yield "| composition | measured, fp32 | fp32 | bf16, fused kernels | bf16, the CPU's kernels |"
    yield "| :-- | --: | --: | --: | --: |"
    for overrides in COMPOSITIONS:
        model = small_model(overrides)
        tokens = SEQUENCES * model.block_size
        with fused_kernels():
            fused = error(model, mixed=True)
        cells = (error(model, mixed=False), fused, error(model, mixed=True))
        numbers = " | ".join(f"{cell:+z.1%}".replace("%", " %") for cell in cells)
        yield f"| `{overrides}` | {measured(model, False) / tokens:,.0f} | {numbers} |"


def sizes() -> Iterator[str]:
    """The lines of the table of sizes."""
    yield "| C × layers | parameters | 1 | 8 ddp | 8 fsdp | 64 ddp | 64 fsdp | windows | time on 64 |"
    yield "| --: | --: | --: | --: | --: | --: | --: | --: | --: |"
    for width, layers, heads, kv_heads, hidden, vocabulary in SIZES:
        plans = {}
        for devices in DEVICES:
            job = [f"model.d_model={width}", f"model.n_layers={layers}", f"model.n_heads={heads}"]
            job += [f"attention.n_kv_heads={kv_heads}", f"ffn.hidden={hidden}", "match=none"]
            job += [f"model.vocab_size={vocabulary}"]
            job += ["model.block_size=2048", f"data.batch_size={devices}", "schedule=constant"]
            plans[devices] = asked([*job, "--gpus", str(devices)])
        totals = [
            f"{layout['total'] / 1e9:,.1f}"
            for devices, plan in plans.items()
            for layout in plan["layouts"][devices > 1 :]
        ]
        last = plans[DEVICES[-1]]
        windows = last["layouts"][-1]["largest_batch"]["checkpointed"]
        tokens = 20 * last["parameters"]
        time = duration(tokens / last["tokens_per_step"] * last["step_seconds"])
        cells = [f"{width:,} × {layers}", f"{last['parameters']:,}", *totals, f"{windows:,}", time]
        yield f"| {' | '.join(cells)} |"


def asked(arguments: list[str]) -> dict[str, Any]:
    """What `modgpt fit --json` prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = fit([*arguments, "--json"])
    assert code == 0
    return json.loads(printed.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("errors", "sizes"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for line in errors() if arguments.table == "errors" else sizes():
        print(line, flush=True)


if __name__ == "__main__":
    main()
