"""Tables of the Gemma models."""

from __future__ import annotations

import math

from modgpt.errors import UserError
from modgpt.huggingface.architecture import (
    Architecture,
    Config,
    Converted,
    Settings,
    layers_of,
    pattern_naming,
)
from modgpt.huggingface.tables.llama import (
    HEAD_DIM,
    LLAMA_CONFIG,
    LLAMA_WEIGHTS,
    QK_NORM_EPS,
    QK_NORM_WEIGHTS,
)
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
    return pattern_naming(KINDS.values(), [KINDS[kind] for kind in config["layer_types"]])


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


GEMMA_CONFIG = (
    LLAMA_CONFIG
    | HEAD_DIM
    | {
        "attention.pattern": Converted("layer_types", pattern_of, layer_types),
        "attention.options.rest.window": "sliding_window",
        "attention.scale": Converted(
            "query_pre_attn_scalar",
            lambda config: config["query_pre_attn_scalar"] ** -0.5,
            query_scalar,
        ),
        "model.logit_softcap": "final_logit_softcapping",
    }
)
GEMMA_WEIGHTS = LLAMA_WEIGHTS | {
    "blocks.{i}.attention_norm_out": Same("model.layers.{i}.post_attention_layernorm"),
    "blocks.{i}.ffn_norm_in": Same("model.layers.{i}.pre_feedforward_layernorm"),
    "blocks.{i}.ffn_norm_out": Same("model.layers.{i}.post_feedforward_layernorm"),
}
GEMMA_FIXED = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}
GEMMA_DERIVED = {"model.embedding_scale": lambda config: math.sqrt(config["hidden_size"])}

GEMMA2 = Architecture(
    "gemma2",
    "gemma2",
    config=GEMMA_CONFIG
    | {
        "attention.options.full.softcap": "attn_logit_softcapping",
        "attention.options.rest.softcap": "attn_logit_softcapping",
    },
    weights=GEMMA_WEIGHTS,
    fixed=GEMMA_FIXED | {"use_bidirectional_attention": None, "rope_parameters.rope_type": "default"},
    derived=GEMMA_DERIVED,
)
GEMMA3 = Architecture(
    "gemma3_text",
    "gemma3",
    config={key: theirs for key, theirs in GEMMA_CONFIG.items() if key != "pos.theta"}
    | QK_NORM_EPS
    | {
        "pos.pattern": Converted("layer_types", pattern_of, layer_types),
        "pos.options.full.theta": "rope_parameters.full_attention.rope_theta",
        "pos.options.rest.theta": "rope_parameters.sliding_attention.rope_theta",
    },
    weights=GEMMA_WEIGHTS | QK_NORM_WEIGHTS,
    fixed=GEMMA_FIXED
    | {
        "attn_logit_softcapping": None,
        "use_bidirectional_attention": False,
        "rope_parameters.full_attention.rope_type": "default",
        "rope_parameters.sliding_attention.rope_type": "default",
    },
    derived=GEMMA_DERIVED,
)
