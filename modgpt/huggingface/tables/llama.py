"""Tables of Llama and its relatives: Mistral, Mixtral, Qwen, OLMo, StableLM, StarCoder2, Granite."""

from __future__ import annotations

from dataclasses import replace

from modgpt.huggingface.architecture import Architecture, Converted
from modgpt.huggingface.weights import QueryKeyValue, Same, Stacked

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
WITHOUT_FFN = {name: rule for name, rule in LLAMA_WEIGHTS.items() if ".ffn." not in name}
EXPERT_WEIGHTS = {
    "blocks.{i}.ffn.router": Same("model.layers.{i}.mlp.gate"),
    "blocks.{i}.ffn.experts.gate_up.weight": Same("model.layers.{i}.mlp.experts.gate_up_proj"),
    "blocks.{i}.ffn.experts.down.weight": Same("model.layers.{i}.mlp.experts.down_proj"),
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
    weights=WITHOUT_FFN | EXPERT_WEIGHTS,
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
QWEN2 = Architecture(
    "qwen2",
    "qwen2",
    config=LLAMA_CONFIG,
    weights=LLAMA_WEIGHTS,
    fixed=LLAMA_FIXED | {"use_sliding_window": False},
)
QWEN3_MOE = Architecture(
    "qwen3_moe",
    "qwen3_moe",
    config=LLAMA_CONFIG
    | QK_NORM_EPS
    | {
        # Their class has no such key of its own, and reads it where a config.json has it.
        "attention.head_dim": Converted(
            "head_dim", lambda config: config.get("head_dim"), lambda ours: ours["attention.head_dim"]
        ),
        "ffn.hidden": "moe_intermediate_size",
        "ffn.n_experts": "num_local_experts",
        "ffn.top_k": "num_experts_per_tok",
        "ffn.norm_topk": "norm_topk_prob",
    },
    weights=WITHOUT_FFN | EXPERT_WEIGHTS | QK_NORM_WEIGHTS,
    fixed=LLAMA_FIXED
    | {"attention_bias": False, "use_sliding_window": False}
    | {"decoder_sparse_step": 1, "mlp_only_layers": []},
)
OLMOE = Architecture(
    "olmoe",
    "olmoe",
    config=LLAMA_CONFIG
    | QK_NORM_EPS
    | {
        "ffn.n_experts": "num_experts",
        "ffn.top_k": "num_experts_per_tok",
        "ffn.norm_topk": "norm_topk_prob",
    },
    weights=WITHOUT_FFN | EXPERT_WEIGHTS | QK_NORM_WEIGHTS,
    # transformers clips behind the norm, we before it.
    fixed=LLAMA_FIXED | {"attention_bias": False, "clip_qkv": None},
)
LAYERNORM_EPS = {"norm.eps": "layer_norm_eps"}
STABLELM = Architecture(
    "stablelm",
    "stablelm",
    config=LLAMA_CONFIG
    | LAYERNORM_EPS
    | {
        "attention.bias": "use_qkv_bias",
        "pos.fraction": "rope_parameters.partial_rotary_factor",
    },
    weights=LLAMA_WEIGHTS,
    fixed=LLAMA_FIXED | {"qk_layernorm": False, "use_parallel_residual": False},
)
STARCODER2 = Architecture(
    "starcoder2",
    "starcoder2",
    config=LLAMA_CONFIG | {"norm.eps": "norm_epsilon", "attention.window": "sliding_window"},
    weights=WITHOUT_FFN
    | {
        "blocks.{i}.ffn.up": Same("model.layers.{i}.mlp.c_fc"),
        "blocks.{i}.ffn.down": Same("model.layers.{i}.mlp.c_proj"),
    },
    fixed=LLAMA_FIXED | {"hidden_act": "gelu_pytorch_tanh", "use_bias": True},
)
GRANITE = Architecture(
    "granite",
    "granite",
    config=LLAMA_CONFIG
    | {
        "model.embedding_scale": "embedding_multiplier",
        "block.residual_scale": "residual_multiplier",
        "attention.scale": "attention_multiplier",
        "model.logit_scale": Converted(
            "logits_scaling",
            lambda config: 1 / config["logits_scaling"],
            lambda ours: 1 / ours["model.logit_scale"],
        ),
    },
    weights=LLAMA_WEIGHTS,
    fixed=LLAMA_FIXED | {"attention_bias": False, "mlp_bias": False},
)
