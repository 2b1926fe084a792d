"""Every preset is the architecture it is named for: logits, decoding and gradients of transformers."""

from __future__ import annotations

import ast
import copy
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.errors import UserError
from modgpt.huggingface.architecture import Architecture
from modgpt.huggingface.configs import find_architecture, match_architecture, overrides_for
from modgpt.huggingface.tables import ARCHITECTURES
from modgpt.huggingface.weights import from_theirs, to_theirs
from modgpt.model.gpt import GPT

V, WINDOW, LENGTH = 37, 5, 23  # well past the window

# The sizes of small models, in transformers' words: query heads 4 and 6, of which ALiBi's slopes differ
# in kind, and every ratio of grouped-query attention.
LLAMA: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "vocab_size": V,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def grouped(**more: Any) -> list[dict[str, Any]]:
    heads = [(4, 4), (4, 2), (6, 1), (6, 3)]
    return [LLAMA | more | {"num_attention_heads": h, "num_key_value_heads": hkv} for h, hkv in heads]


def latent(**more: Any) -> dict[str, Any]:
    widths = {"kv_lora_rank": 14, "q_lora_rank": 18, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6}
    experts = {"n_routed_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 24}
    groups = {"n_group": 4, "topk_group": 2, "first_k_dense_replace": 1}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 6, "v_head_dim": 12}
    return LLAMA | widths | experts | groups | heads | more


def with_rope(theta: float, **more: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | more}


def without(sizes: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in sizes.items() if k not in names}


