"""Damaged files of a run: it is listed with one line, and all other runs are compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modgpt.compare.comparison import compare
from modgpt.compare.curves import read_curves
from modgpt.compare.load import load_results
from modgpt.errors import UserError
from tests.compare.synthetic import DEFAULT, losses, write_run, write_sweep

MOE = DEFAULT | {"ffn": "moe"}
CONFIG = "model: {d_model: 64}\noptimizer: {lr: 0.003}\ndata: {batch_size: 8, block_size: 16}\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)

# What may stand in the place of a whole file.
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "binary": bytes(range(256)) * 20,
    "nul": b"\0" * 100,
    "utf-16": "{}".encode("utf-16"),
    "half a character": b'{"status": "\xc3',
    "null": b"null",
    "number": b"3",
    "text": b'"finished"',
    "list": b"[1, 2]",
    "object": b"{}",
    "unclosed": b'{"status": "finished", "choices": {',
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "huge integer": b'{"seed": ' + b"9" * 5000 + b"}",
    "two documents": b"{}\n---\n{}",
    "tab": b"\t:\n\t- [",
    "YAML tag": b"!!python/object/apply:os.system [false]",
    "YAML bomb": BOMB.encode(),
    "YAML cycle": b"a: &a [*a]",
    "strange keys": b"? [1, 2]\n: 3\n",
}  # fmt: skip

# Values that are wrong in one field of a record.
WRONG: list[tuple[str, Any]] = [
    *((name, value) for name in ("final_val_loss", "final_step", "tokens_seen", "flops_per_token",
                                 "seed", "threads", "parameters", "wall_seconds", "best_val_loss")
      for value in ("1.7", [1.7], {"a": 1}, True, -1, -1.5, 1e300)),
    *((name, 10**400) for name in ("final_step", "tokens_seen", "seed", "threads", "parameters")),
    *(("status", value) for value in ("FINISHED", "done", "", None, 3, ["finished"], {})),
    *(("choices", value) for value in (None, [], "flash", {"ffn": None}, {"ffn": 3}, {"ffn": ["moe"]},
                                       {"run": "x"}, {"final_val_loss": "0"}, {"mean": "x"})),
    *(("overrides", value) for value in (None, {}, "seed=1", [1], [None], [["ffn=moe"]], ["path=x"],
                                         ["latest_loss=0"])),
    *((name, value) for name in ("reason", "device", "precision", "corpus_sha256", "started_at", "match")
      for value in (3, ["x"], {"a": "b"})),
    ("format", 1), ("format", "2"), ("unknown field", 1), ("versions", []), ("resumed_at_steps", [-1]),
]  # fmt: skip


def of_contents(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes(content)

    return damage


def of_kind(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return damage


def of_field(field: str, value: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        record = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(record | {field: value}))

    return damage


def without(field: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        record = json.loads((run / "result.json").read_text())
        del record[field]
        (run / "result.json").write_text(json.dumps(record))

    return damage


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(share * len(content))])

    return damage


RECORDS = {
    **{f"{key} for result.json": of_contents("result.json", c) for key, c in CONTENTS.items()},
    **{f"{field}={value!r:.30}": of_field(field, value) for field, value in WRONG},
    **{f"no {field}": without(field) for field in ("status", "choices", "overrides", "seed", "format")},
    **{f"{share:.0%} of result.json": cut("result.json", share) for share in (0.01, 0.3, 0.9, 0.99)},
    "a folder for result.json": of_kind("result.json", Path.mkdir),
    "a pipe for result.json": of_kind("result.json", os.mkfifo),
    "a dangling link for result.json": of_kind("result.json", lambda p: p.symlink_to("nowhere")),
}
HARMLESS = {"object", "two documents"}
CONFIGS = {
    **{
        f"{key} for config.yaml": of_contents("config.yaml", content)
        for key, content in CONTENTS.items()
        if key not in HARMLESS | {"unclosed", "deep object", "huge integer", "strange keys"}
    },
    "unclosed flow in config.yaml": of_contents("config.yaml", b"a: {b: ["),
    "two documents in config.yaml": of_contents("config.yaml", b"a: 1\n---\nb: 2\n"),
    "a folder for config.yaml": of_kind("config.yaml", Path.mkdir),
    "a pipe for config.yaml": of_kind("config.yaml", os.mkfifo),
}
CURVES = {
    **{
        f"{key} for metrics.csv": of_contents("metrics.csv", CONTENTS[key])
        for key in ("binary", "nul", "utf-16", "half a character", "number", "list", "object")
    },
    "another table for metrics.csv": of_contents("metrics.csv", b"name,age\nme,3\n"),
    "a field without an end in metrics.csv": of_contents(
        "metrics.csv", b'step,val/loss\n1,"' + b"x" * 200_000
    ),
    "a folder for metrics.csv": of_kind("metrics.csv", Path.mkdir),
    "a pipe for metrics.csv": of_kind("metrics.csv", os.mkfifo),
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Four runs, of which the last is to be damaged."""
    folder = write_sweep(tmp_path / "sweep", losses([DEFAULT, MOE], [1, 2]), curves=True)
    for run in folder.iterdir():
        (run / "config.yaml").write_text(CONFIG)
    return folder


