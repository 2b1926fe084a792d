"""The architectures of transformers that come out of the config groups: one table each.

A table names the preset (`experiment=…`) that has the architecture's parts, and says of every size and
every tensor what it is called there. Adding one whose parts exist takes a preset and a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modgpt.huggingface.weights import ByHead, QueryKeyValue, Same, Stacked, Table, Transposed

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Converted:
    """A setting that both sides write in different ways.

    Args:
        name: theirs, which is written.
        ours: from their whole configuration.
        theirs: from our value and the number of layers.
    """

    name: str
    ours: Callable[[Config], Any]
    theirs: Callable[[Any, int], Any]


@dataclass(frozen=True)
class Architecture:
    """What an architecture is called on both sides.

    Args:
        model_type: transformers' name of it.
        preset: ours, an option of `experiment`.
        config: their key for ours, nested ones with dots.
        weights: their modules or tensors for ours, {i} standing for the layer.
        fixed: what their configuration has to say for the parts to be those of the preset.
    """

    model_type: str
    preset: str
    config: Mapping[str, str | Converted]
    weights: Table
    fixed: Mapping[str, Any] = field(default_factory=dict)


# --- GPT-2 and its relatives ----------------------------------------------------------------------

GPT2 = Architecture(
    "gpt2",
    "gpt2",
    config={
        "model.d_model": "n_embd",
        "model.n_layers": "n_layer",
        "model.n_heads": "n_head",
        "model.block_size": "n_positions",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "ffn.hidden": "n_inner",
        "norm.eps": "layer_norm_epsilon",
    },
    fixed={
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    weights={
        "embedding": Same("transformer.wte"),
        "pos.table": Same("transformer.wpe"),
        "blocks.{i}.attention_norm_in": Same("transformer.h.{i}.ln_1"),
        "blocks.{i}.attention.qkv.weight": Transposed("transformer.h.{i}.attn.c_attn.weight"),
        "blocks.{i}.attention.qkv.bias": Same("transformer.h.{i}.attn.c_attn.bias"),
        "blocks.{i}.attention.out.weight": Transposed("transformer.h.{i}.attn.c_proj.weight"),
        "blocks.{i}.attention.out.bias": Same("transformer.h.{i}.attn.c_proj.bias"),
        "blocks.{i}.ffn_norm_in": Same("transformer.h.{i}.ln_2"),
        "blocks.{i}.ffn.up.weight": Transposed("transformer.h.{i}.mlp.c_fc.weight"),
        "blocks.{i}.ffn.up.bias": Same("transformer.h.{i}.mlp.c_fc.bias"),
        "blocks.{i}.ffn.down.weight": Transposed("transformer.h.{i}.mlp.c_proj.weight"),
        "blocks.{i}.ffn.down.bias": Same("transformer.h.{i}.mlp.c_proj.bias"),
        "norm": Same("transformer.ln_f"),
        "head": Same("lm_head"),
    },
)


def neo_pattern(config: Config) -> list[str]:
    """GPT-Neo's kinds of attention, layer by layer, as a pattern of attention=hybrid."""
    kinds = [kind for group, times in config["attention_types"] for _ in range(times) for kind in group]
    return ["full" if kind == "global" else "rest" for kind in kinds]


def neo_types(pattern: list[str], n_layers: int) -> list[Any]:
    names = [pattern[layer % len(pattern)] for layer in range(n_layers)]
    return [[["global" if name == "full" else "local" for name in names], 1]]


GPT_NEO = Architecture(
    "gpt_neo",
    "gpt_neo",
    config={
        "model.d_model": "hidden_size",
        "model.n_layers": "num_layers",
        "model.n_heads": "num_heads",
        "model.block_size": "max_position_embeddings",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "attention.pattern": Converted("attention_types", neo_pattern, neo_types),
        "attention.options.rest.window": "window_size",
        "ffn.hidden": "intermediate_size",
        "norm.eps": "layer_norm_epsilon",
    },
    fixed={"activation_function": "gelu_new"},
    weights={
        "embedding": Same("transformer.wte"),
        "pos.table": Same("transformer.wpe"),
        "blocks.{i}.attention_norm_in": Same("transformer.h.{i}.ln_1"),
        "blocks.{i}.attention.qkv": QueryKeyValue(
            "transformer.h.{i}.attn.attention.q_proj",
            "transformer.h.{i}.attn.attention.k_proj",
            "transformer.h.{i}.attn.attention.v_proj",
        ),
        "blocks.{i}.attention.out": Same("transformer.h.{i}.attn.attention.out_proj"),
        "blocks.{i}.ffn_norm_in": Same("transformer.h.{i}.ln_2"),
        "blocks.{i}.ffn.up": Same("transformer.h.{i}.mlp.c_fc"),
        "blocks.{i}.ffn.down": Same("transformer.h.{i}.mlp.c_proj"),
        "norm": Same("transformer.ln_f"),
        "head": Same("lm_head"),
    },
)

