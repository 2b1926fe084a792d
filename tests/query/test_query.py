"""The catalogue of runs: every run has its row, SQL reads it and reaches nothing else."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from modgpt.cli import main
from modgpt.query import database
from modgpt.query.catalogue import TYPES, read_catalogue
from modgpt.runs.record import RunRecord
from tests.compare.synthetic import DEFAULT, write_run

MOE = DEFAULT | {"ffn": "moe"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four finished runs, one that failed, one that is damaged."""
    folder = tmp_path / "runs"
    write_run(folder, DEFAULT, 1, 1.72)
    write_run(folder, DEFAULT, 2, 1.71, overrides=["optimizer.lr=1e-2", "data.seed=7"])
    write_run(folder, MOE, 1, 1.65, overrides=["optimizer.lr=0.001"])
    write_run(folder, MOE, 2, 1.66, final_val_accuracy=0.5)
    write_run(folder, MOE, 3, None, status="failed", reason="it broke\x1b[31m")
    plain = next(folder.glob("flash-swiglu*-s1"))
    (plain / "config.yaml").write_text("optimizer: {lr: 0.003}\ndata: {seed: 1}\n")
    (folder / "torn").mkdir()
    (folder / "torn" / "result.json").write_text("{")
    return folder


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, str]]:
    """The rows of a query, as CSV."""
    assert main(["query", *map(str, arguments), "--csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_every_run_is_a_row_the_best_one_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ask(capsys, runs)
    assert [row["final_val_loss"] for row in rows] == ["1.65", "1.66", "1.71", "1.72", ""]
    assert [row["ffn"] for row in rows] == ["moe", "moe", "swiglu", "swiglu", "moe"]
    assert rows[2]["changed"] == "data.seed=7 optimizer.lr=0.01 threads=1" and rows[2]["seed"] == "2"
    assert rows[0]["parameters"] == "2340096" and rows[0]["tokens_seen"] == "1433600"
    assert rows[4]["status"] == "failed" and rows[4]["reason"] == r"it broke\x1b[31m"
    assert Path(rows[0]["folder"]).is_dir()


def test_a_key_left_alone_has_the_value_of_the_configuration(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ask(capsys, runs, "--columns", "optimizer.lr, data.seed")
    found = [(row["optimizer.lr"], row["data.seed"]) for row in rows]
    assert found == [("0.001", ""), ("", ""), ("0.01", "7.0"), ("0.003", "1.0"), ("", "")]


@pytest.mark.parametrize(
    ("flags", "losses"),
    [
        (["--where", "ffn='moe' and status='finished'"], ["1.65", "1.66"]),
        (["--where", "optimizer.lr < 0.005"], ["1.65", "1.72"]),
        (["--where", '"optimizer.lr" < 0.005'], ["1.65", "1.72"]),
        (["--where", "folder != 'optimizer.lr' and seed = 2"], ["1.66", "1.71"]),
        (["--where", "true -- a comment"], ["1.65", "1.66", "1.71", "1.72", ""]),
        (["--sort", "final_val_loss desc nulls last", "--limit", "2"], ["1.72", "1.71"]),
        (["--limit", "0"], ["1.65", "1.66", "1.71", "1.72", ""]),
        (["--sql", "select min(final_val_loss) final_val_loss from runs group by ffn order by 1"],
         ["1.65", "1.71"]),
    ],
)  # fmt: skip
def test_questions(
    flags: list[str], losses: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [row["final_val_loss"] for row in ask(capsys, runs, *flags)] == losses


def test_the_table_shows_what_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(runs), "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    header = out.splitlines()[0].replace("┃", " ").split()
    assert header == [
        "ffn", "changed", "seed", "status", "final_val_loss", "final_val_accuracy", "parameters",
        "tokens_seen", "final_step", "wall_seconds", "device", "folder",
    ]  # fmt: skip
    assert "1.6500" in out and "2,340,096" in out and "2 rows of 5: --limit 0 shows all" in out
    assert "not read:" in err and "torn" in err and "not JSON" in err


def test_every_field_of_the_record_is_a_column() -> None:
    nested = {"choices", "overrides", "versions", "resumed_at_steps", "format"}
    fields = set(RunRecord.__dataclass_fields__) - nested
    assert set(TYPES) == fields | {"run", "folder", "changed"}


HOSTILE = [
    "select * from read_text('/etc/passwd')",
    "select * from glob('/*')",
    "select * from '/etc/passwd'",
    "select * from answer",
    "copy runs to 'written.csv'",
    "attach 'written.db'",
    "export database 'written'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access=true",
    "pragma enable_external_access",
    "drop table runs",
    "insert into runs(run) values ('x')",
    "select 1; select 2",
    "select 1; drop table runs",
    "",
    "-- nothing",
    "selec",
    "select nowhere from runs",
    "select '" + "x" * 20_000 + "'",
    "select 'unclosed",
    "select \x00",
]


@pytest.mark.parametrize("sql", HOSTILE, ids=lambda sql: sql[:40])
def test_sql_reads_the_runs_and_nothing_else(
    sql: str, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    before = sorted(runs.rglob("*"))
    assert main(["query", ".", "--sql", sql]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and "root:" not in err
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--where", "nowhere = 1"], "nowhere"),
        (["--where", "true) union select (1"], "error: "),
        (["--columns", ""], "error: "),
        (["--limit", "-1"], "--limit must be at least 0, got -1"),
        (["--limit", "x"], "invalid int value: 'x'"),
        (["--sql", "select 1", "--where", "true"], "--sql is a whole query: leave out --where"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], text: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["query", str(runs), *arguments])
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and text in err and err.count("\n") == 1


def test_folders_without_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["query"]) == 2
    assert "outputs does not exist" in capsys.readouterr().err
    assert main(["query", "."]) == 2
    assert "no run (a folder with a result.json) below" in capsys.readouterr().err


def test_without_duckdb_a_line_says_how_to_install_it(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    assert main(["query", str(runs)]) == 2
    assert "pip install -e '.[query]'" in capsys.readouterr().err


def test_names_from_other_peoples_files_are_harmless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, DEFAULT | {'a"b': "[red]x\x1b[2J", "Ffn": "y"}, 1, 1.7,
              overrides=['c"; drop table runs; --=1', "x.Y=1", "x.y=2"])  # fmt: skip
    write_run(tmp_path, DEFAULT, 2, float("inf"), overrides=["=1+1"])
    assert main(["query", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[red]" in out and "2 rows" in out
    assert len(ask(capsys, tmp_path)) == 2


def test_a_record_that_takes_our_names_is_left_out(tmp_path: Path) -> None:
    good = write_run(tmp_path, DEFAULT, 1, 1.7)
    write_run(tmp_path, DEFAULT | {"Folder": "x"}, 2, 1.7)
    write_run(tmp_path, DEFAULT, 3, 1.7, overrides=[f"k{n}=1" for n in range(600)])
    catalogue = read_catalogue([tmp_path])
    assert catalogue.columns["folder"] == [str(good)]
    reasons = " ".join(problem.reason for problem in catalogue.problems)
    assert "Folder is not a config group or key" in reasons and "more than 500" in reasons
