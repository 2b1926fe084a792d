"""Files made by an attacker, met by every command that opens them: nothing runs, one line says why.

A hostile file is built by a small function or table entry of the modules beside this one, in a copy of a
run that this suite trains. None is kept in the repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modgpt.cli import main
from modgpt.config.compose import compose_job
from modgpt.data.tokenizers.pretrained import PROBE
from modgpt.huggingface.export import export
from modgpt.runs.folder import load_run
from modgpt.training.loop import train
from tests.checkout import ROOT
from tests.hostile import (
    configs,
    corpora,
    model_folders,
    pickles,
    records,
    targets,
    tokenizer_files,
    yamls,
)
from tests.hostile.limits import SECONDS, bounded, watched
from tests.hostile.world import SECRET, World, commands, hostile_files, new_world, set_in

Build = Callable[[World], Any]
OPENING = ("generate", "init_from", "resume")  # evaluate and export load as generate does
SIZES = ("model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.block_size=8")


def named(build: Build) -> str:
    return build.__name__


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A run of the default parts, small and finished."""
    folder = tmp_path_factory.mktemp("honest")
    job = compose_job(
        [
            *("data=text", f"data.path={corpus}", "data.batch_size=4", "run_name=run", *SIZES),
            *(f"output_dir={folder}", "schedule.warmup_steps=1", "trainer.max_steps=2", "threads=1"),
            *("trainer.val_check_interval=2", "trainer.accelerator=cpu", "trainer.precision=32-true"),
        ]
    )
    return train(job).folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Path:
    """The same run as a folder of transformers."""
    folder = tmp_path_factory.mktemp("transformers") / "model"
    export(load_run(trained_run), folder)
    return folder


