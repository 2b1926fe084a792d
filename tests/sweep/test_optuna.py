"""Searches: the space, the study through kills and restarts, and whole ones through the real script."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

import modgpt.sweep.search.optuna_search as searching
from modgpt.commands.train import main
from modgpt.config.compose import Job, compose_job
from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, write_record
from modgpt.sweep.identity import job_name
from modgpt.sweep.launch import Ended
from modgpt.sweep.plan import Planned
from modgpt.sweep.search.distributions import Space, space_of
from modgpt.sweep.search.optuna_search import Settings, search
from modgpt.sweep.search.study import Study
from tests.checkout import ROOT
from tests.sweep.script import in_the_middle, records, start, sweep, wait_for

LR = "optimizer.lr=tag(log, interval(1e-3, 1e-1))"


def space(*overrides: str) -> Space:
    return space_of(OverridesParser.create().parse_overrides(list(overrides)))


def trials_of(folder: Path, state: TrialState | None = TrialState.COMPLETE) -> list[FrozenTrial]:
    """The trials in the study of the sweep `s`, as Optuna itself reads them; None for all."""
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 's' / 'study.db'}")
    return study.get_trials(states=None if state is None else (state,))


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("ffn=standard,moe", CategoricalDistribution(["moe", "standard"])),
        ("ffn=choice(standard,moe)", CategoricalDistribution(["moe", "standard"])),
        ("optimizer.lr=1e-3,2e-3", CategoricalDistribution(["0.001", "0.002"])),
        ("model.n_layers=range(2,5)", IntDistribution(2, 4)),
        ("model.n_layers=range(8,1,-2)", IntDistribution(2, 8, step=2)),
        ("model.d_model=tag(log,range(16,65))", IntDistribution(16, 64, log=True)),
        ("model.n_layers=int(interval(1,5))", IntDistribution(1, 5)),
        ("model.dropout=range(0,0.5,0.1)", FloatDistribution(0, 0.4, step=0.1)),
        ("model.dropout=interval(0,1)", FloatDistribution(0, 1)),
        (LR, FloatDistribution(1e-3, 1e-1, log=True)),
        ("norm@attention.qk_norm=rmsnorm,layernorm", CategoricalDistribution(["layernorm", "rmsnorm"])),
    ],
)
def test_hydras_grammar_as_distributions(override: str, distribution: BaseDistribution) -> None:
    assert space(override).searched == {override.partition("=")[0]: distribution}


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("seed=range(3,1)", "the range is empty"),
        ("optimizer.lr=tag(log,interval(0,1))", "low > 0"),
        ("optimizer.lr=interval(2,1)", "low <= high"),
        ("optimizer.lr=interval(0,inf)", "it must have a finite start and end"),
        ("optimizer.lr=tag(ln,interval(1,2))", "unknown tag ln; the only tag is log"),
        ("optimizer.lr=tag(log,choice(1,2))", "cannot have the tag log"),
        ("sweep_name=a,b", "sweep_name cannot be searched"),
        ("ffn=moe", "nothing to search"),
    ],
)
def test_what_cannot_be_searched(override: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        space(override)


def test_the_last_override_of_a_key_counts_and_the_rest_is_fixed() -> None:
    found = space("ffn=standard,moe", "pos=rope,none", "seed=3", "pos=alibi", "ffn=moe,swiglu")
    assert found.searched == {"ffn": CategoricalDistribution(["moe", "swiglu"])}
    assert found.fixed == ["pos=alibi", "seed=3"]


def test_every_value_and_both_ends_are_probed() -> None:
    jobs = space("ffn=standard,moe,swiglu", "model.n_layers=range(1,9)", "seed=3").probes()
    assert jobs == [
        ["seed=3", "ffn=moe", "model.n_layers=1"],
        ["seed=3", "ffn=standard", "model.n_layers=1"],
        ["seed=3", "ffn=swiglu", "model.n_layers=1"],
        ["seed=3", "ffn=moe", "model.n_layers=8"],
    ]


class Jobs:
    """Stands for `run_sweep`: writes made-up records, and remembers what it was to run.

    Attributes:
        outcome: the status of the job with these overrides.
    """

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self.ran: list[list[str]] = []
        self.outcome: Callable[[list[str]], str] = lambda job: "finished"

    def __call__(self, jobs: Sequence[Sequence[str]], engine: Any, announce: bool) -> Ended:
        planned = list[Planned]()
        for overrides in map(list, jobs):
            status = self.outcome(overrides)
            self.ran.append(overrides)
            params = self.params()[-1]
            folder = self.sweep / "-".join(params)
            skipped = "because" if status == "skipped" else None
            entry = Planned(Job(None, {}, overrides), folder, status, skipped=skipped)  # pyright: ignore
            planned.append(entry)
            if status not in ("interrupted", "skipped"):
                loss = float(params[0].partition("=")[2])
                folder.mkdir(parents=True, exist_ok=True)
                record = RunRecord(
                    status=status,
                    final_val_loss=loss,
                    reason="because",
                    choices={},
                    overrides=[],
                    seed=1,
                )
                write_record(folder, record)
        interrupted = any(entry.status == "interrupted" for entry in planned)
        return Ended(130 if interrupted else 0, planned)

    def params(self) -> list[list[str]]:
        """The learning rate and the feed-forward of each job."""
        return [job[-2:] for job in self.ran]


def planned(probes: list[list[str]], sweep: Path) -> list[Planned]:
    """Stands for `plan`, and builds no models."""
    job = compose_job(probes[0])
    return [Planned(job, sweep / job_name(job.choices, job.config, "corpus"), None)]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jobs:
    made_up = Jobs(tmp_path / "s")
    monkeypatch.setattr(searching, "run_sweep", made_up)
    monkeypatch.setattr(searching, "plan", planned)
    return made_up


@pytest.fixture
def run(jobs: Jobs, arguments: list[str]) -> Callable[..., int]:
    """A search with two trials at once; returns its exit code."""

    def of(n_trials: int, *more: str, sampler: str = "tpe") -> int:
        overrides = OverridesParser.create().parse_overrides([*arguments, LR, "ffn=standard,moe", *more])
        settings = Settings(n_trials, sampler, seed=0, batch=None)
        return search(overrides, settings, lambda n: SimpleNamespace(n_jobs=2, threads=1))  # pyright: ignore

    return of


def test_restarts_run_what_remains_and_draw_as_if_there_were_none(
    run: Callable[..., int], jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(3) == 0
    assert [t.value for t in trials_of(tmp_path)] == [
        t.params["optimizer.lr"] for t in trials_of(tmp_path)
    ]
    assert "3 trials complete, 0 failed" in capsys.readouterr().out
    first = trials_of(tmp_path)
    assert run(3) == 0
    assert len(jobs.ran) == 3, "nothing was left"
    assert run(6) == 0
    assert trials_of(tmp_path)[:3] == first and len(trials_of(tmp_path)) == 6
    drawn = jobs.params()
    assert len({tuple(params) for params in drawn}) == 6, "a restart draws nothing twice"
    jobs.ran.clear()
    assert run(6, "sweep_name=other") == 0
    assert jobs.params() == drawn


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_sampler_that_learns_finds_the_better_part(
    sampler: str, run: Callable[..., int], tmp_path: Path
) -> None:
    assert run(30, sampler=sampler) == 0
    late = [t.value for t in trials_of(tmp_path)[15:]]
    low = sum(value < 0.005 for value in late if value is not None)
    assert (low > 10) == (sampler == "tpe"), low


def test_interrupted_trials_stay_open_and_are_run_first(
    run: Callable[..., int], jobs: Jobs, tmp_path: Path
) -> None:
    jobs.outcome = lambda job: "interrupted" if len(jobs.ran) == 3 else "finished"
    assert run(6) == 130
    assert [t.state.name for t in trials_of(tmp_path, None)] == ["COMPLETE"] * 3 + ["RUNNING"]
    cut = jobs.params()[3]
    jobs.outcome = lambda job: "finished"
    assert run(6) == 0
    assert jobs.params()[4] == cut and len(jobs.ran) == 4 + 3
    assert [t.state.name for t in trials_of(tmp_path, None)] == ["COMPLETE"] * 6
    assert not list((tmp_path / "s").glob(".search-*")), "processes tidy up behind them"


def test_failed_trials_count_until_they_are_retried(
    run: Callable[..., int], jobs: Jobs, tmp_path: Path
) -> None:
    jobs.outcome = lambda job: "failed" if len(jobs.ran) == 1 else "finished"
    assert run(4) == 1
    (failed,) = trials_of(tmp_path, TrialState.FAIL)
    assert (failed.number, failed.user_attrs["reason"]) == (1, "because")
    jobs.outcome = lambda job: "finished"
    assert run(4) == 1 and len(jobs.ran) == 4, "it counts, and still has failed"
    assert run(4, "retry_failed=true") == 0 and len(jobs.ran) == 5
    assert jobs.params()[4] == jobs.params()[1]
    assert len(trials_of(tmp_path)) == 4
    assert run(4, "retry_failed=true") == 0 and len(jobs.ran) == 5


def test_parts_that_do_not_fit_are_no_failure(
    run: Callable[..., int], jobs: Jobs, tmp_path: Path
) -> None:
    jobs.outcome = lambda job: "skipped" if "ffn=moe" in job else "finished"
    assert run(6) == 0
    (reason,) = {t.user_attrs["reason"] for t in trials_of(tmp_path, TrialState.FAIL)}
    assert reason == "because"


def test_a_dry_run_writes_nothing(
    run: Callable[..., int], jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dry(*args: Any, **more: Any) -> Ended:
        jobs.ran += args[0]
        return Ended(0, [], dry=True)

    with monkeypatch.context() as patch:
        patch.setattr(searching, "run_sweep", dry)
        assert run(4, "dry_run=true") == 0 and len(jobs.ran) == 2
    assert not (tmp_path / "s").exists()
    shown = jobs.params()
    jobs.ran.clear()
    assert run(4) == 0 and jobs.params()[:2] == shown
    before = {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(searching, "run_sweep", dry)
        assert run(5, "dry_run=true") == 0 and len(jobs.ran) == 5
    assert {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()} == before


def test_another_search_under_the_same_name_is_refused(
    run: Callable[..., int], jobs: Jobs, tmp_path: Path
) -> None:
    assert run(2) == 0
    for change, text in (
        ("ffn=standard,moe,swiglu", "ffn was moe, standard, is moe, standard, swiglu"),
        ("ffn=moe", "ffn was moe, standard, is not searched"),
        ("optimizer.lr=interval(1e-3, 1e-1)", "was 0.001 to 0.1 .log., is 0.001 to 0.1;"),
        ("trainer.max_steps=30", "it has trainer.max_steps=20, now given: trainer.max_steps=30"),
    ):
        with pytest.raises(UserError, match=text):
            run(4, change)
    assert len(jobs.ran) == len(trials_of(tmp_path, None)) == 2
    assert run(3, "ffn=moe,standard", "threads=1") == 0, "neither order nor threads make it another"


def study(folder: Path, **more: Any) -> Study:
    return Study(folder / "s", space(LR, "ffn=standard,moe"), "job", "tpe", 0, **more)


def test_a_trial_is_taken_from_the_dead_only(tmp_path: Path) -> None:
    dead = study(tmp_path)  # never entered, so that it has no lease
    left = dead.take(2, 5)
    with study(tmp_path) as alive:
        taken = alive.take(3, 5)
        assert [t.number for t in taken] == [0, 1, 2]
        assert [t.params for t in taken[:2]] == [t.params for t in left]
        with study(tmp_path) as other:
            assert [t.number for t in other.take(9, 5)] == [3, 4]
            assert other.take(9, 5) == []
            assert other.waits_for_others()
            for trial in taken:
                alive.tell(trial, 1.0, {"job": "a"})
            assert not other.waits_for_others()
            dead.tell(left[0], 2.0, {"job": "b"})  # it was not dead, but late
            assert [t.value for t in trials_of(tmp_path)] == [1.0] * 3
        assert [t.number for t in alive.take(9, 5)] == [3, 4]


def test_any_name_and_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "a?b#c {d} %20"
    with study(folder) as first:
        first.take(1, 1)
    assert (folder / "s" / "study.db").exists()
    assert len(study(folder, dry=True).counted()) == 1
    (folder / "s" / "study.db").write_text("no database at all")
    with pytest.raises(UserError, match="file is not a database"):
        study(folder)


def test_a_process_killed_while_it_drew_a_trial(tmp_path: Path) -> None:
    """The trial has no parameters yet; it gets those that it would have got."""
    whole = study(tmp_path / "whole").take(1, 1)[0].params
    study(tmp_path).study.ask()
    with study(tmp_path) as next_one:
        (trial,) = next_one.take(5, 1)
    assert trial.number == 0 and trial.params == whole


MISTAKES = [
    ("ffn=standard,mo", "unknown option ffn=mo; did you mean moe?"),
    ("attention.windw=3,4", "unknown key 'attention.windw'"),
    ("attention=flash,local_window attention.window=interval(2,4)", "unknown key 'attention.window'"),
    ("optimizer.lr=1e-3,fast", "optimizer.lr must be a number, got 'fast'"),
    ("optimizer.lr=tag(log,interval(0,1))", "cannot search optimizer.lr=tag(log,interval(0,1))"),
    ("ffn=moe,swiglu hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials must be at least 1, got 0"),
    ("ffn=moe,swiglu hydra.sweeper.sampler=cma", "sampler must be tpe or random, got 'cma'"),
    ("ffn=moe,swiglu sweep_name=a/b", "sweep_name='a/b' cannot name a folder"),
    ("ffn=moe", "nothing to search"),
]


@pytest.mark.parametrize(("wrong", "text"), MISTAKES, ids=[wrong for wrong, _ in MISTAKES])
def test_mistakes_are_told_before_anything_runs(
    wrong: str, text: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["-m", "hydra/sweeper=optuna", *arguments, *wrong.split()])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert text in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())


def test_the_ready_search(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep=search", *arguments, "hydra/launcher=basic", "dry_run=true"]) == 0
    out = capsys.readouterr().out
    assert "trials 0, 1, 2, 3 of 30" in out and "4 jobs, 4 to run" in out
    assert not list(tmp_path.iterdir())


def test_without_optuna(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep=search"]) == 2
    err = capsys.readouterr().err
    assert "pip install -e '.[optuna]'" in err and err.count("\n") == 1


def searched(arguments: list[str], *more: str) -> list[str]:
    return ["hydra/sweeper=optuna", *arguments, LR, "ffn=standard,swiglu", *more]


@pytest.mark.slow
def test_a_search_through_the_script(arguments: list[str], tmp_path: Path) -> None:
    code, out, err = sweep(*searched(arguments, "hydra.sweeper.n_trials=2"))
    assert code == 0, err
    assert "best trials" in out and "2 trials complete, 0 failed" in out
    before, ran = trials_of(tmp_path), records(tmp_path)
    check_told(before, ran)
    assert [t.number for t in before] == [0, 1]
    code, out, err = sweep(*searched(arguments, "hydra.sweeper.n_trials=2"))
    assert code == 0, err
    assert records(tmp_path) == ran and trials_of(tmp_path) == before
    code, out, err = sweep(*searched(arguments, "hydra.sweeper.n_trials=4"))
    assert code == 0, err
    after = records(tmp_path)
    assert {name: after[name] for name in ran} == ran and len(after) == 4
    assert trials_of(tmp_path)[:2] == before and len(trials_of(tmp_path, None)) == 4
    check_told(trials_of(tmp_path), after)
    compared = subprocess.run(
        [sys.executable, str(ROOT / "scripts/compare.py"), str(tmp_path / "s")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "4 jobs: 4 finished" in compared.stdout


@pytest.mark.slow
def test_a_killed_search_runs_the_trials_that_remain(arguments: list[str], tmp_path: Path) -> None:
    command = searched(arguments, "hydra.sweeper.n_trials=4", "hydra.launcher.n_jobs=1", "threads=1",
                       "trainer.max_steps=400", "trainer.val_check_interval=200")  # fmt: skip
    process = start(*command)
    try:
        wait_for(lambda: one_done_and_one_cut(tmp_path) or process.poll() is not None, seconds=240)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    assert one_done_and_one_cut(tmp_path), f"it ended of itself: {out}{err}"
    (cut_name,) = in_the_middle(tmp_path / "s")
    before, (cut,) = trials_of(tmp_path), trials_of(tmp_path, TrialState.RUNNING)
    code, _, err = sweep(*command)
    assert code == 0, err
    after, ran = trials_of(tmp_path), records(tmp_path)
    assert len(trials_of(tmp_path, None)) == len(after) == len(ran) == 4
    assert after[: len(before)] == before
    check_told(after, ran)
    assert after[cut.number].params == cut.params and after[cut.number].user_attrs["job"] == cut_name
    assert ran[cut_name]["resumed_at_steps"], "it went on from its checkpoint"
    assert not any(r["resumed_at_steps"] for name, r in ran.items() if name != cut_name)


def check_told(trials: list[FrozenTrial], ran: dict[str, dict[str, Any]]) -> None:
    """Each trial has the loss and the parameters of its job, and the jobs are all there are."""
    assert {t.user_attrs["job"] for t in trials} == set(ran)
    for trial in trials:
        record = ran[trial.user_attrs["job"]]
        assert record["status"] == "finished" and trial.value == record["final_val_loss"]
        assert {f"{key}={value}" for key, value in trial.params.items()} <= set(record["overrides"])


def one_done_and_one_cut(folder: Path) -> bool:
    # A job in the middle comes to its end, a trial that is done stays so: the job is looked at again.
    return bool(in_the_middle(folder / "s") and trials_of(folder) and in_the_middle(folder / "s"))
