"""The memory of one device: what a model needs, and its share under each strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from modgpt.model.gpt import GPT
from modgpt.planning.activations import (
    block_kept,
    embedding_kept,
    head_kept,
    head_passing,
    is_sliced,
)
from modgpt.planning.kept import Kept, Widths
from modgpt.planning.states import States, cast_numbers

Strategy = Literal["one device", "ddp", "fsdp"]
# Of a CUDA context, the libraries' workspaces and gaps between tensors: assumed, not measured.
RESERVED = 1.5e9


@dataclass(frozen=True)
class Layout:
    """How a training is spread over devices.

    Attributes:
        strategy: one device; ddp, a replica of all states on each device; or fsdp, a share of them.
        devices: how many.
        batch: windows per device in one forward pass.
        checkpointing: `activation_checkpointing`.
    """

    strategy: Strategy
    devices: int
    batch: int
    checkpointing: bool


@dataclass(frozen=True)
class Needs:
    """What a model needs, before it is spread over devices.

    Attributes:
        length: tokens in a window, T.
        widths: bytes of a number.
        states: of weights, gradients and optimizer.
        casts: bytes of the weights' copies in the type of the products.
        outside, largest_block: numbers of parameters, of the embeddings and head and of a block.
        activations: kept by embedding and blocks.
        checkpointed: the same with `activation_checkpointing`: the input of each block, and all of the
            block that is computed again.
        loss: kept and taken for a moment by the last norm, head and loss.
    """

    length: int
    widths: Widths
    states: States
    casts: float
    outside: int
    largest_block: int
    activations: Kept
    checkpointed: Kept
    loss: Kept

    def activations_for(self, checkpointing: bool) -> Kept:
        return self.checkpointed if checkpointing else self.activations


def needs_of(
    model: GPT, states: States, length: int, widths: Widths, precision: str, z_loss: bool
) -> Needs:
    """The needs of a model, whose tensors may be without memory."""
    sliced = is_sliced(model, widths, precision)
    blocks = [block_kept(block, model.pos, length, widths) for block in model.blocks]
    outer = embedding_kept(model, length, widths)
    inputs = Kept(widths.parameter * model.embedding.embedding_dim * len(blocks))
    sizes = [sum(p.numel() for p in block.parameters()) for block in model.blocks]
    return Needs(
        length=length,
        widths=widths,
        states=states,
        casts=widths.product * cast_numbers(model, sliced) if widths.mixed else 0.0,
        outside=sum(p.numel() for p in model.parameters()) - sum(sizes),
        largest_block=max(sizes),
        activations=sum(blocks, start=outer),
        checkpointed=outer + inputs + max(blocks, key=lambda kept: kept.of(length)),
        loss=head_kept(model, widths, sliced, z_loss) + head_passing(model, widths, sliced),
    )


def demand(needs: Needs, layout: Layout) -> dict[str, float]:
    """Bytes on each device, by what they are for."""
    states, n = needs.states, needs.widths.product
    share = layout.devices if layout.strategy == "fsdp" else 1
    tokens = layout.batch * needs.length
    bytes_of = {
        "parameters": states.parameters / share,
        "gradients": states.gradients / share,
        "optimizer state": states.optimizer / share,
        "averages of weights": states.averages / share,
        "weights for products": needs.casts,
        "buckets, gathered layers": 0.0,
        "activations": needs.activations_for(layout.checkpointing).of(tokens),
        "logits and loss": needs.loss.of(tokens),
        "reserved": RESERVED,
    }
    if layout.strategy == "ddp":  # copies of the gradients, which are sent
        bytes_of["buckets, gathered layers"] = float(states.gradients)
    if layout.strategy == "fsdp":
        # In the type of the products: what is outside the blocks, a block and the next one, and the
        # whole gradient of one of them.
        block, outside = needs.largest_block, needs.outside
        gathered = outside + 2 * block + max(block, outside)
        bytes_of["buckets, gathered layers"] = float(n * gathered)
        bytes_of["weights for products"] = 0.0
    return bytes_of


def total(bytes_of: Mapping[str, float]) -> float:
    return sum(bytes_of.values())


def fits(needs: Needs, layout: Layout, memory: float) -> bool:
    """Whether a layout fits into the memory of a device."""
    return total(demand(needs, layout)) <= memory


def largest_batch(needs: Needs, layout: Layout, memory: float) -> int:
    """The most windows per device that fit; 0 where not even one does."""
    none, one = (total(demand(needs, replace(layout, batch=batch))) for batch in (0, 1))
    return max(0, int((memory - none) // (one - none)))