BLOOM = Architecture(
    "bloom",
    "bloom",
    config={
        "model.d_model": "hidden_size",
        "model.n_layers": "n_layer",
        "model.n_heads": "n_head",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "norm.eps": "layer_norm_epsilon",
        "model.embedding_norm.eps": "layer_norm_epsilon",
    },
    fixed={"apply_residual_connection_post_layernorm": False},
    weights={
        "embedding": Same("transformer.word_embeddings"),
        "embedding_norm": Same("transformer.word_embeddings_layernorm"),
        "blocks.{i}.attention_norm_in": Same("transformer.h.{i}.input_layernorm"),
        "blocks.{i}.attention.qkv": ByHead("transformer.h.{i}.self_attention.query_key_value"),
        "blocks.{i}.attention.out": Same("transformer.h.{i}.self_attention.dense"),
        "blocks.{i}.ffn_norm_in": Same("transformer.h.{i}.post_attention_layernorm"),
        "blocks.{i}.ffn.up": Same("transformer.h.{i}.mlp.dense_h_to_4h"),
        "blocks.{i}.ffn.down": Same("transformer.h.{i}.mlp.dense_4h_to_h"),
        "norm": Same("transformer.ln_f"),
        "head": Same("lm_head"),
    },
)

MPT = Architecture(
    "mpt",
    "mpt",
    config={
        "model.d_model": "d_model",
        "model.n_layers": "n_layers",
        "model.n_heads": "n_heads",
        "model.block_size": "max_seq_len",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "norm.eps": "layer_norm_epsilon",
    },
    fixed={
        "expansion_ratio": 4,
        "no_bias": True,
        "logit_scale": None,
        "attn_config.alibi": True,
        "attn_config.alibi_bias_max": 8,
        "attn_config.clip_qkv": None,
        "attn_config.softmax_scale": None,
        "attn_config.qk_ln": False,
    },
    weights={
        "embedding": Same("transformer.wte"),
        "blocks.{i}.attention_norm_in": Same("transformer.blocks.{i}.norm_1"),
        "blocks.{i}.attention.qkv": Same("transformer.blocks.{i}.attn.Wqkv"),
        "blocks.{i}.attention.out": Same("transformer.blocks.{i}.attn.out_proj"),
        "blocks.{i}.ffn_norm_in": Same("transformer.blocks.{i}.norm_2"),
        "blocks.{i}.ffn.up": Same("transformer.blocks.{i}.ffn.up_proj"),
        "blocks.{i}.ffn.down": Same("transformer.blocks.{i}.ffn.down_proj"),
        "norm": Same("transformer.norm_f"),
        "head": Same("lm_head"),
    },
)

PYTHIA = Architecture(
    "gpt_neox",
    "pythia",
    config={
        "model.d_model": "hidden_size",
        "model.n_layers": "num_hidden_layers",
        "model.n_heads": "num_attention_heads",
        "model.block_size": "max_position_embeddings",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "ffn.hidden": "intermediate_size",
        "norm.eps": "layer_norm_eps",
        "pos.theta": "rope_parameters.rope_theta",
        "pos.fraction": "rope_parameters.partial_rotary_factor",
    },
    fixed={
        "hidden_act": "gelu",
        "use_parallel_residual": True,
        "attention_bias": True,
        "rope_parameters.rope_type": "default",
    },
    weights={
        "embedding": Same("gpt_neox.embed_in"),
        "blocks.{i}.attention_norm_in": Same("gpt_neox.layers.{i}.input_layernorm"),
        "blocks.{i}.attention.qkv": ByHead("gpt_neox.layers.{i}.attention.query_key_value"),
        "blocks.{i}.attention.out": Same("gpt_neox.layers.{i}.attention.dense"),
        "blocks.{i}.ffn_norm_in": Same("gpt_neox.layers.{i}.post_attention_layernorm"),
        "blocks.{i}.ffn.up": Same("gpt_neox.layers.{i}.mlp.dense_h_to_4h"),
        "blocks.{i}.ffn.down": Same("gpt_neox.layers.{i}.mlp.dense_4h_to_h"),
        "norm": Same("gpt_neox.final_layer_norm"),
        "head": Same("lm_head"),
    },
)

# --- Llama and its relatives ----------------------------------------------------------------------

