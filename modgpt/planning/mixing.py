"""What the mixing of tokens keeps for the backward pass, by attention.

From the output of the projection to q, k and v up to the input of the projection back, per token of a
window of T. Legend: H query heads, K key and value heads, D head width, n bytes of a number in products,
w of a wide one, 4 or more.

Assumptions: PyTorch's fused attention, which keeps q, k, v, its output and one number per query and
head, and takes a bias of scores as one mask (H,T,T) of n bytes, shared by the windows. Where queries are
rotated, its output is copied once, from heads to rows. Dropout of attention weights keeps nothing in a
fused kernel. An option without a formula of its own is taken for full attention.
"""

from __future__ import annotations

from functools import singledispatch

from modgpt.model.attention.base import Attention
from modgpt.model.attention.bigbird import BigBirdAttention
from modgpt.model.attention.flash import FlashAttention
from modgpt.model.attention.gated_delta import GatedDeltaAttention
from modgpt.model.attention.linear import LinearAttention
from modgpt.model.attention.local_window import LocalWindowAttention
from modgpt.model.attention.pattern import PatternAttention
from modgpt.model.attention.softmax import SoftmaxAttention
from modgpt.model.attention.sparse import SparseAttention
from modgpt.model.pos.base import Position
from modgpt.planning.kept import Kept, Widths


def rotates(pos: Position) -> bool:
    """Whether queries and keys become new tensors by their position."""
    return type(pos).rotate is not Position.rotate


def biased(pos: Position) -> bool:
    """Whether scores get a bias."""
    return type(pos).score_bias is not Position.score_bias


def heads(attention: Attention) -> tuple[int, int, int]:
    """Numbers per token of the query heads, of the key heads, and of the whole projection."""
    h, k = (n * attention.head_dim for n in (attention.n_heads, attention.n_kv_heads))
    return h, k, h + 2 * k


@singledispatch
def mixing(attention: Attention, pos: Position, length: int, widths: Widths) -> Kept:
    """Full attention by a fused kernel: v keeps the whole projection, q and k are new if rotated."""
    h, k, projected = heads(attention)
    n = widths.product
    moved = h + k if rotates(pos) or has_qk_norm(attention) else 0
    output = n * h * (2 if rotates(pos) else 1)
    return Kept(n * (projected + moved)) + attended(attention, pos, (length, length), widths, output)


@mixing.register
def _(attention: FlashAttention, pos: Position, length: int, widths: Widths) -> Kept:
    if not by_scores(attention):
        return mixing.dispatch(Attention)(attention, pos, length, widths)
    # q, k and v by head are copies; k and v are repeated for the heads that share them.
    h, _, _ = heads(attention)
    full = attended(attention, pos, (length, length), widths, 0)
    return Kept(widths.product * 4 * h) + full


def attended(
    attention: Attention, pos: Position, scores: tuple[int, int], widths: Widths, output: float
) -> Kept:
    """What attention keeps beside q, k and v: (queries, keys) of a block, bytes of its output."""
    queries, keys = scores
    n, w, h = widths.product, widths.wide, attention.n_heads
    once = 0.0
    if biased(pos) and not flexible(attention):
        once += h * queries * keys * n
        if any(True for _ in pos.parameters()):  # trained: its rows and what hides the future
            once += queries * keys * 9
    if by_scores(attention):
        return Kept(written_scores(attention, keys, widths), once + queries * keys)
    return Kept(output + w * h, once)  # and one number per query and head


def flexible(attention: Attention) -> bool:
    """Whether a GPU's fused kernel for patterns is asked for, which computes a bias by itself."""
    return isinstance(attention, PatternAttention) and attention.kernel == "flex"


def by_scores(attention: Attention) -> bool:
    """Whether the scores are written to memory, because of sinks or a soft cap."""
    return isinstance(attention, SoftmaxAttention) and not (
        attention.sinks is None and attention.softcap is None
    )


def written_scores(attention: Attention, keys: float, widths: Widths) -> float:
    """Bytes per query of scores of so many keys: the capped ones, the softmax and its narrow copy."""
    assert isinstance(attention, SoftmaxAttention)
    n, w = widths.product, widths.wide
    each = keys * (w + (n if widths.mixed else 0) + (n if attention.softcap is not None else 0))
    return attention.n_heads * (each + (w if attention.sinks is not None else 0))