TWO_THETAS = {
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
}
GEMMA_TYPES = ["full_attention", "sliding_attention", "sliding_attention"]
ENDS = {"bos_token_id": None, "eos_token_id": None}
NEO_TYPES = [[["global", "local"], 2]], [[["global", "local", "local"], 1], [["global"], 1]]
SIZES: dict[str, list[dict[str, Any]]] = {
    "gpt2": [
        {"n_embd": 48, "n_layer": 3, "n_head": h, "n_positions": 32, "vocab_size": V, "n_inner": inner}
        | ENDS
        for h, inner in ((4, None), (6, 40))
    ],
    "gpt_neo": [
        {"hidden_size": 48, "num_layers": 4, "num_heads": h, "max_position_embeddings": 32}
        | {"vocab_size": V, "window_size": WINDOW, "attention_types": types}
        | ENDS
        for h, types in ((4, NEO_TYPES[0]), (6, NEO_TYPES[1]))
    ],
    "bloom": [
        {"hidden_size": 48, "n_layer": 3, "n_head": h, "vocab_size": V, "layer_norm_epsilon": eps} | ENDS
        for h, eps in ((4, 1e-5), (6, 1e-3), (3, 1e-5))
    ],
    "mpt": [
        {"d_model": 48, "n_layers": 3, "n_heads": h, "vocab_size": V, "max_seq_len": 32} | ENDS
        for h in (4, 6, 3)
    ],
    "gpt_neox": [
        {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
        | {"hidden_size": 96, "num_attention_heads": h}
        | with_rope(1e4, partial_rotary_factor=share)
        for h, share in ((4, 0.25), (6, 0.5), (6, 1.0))
    ],
    "llama": [
        *grouped(),
        LLAMA
        | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
        | {"tie_word_embeddings": True}
        | with_rope(500.0),
    ],
    "mistral": [
        *grouped(sliding_window=WINDOW),
        LLAMA | {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": None},
    ],
    "mixtral": [
        *grouped(num_local_experts=4, num_experts_per_tok=2),
        *grouped(num_local_experts=6, num_experts_per_tok=3)[1:2],
    ],
    "qwen3": [*grouped(head_dim=16), *grouped(head_dim=6)[:1]],
    "olmo2": grouped(),
    "opt": [
        without(LLAMA, "intermediate_size", "num_key_value_heads")
        | {"num_attention_heads": h, "ffn_dim": 40, "word_embed_proj_dim": 48}
        for h in (4, 6)
    ],
    "gptj": [
        {"n_embd": 48, "n_layer": 3, "n_head": h, "n_positions": 32, "vocab_size": V, "n_inner": inner}
        | {"rotary_dim": rotated}
        | ENDS
        for h, inner, rotated in ((4, None, 4), (6, 40, 8))
    ],
    "phi": [*grouped(**with_rope(1e4, partial_rotary_factor=0.5))],
    "qwen2": grouped(),
    "qwen3_moe": [
        *grouped(head_dim=16, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=3),
        grouped(moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True)[1]
        | {"head_dim": 6},
    ],
    "olmoe": [
        *grouped(num_experts=6, num_experts_per_tok=3),
        *grouped(num_experts=4, num_experts_per_tok=2, norm_topk_prob=True)[1:2],
    ],
    "stablelm": [
        *grouped(**with_rope(1e4, partial_rotary_factor=0.5)),
        *grouped(use_qkv_bias=True, **with_rope(500.0, partial_rotary_factor=1.0))[:2],
    ],
    "starcoder2": grouped(sliding_window=WINDOW),
    "granite": [
        *grouped(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.4),
        *grouped(attention_multiplier=0.1, tie_word_embeddings=True)[1:2],
    ],
    "gemma2": [
        *grouped(head_dim=16, sliding_window=WINDOW, query_pre_attn_scalar=24),
        *grouped(head_dim=6, sliding_window=WINDOW, layer_types=GEMMA_TYPES)[:1],
        *grouped(head_dim=12, sliding_window=WINDOW, attn_logit_softcapping=None)[:1],
    ],
    "gemma3_text": [
        *grouped(head_dim=16, sliding_window=WINDOW, layer_types=GEMMA_TYPES, **TWO_THETAS),
        *grouped(head_dim=6, sliding_window=WINDOW, layer_types=GEMMA_TYPES[::-1], **TWO_THETAS)[:1],
    ],
    "deepseek_v3": [
        latent(),
        latent(q_lora_rank=None, n_group=1, topk_group=1, n_shared_experts=2, first_k_dense_replace=2),
        latent(rope_interleave=False, v_head_dim=8, norm_topk_prob=False, routed_scaling_factor=1.0)
        | {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True},
    ],
}
CASES = [
    pytest.param(name, sizes, id=f"{name}-{number}")
    for name, several in SIZES.items()
    for number, sizes in enumerate(several)
]
every_case = pytest.mark.parametrize(("name", "sizes"), CASES)


def theirs(name: str, sizes: dict[str, Any]) -> Any:
    return copy.deepcopy(random_model(name, repr(sizes)))


@cache
def random_model(name: str, written: str) -> Any:
    """A model of transformers with random weights, none of them 0 or 1 as biases and norms begin."""
    config = transformers.CONFIG_MAPPING[name](**ast.literal_eval(written))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        # What is stored and not trained, such as the biases of DeepSeek's router.
        for tensor in model.state_dict().values():
            if not tensor.any():
                tensor.add_(0.1 * torch.randn(tensor.shape))
    return model


@cache
def composed(overrides: tuple[str, ...]) -> Any:
    return compose(overrides)


def imported(model: Any) -> tuple[GPT, Any]:
    """Our model with the weights of theirs, and its configuration."""
    config = model.config.to_dict()
    architecture = find_architecture(config)
    cfg = composed(tuple(overrides_for(architecture, config)))
    ours = build_model(cfg).eval()
    ours.load_state_dict(from_theirs(model.state_dict(), ours, architecture.weights))
    return ours, cfg


def tokens(batch: int = 2, length: int = LENGTH) -> Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(1))


def test_every_architecture_is_tried() -> None:
    assert {a.model_type for a in ARCHITECTURES} == set(SIZES)


@every_case
def test_logits(name: str, sizes: dict[str, Any]) -> None:
    model = theirs(name, sizes)
    ours, _ = imported(model)
    ids = tokens()
    with torch.no_grad():
        wanted, got = model(ids).logits, ours(ids)
    assert wanted.std() > 0.1, "logits that all but vanish would agree in any case"
    assert (got - wanted).abs().max() <= 1e-5


@every_case
def test_token_by_token(name: str, sizes: dict[str, Any]) -> None:
    """Both with their own caches, past the window where there is one."""
    model = theirs(name, sizes)
    ours, _ = imported(model)
    ids, cache = tokens(), None
    state = ours.initial_state(len(ids), LENGTH)
    with torch.no_grad():
        for t in range(LENGTH):
            output = model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            got, state = ours.decode(ids[:, t : t + 1], state)
            assert (got - output.logits).abs().max() <= 1e-5, f"token {t}"


@every_case
def test_gradients(name: str, sizes: dict[str, Any]) -> None:
    """Of the mean cross-entropy, with respect to every tensor of theirs."""
    model = theirs(name, sizes)
    ours, _ = imported(model)
    ids = tokens()
    for one in (model, ours):
        logits = one(ids[:, :-1])
        logits = getattr(logits, "logits", logits)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    wanted = {n: p.grad for n, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in ours.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    got = to_theirs(ours, find_architecture(model.config.to_dict()).weights)
    assert set(wanted) <= set(got) and max(g.abs().max() for g in wanted.values()) > 1e-2
    for key, gradient in wanted.items():
        assert (got[key] - gradient).abs().max() <= 1e-4, key


@every_case
def test_there_and_back(name: str, sizes: dict[str, Any]) -> None:
    """Their model again from ours: the same configuration where it matters, the same bits."""
    model = theirs(name, sizes)
    ours, cfg = imported(model)
    architecture, config = match_architecture(cfg, ours)
    assert architecture.preset == find_architecture(model.config.to_dict()).preset
    again = transformers.AutoModelForCausalLM.from_config(
        transformers.CONFIG_MAPPING[architecture.model_type](**config)
    ).eval()
    state = to_theirs(ours, architecture.weights)
    again.load_state_dict(state)
    before = model.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], before[key]) for key in before)
    with torch.no_grad():
        torch.testing.assert_close(again(tokens()).logits, model(tokens()).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.model_type}-{a.preset}")