LLAMA_CONFIG = {
    "model.d_model": "hidden_size",
    "model.n_layers": "num_hidden_layers",
    "model.n_heads": "num_attention_heads",
    "model.block_size": "max_position_embeddings",
    "model.vocab_size": "vocab_size",
    "model.tied_head": "tie_word_embeddings",
    "attention.n_kv_heads": "num_key_value_heads",
    "ffn.hidden": "intermediate_size",
    "norm.eps": "rms_norm_eps",
    "pos.theta": "rope_parameters.rope_theta",
}
HEAD_DIM = {"attention.head_dim": "head_dim"}
QK_NORM_EPS = {"attention.qk_norm.eps": "rms_norm_eps"}
LLAMA_FIXED = {"hidden_act": "silu", "rope_parameters.rope_type": "default"}
LLAMA_WEIGHTS = {
    "embedding": Same("model.embed_tokens"),
    "blocks.{i}.attention_norm_in": Same("model.layers.{i}.input_layernorm"),
    "blocks.{i}.attention.qkv": QueryKeyValue(
        "model.layers.{i}.self_attn.q_proj",
        "model.layers.{i}.self_attn.k_proj",
        "model.layers.{i}.self_attn.v_proj",
    ),
    "blocks.{i}.attention.out": Same("model.layers.{i}.self_attn.o_proj"),
    "blocks.{i}.ffn_norm_in": Same("model.layers.{i}.post_attention_layernorm"),
    "blocks.{i}.ffn.gate_up": Stacked("model.layers.{i}.mlp.gate_proj", "model.layers.{i}.mlp.up_proj"),
    "blocks.{i}.ffn.down": Same("model.layers.{i}.mlp.down_proj"),
    "norm": Same("model.norm"),
    "head": Same("lm_head"),
}
QK_NORM_WEIGHTS = {
    "blocks.{i}.attention.q_norm": Same("model.layers.{i}.self_attn.q_norm"),
    "blocks.{i}.attention.k_norm": Same("model.layers.{i}.self_attn.k_norm"),
}

LLAMA = Architecture(
    "llama",
    "llama",
    config=LLAMA_CONFIG | HEAD_DIM,
    weights=LLAMA_WEIGHTS,
    fixed=LLAMA_FIXED | {"attention_bias": False, "mlp_bias": False},
)
MISTRAL = Architecture(
    "mistral",
    "mistral",
    config=LLAMA_CONFIG | HEAD_DIM | {"attention.window": "sliding_window"},
    weights=LLAMA_WEIGHTS,
    fixed=LLAMA_FIXED,
)
# From version 0.2 on Mistral's models see everything.
MISTRAL_FULL = replace(LLAMA, model_type="mistral", fixed=LLAMA_FIXED | {"sliding_window": None})
MIXTRAL = Architecture(
    "mixtral",
    "mixtral",
    config=LLAMA_CONFIG
    | HEAD_DIM
    | {"ffn.n_experts": "num_local_experts", "ffn.top_k": "num_experts_per_tok"},
    weights={name: rule for name, rule in LLAMA_WEIGHTS.items() if ".ffn." not in name}
    | {
        "blocks.{i}.ffn.router": Same("model.layers.{i}.mlp.gate"),
        "blocks.{i}.ffn.experts.gate_up.weight": Same("model.layers.{i}.mlp.experts.gate_up_proj"),
        "blocks.{i}.ffn.experts.down.weight": Same("model.layers.{i}.mlp.experts.down_proj"),
    },
    fixed=LLAMA_FIXED | {"sliding_window": None},
)
QWEN3 = Architecture(
    "qwen3",
    "qwen3",
    config=LLAMA_CONFIG | HEAD_DIM | QK_NORM_EPS,
    weights=LLAMA_WEIGHTS | QK_NORM_WEIGHTS,
    fixed=LLAMA_FIXED | {"attention_bias": False, "use_sliding_window": False},
)
OLMO2 = Architecture(
    "olmo2",
    "olmo2",
    config=LLAMA_CONFIG | QK_NORM_EPS,
    weights={name: rule for name, rule in LLAMA_WEIGHTS.items() if "norm_in" not in name}
    | QK_NORM_WEIGHTS
    | {
        "blocks.{i}.attention_norm_out": Same("model.layers.{i}.post_attention_layernorm"),
        "blocks.{i}.ffn_norm_out": Same("model.layers.{i}.post_feedforward_layernorm"),
    },
    fixed=LLAMA_FIXED | {"attention_bias": False},
)

# Of several with one model_type the first whose `fixed` fits is taken.
ARCHITECTURES = (
    GPT2,
    GPT_NEO,
    BLOOM,
    MPT,
    PYTHIA,
    LLAMA,
    MISTRAL_FULL,
    MISTRAL,
    MIXTRAL,
    QWEN3,
    OLMO2,
)
