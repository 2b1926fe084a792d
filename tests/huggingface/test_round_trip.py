"""Export and import give back everything that a table names: parts, sizes, window, logits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from modgpt import build_model, compose, load_run
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.errors import UserError
from modgpt.huggingface import configs
from modgpt.huggingface.architecture import Architecture
from modgpt.huggingface.configs import overrides_for, settled
from modgpt.huggingface.export import export
from modgpt.huggingface.importing import import_folder
from modgpt.huggingface.tables import ARCHITECTURES
from modgpt.huggingface.tables.gpt import GPT2
from modgpt.huggingface.weights import Same, check_rules, from_theirs, to_theirs
from modgpt.runs.folder import Run

VOCABULARY = "".join(map(chr, range(32, 69)))  # 37 characters

# A value for each of our keys, none of them the default of the preset or of transformers.
UNUSUAL = {
    "model.d_model": 48,
    "model.n_layers": 3,
    "model.n_heads": 6,
    "model.block_size": 27,
    "model.vocab_size": len(VOCABULARY),
    "attention.n_kv_heads": 3,
    "attention.head_dim": 10,
    "attention.window": 5,
    "attention.pattern": "[rest,full,full]",
    "attention.options.rest.window": 7,
    "attention.qk_norm.eps": 0.002,
    "attention.bias": "true",
    "attention.scale": 0.25,
    "attention.options.full.softcap": 5.0,
    "attention.options.rest.softcap": 5.0,
    "block.residual_scale": 0.7,
    "model.embedding_scale": 3.0,
    "model.logit_scale": 0.25,
    "model.logit_softcap": 7.0,
    "ffn.norm_topk": "true",
    "ffn.hidden": 72,
    "ffn.n_experts": 5,
    "ffn.top_k": 3,
    "attention.kv_rank": 14,
    "attention.q_rank": 18,
    "attention.rope_dim": 6,
    "attention.v_head_dim": 12,
    "ffn.pattern": "[dense,dense,moe]",
    "ffn.options.dense.hidden": 56,
    "ffn.options.moe.hidden": 24,
    "ffn.options.moe.n_experts": 12,
    "ffn.options.moe.top_k": 3,
    "ffn.options.moe.n_groups": 3,
    "ffn.options.moe.top_groups": 1,
    "ffn.options.moe.n_shared": 2,
    "ffn.options.moe.norm_topk": "false",
    "ffn.options.moe.gate_scale": 1.5,
    "norm.eps": 0.002,
    "model.embedding_norm.eps": 0.002,
    "pos.theta": 777.0,
    "pos.fraction": 0.5,
    "pos.pattern": "[rest,full,full]",
    "pos.options.full.theta": 333.0,
    "pos.options.rest.theta": 777.0,
    "pos.interleaved": "false",
}


def run_of(architecture: Architecture, tied: bool) -> Run:
    """An untrained run of an architecture, every setting of its table unlike the defaults."""
    values = {key: UNUSUAL[key] for key in architecture.config if key != "model.tied_head"}
    overrides = [f"{key}={value}" for key, value in values.items()]
    cfg = compose([f"experiment={architecture.preset}", *overrides, f"model.tied_head={tied}"])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return Run(model, CharTokenizer(VOCABULARY), cfg, {}, Path("nowhere"))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.model_type}-{a.preset}")
def test_every_setting_of_a_table_comes_back(
    architecture: Architecture, tied: bool, tmp_path: Path
) -> None:
    before = run_of(architecture, tied)
    export(before, tmp_path / "out")
    import_folder(tmp_path / "out", tmp_path / "back")
    after = load_run(tmp_path / "back")
    assert settled(after.config, after.model) == settled(before.config, before.model)
    assert after.tokenizer.to_dict() == before.tokenizer.to_dict()
    ids = torch.randint(37, (2, 27), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(after.model(ids), before.model(ids))


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=["shared", "private"])
def test_exported_files_have_the_permissions_of_the_umask(umask: int, tmp_path: Path) -> None:
    earlier = os.umask(umask)
    try:
        export(run_of(GPT2, True), tmp_path / "out")
    finally:
        os.umask(earlier)
    files = list((tmp_path / "out").iterdir())
    assert len(files) >= 4
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask, file.name
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask


# --- two tensors for one --------------------------------------------------------------------------


def test_two_of_our_tensors_cannot_become_one_unless_they_are_equal() -> None:
    model = run_of(GPT2, True).model
    shared = {**GPT2.weights, "blocks.{i}.ffn_norm_in": Same("transformer.h.{i}.ln_1")}
    with pytest.raises(UserError, match=r"blocks.0.attention_norm_in.weight and blocks.0.ffn_norm_in"):
        to_theirs(model, shared)
    for block in model.blocks:
        block.ffn_norm_in.load_state_dict(block.attention_norm_in.state_dict())
    state = to_theirs(model, shared)
    name = "transformer.h.0.ln_1.weight"
    assert torch.equal(state[name], model.state_dict()["blocks.0.ffn_norm_in.weight"])


def test_two_of_theirs_cannot_become_one_tied_tensor_unless_they_are_equal() -> None:
    model = run_of(GPT2, True).model
    state = to_theirs(model, GPT2.weights)
    from_theirs(state, model, GPT2.weights)
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(UserError, match=r"embedding.weight and head.weight are one tensor here"):
        from_theirs(state, model, GPT2.weights)


# --- tables that are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "fixed", "text"),
    [
        ({"norm.epsilon": "layer_norm_epsilon"}, {}, "names 'norm.epsilon', which the preset does not"),
        ({"normm.eps": "layer_norm_epsilon"}, {}, "names 'normm.eps', which the preset does not have"),
        (
            {"norm.eps": "layer_norm_epsilonn"},
            {},
            "names 'layer_norm_epsilonn', which transformers does",
        ),
        ({}, {"activation": "gelu"}, "names 'activation', which transformers does not have"),
    ],
)
def test_a_table_with_an_unknown_key_is_refused_by_name(
    config: dict[str, str], fixed: dict[str, str], text: str
) -> None:
    table = Architecture("gpt2", "gpt2", config, GPT2.weights, fixed)
    with pytest.raises(UserError, match=text) as error:
        overrides_for(table, {"layer_norm_epsilon": 1e-5})
    assert "gpt2" in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_table_is_refused_by_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(GPT2, True)
    table = Architecture("gpt2", "gpt2", {**GPT2.config, "norm.epsilon": "x"}, GPT2.weights, GPT2.fixed)
    monkeypatch.setattr(configs, "ARCHITECTURES", (table,))
    with pytest.raises(UserError, match=r"names 'norm.epsilon', which the preset does not have"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_of_weights_with_an_unknown_tensor_is_refused_by_name() -> None:
    model = run_of(GPT2, True).model
    with pytest.raises(UserError, match=r"table of weights has blocks.\{i\}.ffn.upp, which the model"):
        check_rules(model, {**GPT2.weights, "blocks.{i}.ffn.upp": Same("x")})
    less = {name: rule for name, rule in GPT2.weights.items() if "ffn.up." not in name}
    with pytest.raises(UserError, match=r"table of weights has no blocks.\{i\}.ffn.up.weight"):
        check_rules(model, less)
