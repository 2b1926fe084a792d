"""Reading runs: every job keeps its row, whatever became of it."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from modgpt.compare.analysis import analyse
from modgpt.compare.comparison import compare, read_comparison
from modgpt.compare.curves import read_curves, thinned
from modgpt.compare.load import LOSS, load_results, tokens_per_step
from modgpt.compare.recipes import plain
from modgpt.compare.run_row import read_run_row
from modgpt.compare.sentences import describe
from modgpt.config.compose import compose_job
from modgpt.errors import UserError
from tests.checkout import ROOT
from tests.compare.synthetic import (
    DEFAULT,
    STEPS,
    TOKENS_PER_STEP,
    losses,
    write_run,
    write_skipped,
    write_sweep,
)

MOE = DEFAULT | {"ffn": "moe"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep in which everything that can become of a job has become of one."""
    folder = write_sweep(tmp_path / "sweep", losses([DEFAULT, MOE]), curves=True)
    write_run(folder, MOE, 4, None, status="failed", reason="DivergedError: loss is nan | step <7>")
    write_run(folder, DEFAULT, 4, 2.5, status="running", tokens_seen=0, final_step=100)
    write_run(folder, DEFAULT, 5, 2.5, status="interrupted", reason="Interrupted: SIGTERM")
    write_run(folder, DEFAULT, 6, float("nan"))
    write_skipped(
        folder, DEFAULT | {"attention": "linear"}, 1, "linear attention needs another position"
    )
    (folder / "torn").mkdir()
    (folder / "torn" / "result.json").write_text('{"status": "fin')
    (folder / "sweep.json").write_text("{}")
    return folder


def statuses(table: pd.DataFrame) -> dict[str, int]:
    return {str(k): int(v) for k, v in table["status"].value_counts().items()}


def test_every_status_has_its_row(sweep: Path) -> None:
    results = load_results([sweep])
    assert statuses(results.table) == {
        "finished": 6, "failed": 1, "diverged": 1, "running": 1, "interrupted": 1, "skipped": 1,
    }  # fmt: skip
    assert len(results.finished) == 6 and results.finished[LOSS].notna().all()
    others = results.table[results.table["status"] != "finished"]
    assert others[LOSS].isna().all()  # the latest loss of a running job is not a final one
    assert others["latest_loss"].notna().sum() == 2
    (torn,) = results.problems
    assert torn.path == sweep / "torn" and "not JSON" in torn.reason
    reasons = " ".join(others["reason"])
    assert "DivergedError" in reasons and "another position" in reasons and "finite" in reasons


def test_only_what_varies_is_a_factor_and_the_default_is_its_baseline(sweep: Path) -> None:
    factors = {f.name: f.levels for f in load_results([sweep]).factors}
    assert factors == {"ffn": ("swiglu", "moe")}, "only a skipped job had another attention"


def test_a_key_is_a_factor_with_its_default_where_it_is_not_overridden(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, DEFAULT, seed, 1.7)
        write_run(tmp_path, DEFAULT, seed, 1.8, overrides=["optimizer.lr=1e-2", "trainer.max_steps=700"])
        write_run(tmp_path, DEFAULT, seed, 1.9, overrides=["optimizer.lr=0.010", "model.dropout=0.1"])
        run = write_run(tmp_path, DEFAULT, seed, 1.6)
        (run / "config.yaml").write_text(
            "optimizer: {lr: 1.0e-3}\nmodel: {dropout: 0.0}\ntrainer: {max_steps: 700}"
        )
    factors = {f.name: f.levels for f in load_results([tmp_path]).factors}
    assert factors["optimizer.lr"] == ("0.003", "0.001", "0.01")  # 3e-3 is the default of adamw
    assert factors["model.dropout"] == ("0", "0.1")
    assert "seed" not in factors and "threads" not in factors


def test_crossed_seeds_of_weights_and_data_are_replicates(tmp_path: Path) -> None:
    """Nine runs of each option; the seeds are no factors, and no run repeats another."""
    for choices, power in ((DEFAULT, 1), (MOE, 2)):
        for n, (weights, data) in enumerate(itertools.product((1, 2, 3), repeat=2)):
            seeds = [f"model.seed={weights}", f"data.seed={data}"]
            write_run(tmp_path, choices, 1, 1.7 + 0.001 * n**power, overrides=seeds)
    results = load_results([tmp_path])
    assert [factor.name for factor in results.factors] == ["ffn"]
    labels = set(results.table["seed"])
    assert labels >= {"1", "2", "3", "model 1, data 2", "model 3, data 1"} and len(labels) == 9
    statistics = analyse(results)
    assert list(statistics.cells["n"]) == [9, 9] and not statistics.repeated
    assert statistics.noise.paired, "runs are paired by both seeds"


