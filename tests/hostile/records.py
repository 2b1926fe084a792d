"""Files result.json, and settings of places in config.yaml, that would run code or write elsewhere.

A record is not a program: such a run may be refused or go on, but nothing of this takes effect.
"""

from __future__ import annotations

from typing import Any

from tests.hostile.targets import run, touch
from tests.hostile.world import World, set_in


def override_that_adds_a_callback(world: World) -> None:
    _overrides(world, f"+callbacks.evil={_grammar(world)}")


def override_that_adds_a_logger(world: World) -> None:
    _overrides(world, f"+logger.evil={_grammar(world)}")


def override_of_an_epsilon(world: World) -> None:
    _overrides(world, f"norm.eps={_grammar(world)}")


def override_that_adds_a_callback_of_hydra(world: World) -> None:
    _overrides(world, f"+hydra.callbacks.evil={_grammar(world)}")


def override_of_the_folder_of_checkpoints(world: World) -> None:
    _overrides(
        world, f"callbacks.last.dirpath={world.canary}", f"+callbacks.best.dirpath={world.canary}"
    )


def override_of_hydras_folder(world: World) -> None:
    _overrides(world, f"hydra.run.dir={world.canary}", "hydra.output_subdir=.hydra")


def override_of_hydras_folder_and_chdir(world: World) -> None:
    _overrides(world, f"hydra.run.dir={world.canary}", "hydra.job.chdir=true")


def override_of_a_search_path(world: World) -> None:
    folder = world.folder / "conf" / "norm"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(
        f"_target_: torch.utils.collect_env.run\ncommand: {touch(world)}\n"
    )
    _overrides(world, f"hydra.searchpath=[file://{folder.parent}]", "norm=evil")


def override_of_the_launcher(world: World) -> None:
    _overrides(world, "hydra/launcher=submitit_local", "hydra.mode=MULTIRUN")


def override_with_a_resolver(world: World) -> None:
    _overrides(world, "run_name='${oc.env:MODGPT_SECRET}'", "optimizer.lr=${oc.env:MODGPT_SECRET}")


def override_of_the_name(world: World) -> None:
    _overrides(world, "run_name='../../canary'", f"output_dir={world.canary}")


def override_of_the_corpus(world: World) -> None:
    _overrides(world, f"data.path={world.secret}")


def override_of_the_tokenizer(world: World) -> None:
    _overrides(world, "tokenizer=saved", f"tokenizer.path={world.secret}")


def override_that_resumes_elsewhere(world: World) -> None:
    _overrides(world, f"resume={world.canary}", f"init_from={world.secret}")


def override_that_sweeps(world: World) -> None:
    _overrides(world, "seed=1,2,3", "norm=glob(*)")


def flags_among_the_overrides(world: World) -> None:
    _overrides(world, "--multirun", "--config-dir=/tmp", "--cfg=job")


def overrides_that_are_numbers(world: World) -> None:
    world.change_record(overrides=[1, None, {"_target_": "os.system"}])


def overrides_that_are_a_text(world: World) -> None:
    world.change_record(overrides=f"norm.eps={_grammar(world)}")


def choices_outside_the_configs(world: World) -> None:
    world.change_record(choices={"norm": "../../../secret", "experiment": "/etc/passwd", "x": [1]})


def settings_that_are_overrides(world: World) -> None:
    world.change_record(threads=_grammar(world), precision=_grammar(world), compiled=_grammar(world))


def nested_a_hundred_thousand_deep(world: World) -> None:
    (world.run / "result.json").write_text('{"choices":' + "[" * 100_000 + "]" * 100_000 + "}")


def numbers_beyond_all_bounds(world: World) -> None:
    path = world.run / "result.json"
    path.write_text('{"status": "finished", "final_val_loss": 1' + "0" * 5000 + ', "overrides": []}')


def texts_of_escape_characters(world: World) -> None:
    world.change_record(status="\x1b[2J\x1b]0;evil\x07", init_from="\x1b[31m=cmd()", device="\x1b[2J")


def folder_of_checkpoints_elsewhere(world: World) -> None:
    def change(config: dict[str, Any]) -> None:
        for callback in config["callbacks"].values():
            if "ModelCheckpoint" in callback["_target_"] or "dirpath" in callback:
                callback["dirpath"] = str(world.canary)

    world.change_config(change)


def file_name_of_checkpoints_elsewhere(world: World) -> None:
    def change(config: dict[str, Any]) -> None:
        for callback in config["callbacks"].values():
            if "filename" in callback:
                callback["filename"] = "../../canary"

    world.change_config(change)


def folder_of_runs_elsewhere(world: World) -> None:
    def change(config: dict[str, Any]) -> None:
        config["output_dir"], config["run_name"] = str(world.canary), "../../canary"

    world.change_config(change)


def folder_of_the_trainer_elsewhere(world: World) -> None:
    world.change_config(set_in("trainer.default_root_dir", str(world.canary)))


def folder_of_a_job_elsewhere(world: World) -> None:
    world.change_config(set_in("job_folder", str(world.canary)))


def tokenizer_path_elsewhere(world: World) -> None:
    world.change_config(
        set_in(
            "tokenizer",
            {"_target_": "modgpt.data.tokenizers.saved.saved_tokenizer", "_partial_": True}
            | {"path": "../secret.json"},
        )
    )


def _overrides(world: World, *overrides: str) -> None:
    world.change_record(overrides=list(overrides))


def _grammar(world: World) -> str:
    """The attack in Hydra's grammar of overrides."""
    return "{_target_:" + run(world)["_target_"] + f",command:'{touch(world)}'" + "}"
