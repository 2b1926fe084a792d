"""Every YAML composes, builds and is documented by its own keys; the Python interface."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

import modgpt
from modgpt.config.check import check_arguments, check_value
from modgpt.config.compose import compose, compose_job
from modgpt.config.search import CONFIG_DIR, groups, options
from modgpt.errors import UserError
from modgpt.model.cost import count_parameters


def on_this_machine(config: DictConfig) -> DictConfig:
    """A copy in which no value is left to the machine."""
    config = config.copy()
    config.trainer.precision = "32-true"
    OmegaConf.resolve(config)
    return config


EVERY_OPTION = [(group, option) for group in groups() for option in options(group)]


@pytest.mark.parametrize(("group", "option"), EVERY_OPTION, ids="=".join)
def test_every_yaml_composes(group: str, option: str) -> None:
    more = ["data.path=somewhere"] if option == "text" else []
    job = compose_job([f"{group}={option}", *more])
    assert job.choices[group] == option
    check_arguments(on_this_machine(job.config))


@pytest.mark.parametrize("option", options("experiment"))
def test_parts_can_be_swapped_in_every_experiment(option: str) -> None:
    for group in ("attention", "ffn", "norm", "pos"):
        for part in options(group):
            cfg = compose([f"experiment={option}", f"{group}={part}"])
            cfg.model.update(d_model=64, n_layers=1, n_heads=4, block_size=8)
            model = modgpt.build_model(cfg, vocab_size=5)
            assert count_parameters(model) == model.cost(8).parameters > 0


def test_the_groups_people_type() -> None:
    wanted = "attention ffn norm pos block model data tokenizer optimizer schedule trainer callbacks"
    assert set(wanted.split()) | {"logger", "experiment"} <= set(groups())


def test_the_keys_people_type() -> None:
    cfg = compose(["attention=local_window", "attention.window=64", "ffn=moe", "ffn.n_experts=4",
                   "data=text", "data.path=x"])  # fmt: skip
    assert cfg.attention.window == 64 and cfg.ffn.n_experts == 4
    keys = [
        *("seed", "run_name", "resume", "model.d_model", "model.n_layers", "model.n_heads"),
        *("model.block_size", "model.dropout", "ffn.top_k", "data.path", "data.batch_size"),
        *("optimizer.lr", "optimizer.weight_decay", "schedule.warmup_steps"),
        *("trainer.max_steps", "trainer.precision"),
    ]
    for key in keys:
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        assert isinstance(node, DictConfig) and leaf in node, key


def test_the_default_is_what_it_says() -> None:
    job = compose_job([])
    parts = [job.choices[g] for g in ("attention", "ffn", "norm", "pos", "model")]
    assert parts == ["flash", "swiglu", "rmsnorm", "rope", "mini"]


@pytest.mark.parametrize(
    ("option", "sizes"),
    [("mini", (4, 128, 4, 64)), ("small", (6, 256, 8, 256)), ("nanogpt", (6, 384, 6, 256))],
)
def test_sizes(option: str, sizes: tuple[int, ...]) -> None:
    m = compose([f"model={option}"]).model
    assert (m.n_layers, m.d_model, m.n_heads, m.block_size) == sizes


def test_recipes() -> None:
    classic = compose_job(["experiment=classic"])
    assert [classic.choices[g] for g in ("attention", "ffn", "norm", "pos", "model")] == [
        "flash", "swiglu", "rmsnorm", "sinusoidal", "small",
    ]  # fmt: skip
    c = classic.config
    assert (c.optimizer.lr, c.optimizer.weight_decay, c.model.dropout) == (1e-3, 0.01, 0.1)
    assert (c.data.batch_size, c.schedule.warmup_steps, c.trainer.max_steps) == (128, 100, 2000)
    assert count_parameters(modgpt.build_model(c, vocab_size=65)) == pytest.approx(4.7e6, rel=0.02)
    gpu, cpu = (compose_job([f"experiment={e}"]) for e in ("nanogpt", "nanogpt_cpu"))
    for job in (gpu, cpu):
        assert [job.choices[g] for g in ("attention", "ffn", "norm", "pos")] == [
            "flash", "standard", "layernorm", "learned",
        ]  # fmt: skip
        assert not job.config.norm.bias and not job.config.ffn.bias
    assert (gpu.config.model.dropout, gpu.config.trainer.max_steps, gpu.config.data.batch_size) == (
        0.2, 5000, 64,
    )  # fmt: skip
    assert (cpu.config.model.dropout, cpu.config.trainer.max_steps, cpu.config.data.batch_size) == (
        0.0, 2000, 12,
    )  # fmt: skip


def test_qk_norm_is_a_knob() -> None:
    cfg = compose(["norm@attention.qk_norm=rmsnorm"])
    model = modgpt.build_model(cfg, vocab_size=5)
    names = [name for name, _ in model.named_parameters() if "q_norm" in name]
    assert len(names) == cfg.model.n_layers


def test_what_an_experiment_sets_of_an_option_goes_with_it() -> None:
    """GPT-2's activation is its feed-forward's; its biases are attention's of any kind."""
    cfg = compose(["experiment=gpt2", "ffn=swiglu", "norm=rmsnorm", "attention=linear"])
    assert (cfg.ffn.activation, cfg.attention.bias) == ("silu", True) and "bias" not in cfg.norm
    given = compose(["experiment=gpt2", "ffn=swiglu", "ffn.activation=gelu_tanh"])
    assert given.ffn.activation == "gelu_tanh"
    assert compose(["experiment=gpt2"]).ffn.activation == "gelu_tanh"