def test_a_preset_is_its_own_architecture(architecture: Architecture) -> None:
    """What `experiment=…` composes is what the table says, before any weights are converted."""
    cfg = compose([f"experiment={architecture.preset}", "model.vocab_size=37"])
    found, config = match_architecture(cfg, build_model(cfg))
    assert found.preset == architecture.preset
    assert find_architecture({"model_type": found.model_type} | config).preset == architecture.preset


def test_a_width_beside_a_pattern_is_that_of_its_options() -> None:
    cfg = compose(["experiment=deepseek_v3", "ffn.hidden=56", "model.vocab_size=37"])
    _, config = match_architecture(cfg, build_model(cfg))
    assert (config["intermediate_size"], config["moe_intermediate_size"]) == (56, 56)
    assert config["first_k_dense_replace"] == 1


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["experiment=deepseek_v3", "ffn.pattern=[dense,moe]"], "has all dense layers first"),
        (["experiment=deepseek_v3", "attention.n_kv_heads=2"], "attention.n_kv_heads is 2, not 4"),
        (
            ["attention=linear"],
            r"nearest is llama \(experiment=llama\), but attention is LinearAttention, not "
            "FlashAttention$",
        ),
        (["pos=sinusoidal"], "but pos is SinusoidalPosition, not RotaryPosition$"),
        (["norm=scalenorm"], "but norm is ScaleNorm, not RMSNorm$"),
        (
            ["experiment=gpt2", "attention.scale=1.0"],
            "nearest is gpt2 .*attention.scale is 1.0, not 0.17",
        ),
        (["experiment=gpt2", "ffn.activation=relu"], "ffn.activation is relu, not gelu_tanh"),
        (["experiment=bloom", "ffn.hidden=100"], "ffn.hidden is 100, not 512"),
        (["model.logit_softcap=15"], "model.logit_softcap is 15, not None"),
        (["experiment=qwen3", "attention.qk_norm.eps=0.1"], "attention.qk_norm.eps is 0.1, not 1e-05"),
    ],
)
def test_a_composition_without_counterpart_is_told(overrides: list[str], text: str) -> None:
    cfg = compose([*overrides, "model.vocab_size=37"])
    with pytest.raises(UserError, match=text):
        match_architecture(cfg, build_model(cfg))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"model_type": "t5"}, "model_type='t5' has no table here; these have: gpt2, gpt_neo"),
        (
            {"model_type": "deepseek_v3", "hidden_act": "silu", "attention_bias": False}
            | {"rope_parameters": {"rope_type": "default"}, "num_attention_heads": 4}
            | {"num_key_value_heads": 2},
            "deepseek_v3 with num_key_value_heads=2 has no counterpart here, only with .*=4",
        ),
        ({"model_type": "gpt2", "activation_function": "relu"}, "activation_function='relu' has no"),
        (
            {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
            | {"rope_parameters": {"rope_type": "llama3"}},
            "rope_parameters.rope_type='llama3' has no counterpart here, only with .*'default'",
        ),
    ],
)
def test_an_architecture_without_counterpart_is_told(config: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        find_architecture(config)


def test_weights_that_do_not_fit_are_told() -> None:
    model = theirs("llama", SIZES["llama"][0])
    ours, _ = imported(model)
    table, state = find_architecture(model.config.to_dict()).weights, model.state_dict()
    name = "model.layers.1.mlp.down_proj.weight"
    with pytest.raises(UserError, match=f"the weights lack {name}, which blocks.1.ffn.down.weight"):
        from_theirs({k: v for k, v in state.items() if k != name}, ours, table)
    with pytest.raises(UserError, match=f"{name} make blocks.1.ffn.down.weight of shape"):
        from_theirs(state | {name: torch.zeros(2, 2)}, ours, table)
    with pytest.raises(UserError, match="the weights have lora, which no part here stands for"):
        from_theirs(state | {"lora": torch.zeros(1)}, ours, table)