def damaged_run(sweep: Path) -> Path:
    return sweep / "flash-moe-rmsnorm-rope-s2"


def assert_listed(sweep: Path, damaged: Path, runs: int) -> None:
    """All outputs name the damaged run, once, and the table has the others."""
    results = load_results([sweep])
    assert len(results.table) == runs == len(results.finished)
    if runs < 4:
        (problem,) = results.problems
        assert problem.path == damaged and problem.reason and "\n" not in problem.reason
        assert len(problem.reason) < 400


@pytest.mark.parametrize("damage", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_is_listed(sweep: Path, damage: Callable[[Path], None]) -> None:
    damage(damaged_run(sweep))
    assert_listed(sweep, damaged_run(sweep), 3)


@pytest.mark.parametrize("damage", CONFIGS.values(), ids=CONFIGS)
def test_a_damaged_configuration_is_listed(sweep: Path, damage: Callable[[Path], None]) -> None:
    damage(damaged_run(sweep))
    assert_listed(sweep, damaged_run(sweep), 3)


@pytest.mark.parametrize("damage", CURVES.values(), ids=CURVES)
def test_a_damaged_table_of_metrics_costs_the_curves_only(
    sweep: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(damaged_run(sweep))
    curves = read_curves(damaged_run(sweep))
    assert curves.problem and "\n" not in curves.problem and not curves.val
    assert_listed(sweep, damaged_run(sweep), 4)
    compare([sweep], tmp_path / "out", Console(quiet=True))
    assert "its curves are missing" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_damaged_choice_of_hyperparameters_is_listed(sweep: Path, content: bytes) -> None:
    (sweep / "tuning.json").write_bytes(content)
    (problem,) = load_results([sweep]).problems
    assert problem.path == sweep / "tuning.json"


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_damaged_event_files_do_not_matter(sweep: Path, content: bytes) -> None:
    (damaged_run(sweep) / "events.out.tfevents.1.host").write_bytes(content)
    assert_listed(sweep, damaged_run(sweep), 4)


def test_every_output_lists_the_run_with_its_reason(sweep: Path, tmp_path: Path) -> None:
    of_field("final_val_loss", "1.7")(damaged_run(sweep))
    console = Console(record=True, width=300, file=open(os.devnull, "w"))  # noqa: SIM115
    page = compare([sweep], tmp_path / "out", console).read_text()
    lines = console.export_text().splitlines()
    (line,) = [line for line in lines if "not read" in line]
    assert "moe-rmsnorm-rope-s2" in line and "final_val_loss" in line
    markdown = (tmp_path / "out" / "results.md").read_text().split("## Not read")[1]
    for text in (markdown, page.split('id="problems">')[1].split("</section>")[0]):
        assert str(damaged_run(sweep)) in text.replace("\\_", "_") and "final_val_loss" in text


def test_steps_that_cannot_be_are_left_out_and_the_last_of_two_counts(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,val/loss\n-1,2\n1.5,2\n1e400,2\n1e18,2\nx,2\n3,inf\n3,nan\n2,1e400\n2,2.5\n1,3\n2,2.4\n"
    )
    assert read_curves(tmp_path).val == [(1, 3.0), (2, 2.4)]


def test_only_damaged_runs_are_an_error_of_one_line(tmp_path: Path) -> None:
    for seed in (1, 2):
        (write_run(tmp_path, DEFAULT, seed, 1.7) / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"no run can be read: .*not JSON \(and 1 more\)"):
        load_results([tmp_path])