@pytest.fixture
def world(tmp_path: Path, trained_run: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("MODGPT_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)  # what a command writes into its working directory shows up here
    return new_world(tmp_path, trained_run, corpus)


# --- what must hold --------------------------------------------------------------------------------


def call(world: World, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, after which nothing may have run or leaked."""
    with watched() as events, bounded(memory=arguments[0] != "compare"):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    captured = capsys.readouterr()
    assert not [path for path in world.folder.rglob("*canary*")], "the payload ran"
    events = [event for event in events if not is_ours(*event)]
    assert not events, f"something ran or went out: {events}"
    assert SECRET not in captured.out + captured.err, "the secret was read and printed"
    assert "\x1b" not in captured.err, "the terminal would obey characters of the file"
    return code, captured.out, captured.err


def is_ours(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether the product itself starts this process: to read its revision, or to try a tokenizer."""
    if event != "subprocess.Popen":
        return False
    command = list(arguments[1])
    return command[0] == "git" or command[:4] == [sys.executable, "-P", "-c", PROBE]


def refused(world: World, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Hold a command to its refusal: exit code 2, one line, nothing written."""
    before = snapshot(world)
    code, _, errors = call(world, arguments, capsys)
    assert code == 2, f"exit code {code}: {errors}"
    assert errors.count("\n") == 1 and errors.startswith("error: "), errors
    assert len(errors) < 1000, "one line that is read"
    assert snapshot(world) == before, "something was written"


def harmless(world: World, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Hold a command to this: it goes its way or refuses, and nothing of the file takes effect."""
    code, _, errors = call(world, arguments, capsys)
    assert code in (0, 2), f"exit code {code}: {errors}"
    assert "Traceback" not in errors
    outside = {p.name for p in world.folder.iterdir()}
    assert outside <= {"run", "out", "model", "secret.json", "conf"}, outside


def snapshot(world: World) -> dict[Path, int]:
    """When each file was changed last, without the lease that a command takes while it reads a run."""
    paths = (path for path in world.folder.rglob("*") if path.name not in ("lease.json", ".lock"))
    # A lease that came and went leaves a folder with another time, and nothing in it.
    return {p: p.stat().st_mtime_ns if p.is_file() else 0 for p in paths if p.is_file() or p.is_dir()}


# --- runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*OPENING, "compare"])
def test_an_honest_run_is_opened(command: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the refusals below would prove nothing."""
    with bounded(memory=command != "compare"):
        assert main(commands(world)[command]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", OPENING)
@pytest.mark.parametrize("build", hostile_files(pickles), ids=named)
def test_checkpoint(
    build: Build, command: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world)
    world.seal_checkpoints()
    refused(world, commands(world)[command], capsys)


@pytest.mark.parametrize("command", OPENING)
@pytest.mark.parametrize("build", hostile_files(configs), ids=named)
def test_configuration(
    build: Build, command: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world)
    refused(world, commands(world)[command], capsys)


@pytest.mark.parametrize("command", ["generate", "resume"])  # from the checkpoint, from config.yaml
@pytest.mark.parametrize("name", targets.NAMES)
def test_target(name: str, command: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    targets.write_helpers(world)
    world.change_config(set_in("norm.eps", targets.every_target(world)[name]))
    refused(world, commands(world)[command], capsys)


@pytest.mark.parametrize("command", ["evaluate", "resume"])  # those that read the corpus
@pytest.mark.parametrize("build", hostile_files(corpora), ids=named)
def test_corpus(build: Build, command: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    build(world)
    refused(world, commands(world)[command], capsys)


@pytest.mark.parametrize("command", ["resume", "init_from"])
@pytest.mark.parametrize("build", hostile_files(yamls), ids=named)
def test_yaml(build: Build, command: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    build(world)
    refused(world, commands(world)[command], capsys)


@pytest.mark.parametrize("command", ["resume", "init_from"])
@pytest.mark.parametrize("build", hostile_files(records), ids=named)
def test_record(build: Build, command: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    build(world)
    harmless(world, commands(world)[command], capsys)


@pytest.mark.parametrize(
    "build", [build for module in (yamls, records) for build in hostile_files(module)], ids=named
)
def test_compare(build: Build, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    build(world)
    harmless(world, commands(world)["compare"], capsys)


# --- tokenizers ------------------------------------------------------------------------------------

EVERY_TOKENIZER = [*tokenizer_files.DESCRIPTIONS, *tokenizer_files.FILES]
# Large or odd, but a tokenizer: a new model may be trained with it.
USABLE = ("added_two_hundred_thousand", "ids_beyond_the_model")
# Settings of the library that are switched off: every text is encoded whole, and alone.
WITHOUT_EFFECT = ("truncation_of_everything", "padding_of_everything")


@pytest.mark.parametrize("command", ["generate", "export"])
@pytest.mark.parametrize("name", tokenizer_files.DESCRIPTIONS)
def test_tokenizer_of_a_checkpoint(
    name: str, command: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tokenizer_files.DESCRIPTIONS[name]()
    world.change_checkpoints(lambda content: content["modgpt"].update(tokenizer=description))
    holds = harmless if name in WITHOUT_EFFECT else refused
    holds(world, commands(world)[command], capsys)


def write_description(name: str, path: Path) -> None:
    path.unlink(missing_ok=True)
    if name in tokenizer_files.DESCRIPTIONS:
        path.write_text(json.dumps(tokenizer_files.DESCRIPTIONS[name]()))
    else:
        tokenizer_files.FILES[name](path)


@pytest.mark.parametrize("name", [n for n in EVERY_TOKENIZER if n not in USABLE + WITHOUT_EFFECT])
def test_tokenizer_of_a_training(name: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    path = world.folder / "tokenizer.json"
    write_description(name, path)
    arguments = ["train", "data=text", f"data.path={world.corpus}", f"output_dir={world.folder}/out"]
    arguments += ["tokenizer=saved", f"tokenizer.path={path}", *SIZES, "trainer.accelerator=cpu"]
    refused(world, arguments, capsys)


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
def test_tokenizer_of_a_model_folder(
    name: str, world: World, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, world.folder / "model")
    write_description(name, world.folder / "model" / "tokenizer.json")
    holds = harmless if name in WITHOUT_EFFECT else refused
    holds(world, import_command(world), capsys)


# --- folders of transformers -----------------------------------------------------------------------


def import_command(world: World) -> list[str]:
    return ["import", "--source", str(world.folder / "model"), "--out", str(world.folder / "out")]


def test_an_honest_model_folder_is_imported(
    world: World, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, world.folder / "model")
    with watched() as events, bounded():
        assert main(import_command(world)) == 0, capsys.readouterr().err
    assert not events


@pytest.mark.parametrize("build", hostile_files(model_folders), ids=named)
def test_model_folder(
    build: Build, world: World, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, world.folder / "model")
    build(world)
    refused(world, import_command(world), capsys)


@pytest.mark.parametrize("name", ["${oc.env:MODGPT_SECRET}", "a'b", "a b,c={d}", "\x1b[2J"])
def test_names_of_folders_are_only_names(
    name: str, world: World, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, world.folder / name)
    code, _, errors = call(world, ["import", "--source", str(world.folder / name)], capsys)
    assert code in (0, 2) and errors.count("\n") == (code == 2)


# --- real processes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "command"),
    [
        (configs.target_in_an_epsilon, "generate"),
        (records.override_that_adds_a_callback, "resume"),
        (model_folders.theta_in_hydras_grammar, "import"),
    ],
    ids=["generate", "resume", "import"],
)
def test_in_a_process_of_its_own(build: Build, command: str, world: World, model_folder: Path) -> None:
    shutil.copytree(model_folder, world.folder / "model")
    build(world)
    arguments = commands(world).get(command, import_command(world))
    done = subprocess.run(
        [sys.executable, "-m", "modgpt", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert not world.canary.exists() and "Traceback" not in done.stderr
    if command == "resume":
        assert done.returncode in (0, 2)
    else:
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
