"""Tables of GPT-2 and its relatives: GPT-Neo, Bloom, MPT, GPT-NeoX (Pythia)."""

from __future__ import annotations

from typing import Any

from modgpt.errors import UserError
from modgpt.huggingface.architecture import (
    Architecture,
    Config,
    Converted,
    Settings,
    layers_of,
    pattern_naming,
)
from modgpt.huggingface.weights import ByHead, QueryKeyValue, Same, Transposed

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
    """GPT-Neo's kinds of attention by layer, as a pattern of attention=hybrid.

    Raises:
        UserError: a kind is neither global nor local.
    """
    ours = {"global": "full", "local": "rest"}
    kinds = [kind for group, times in config["attention_types"] for _ in range(times) for kind in group]
    for kind in kinds:
        if kind not in ours:
            raise UserError(f"attention_types has {kind!r}: only 'global' and 'local' exist here")
    return pattern_naming(ours.values(), [ours[kind] for kind in kinds])


def neo_types(ours: Settings) -> list[Any]:
    """GPT-Neo's `attention_types` from a pattern of attention=hybrid."""
    return [[["global" if name == "full" else "local" for name in layers_of("attention", ours)], 1]]


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

# Bloom's own configurations name the length of the training sequences; transformers does not read it.
# Without it, 2048: the length that all published Bloom models were trained with.
BLOOM_LENGTH = Converted(
    "seq_length",
    lambda config: config.get("seq_length", 2048),
    lambda ours: ours["model.block_size"],
)

BLOOM = Architecture(
    "bloom",
    "bloom",
    config={
        "model.d_model": "hidden_size",
        "model.n_layers": "n_layer",
        "model.n_heads": "n_head",
        "model.block_size": BLOOM_LENGTH,
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

OPT = Architecture(
    "opt",
    "opt",
    config={
        "model.d_model": "hidden_size",
        "model.n_layers": "num_hidden_layers",
        "model.n_heads": "num_attention_heads",
        "model.block_size": "max_position_embeddings",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "ffn.hidden": "ffn_dim",
    },
    fixed={
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "word_embed_proj_dim": lambda config: config["hidden_size"],
    },
    weights={
        "embedding": Same("model.decoder.embed_tokens"),
        "pos.table": Same("model.decoder.embed_positions"),
        "blocks.{i}.attention_norm_in": Same("model.decoder.layers.{i}.self_attn_layer_norm"),
        "blocks.{i}.attention.qkv": QueryKeyValue(
            "model.decoder.layers.{i}.self_attn.q_proj",
            "model.decoder.layers.{i}.self_attn.k_proj",
            "model.decoder.layers.{i}.self_attn.v_proj",
        ),
        "blocks.{i}.attention.out": Same("model.decoder.layers.{i}.self_attn.out_proj"),
        "blocks.{i}.ffn_norm_in": Same("model.decoder.layers.{i}.final_layer_norm"),
        "blocks.{i}.ffn.up": Same("model.decoder.layers.{i}.fc1"),
        "blocks.{i}.ffn.down": Same("model.decoder.layers.{i}.fc2"),
        "norm": Same("model.decoder.final_layer_norm"),
        "head": Same("lm_head"),
    },
)


def rotated_share(config: Config) -> float:
    """The share of a head that GPT-J rotates, of `rotary_dim` columns.

    Raises:
        UserError: `rotary_dim` is null.
    """
    if config["rotary_dim"] is None:
        raise UserError("gptj with rotary_dim=None has no counterpart here, only with a number")
    return config["rotary_dim"] * config["n_head"] / config["n_embd"]


ROTARY_DIM = Converted(
    "rotary_dim", rotated_share, lambda ours: int(ours["attention.head_dim"] * ours["pos.fraction"])
)

GPTJ = Architecture(
    "gptj",
    "gptj",
    config={
        "model.d_model": "n_embd",
        "model.n_layers": "n_layer",
        "model.n_heads": "n_head",
        "model.block_size": "n_positions",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "ffn.hidden": "n_inner",
        "norm.eps": "layer_norm_epsilon",
        "pos.fraction": ROTARY_DIM,
    },
    fixed={"activation_function": "gelu_new"},
    weights={
        "embedding": Same("transformer.wte"),
        "blocks.{i}.attention_norm_in": Same("transformer.h.{i}.ln_1"),
        "blocks.{i}.attention.qkv": QueryKeyValue(
            "transformer.h.{i}.attn.q_proj",
            "transformer.h.{i}.attn.k_proj",
            "transformer.h.{i}.attn.v_proj",
        ),
        "blocks.{i}.attention.out": Same("transformer.h.{i}.attn.out_proj"),
        "blocks.{i}.ffn.up": Same("transformer.h.{i}.mlp.fc_in"),
        "blocks.{i}.ffn.down": Same("transformer.h.{i}.mlp.fc_out"),
        "norm": Same("transformer.ln_f"),
        "head": Same("lm_head"),
    },
)

PHI = Architecture(
    "phi",
    "phi",
    config={
        "model.d_model": "hidden_size",
        "model.n_layers": "num_hidden_layers",
        "model.n_heads": "num_attention_heads",
        "model.block_size": "max_position_embeddings",
        "model.vocab_size": "vocab_size",
        "model.tied_head": "tie_word_embeddings",
        "attention.n_kv_heads": "num_key_value_heads",
        "ffn.hidden": "intermediate_size",
        "norm.eps": "layer_norm_eps",
        "pos.theta": "rope_parameters.rope_theta",
        "pos.fraction": "rope_parameters.partial_rotary_factor",
    },
    fixed={"hidden_act": "gelu_new", "qk_layernorm": False, "rope_parameters.rope_type": "default"},
    weights={
        "embedding": Same("model.embed_tokens"),
        "blocks.{i}.attention_norm_in": Same("model.layers.{i}.input_layernorm"),
        "blocks.{i}.attention.qkv": QueryKeyValue(
            "model.layers.{i}.self_attn.q_proj",
            "model.layers.{i}.self_attn.k_proj",
            "model.layers.{i}.self_attn.v_proj",
        ),
        "blocks.{i}.attention.out": Same("model.layers.{i}.self_attn.dense"),
        "blocks.{i}.ffn.up": Same("model.layers.{i}.mlp.fc1"),
        "blocks.{i}.ffn.down": Same("model.layers.{i}.mlp.fc2"),
        "norm": Same("model.final_layernorm"),
        "head": Same("lm_head"),
    },
)
