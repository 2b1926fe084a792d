"""Configurations, in config.yaml and in the checkpoints, that name code, name a resolver or are huge."""

from __future__ import annotations

from typing import Any

from tests.hostile.targets import node, run
from tests.hostile.world import World, set_in

# --- the same target in every place -----------------------------------------------------------------


def target_in_an_epsilon(world: World) -> None:
    world.change_config(set_in("norm.eps", run(world)))


def target_of_a_part(world: World) -> None:
    world.change_config(set_in("ffn", run(world)))


def target_as_a_partial(world: World) -> None:
    world.change_config(set_in("norm", run(world) | {"_partial_": True}))


def target_of_the_model(world: World) -> None:
    world.change_config(lambda c: c["model"].update(run(world)))


def target_in_the_model(world: World) -> None:
    world.change_config(set_in("model.embedding_norm", run(world)))


def target_in_a_knob_of_a_knob(world: World) -> None:
    world.change_config(set_in("attention.qk_norm.eps.deep.deeper", run(world)))


def target_in_nested_lists(world: World) -> None:
    world.change_config(set_in("attention.scale", [[1, [run(world)]]]))


def target_among_arguments(world: World) -> None:
    world.change_config(lambda c: c["norm"].update(_args_=[run(world)]))


def arguments_by_position(world: World) -> None:
    world.change_config(lambda c: c["norm"].update(_args_=[3]))


def target_built_without_recursion(world: World) -> None:
    world.change_config(lambda c: c["norm"].update(_recursive_=False, eps=run(world)))


def conversion_of_another_kind(world: World) -> None:
    world.change_config(lambda c: c["norm"].update(_convert_=run(world)))


def partial_that_is_a_node(world: World) -> None:
    world.change_config(lambda c: c["norm"].update(_partial_=run(world)))


def target_of_the_optimizer(world: World) -> None:
    world.change_config(set_in("optimizer", run(world)))


def target_in_a_learning_rate(world: World) -> None:
    world.change_config(set_in("optimizer.lr", run(world)))


def target_of_the_schedule(world: World) -> None:
    world.change_config(set_in("schedule", run(world)))


def target_among_the_callbacks(world: World) -> None:
    world.change_config(set_in("callbacks.evil", run(world)))


def target_among_the_loggers(world: World) -> None:
    world.change_config(set_in("logger.evil", run(world)))


def target_of_the_trainer(world: World) -> None:
    world.change_config(set_in("trainer.accelerator", run(world)))


def target_of_the_data(world: World) -> None:
    world.change_config(set_in("data", run(world)))


def target_in_the_data(world: World) -> None:
    world.change_config(set_in("data.path", run(world)))


def target_of_the_tokenizer(world: World) -> None:
    world.change_config(set_in("tokenizer", run(world)))


def target_at_the_top(world: World) -> None:
    world.change_config(lambda c: c.update(run(world)))


def target_in_a_seed(world: World) -> None:
    world.change_config(set_in("seed", run(world)))


def target_under_an_unknown_key(world: World) -> None:
    world.change_config(set_in("whatever", {"x": [{"y": run(world)}]}))


def target_under_a_key_with_dots(world: World) -> None:
    world.change_config(lambda c: c["norm"].update({"eps.x": run(world)}))


def target_in_a_list_of_defaults(world: World) -> None:
    world.change_config(set_in("defaults", [{"norm": run(world)}, "_self_"]))


def hydra_node(world: World) -> None:
    world.change_config(set_in("hydra", {"callbacks": {"evil": run(world)}}))


def known_target_in_a_wrong_group(world: World) -> None:
    """ModelCheckpoint is a target of the packaged callbacks: as a norm it has no business."""
    target = "lightning.pytorch.callbacks.ModelCheckpoint"
    world.change_config(set_in("norm.eps", node(target, dirpath=str(world.canary))))


# --- resolvers and interpolations -------------------------------------------------------------------


def resolver_of_the_environment(world: World) -> None:
    world.change_config(set_in("optimizer.lr", "${oc.env:MODGPT_SECRET}"))


def resolver_that_decodes(world: World) -> None:
    world.change_config(set_in("norm.eps", "${oc.decode:'{_target_: os.system}'}"))


def resolver_that_creates(world: World) -> None:
    world.change_config(
        set_in("norm.eps", "${oc.create:{_target_: torch.utils.collect_env.run, command: touch x}}")
    )


def resolver_in_a_target(world: World) -> None:
    world.change_config(set_in("norm._target_", "torch.nn.${oc.env:MODGPT_SECRET}"))


def resolver_of_ours(world: World) -> None:
    world.change_config(set_in("data.batch_size", "${fit:4096,${model.block_size}}"))


def resolver_in_a_key(world: World) -> None:
    world.change_config(lambda c: c["norm"].update({"${oc.env:MODGPT_SECRET}": 1}))


def nested_resolvers(world: World) -> None:
    world.change_config(set_in("pos.theta", "${oc.env:${oc.env:A,MODGPT_SECRET}}"))


def interpolation_of_another_key(world: World) -> None:
    world.change_config(set_in("norm.eps", "${optimizer.lr}"))


def interpolations_in_a_circle(world: World) -> None:
    def change(config: dict[str, Any]) -> None:
        config["norm"]["eps"], config["optimizer"]["lr"] = "${optimizer.lr}", "${norm.eps}"

    world.change_config(change)


def value_that_is_missing(world: World) -> None:
    world.change_config(set_in("norm.eps", "???"))


# --- sizes -----------------------------------------------------------------------------------------


def a_billion_layers(world: World) -> None:
    world.change_config(set_in("model.n_layers", 10**9))


def a_width_of_a_hundred_million(world: World) -> None:
    world.change_config(set_in("model.d_model", 10**8))


def a_vocabulary_of_a_trillion(world: World) -> None:
    world.change_config(set_in("model.vocab_size", 10**12))


def a_hidden_width_of_a_trillion(world: World) -> None:
    world.change_config(set_in("ffn.hidden", 10**12))


def a_billion_heads(world: World) -> None:
    world.change_config(set_in("model.n_heads", 10**9))


def a_table_of_a_trillion_positions(world: World) -> None:
    def change(config: dict[str, Any]) -> None:
        config["pos"] = {"_target_": "modgpt.model.pos.learned.LearnedPosition", "_partial_": True}
        config["model"]["block_size"] = 10**12

    world.change_config(change)


def an_integer_of_ten_thousand_digits(world: World) -> None:
    def change(config: dict[str, Any]) -> None:
        config["model"]["n_layers"] = 2**13000

    world.change_checkpoints(lambda c: change(c["modgpt"]["config"]))
    path = world.run / "config.yaml"
    path.write_text(path.read_text().replace("n_layers: 1", "n_layers: " + "9" * 10_000))


def a_million_keys(world: World) -> None:
    world.change_config(set_in("norm.many", {f"k{i}": i for i in range(100_000)}))


def a_thousand_levels(world: World) -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"x": deep}
    world.change_config(set_in("norm.deep", deep))


def sizes_that_are_texts(world: World) -> None:
    world.change_config(set_in("model.n_layers", "1; touch canary"))


def sizes_that_are_no_numbers(world: World) -> None:
    world.change_config(set_in("model.d_model", float("nan")))


def no_model(world: World) -> None:
    world.change_config(lambda c: c.pop("model"))


def parts_that_are_lists(world: World) -> None:
    world.change_config(lambda c: c.update(attention=[1], ffn=[{}]))