def has_qk_norm(attention: Attention) -> bool:
    """Whether queries and keys have a norm with weights."""
    return any(True for _ in attention.q_norm.parameters())


@mixing.register
def _(attention: LocalWindowAttention, pos: Position, length: int, widths: Widths) -> Kept:
    """The first W queries on views; the other blocks on copies of q, and of k and v twice."""
    h, k, projected = heads(attention)
    n, window = widths.product, attention.window
    if window >= length:
        return mixing.dispatch(FlashAttention)(attention, pos, length, widths)
    moved = h + k if rotates(pos) or has_qk_norm(attention) else 0
    later = (-(-length // window) - 1) * window / length  # blocks after the first, as a share of T
    kept = Kept(n * (projected + moved + later * (h + 4 * k)), n * 2 * window**2)
    # The output of each block, and all of them side by side.
    return kept + attended(attention, pos, (window, 2 * window), widths, 2 * n * h)


def gathered(
    attention: PatternAttention, sizes: tuple[float, float, float], pos: Position, widths: Widths
) -> Kept:
    """Scores written for two sets of keys.

    Args:
        attention: the option.
        sizes: keys per query of both sets together; copies of k and of v per token; numbers per token
            and head that are copied of the weights.
        pos, widths: as for `mixing`.
    """
    h, k, projected = heads(attention)
    n = widths.product
    scores, copies, weights = sizes
    # q for each set, keys and values, the weights that are copied, and the output.
    kept = n * (2 * h + 2 * copies * k + attention.n_heads * weights + h)
    kept += written_scores(attention, scores, widths)
    if has_qk_norm(attention) and not widths.mixed:
        kept += n * projected
    return Kept(kept)


@mixing.register
def _(attention: SparseAttention, pos: Position, length: int, widths: Widths) -> Kept:
    if flexible(attention):
        return mixing.dispatch(Attention)(attention, pos, length, widths)
    stride = attention.stride
    blocks = -(-length // stride)
    filled = blocks * stride / length
    if attention.pattern == "strided":
        sizes = (blocks + 2 * stride) * filled, 3 * filled, blocks * filled
        return gathered(attention, sizes, pos, widths)
    far = (blocks - 1) * attention.summary
    return gathered(attention, ((far + stride) * filled, filled + far / length, 0), pos, widths)


@mixing.register
def _(attention: BigBirdAttention, pos: Position, length: int, widths: Widths) -> Kept:
    if flexible(attention):
        return mixing.dispatch(Attention)(attention, pos, length, widths)
    earlier = attention.n_window - 1 + attention.n_global + attention.n_random
    filled = -(-length // attention.block) * attention.block / length
    sizes = (earlier + 1) * attention.block * filled, (earlier + 1) * filled, 0
    return gathered(attention, sizes, pos, widths)


@mixing.register
def _(attention: LinearAttention, pos: Position, length: int, widths: Widths) -> Kept:
    """In fp32: ten tensors like q, the scores inside the chunks, and the sums between them."""
    h, k, projected = heads(attention)
    w, chunk = widths.wide, min(attention.chunk, length)
    width, n_heads = attention.head_dim, attention.n_heads
    read = w * (h + k) if widths.mixed else widths.product * projected
    sums = (1 / chunk + 1 / length) * (width**2 + width)
    kept = read + w * (10 * h + n_heads * (chunk + sums + 1))
    return Kept(kept + widths.product * h)


@mixing.register
def _(attention: GatedDeltaAttention, pos: Position, length: int, widths: Widths) -> Kept:
    """In fp32, whatever the precision of the products."""
    h, k, projected = heads(attention)
    n, w, chunk = widths.product, widths.wide, min(attention.chunk, length)
    filled = -(-length // chunk) * chunk / length
    read = w * (h + k) if widths.mixed else n * (h + k if rotates(pos) else projected)
    inside, states = 6 * chunk, 2 * attention.head_dim**2 / chunk
    kept = w * filled * (14 * h + attention.n_heads * (inside + states + 9))
    return Kept(read + kept + n * h)