@pytest.mark.parametrize(
    ("overrides", "config", "label"),
    [
        ([], None, "4"),
        (["data.seed=2"], None, "model 4, data 2"),
        (["model.seed=2", "data.seed=2"], None, "2"),
        (["model.seed=2", "data.seed=2", "model.dropout=0.1"], None, "model 2, data 2, dropout 4"),
        (["model.dropout=0.1"], None, "4"),
        ([], "model: {seed: 5, dropout: 0.0}\ndata: {seed: 4}", "model 5, data 4"),
        ([], "model: {seed: 5, dropout: 0.2}\ndata: {seed: 5}", "model 5, data 5, dropout 4"),
    ],
)
def test_labels_of_seeds(overrides: list[str], config: str | None, label: str, tmp_path: Path) -> None:
    run = write_run(tmp_path, DEFAULT, 4, 1.7, overrides=overrides)
    if config is not None:
        (run / "config.yaml").write_text(config)
    assert read_run_row(run).seed == label


def test_the_baseline_of_runs_of_one_recipe_is_the_recipe(tmp_path: Path) -> None:
    recipe = DEFAULT | {"experiment": "speedrun", "optimizer": "muon", "schedule": "linear"}
    for seed in (1, 2):
        write_run(tmp_path, recipe, seed, 1.7)
        write_run(tmp_path, recipe | {"optimizer": "adamw"}, seed, 1.8)
        write_run(tmp_path, recipe, seed, 1.9, overrides=["model.residual_std=null"])
        write_run(tmp_path, recipe, seed, 1.9, overrides=["norm@attention.qk_norm=none"])
    factors = {f.name: f.levels for f in load_results([tmp_path]).factors}
    assert factors == {
        "optimizer": ("muon", "adamw"),
        "model.residual_std": ("0", "null"),
        "norm@attention.qk_norm": ("rmsnorm", "none"),
    }


def test_what_comes_with_a_recipe_is_no_factor_beside_it(tmp_path: Path) -> None:
    """Whole architectures against each other, and one part of them replaced in all."""
    parts = ("attention", "ffn", "norm", "pos")
    recipes = {}
    for name in ("gpt2", "llama", "bloom"):
        choices = compose_job([f"experiment={name}"]).choices
        recipes[name] = DEFAULT | {"experiment": name} | {part: choices[part] for part in parts}
    for seed in (1, 2):
        for number, recipe in enumerate(recipes.values()):
            write_run(tmp_path / "whole", recipe, seed, 1.7 + number / 10)
            write_run(tmp_path / "replaced", recipe | {"norm": "scalenorm"}, seed, 1.8 + number / 10)
    alone = load_results([tmp_path / "whole"])
    assert [f.name for f in alone.factors] == ["experiment"]
    assert len(analyse(alone).cells) == 3
    both = load_results([tmp_path / "whole", tmp_path / "replaced"])
    assert [f.name for f in both.factors] == ["norm", "experiment"]


@pytest.mark.parametrize(
    ("value", "text"),
    [("1e-3", "0.001"), (0.001, "0.001"), ("3", "3"), (3.0, "3"), (1433600.0, "1433600"), (True, "true"),
     ("True", "true"), (None, "null"), ("'a b'", "a b"), ("inf", "inf"), (16777217, "16777217")],
)  # fmt: skip
def test_values_that_are_the_same_read_the_same(value: object, text: str) -> None:
    assert plain(value) == text


