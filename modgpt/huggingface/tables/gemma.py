"""Tables of the Gemma models."""

from __future__ import annotations

import math

from modgpt.errors import UserError
from modgpt.huggingface.architecture import Architecture, Config, Converted, Settings, layers_of
from modgpt.huggingface.tables.llama import HEAD_DIM, LLAMA_CONFIG, LLAMA_WEIGHTS
from modgpt.huggingface.weights import Same

KINDS = {"full_attention": "full", "sliding_attention": "rest"}


def pattern_of(config: Config) -> list[str]:
    """The pattern of attention=hybrid that `layer_types` says.

    Raises:
        UserError: a kind is neither full nor sliding.
    """
    unknown = [kind for kind in config["layer_types"] if kind not in KINDS]
    if unknown:
        raise UserError(f"layer_types has {unknown[0]!r}: only {' and '.join(KINDS)} exist here")
    return [KINDS[kind] for kind in config["layer_types"]]


def layer_types(ours: Settings) -> list[str]:
    """`layer_types` from a pattern of attention=hybrid."""
    theirs = {ours: theirs for theirs, ours in KINDS.items()}
    return [theirs[name] for name in layers_of("attention", ours)]


def query_scalar(ours: Settings) -> int:
    """`query_pre_attn_scalar`, a whole number s for scores divided by √s.

    Raises:
        UserError: the scale of the attention is not 1/√s of a whole number.
    """
    s = round(ours["attention.scale"] ** -2)
    if not math.isclose(s**-0.5, ours["attention.scale"], rel_tol=1e-9):
        raise UserError(f"attention.scale={ours['attention.scale']} is not 1/√s of a whole number s")
    return s


GEMMA2 = Architecture(
    "gemma2",
    "gemma2",
    config=LLAMA_CONFIG
    | HEAD_DIM
    | {
        "attention.pattern": Converted("layer_types", pattern_of, layer_types),
        "attention.options.rest.window": "sliding_window",
        "attention.options.full.softcap": "attn_logit_softcapping",
        "attention.options.rest.softcap": "attn_logit_softcapping",
        "attention.scale": Converted(
            "query_pre_attn_scalar",
            lambda config: config["query_pre_attn_scalar"] ** -0.5,
            query_scalar,
        ),
        "model.logit_softcap": "final_logit_softcapping",
    },
    weights=LLAMA_WEIGHTS
    | {
        "blocks.{i}.attention_norm_out": Same("model.layers.{i}.post_attention_layernorm"),
        "blocks.{i}.ffn_norm_in": Same("model.layers.{i}.pre_feedforward_layernorm"),
        "blocks.{i}.ffn_norm_out": Same("model.layers.{i}.post_feedforward_layernorm"),
    },
    fixed={
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "use_bidirectional_attention": None,
        "rope_parameters.rope_type": "default",
    },
    derived={"model.embedding_scale": lambda config: math.sqrt(config["hidden_size"])},
)
