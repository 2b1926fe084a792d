"""T5's relative bias: its buckets are transformers', and attentions without scores refuse it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.errors import UserError
from modgpt.model.pos.t5 import T5Position, bucket
from modgpt.testing.build import attentions_for, options_of

SIZES = {"d_model": 24, "n_heads": 6, "block_size": 64, "init_std": 0.02}


@pytest.mark.parametrize(("n_buckets", "farthest"), [(32, 128), (8, 10), (16, 1000)])
def test_buckets_are_those_of_transformers(n_buckets: int, farthest: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(2 * farthest)
    wanted = T5Attention._relative_position_bucket(-distances, False, n_buckets, farthest)
    got = [bucket(int(n), n_buckets=n_buckets, farthest=farthest) for n in distances]
    # They divide logarithms in fp32, we in fp64: a border may fall one token to the side.
    assert (torch.tensor(got) - wanted).abs().max() <= 1
    assert (torch.tensor(got) != wanted).float().mean() < 0.01


def test_a_trained_window_reaches_the_last_bucket() -> None:
    """Otherwise distances past the window would meet biases that nothing has trained."""
    pos = T5Position(**SIZES)
    assert pos.extrapolates and bucket(63, n_buckets=32, farthest=64) == 31
    assert not T5Position(farthest=128, **SIZES).extrapolates


def test_attentions_without_scores_refuse_it() -> None:
    fitting = attentions_for(partial(T5Position))
    assert {"flash", "local_window", "sparse", "bigbird"} <= set(fitting)
    assert "linear" not in fitting and "gated_delta" not in fitting
    for attention in set(options_of("attention")) - set(fitting):
        cfg = compose([f"attention={attention}", "pos=t5", "model.vocab_size=5"])
        with pytest.raises(
            UserError, match=f"pos=t5 adds a bias .*, and attention={attention} has none"
        ):
            build_model(cfg)


def test_a_hybrid_with_one_layer_without_scores_refuses_it() -> None:
    wanted = ["attention=hybrid", "attention@attention.options.rest=linear", "model.vocab_size=5"]
    with pytest.raises(UserError, match="attention=linear has none"):
        build_model(compose([*wanted, "pos=t5"]))
    pattern = ["pos=hybrid", "pos@pos.options.nth=t5", "pos.pattern=[nth,most]"]
    assert build_model(compose([*wanted, *pattern])).pos.of_layer(0).needs_scores


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["pos.n_buckets=5"], "pos.n_buckets must be even and at least 2, got 5"),
        (["pos.farthest=16"], "pos.farthest=16 must be above half of pos.n_buckets=32"),
    ],
)
def test_impossible_knobs_are_refused(overrides: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        build_model(compose(["pos=t5", "model.vocab_size=5", *overrides]))


# --- a pattern of encodings -----------------------------------------------------------------------


def test_each_layer_has_its_own_encoding() -> None:
    model = build_model(compose(["pos=hybrid", "model.vocab_size=5", "model.n_layers=6"]))
    names = [type(model.pos.of_layer(layer)).__name__ for layer in range(6)]
    assert names == ["RotaryPosition"] * 3 + ["Position"] + ["RotaryPosition"] * 2


def test_an_encoding_of_the_embeddings_is_no_part_of_a_pattern() -> None:
    cfg = compose(["pos=hybrid", "pos@pos.options.nth=learned", "model.vocab_size=5"])
    with pytest.raises(UserError, match=r"pos\.options\.nth adds to the embeddings"):
        build_model(cfg)


def test_a_pattern_names_its_options() -> None:
    with pytest.raises(UserError, match="pattern names 'never'"):
        build_model(compose(["pos=hybrid", "pos.pattern=[most,never]", "model.vocab_size=5"]))
