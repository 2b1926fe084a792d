"""Damaged files: every reader says so in one line, and a sweep goes on around them.

`compare` has tests of its own. For leases see `test_lease`, for flipped bits `test_checkpoint`.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modgpt.commands import evaluate, generate
from modgpt.commands.train import main
from modgpt.runs.checkpoint import read_checkpoint, write_checkpoint
from tests.sweep.script import records, sweep, tiny

Reader = Callable[[Path], int]

WHOLE: dict[str, bytes] = {
    "empty": b"",
    "binary": random.Random(0).randbytes(3000),
    "text": b"hello\n",
    "null": b"null",
    "a list": b"[1, 2, 3]",
    "a number": b"7",
    "an unclosed brace": b'{"status": ',
    "deep nesting": b"[" * 100_000,
    "a huge number": b'{"seed": ' + b"9" * 10_000 + b"}",
    "not UTF-8": b'{"status": "\xff\xfe"}',
    "NUL bytes": b"\0" * 500,
}
VALUES: list[Any] = [None, "x", -1, 10**30, float("nan"), float("inf"), [], {}, [{}], {"a": None}, True]
MISSING = object()


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 10 steps."""
    below = tmp_path_factory.mktemp("runs")
    arguments = [
        "data=text", f"data.path={corpus}", "data.batch_size=4", f"output_dir={below}", "run_name=r",
        "model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.block_size=8", "threads=1",
        "trainer.max_steps=10", "trainer.val_check_interval=5", "trainer.accelerator=cpu",
    ]  # fmt: skip
    assert main(arguments) == 0
    return below / "r"


def resume(folder: Path) -> int:
    return main([f"resume={folder}", "trainer.max_steps=12"])


def write_text(folder: Path) -> int:
    return generate.main(["--run", str(folder), "--prompt", "to be", "--max-new-tokens", "3"])


def evaluate_run(folder: Path) -> int:
    return evaluate.main(["--run", str(folder), "--lengths", "8"])


READERS: list[Reader] = [write_text, evaluate_run, resume]


def read_all(
    folder: Path, readers: list[Reader], capfd: pytest.CaptureFixture[str], damage: str
) -> list[int]:
    """The exit codes of the readers: each reads the file, or says in one line why not."""
    codes = []
    for reader in readers:
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        capfd.readouterr()
        code = reader(folder)
        err = capfd.readouterr().err
        where = f"{damage}, {reader.__name__}: {code}\n{err}"
        assert "Traceback" not in err, where
        errors = [line for line in err.split("\n") if line.startswith("error: ")]
        assert len(errors) == (code != 0), where
        if code == 2:
            after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            assert after == before, f"written after all: {where}"
        codes.append(code)
    return codes


def copied(trained: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "r", ignore_errors=True)
    return Path(shutil.copytree(trained, tmp_path / "r"))