def test_an_experiment_may_build_on_another() -> None:
    """sprint is the speedrun but for some knobs; Muon's go with Muon, whichever of the two set them."""
    cfg = compose(["experiment=sprint"])
    assert (cfg.model.n_layers, cfg.model.residual_std, cfg.optimizer.momentum) == (2, 0, 0.85)
    assert "momentum" not in compose(["experiment=sprint", "optimizer=adamw"]).optimizer


def test_an_option_at_a_place_that_something_else_fills_is_told() -> None:
    """In a pattern QK-norm is that of all layers; what is chosen for one option would be lost."""
    compose(["attention=hybrid", "norm@attention.qk_norm=rmsnorm"])
    compose(["attention=hybrid", "attention@attention.options.rest=linear"])
    with pytest.raises(UserError, match=r"options\.rest\.qk_norm=rmsnorm has no effect"):
        compose(["attention=hybrid", "norm@attention.options.rest.qk_norm=rmsnorm"])


def test_layers_share_nothing() -> None:
    model = modgpt.build_model(compose(["norm@attention.qk_norm=rmsnorm", "ffn=moe"]), vocab_size=5)
    seen: set[int] = set()
    for block in model.blocks:
        own = {id(p) for p in block.parameters()}
        assert not own & seen
        seen |= own


def test_a_vocabulary_is_needed() -> None:
    with pytest.raises(UserError, match="vocab_size"):
        modgpt.build_model(compose([]))


def test_no_yaml_has_a_key_that_nothing_reads() -> None:
    """`check_arguments` knows every key; here it is shown to refuse one that no constructor has."""
    cfg = on_this_machine(compose_job([]).config)
    OmegaConf.set_struct(cfg, False)
    for group in ("attention", "ffn", "norm", "pos", "block", "model", "data", "optimizer", "schedule",
                  "trainer"):  # fmt: skip
        broken = cfg.copy()
        broken[group].surplus = 1
        with pytest.raises(UserError, match=f"unknown key '{group}.surplus'"):
            check_arguments(broken)


@pytest.mark.parametrize(
    ("value", "annotation", "text"),
    [
        ("x", int, "a whole number, got 'x'"),
        (True, int, "a whole number, got True"),
        (1.0, int, "a whole number, got 1.0"),
        ("x", float | None, "a number or null, got 'x'"),
        (1, bool, "true or false, got 1"),
        (None, int, "a whole number, got None"),
        (3, str, "text, got 3"),
    ],
)
def test_kinds_of_values(value: object, annotation: object, text: str) -> None:
    with pytest.raises(UserError, match=f"key must be {text}"):
        check_value("key", value, annotation)


def test_numbers_that_fit() -> None:
    for value, annotation in ((1, float), (None, int | None), (0.5, float | None), ("a", str)):
        check_value("key", value, annotation)


def test_shared_knobs_are_no_options() -> None:
    assert (CONFIG_DIR / "shared").is_dir()
    assert "shared" not in groups()