def test_sweeps_with_other_budgets_are_no_replicates(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", losses([DEFAULT, MOE], [1, 2]))
    write_sweep(tmp_path / "b", losses([DEFAULT], [3, 4]), tokens_seen=10 * STEPS * TOKENS_PER_STEP)
    results = load_results([tmp_path / "a", tmp_path / "b"])
    assert [f.name for f in results.factors] == ["ffn", "budget"]
    (cell,) = analyse(results).cells.to_dict("records")
    assert (cell["ffn"], cell["n"]) == ("swiglu", 2), "verdicts rest on the largest budget"
    alone = load_results([tmp_path / "a"])
    assert [f.name for f in alone.factors] == ["ffn"]


def test_modes_of_matching_are_told_apart_and_told(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", losses([DEFAULT, MOE]), match="active_params")
    results = load_results([tmp_path / "a"])
    words = describe(results, analyse(results))
    assert "match=active_params" in words.match and "791,808 to 800,000 (1.0% apart)" in words.match
    write_sweep(tmp_path / "b", losses([DEFAULT, MOE]))
    both = load_results([tmp_path / "a", tmp_path / "b"])
    assert {f.name: set(f.levels) for f in both.factors}["match"] == {"active_params", "none"}


def test_several_folders_and_single_runs_count_every_run_once(sweep: Path, tmp_path: Path) -> None:
    one = next(p for p in sweep.iterdir() if (p / "metrics.csv").exists())
    assert len(load_results([sweep, one, sweep.parent]).table) == len(load_results([sweep]).table)
    other = write_sweep(tmp_path / "other", losses([DEFAULT]))
    names = load_results([sweep, other]).table["run"]
    assert names.is_unique and any(name.startswith("other/") for name in names)
    assert len(load_results([one]).table) == 1


def test_folders_without_runs_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent does not exist"):
        load_results([tmp_path / "absent"])
    with pytest.raises(UserError, match=r"no run .* below"):
        load_results([tmp_path])


def test_curves_are_those_of_the_file(sweep: Path) -> None:
    run = next(p for p in sweep.iterdir() if "moe" in p.name and (p / "metrics.csv").exists())
    curves = read_curves(run)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert curves.val == [(int(r["step"]), float(r["val/loss"])) for r in rows if r["val/loss"]]
    assert len(curves.train) == STEPS // 10 and list(curves.load) == [str(i) for i in range(8)]
    assert sum(points[-1][1] for points in curves.load.values()) == pytest.approx(1)


def test_torn_rows_and_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,val/loss,train/loss\n1,2.5,\n2,nan,3.0\n3,2.4\n4,2.\n5,x,1\n6,2.2,"
    )
    assert read_curves(tmp_path).val == [(1, 2.5), (6, 2.2)]
    assert read_curves(tmp_path / "absent").val == []
    (tmp_path / "metrics.csv").write_text("")
    assert read_curves(tmp_path).train == []


def test_thinning_keeps_the_ends() -> None:
    points = [(i, float(i)) for i in range(1001)]
    few = thinned(points, 11)
    assert len(few) == 11 and few[0] == points[0] and few[-1] == points[-1] and few[5] == points[500]
    assert thinned(points[:5], 11) == points[:5]


def test_tokens_per_step_of_an_unfinished_run_come_from_its_configuration(tmp_path: Path) -> None:
    run = write_run(tmp_path, DEFAULT, 1, 2.0, status="failed", tokens_seen=0)
    assert tokens_per_step(read_run_row(run)) is None
    (run / "config.yaml").write_text(
        "data: {batch_size: 8, block_size: 16}\ntrainer: {accumulate_grad_batches: 2}"
    )
    assert tokens_per_step(read_run_row(run)) == 256
    finished = write_run(tmp_path, DEFAULT, 2, 1.7)
    assert tokens_per_step(read_run_row(finished)) == TOKENS_PER_STEP


def test_the_tables_hold_every_job_unharmed(sweep: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    compare([sweep], tmp_path / "out", console)
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(table) == 11 and statuses(table)["skipped"] == 1
    best = json.loads((sweep / table["run"][0] / "result.json").read_text())
    assert table[LOSS][0] == best[LOSS] and table["active_parameters"][0] == best["active_parameters"]
    text = (tmp_path / "out" / "results.md").read_text()
    jobs = text.split("## Jobs")[1].split("## Not finished")[0].splitlines()
    rows = [line for line in jobs if line.startswith("| ")]
    assert len(rows) == 13  # with the header and its rule
    assert all(row.replace("\\|", "").count("|") == rows[0].count("|") for row in rows)
    assert "loss is nan \\| step &lt;7>" in text
    printed = console.export_text()
    assert "best 10 of 11 jobs" in printed and "differences from the baseline" in printed
    assert f"{best[LOSS]:.4f}" in printed


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_script_writes_into_the_first_folder(sweep: Path) -> None:
    done = script(sweep)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert {"results.csv", "results.md", "report.html"} <= {p.name for p in sweep.iterdir()}
    assert script(sweep).returncode == 0  # what it has written is no run


@pytest.mark.parametrize("arguments", [["absent"], [], ["--none"], ["tests", "--out", "README.md/x"]])
def test_mistakes_are_told_in_one_line(arguments: list[str]) -> None:
    done = script(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_an_unwritable_place_is_told_in_one_line(sweep: Path) -> None:
    with pytest.raises(UserError, match="cannot write to"):
        compare([sweep], sweep / "sweep.json" / "below", Console(quiet=True))


def test_no_finished_run_is_a_report_and_no_error(tmp_path: Path) -> None:
    write_run(tmp_path, DEFAULT, 1, None, status="failed", reason="OutOfMemoryError")
    done = script(tmp_path)
    assert done.returncode == 0 and "nothing to compare yet" in done.stdout.replace("\n", " ")
    assert "nothing to compare yet" in (tmp_path / "report.html").read_text()


def test_a_missing_package_is_told_with_its_command(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "modgpt.compare.comparison.find_spec", lambda name: None if name == "altair" else real(name)
    )
    with pytest.raises(UserError, match=r"comparing needs altair: .*pip install -e '\.\[report\]'"):
        compare([sweep])


def test_training_does_not_import_the_packages_of_reports() -> None:
    code = (
        "import sys, modgpt.training.loop; "
        "print([m for m in ('statsmodels', 'altair') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_trials_of_a_search_are_told_apart_from_a_design(sweep: Path) -> None:
    (sweep / "study.db").touch()
    results = load_results([sweep])
    assert any("trials of a search" in c for c in describe(results, analyse(results)).cautions)


@pytest.mark.parametrize(
    ("digests", "text"),
    [
        ({("8", 1): "a", ("8", 2): "a", ("16", 1): "b", ("16", 2): "b"},
         "Each model.block_size has its own data: compare losses within one model.block_size, not "
         "between them."),
        ({("8", 1): "a", ("8", 2): "b", ("16", 1): "b", ("16", 2): "b"},
         "The runs were trained on different corpora: their losses cannot be compared."),
        ({("8", 1): "a", ("8", 2): "a", ("16", 1): "a", ("16", 2): "a"}, None),
    ],
)  # fmt: skip
def test_different_data_are_told(
    digests: dict[tuple[str, int], str], text: str | None, tmp_path: Path
) -> None:
    for (length, seed), digest in digests.items():
        write_run(tmp_path, DEFAULT, seed, 1.5 + 0.01 * seed, corpus_sha256=digest,
                  overrides=[f"model.block_size={length}"])  # fmt: skip
    results = load_results([tmp_path])
    cautions = describe(results, analyse(results)).cautions
    assert [c for c in cautions if "data" in c or "corpora" in c] == ([text] if text else [])


def test_losses_of_different_tokenizers_compare_per_byte(tmp_path: Path) -> None:
    """Per token bpe looks worse, per byte it is better."""
    tokenizers = {"char": (65, 1.0, 1.7), "bpe": (512, 0.5, 3.0)}
    for name, (size, per_byte, loss) in tokenizers.items():
        for seed in (1, 2):
            bits = loss / 0.6931471805599453 * per_byte
            write_run(
                tmp_path, DEFAULT | {"tokenizer": name}, seed, loss + 0.01 * seed, vocab_size=size,
                tokens_per_byte=per_byte, final_val_bits_per_byte=bits, curves=True,
            )  # fmt: skip
    found = read_comparison([tmp_path])
    assert found.results.unit == "nats per byte" and "nats per byte" in found.words.jobs
    [difference] = found.statistics.differences
    assert (difference.option, difference.verdict) == ("bpe", "better")
    assert difference.value == pytest.approx(0.5 * 3.015 - 1.715)
    [caution] = [c for c in found.words.cautions if "The tokenizers differ" in c]
    assert caution.endswith("bpe (512 tokens) 2.1640, char (65 tokens) 2.4526.")
    for path, loss in zip(found.results.table["path"], found.results.table[LOSS], strict=True):
        assert found.curves[path].val[-1][1] == pytest.approx(loss)