@pytest.mark.parametrize("damage", WHOLE)
@pytest.mark.parametrize("name", ["result.json", "config.yaml", "metrics.csv", "tokenizer.json"])
def test_a_file_of_another_kind(
    name: str, damage: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(trained, tmp_path)
    (folder / name).write_bytes(WHOLE[damage])
    codes = read_all(folder, READERS, capfd, damage)
    if name == "result.json":
        assert set(codes) == {2}
    if name in ("metrics.csv", "tokenizer.json"):  # the checkpoint has the tokenizer, too
        assert codes == [0, 0, 0]


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "metrics.csv", "tokenizer.json"])
def test_a_truncated_file(
    name: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(trained, tmp_path)
    whole = (folder / name).read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        (folder / name).write_bytes(whole[: int(share * len(whole))])
        read_all(folder, READERS, capfd, f"{share} of {name}")


def test_every_wrong_value_in_the_record(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(trained, tmp_path)
    whole = json.loads((folder / "result.json").read_text())
    refused = 0
    for key in [*whole, "unknown"]:
        for value in [*VALUES, MISSING]:
            changed = {k: v for k, v in (whole | {key: value}).items() if v is not MISSING}
            (folder / "result.json").write_text(json.dumps(changed))
            damage = f"{key}={'missing' if value is MISSING else value!r}"
            refused += read_all(folder, [finished_resume], capfd, damage) == [2]
    assert refused > 400


def finished_resume(folder: Path) -> int:
    """A resume that is refused in any case: the run is at its end."""
    return main([f"resume={folder}"])


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a tree, inner ones too."""
    items: list[Any] = []
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        items = list(enumerate(tree))
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with another value at a path, or nothing there."""
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


def damages(tree: Any, number: int) -> Iterator[tuple[str, Any]]:
    """Trees with one wrong value each: a sample of all there are."""
    paths = [p for p in leaves(tree) if not isinstance(p[-1], int) or p[-1] < 2]
    chosen = random.Random(0)
    for _ in range(number):
        path, value = chosen.choice(paths), chosen.choice([*VALUES, MISSING])
        try:
            yield (
                f"{path}={'missing' if value is MISSING else repr(value)}",
                with_value(tree, path, value),
            )
        except TypeError:  # inside a tuple
            continue


@pytest.mark.parametrize("number", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_wrong_values_in_the_configuration(
    number: int, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = yaml.safe_load((trained / "config.yaml").read_text())
    for damage, changed in damages(whole, number):
        folder = copied(trained, tmp_path)
        (folder / "config.yaml").write_text(yaml.safe_dump(changed))
        read_all(folder, [resume], capfd, damage)


@pytest.mark.parametrize("number", [25, pytest.param(60, marks=pytest.mark.slow)])
def test_wrong_values_in_the_checkpoint(
    number: int, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a digest that fits, as no accident can make them."""
    whole = read_checkpoint(trained / "checkpoints" / "last.ckpt")
    for damage, changed in damages(whole, number):
        folder = copied(trained, tmp_path)
        for name in ("best", "last"):
            write_checkpoint(changed, folder / "checkpoints" / f"{name}.ckpt")
        read_all(folder, READERS, capfd, damage)


def test_the_weights_of_another_model(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = read_checkpoint(trained / "checkpoints" / "last.ckpt")
    weights = whole["state_dict"]
    one = next(iter(weights))
    for damage, state in (
        ("a weight missing", {k: v for k, v in weights.items() if k != one}),
        ("one too many", weights | {"model.extra": weights[one]}),
        ("another shape", weights | {one: weights[one][:1]}),
        ("none", {}),
    ):
        folder = copied(trained, tmp_path)
        for name in ("best", "last"):
            write_checkpoint(whole | {"state_dict": state}, folder / "checkpoints" / f"{name}.ckpt")
        codes = read_all(folder, READERS, capfd, damage)
        assert 0 not in codes, damage


@pytest.mark.slow
def test_a_sweep_goes_on_around_damaged_jobs(corpus: Path, tmp_path: Path) -> None:
    """Nothing is damaged so that other jobs, or the job itself, could not be run."""
    command = ("seed=range(1,9)", *tiny(corpus, tmp_path), "hydra.launcher.n_jobs=1")
    code, _, err = sweep(*command)
    assert code == 0, err
    before = records(tmp_path)
    folders = [tmp_path / "s" / name for name in before]
    (folders[0] / "result.json").write_bytes(b"")
    (folders[1] / "result.json").write_text("[]")
    (folders[2] / "result.json").write_text('{"status": 7}')
    for folder in folders[3:7]:  # as if they had been killed
        record = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(record | {"status": "running"}))
    (folders[3] / "metrics.csv").write_bytes(b"\xff\0" * 99)
    for path in folders[4].glob("checkpoints/*"):
        path.write_bytes(path.read_bytes()[:-9])
    (folders[5] / "checkpoints" / "last.ckpt").write_bytes(b"")
    (folders[6] / "config.yaml").write_text("{")
    code, out, err = sweep(*command)
    assert "Traceback" not in err
    assert "unreadable" in out, "the plan tells which records it cannot read"
    after = records(tmp_path)
    ended = {path.name: after[path.name]["status"] for path in folders}
    failed = {name for name, status in ended.items() if status != "finished"}
    assert failed <= {folders[6].name}, ended
    for name in before.keys() - failed:
        assert after[name]["final_val_loss"] == before[name]["final_val_loss"], name
    assert code == (1 if failed else 0)
    log = (folders[4] / "log.txt").read_text()
    assert "the job begins anew" in log
    (tmp_path / "s" / "sweep.json").write_text('{"threads": "x"}')
    code, _, err = sweep(*command)
    assert code == 2 and err.count("\n") == 1 and "sweep.json is damaged" in err
