"""What a training forward pass keeps for the backward pass, by component.

Sums over the tensors that PyTorch's operations save, in eager mode: a norm its input, a linear layer
its input, an activation function its input, a product of two tensors both. A tensor that several
operations save counts once. In mixed precision the residual stream and the norms are in the type of the
weights, and every linear layer keeps a copy of its input in the type of the products.

Legend: C model width, h hidden width, k experts per token, V vocabulary; n bytes of a number in
products, r in the residual stream, w of a wide one.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from modgpt.kernels import head_loss
from modgpt.model.attention.base import Attention
from modgpt.model.attention.gated_delta import GatedDeltaAttention
from modgpt.model.block import Block
from modgpt.model.ffn.activations import ACTIVATIONS
from modgpt.model.ffn.base import FeedForward
from modgpt.model.ffn.moe import MixtureOfExperts
from modgpt.model.ffn.standard import StandardFeedForward
from modgpt.model.gpt import GPT
from modgpt.model.norm.dyt import DynamicTanh
from modgpt.model.norm.scalenorm import ScaleNorm
from modgpt.model.pos.base import Position
from modgpt.planning.kept import Kept, Widths
from modgpt.planning.mixing import has_qk_norm, heads, mixing, rotates

INDEX = 8  # bytes


def norm_kept(norm: nn.Module, width: int, widths: Widths, branch: bool = False) -> float:
    """Bytes per token: w·C + w for the input and its length, twice that where x is scaled before.

    `branch` says that it reads the output of a branch, in the type of the products.
    """
    if isinstance(norm, nn.Identity):
        return 0.0
    wide = widths.wide
    if isinstance(norm, DynamicTanh):
        return 2 * (widths.product if branch else widths.parameter) * width
    if isinstance(norm, ScaleNorm):
        return 2 * wide * width + wide
    return wide * width + wide * (2 if isinstance(norm, nn.LayerNorm) else 1)


def attention_kept(attention: Attention, pos: Position, length: int, widths: Widths) -> Kept:
    """C·n for each projection from x, what mixing keeps, and the gate of the output."""
    n, width = widths.product, attention.qkv.in_features
    h, k, projected = heads(attention)
    kept = mixing(attention, pos.of_layer(attention.layer), length, widths)
    gate = attention.output_gate
    readers = 1 + (gate is not None) + isinstance(attention, GatedDeltaAttention)
    token = n * width * (readers if widths.mixed else 1)
    if has_qk_norm(attention):
        token += (h + k) * (4 if widths.mixed else 0) + 4 * (attention.n_heads + attention.n_kv_heads)
    if attention.clip_qkv is not None:
        token += n * projected
    if gate is not None:  # the gates, and the product with them, which takes the place of a copy
        token += n * (gate.out_features + (0 if rotates(pos.of_layer(attention.layer)) else h))
    return kept + Kept(token + dropped(attention.dropout, width))


def dropped(dropout: float, width: int) -> float:
    """Bytes per token of the mask of a dropout: one per element."""
    return width if dropout else 0.0


def ffn_kept(ffn: FeedForward, widths: Widths) -> Kept:
    """C·n for the input, and by kind: standard 2h·n, gated 4h·n, a mixture k times that and more.

    An activation whose gradient follows from its output (ReLU) keeps h·n less. A mixture keeps the
    router's input and scores in fp32, and of each chosen expert its input and its output twice.
    """
    n, width = widths.product, ffn.d_model
    if not isinstance(ffn, MixtureOfExperts):
        return Kept(n * (width + hidden_kept(ffn)) + dropped(ffn.dropout, width))
    wide, chosen = widths.wide, ffn.top_k
    routed = (wide if widths.mixed else n) * width + 2 * wide * ffn.n_experts
    routed += chosen * (wide * 3 + INDEX * 3) + 2 * wide
    experts = chosen * n * (3 * width + hidden_kept(ffn.experts))
    shared = 0.0
    if ffn.shared is not None:
        shared = n * (hidden_kept(ffn.shared) + (width if widths.mixed else 0))
    return Kept(routed + experts + shared + dropped(ffn.dropout, width))


def hidden_kept(ffn: FeedForward) -> float:
    """Numbers per token that a dense feed-forward keeps between its first product and its last."""
    hidden: Any = ffn.hidden
    if isinstance(ffn, StandardFeedForward):
        return hidden if ffn.activation is ACTIVATIONS["relu"] else 2 * hidden
    return 4 * hidden


def block_kept(block: Block, pos: Position, length: int, widths: Widths) -> Kept:
    """A layer: two branches with their norms. Parallel branches read one x, which counts once."""
    width, stream = block.attention.qkv.in_features, widths.parameter
    kept = attention_kept(block.attention, pos, length, widths) + ffn_kept(block.ffn, widths)
    token = sum(
        norm_kept(norm, width, widths, branch)
        for norm, branch in (
            *((block.attention_norm_in, False), (block.attention_norm_out, True)),
            *((block.ffn_norm_in, False), (block.ffn_norm_out, True)),
        )
    )
    reads_norm = not isinstance(block.attention_norm_in, nn.Identity)
    if block.parallel and not block.one_norm and reads_norm:
        token -= widths.wide * width
    if block.one_norm and not widths.mixed:
        token -= widths.product * width
    if block.gains is not None and isinstance(block.attention_norm_out, nn.Identity):
        token += 2 * widths.product * width
    elif block.gains is not None:
        token += 2 * stream * width
    if block.shares is not None:
        token += stream * width
    return kept + Kept(token)


def tables_kept(model: GPT, length: int, widths: Widths) -> Kept:
    """T·D² numbers for each rotation: a matrix per position, shared by the layers."""
    sizes = {}
    for block in model.blocks:
        pos = model.pos.of_layer(block.attention.layer)
        if rotates(pos):
            sizes[id(pos)] = length * block.attention.head_dim**2
    return Kept(once=widths.product * sum(sizes.values()))


def embedding_kept(model: GPT, length: int, widths: Widths) -> Kept:
    """The token ids, a norm of the embeddings, and the rotations."""
    width = model.embedding.embedding_dim
    token = INDEX + norm_kept(model.embedding_norm, width, widths) + dropped(model.dropout, width)
    return Kept(token) + tables_kept(model, length, widths)


def is_sliced(model: GPT, widths: Widths, precision: str) -> bool:
    """Whether the loss is computed in slices of the logits (`modgpt.kernels.head_loss`)."""
    half = widths.product == 2 and not precision.startswith("bf16")
    return model.plain_head and model.head.out_features >= head_loss.SMALLEST and not half


def head_kept(model: GPT, widths: Widths, sliced: bool, z_loss: bool = False) -> Kept:
    """The last norm, the head's input, and w·V for the loss; in slices, the two gradients instead."""
    width, vocabulary = model.embedding.embedding_dim, model.head.out_features
    token = norm_kept(model.norm, width, widths)
    if sliced:
        token += widths.parameter * width
        return Kept(token, widths.parameter * vocabulary * width)
    token += widths.product * width + widths.wide * vocabulary + INDEX
    if model.logit_softcap is not None:
        token += widths.product * vocabulary
    if z_loss:
        token += widths.wide * vocabulary
    return Kept(token)


def head_passing(model: GPT, widths: Widths, sliced: bool) -> Kept:
    """What the loss takes for a moment: the logits' gradient, w·V; in slices, that of one slice."""
    if sliced:
        return Kept(once=head_loss.LOGITS_AT_ONCE * (3 * widths.wide + widths.product))
    return Kept(widths.wide * model.head.out_features)
