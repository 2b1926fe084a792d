"""Hyperparameters for each combination, chosen on other seeds than those reported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import modgpt.sweep.tuning as tuning
from modgpt.compare.analysis import analyse
from modgpt.compare.comparison import NEEDED
from modgpt.compare.load import load_results
from modgpt.compare.sentences import describe
from modgpt.config.compose import Job
from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, write_record
from modgpt.sweep.launch import Ended
from modgpt.sweep.plan import Planned
from tests.checkout import ROOT
from tests.sweep.script import sweep

TUNE = OverridesParser.create().parse_overrides(["optimizer.lr=1,2,3"])
# The loss by feed-forward and rate; moe is best at an edge and standard diverges where it would be best.
LOSSES = {
    ("swiglu", "1"): 2.0, ("swiglu", "2"): 1.0, ("swiglu", "3"): 2.0,
    ("moe", "1"): 3.0, ("moe", "2"): 2.0, ("moe", "3"): 1.5,
    ("standard", "1"): 2.5, ("standard", "2"): 2.4, ("standard", "3"): None,
}  # fmt: skip


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, list[list[str]]]]:
    """Made-up sweeps: the loss depends on the feed-forward, the rate and, a little, the seed."""
    calls: list[tuple[str, list[list[str]]]] = []

    def run_sweep(
        all_overrides: Sequence[Sequence[str]], engine: Any, below: str = "", **_: Any
    ) -> Ended:
        calls.append((below, [list(o) for o in all_overrides]))
        planned = []
        for number, overrides in enumerate(all_overrides):
            given = dict(o.split("=", 1) for o in overrides)
            loss = LOSSES[given["ffn"], given["optimizer.lr"]]
            folder = tmp_path / "s" / below / f"job{number}"
            folder.mkdir(parents=True)
            record = RunRecord(
                status="finished" if loss is not None else "failed",
                final_val_loss=loss and loss + 0.001 * int(given["seed"]),
                choices={"ffn": given["ffn"]}, seed=int(given["seed"]), final_step=10,
                tokens_seen=1000, overrides=[o for o in overrides if "sweep" not in o],
            )  # fmt: skip
            write_record(folder, record)
            planned.append(Planned(Job(None, {}, list(overrides)), folder, "finished"))  # pyright: ignore
        return Ended(0, planned)

    monkeypatch.setattr(tuning, "run_sweep", run_sweep)
    return calls


def jobs(tmp_path: Path, *extra: str) -> list[list[str]]:
    names = [f"sweep_dir={tmp_path}", "sweep_name=s", *extra]
    return [
        [f"ffn={ffn}", f"seed={seed}", *names]
        for ffn in ("swiglu", "moe", "standard")
        for seed in (1, 2)
    ]


def test_each_combination_gets_its_best(
    ran: list[tuple[str, list[list[str]]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuning.run_tuned(jobs(tmp_path), TUNE, [101, 102], lambda n: None) == 0  # pyright: ignore
    (first, trials), (second, reported) = ran
    assert (first, second) == ("tuning", "")
    assert len(trials) == 3 * 3 * 2
    assert {o for job in trials for o in job if o.startswith("seed")} == {"seed=101", "seed=102"}
    rates = {job[0]: [o for o in job if o.startswith("optimizer.lr")] for job in reported}
    assert rates == {
        "ffn=swiglu": ["optimizer.lr=2"],
        "ffn=moe": ["optimizer.lr=3"],
        "ffn=standard": ["optimizer.lr=2"],
    }
    assert [job[1] for job in reported] == ["seed=1", "seed=2"] * 3
    content = json.loads((tmp_path / "s" / "tuning.json").read_text())
    assert [cell["at_edge"] for cell in content["cells"]] == [False, True, False]
    assert content["cells"][2]["losses"]["optimizer.lr=3"] is None, "it did not finish with every seed"
    assert "ffn=moe  (at the edge)" in capsys.readouterr().out


def test_the_comparison_tells_and_counts_no_rate_as_a_factor(
    ran: list[tuple[str, list[list[str]]]], tmp_path: Path
) -> None:
    tuning.run_tuned(jobs(tmp_path), TUNE, [101, 102], lambda n: None)  # pyright: ignore
    results = load_results([tmp_path / "s"])
    assert len(results.table) == 6, "runs that only choose are left out"
    assert [f.name for f in results.factors] == ["ffn"]
    words = describe(results, analyse(results))
    assert "best of optimizer.lr=1, optimizer.lr=2, optimizer.lr=3" in words.tuning
    assert "over seeds 101, 102; no result here uses these seeds" in words.tuning
    assert any("1 combination chose the first or last value" in c for c in words.cautions)
    assert len(load_results([tmp_path / "s" / "tuning"]).table) == 18, "unless asked for"


@pytest.mark.parametrize(
    ("extra", "seeds", "text"),
    [
        (["optimizer.lr=5"], [101], "this sweep chooses optimizer.lr itself"),
        (["data.seed=3"], [3], "data.seed=3 is one that hyperparameters are chosen on"),
        ([], [2, 3], "seed=2 is one that hyperparameters are chosen on"),
        ([], [], "needs hydra.sweeper.tune_seeds"),
    ],
)
def test_what_would_be_unfair_is_refused(
    ran: list[tuple[str, list[list[str]]]], tmp_path: Path, extra: list[str], seeds: list[int], text: str
) -> None:
    with pytest.raises(UserError, match=re.escape(text)):
        tuning.run_tuned(jobs(tmp_path, *extra), TUNE, seeds, lambda n: None)  # pyright: ignore
    assert not ran


def test_sweeps_need_no_package_of_the_report() -> None:
    """They are installed by an extra of their own, which only comparing asks for."""
    modules = (
        "modgpt.sweep.tuning, modgpt.sweep.launch, modgpt.sweep.engines.workers, "
        "modgpt.sweep.search.optuna_search"
    )
    # Lightning itself imports some of them where it finds them.
    code = (
        f"import sys, lightning; missing = set({NEEDED}) - set(sys.modules); "
        f"sys.modules.update(dict.fromkeys(missing)); import {modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_through_the_script(arguments: list[str], tmp_path: Path) -> None:
    # One at a time, narrowed to the default and one other feed-forward.
    parts = ("attention=flash", "norm=rmsnorm", "pos=rope", "block=sequential", "ffn=swiglu,standard")
    command = ("sweep=fair", "seed=1", *parts, *arguments)
    code, out, err = sweep(*command)
    assert code == 0, err
    assert "chosen on seeds that are not reported" in out
    choosing = [json.loads(p.read_text()) for p in tmp_path.glob("s/tuning/*/result.json")]
    reported = [json.loads(p.read_text()) for p in tmp_path.glob("s/*/result.json")]
    assert (
        sorted(r["seed"] for r in choosing) == [101] * 6 + [102] * 6
        and [r["seed"] for r in reported] == [1] * 2
    )
    for record in reported:
        rate = next(o for o in record["overrides"] if o.startswith("optimizer.lr"))
        tried: dict[str, list[float]] = {}
        for other in choosing:
            if other["choices"]["ffn"] == record["choices"]["ffn"]:
                key = next(o for o in other["overrides"] if o.startswith("optimizer.lr"))
                tried.setdefault(key, []).append(other["final_val_loss"])
        assert len(tried) == 3 and sum(tried[rate]) == min(map(sum, tried.values()))
    code, out, err = sweep(*command)
    assert code == 0 and "0 finished, 0 failed, 2 were finished before" in out, err
