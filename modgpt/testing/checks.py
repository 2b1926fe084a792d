"""One call that proves a part: everything the project's own options are held to."""

from __future__ import annotations

from functools import partial

import torch

from modgpt.testing.attention import PIECES, AttentionPair, check_clone
from modgpt.testing.build import (
    Make,
    attentions_for,
    is_a,
    options_of,
    positions_for,
    small,
    small_model,
    variants,
    with_knobs,
)
from modgpt.testing.cost import check_attention_cost, check_ffn_cost
from modgpt.testing.initial import check_initial_weights
from modgpt.testing.models import check_model, check_precision
from modgpt.testing.parts import (
    check_ffn_definition,
    check_norm_definition,
    check_position_definition,
)

PRECISIONS = (torch.float64, torch.bfloat16)


def check_attention(make: Make) -> None:
    """Hold an attention to its definition, and a model with it to what every model must do.

    Args:
        make: its class, or a partial of it. Each of the class's `variants` is tested with every
            positional encoding there is.

    Raises:
        AssertionError: with what is wrong.
    """
    for variant in variants(make):
        for pos in positions_for(variant).values():
            pair = AttentionPair(with_knobs(variant, n_kv_heads=2), pos)
            for length in (1, 4, 11):
                pair.check(length)
            pair.check_pieces(*PIECES)
        check_clone(AttentionPair(variant))
        for length in (1, 4, 11):
            check_attention_cost(variant, length)
        AttentionPair(with_knobs(variant, bias=True), dtype=torch.float64).check(11)
    for norm in options_of("norm").values():
        AttentionPair(with_knobs(small(make), qk_norm=norm), options_of("pos")["rope"]).check(7)
    check_initial_weights(make, d_model=24, n_heads=6)
    for pos in positions_for(small(make)).values():
        check_model(small_model(attention=small(make), pos=pos))
        for dtype in PRECISIONS:
            check_precision(small_model(attention=small(make), pos=pos), dtype)


def check_ffn(make: Make) -> None:
    """Hold a feed-forward to its definition, and a model with it to what every model must do."""
    for variant in variants(make):
        for shape in ((1, 1), (2, 7)):
            check_ffn_definition(variant, *shape)
        check_ffn_definition(variant, 2, 7, dtype=torch.float64)
        check_ffn_cost(variant)
    check_initial_weights(make, d_model=24)
    check_model(small_model(ffn=small(make)))
    for dtype in PRECISIONS:
        check_precision(small_model(ffn=small(make)), dtype)


def check_norm(make: Make) -> None:
    """Hold a norm to its definition, and a model with it to what every model must do."""
    for variant in variants(make):
        for shape in ((2, 5, 24), (3, 2, 5, 8), (7, 1), (9,)):
            check_norm_definition(variant, *shape)
            check_norm_definition(variant, *shape, dtype=torch.float64)
    check_model(small_model(norm=small(make)))
    for dtype in PRECISIONS:
        check_precision(small_model(norm=small(make)), dtype)


def check_position(make: Make) -> None:
    """Hold a positional encoding to its definition, and models with it to what every model must do."""
    for variant in variants(make):
        for positions in (torch.arange(9), torch.arange(250, 260), torch.tensor([7])):
            for head_dim in (8, 2, 5):
                check_position_definition(variant, positions, head_dim=head_dim)
    for attention in attentions_for(small(make)).values():
        check_model(small_model(attention=small(attention), pos=small(make)))
        for dtype in PRECISIONS:
            check_precision(small_model(attention=small(attention), pos=small(make)), dtype)


def check(make: Make) -> None:
    """Check a part of any kind: an attention, a feed-forward, a positional encoding or a norm."""
    from modgpt.model.attention.base import Attention
    from modgpt.model.ffn.base import FeedForward
    from modgpt.model.pos.base import Position

    kinds = {Attention: check_attention, FeedForward: check_ffn, Position: check_position}
    pattern = make.keywords.get("options") if isinstance(make, partial) else None
    part = next(iter(pattern.values())) if pattern else make
    for kind, check_kind in kinds.items():
        if is_a(part, kind):
            return check_kind(make)
    return check_norm(make)
