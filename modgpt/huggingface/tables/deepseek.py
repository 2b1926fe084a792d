"""Tables of DeepSeek-V3, with latents of queries and without."""

from __future__ import annotations

from dataclasses import replace

from modgpt.errors import UserError
from modgpt.huggingface.architecture import (
    Architecture,
    Config,
    Converted,
    Settings,
    layers_of,
    without,
)
from modgpt.huggingface.tables.llama import EXPERT_WEIGHTS, LLAMA_CONFIG, LLAMA_FIXED, LLAMA_WEIGHTS
from modgpt.huggingface.weights import KeysAndValuesByHead, QueriesAndLatents, Same, Stacked

ATTENTION = "model.layers.{i}.self_attn"
MLP = "model.layers.{i}.mlp"


def pattern_of(config: Config) -> list[str]:
    """The pattern of ffn=hybrid that `first_k_dense_replace` says.

    Raises:
        UserError: not a number of layers, or all layers are of one kind, which is another option.
    """
    dense, layers = config["first_k_dense_replace"], config["num_hidden_layers"]
    if type(dense) is not int or type(layers) is not int or not 0 < dense < layers:
        raise UserError(
            f"first_k_dense_replace={dense!r} has no counterpart here, only one between 1 and "
            f"num_hidden_layers − 1, of {layers!r} layers"
        )
    return ["dense"] * dense + ["moe"] * (layers - dense)


def dense_layers(ours: Settings) -> int:
    """`first_k_dense_replace` from a pattern of ffn=hybrid.

    Raises:
        UserError: a dense layer behind a mixture.
    """
    layers = layers_of("ffn", ours)
    dense = layers.count("dense")
    if layers != ["dense"] * dense + ["moe"] * (len(layers) - dense):
        raise UserError(f"ffn.pattern makes {', '.join(layers)}; DeepSeek-V3 has all dense layers first")
    return dense


DEEPSEEK_V3 = Architecture(
    "deepseek_v3",
    "deepseek_v3",
    config=without(LLAMA_CONFIG, "attention.n_kv_heads", "ffn.hidden")
    | {
        "attention.kv_rank": "kv_lora_rank",
        "attention.q_rank": "q_lora_rank",
        "attention.rope_dim": "qk_rope_head_dim",
        "attention.head_dim": "qk_nope_head_dim",
        "attention.v_head_dim": "v_head_dim",
        "pos.interleaved": "rope_interleave",
        "ffn.pattern": Converted("first_k_dense_replace", pattern_of, dense_layers),
        "ffn.options.dense.hidden": "intermediate_size",
        "ffn.options.moe.hidden": "moe_intermediate_size",
        "ffn.options.moe.n_experts": "n_routed_experts",
        "ffn.options.moe.top_k": "num_experts_per_tok",
        "ffn.options.moe.n_groups": "n_group",
        "ffn.options.moe.top_groups": "topk_group",
        "ffn.options.moe.n_shared": "n_shared_experts",
        "ffn.options.moe.norm_topk": "norm_topk_prob",
        "ffn.options.moe.gate_scale": "routed_scaling_factor",
    },
    weights=LLAMA_WEIGHTS
    | EXPERT_WEIGHTS
    | {
        "blocks.{i}.attention.qkv": QueriesAndLatents(
            f"{ATTENTION}.q_a_proj", f"{ATTENTION}.kv_a_proj_with_mqa"
        ),
        "blocks.{i}.attention.q_norm": Same(f"{ATTENTION}.q_a_layernorm"),
        "blocks.{i}.attention.q_up": Same(f"{ATTENTION}.q_b_proj"),
        "blocks.{i}.attention.k_norm": Same(f"{ATTENTION}.kv_a_layernorm"),
        "blocks.{i}.attention.kv_up": KeysAndValuesByHead(f"{ATTENTION}.kv_b_proj"),
        "blocks.{i}.ffn.balance_bias": Same(f"{MLP}.gate.e_score_correction_bias"),
        "blocks.{i}.ffn.shared.gate_up": Stacked(
            f"{MLP}.shared_experts.gate_proj", f"{MLP}.shared_experts.up_proj"
        ),
        "blocks.{i}.ffn.shared.down": Same(f"{MLP}.shared_experts.down_proj"),
    },
    fixed=LLAMA_FIXED
    | {
        "attention_bias": False,
        "num_key_value_heads": lambda config: config["num_attention_heads"],
    },
)
# Queries made of x itself.
DEEPSEEK_V3_PLAIN = replace(
    DEEPSEEK_V3,
    config=without(DEEPSEEK_V3.config, "attention.q_rank"),
    weights=without(DEEPSEEK_V3.weights, "blocks.{i}.attention.q_norm", "blocks.{i}.attention.q_up")
    | {
        "blocks.{i}.attention.qkv": QueriesAndLatents(
            f"{ATTENTION}.q_proj", f"{ATTENTION}.kv_a_proj_with_mqa"
        )
    },
    fixed={**DEEPSEEK_V3.fixed, "q_lora_rank": None},
    derived={"attention.q_rank": lambda config: None},
)
