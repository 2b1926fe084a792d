"""Loss by length and by position: every target once, with the context it should have."""

from __future__ import annotations

import csv
import json
import logging
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pexpect
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

import modgpt.inference.evaluation.windows
from modgpt import load_run
from modgpt.config.compose import compose_job
from modgpt.config.keys import SEEDS
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.windows import as_tensor
from modgpt.errors import UserError
from modgpt.inference.evaluation.evaluate import Evaluation, evaluate_runs
from modgpt.inference.evaluation.figures import binned, draw_by_length, draw_by_position
from modgpt.inference.evaluation.names import names_without_seed, told_apart
from modgpt.inference.evaluation.report import write_report
from modgpt.inference.evaluation.runs import shared_part
from modgpt.inference.evaluation.tables import length_table
from modgpt.inference.evaluation.windows import cut, loss_by_position
from modgpt.runs.folder import Run
from modgpt.training.loop import train
from scripts.evaluate import main
from tests.checkout import ROOT
from tests.compositions import small_model

TEXT = torch.randint(11, (131,), generator=torch.Generator().manual_seed(0))
CUTS = [
    (1, 1),
    (2, 1),
    (5, 5),
    (5, 4),
    (8, 3),
    (8, 8),
    (30, 15),
    (65, 65),
    (65, 7),
    (130, 130),
    (130, 1),
]


def contexts(n: int, length: int, stride: int) -> list[tuple[int, int]]:
    """(target, tokens of context) of every target 1 … n−1, one by one, from the definition: the first
    window counts all its targets, window k those that window k−1 does not reach."""
    found = []
    for target in range(1, n):
        k = 0
        while k * stride + length < target:
            k += 1
        found.append((target, target - k * stride))
    return found


@pytest.mark.parametrize(("length", "stride"), CUTS)
@pytest.mark.parametrize("most", [2**14, 1])
def test_each_target_is_new_once_with_its_context(
    length: int, stride: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modgpt.inference.evaluation.windows, "MOST_TOKENS", most)
    ids = np.arange(len(TEXT))
    seen = []
    for windows, known in cut(ids, length, stride):
        assert (np.diff(windows) == 1).all() and windows.shape[1] <= length + 1
        assert len(windows) * length <= max(most, length)
        seen += [(t, t - w[0].item()) for w in windows for t in w[1 + known :].tolist()]
    assert seen == contexts(len(ids), length, stride)
    assert all(c > length - stride for t, c in seen if t > length)


@pytest.mark.parametrize("attention", ["flash", "linear", "local_window"])
@pytest.mark.parametrize(("length", "stride"), [(5, 5), (8, 3), (65, 40), (130, 130)])
def test_the_loss_is_that_of_every_target_alone(attention: str, length: int, stride: int) -> None:
    model = small_model({"attention": attention, "pos": "alibi"}).eval()
    sums, counts = torch.zeros(length, dtype=torch.float64), torch.zeros(length, dtype=torch.int64)
    with torch.no_grad():
        for target, context in contexts(len(TEXT), length, stride):
            logits = model(TEXT[None, target - context : target])[0, -1]
            sums[context - 1] -= logits.double().log_softmax(-1)[TEXT[target]]
            counts[context - 1] += 1
    found, found_counts = loss_by_position(model, cut(TEXT.numpy(), length, stride), length)
    torch.testing.assert_close(found, sums, rtol=1e-5, atol=1e-5)
    assert torch.equal(found_counts, counts) and counts.sum() == len(TEXT) - 1


@pytest.mark.parametrize("length", [64, 1024, 4096])
def test_batches_stay_small(length: int) -> None:
    sizes = [len(windows) for windows, _ in cut(np.zeros(300_000, np.uint16), length, length)]
    assert max(sizes) * length <= 2**14 and max(sizes) * length**2 <= 2**24
    assert max(sizes) == {64: 256, 1024: 16, 4096: 1}[length]


@pytest.fixture(scope="module")
def runs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Short trainings, by what is special about each."""
    folder = tmp_path_factory.mktemp("runs")
    changes = {
        "rope": [],
        "learned": ["pos=learned"],
        "bf16": ["trainer.precision=bf16-mixed"],
        "other": [f"data.path={folder / 'other.txt'}"],
        "recall": ["data=recall", "data.pairs=2"],
    }
    (folder / "other.txt").write_text(corpus.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    for name, more in changes.items():
        text = [] if name == "recall" else ["data=text", f"data.path={corpus}"]
        arguments = [
            *text, "data.batch_size=8", f"output_dir={folder}", f"run_name={name}", "model.d_model=32",
            "model.n_layers=2", "model.n_heads=2", "model.block_size=16", "optimizer.lr=1e-2",
            "schedule.warmup_steps=1", "trainer.max_steps=12", "trainer.val_check_interval=3",
            "trainer.accelerator=cpu", "trainer.precision=32-true", "threads=1", "logger=none", *more,
        ]  # fmt: skip
        train(compose_job(arguments))
    return {name: folder / name for name in changes}


@pytest.mark.parametrize("name", ["rope", "learned", "bf16"])
def test_at_the_trained_length_it_is_the_runs_own_loss(name: str, runs: dict[str, Path]) -> None:
    (found,) = evaluate_runs([runs[name]], [16], device="cpu")
    result = json.loads((runs[name] / "result.json").read_text())
    assert found.loss == pytest.approx(result["final_val_loss"], abs=1e-6)
    assert found.targets == 600 - 1 and found.counts is not None
    assert found.counts.tolist() == [38] * 7 + [37] * 9  # 37 windows of 16 and one of 7
    mean = sum(n * loss for _, n, loss in found.by_position()) / found.targets
    assert mean == pytest.approx(found.loss)


def test_sliding_has_more_context(runs: dict[str, Path]) -> None:
    console = Console(quiet=True)
    for options, stride in (({"sliding": True}, 8), ({"stride": 3}, 3), ({}, 16)):
        (found,) = evaluate_runs([runs["rope"]], [16], device="cpu", console=console, **options)  # type: ignore[arg-type]
        assert found.stride == stride and found.targets == 599
        assert found.counts is not None
        assert (found.counts[: 16 - stride] == 1).all(), "only the first window has so little context"
        split = as_tensor(shared_part([load_run(runs["rope"], "last")], "validation").ids)
        total = 0.0
        model = load_run(runs["rope"], "last").model
        with torch.no_grad():
            for target, context in contexts(600, 16, stride):
                logits = model(split[None, target - context : target])[0, -1]
                total -= logits.double().log_softmax(-1)[split[target]].item()
        assert found.loss == pytest.approx(total / 599, abs=1e-6)


def test_a_length_of_one_needs_no_halves(runs: dict[str, Path]) -> None:
    (found,) = evaluate_runs([runs["rope"]], [1], sliding=True, device="cpu")
    assert found.stride == 1 and found.targets == 599


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_files(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = ["--lengths", "32", "8", "16", "8"]
    folders = [str(runs["rope"]), str(runs["learned"])]
    out = tmp_path / "new" / "folder"
    assert main(["--run", *folders, *lengths, "--out", str(out), "--device", "cpu"]) == 0
    wanted = evaluate_runs([runs["rope"], runs["learned"]], [8, 16, 32], device="cpu")
    rows = read(out / "loss_by_length.csv")
    keys = [("rope", 8), ("rope", 16), ("rope", 32), ("learned", 8), ("learned", 16), ("learned", 32)]
    assert [(r["run"], int(r["length"])) for r in rows] == keys
    for row, e in zip(rows, wanted, strict=True):
        assert row["trained_length"] == "16" and row["stride"] == row["length"]
        if (e.run, e.length) == ("learned", 32):
            assert row["loss"] == row["targets"] == "" and math.isnan(e.loss)
        else:
            assert float(row["loss"]) == e.loss and row["targets"] == "599"
    positions = read(out / "loss_by_position.csv")
    for e in wanted:
        mine = [r for r in positions if r["run"] == e.run and int(r["length"]) == e.length]
        if not e.applicable:
            assert [(r["position"], r["targets"], r["loss"]) for r in mine] == [("", "", "")]
            continue
        assert [int(r["position"]) for r in mine] == list(range(1, e.length + 1))
        assert sum(int(r["targets"]) for r in mine) == 599
        total = sum(int(r["targets"]) * float(r["loss"]) for r in mine)
        assert total / 599 == pytest.approx(e.loss)
    assert all((out / f"loss_by_{x}.png").stat().st_size > 10_000 for x in ("length", "position"))
    shown = capsys.readouterr().out
    assert "not applicable" in shown and f"{wanted[1].loss:.4f} (" in shown
    assert str(out / "loss_by_length.csv") in shown


def test_lightning_adds_no_remarks(runs: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    for logger in loggers:
        logger.setLevel(logging.INFO)  # as it is before a training has quieted it
        logger.addHandler(caplog.handler)
    try:
        evaluate_runs([runs["bf16"]], [16], device="cpu")
    finally:
        for logger in loggers:
            logger.removeHandler(caplog.handler)
    assert not caplog.messages


def made_up(
    run: str, length: int, sums: list[float] | None, trained: int = 4, alike: str | None = None
) -> Evaluation:
    if sums is None:
        return Evaluation(run, alike or run, trained, length, length, None, None)
    counts = torch.ones(length, dtype=torch.int64)
    losses = torch.tensor(sums, dtype=torch.float64)
    return Evaluation(run, alike or run, trained, length, length, losses, counts)


def test_the_figures_show_the_numbers() -> None:
    evaluations = [
        made_up("a", 2, [3.0, 2.0]), made_up("a", 4, [3.0, 2.0, 1.5, 1.5]),
        made_up("b", 2, [4.0, 2.0]), made_up("b", 4, None),
    ]  # fmt: skip
    by_length, by_position = draw_by_length(evaluations), draw_by_position(evaluations)
    (ax,) = by_length.axes
    lines = {str(line.get_label()): line for line in ax.lines if "_" not in str(line.get_label())}
    assert set(lines) == {"a", "b (not applicable from 4)"}
    assert lines["a"].get_xydata().tolist() == [[2, 2.5], [4, 2.0]]  # type: ignore[union-attr]
    dotted = [line.get_xdata() for line in ax.lines if line.get_linestyle() == ":"]
    assert [x[0] for x in dotted] == [4, 4]  # type: ignore[index]
    two, four = by_position.axes[:2]
    assert two.get_visible() and four.get_visible()
    assert [line.get_ydata().tolist() for line in two.lines] == [[3.0, 2.0], [4.0, 2.0]]  # type: ignore[union-attr]
    assert four.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.5, 1.5]  # type: ignore[union-attr]
    assert four.lines[1].get_label() == "b (not applicable)"
    plt.close("all")


def test_bins_keep_the_mean() -> None:
    e = made_up("a", 64, [float(i) for i in range(64)])
    positions, losses = binned(e)
    assert positions[:4] == pytest.approx([1, 2, 3, 4]) and losses[:4] == [0, 1, 2, 3]
    assert len(positions) < 24 and positions == sorted(positions)


def test_the_table_marks_the_trained_length() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(length_table([made_up("a", 2, [3.0, 2.0]), made_up("a", 4, None)]))
    assert "2.5000 " in shown.get() and "not applicable" in shown.get()


def test_seeds_are_one_line_with_its_interval() -> None:
    evaluations = [
        made_up(f"a-s{seed}", length, [loss] * length, trained=2, alike="a, 3 seeds")
        for length in (2, 4)
        for seed, loss in enumerate((1.0, 2.0, 3.0), 1)
    ]
    console = Console(width=80)
    with console.capture() as shown:
        console.print(length_table(evaluations))
    # t(0.975, 2) = 4.3027, standard error 1/sqrt(3)
    assert "2.0000 ± 2.4841 (2.8854)*" in " ".join(shown.get().split()) and "a, 3 seeds" in shown.get()
    (ax,) = draw_by_length(evaluations).axes
    assert ax.lines[0].get_xydata().tolist() == [[2, 2.0], [4, 2.0]]  # type: ignore[union-attr]
    (band,) = ax.collections
    assert band.get_paths()[0].get_extents().height == pytest.approx(2 * 2.4841, abs=1e-3)
    (line, *_) = draw_by_position(evaluations).axes[1].lines
    assert np.ravel(line.get_ydata()) == pytest.approx([2.0] * 4)
    plt.close("all")


def test_runs_are_alike_but_for_their_seed(runs: dict[str, Path]) -> None:
    def loaded(*changes: tuple[int, float]) -> list[Run]:
        found = []
        for seed, rate in changes:
            found.append(load_run(runs["rope"], "last"))
            for key in SEEDS:  # in the file of a run all three are resolved
                OmegaConf.update(found[-1].config, key, seed)
            found[-1].config.optimizer.lr = rate
        return found

    two, other = [(1, 0.1), (2, 0.1)], [(2, 0.5)]
    names = ["a-s1", "a-s2", "b-s2"]
    assert names_without_seed(loaded(*two, *other), names) == ["a, 2 seeds", "a, 2 seeds", "b-s2"]
    jobs = ["flash-moe-rmsnorm-rope-s1-0123abcd", "flash-moe-rmsnorm-rope-s2-89abcdef"]
    assert names_without_seed(loaded(*two), jobs) == ["flash-moe-rmsnorm-rope, 2 seeds"] * 2
    jobs += ["flash-standard-rmsnorm-rope-s2-11112222"]
    assert names_without_seed(loaded(*two, *other), jobs) == [
        *["moe-rmsnorm-rope, 2 seeds"] * 2, "standard-rmsnorm-rope-s2-11112222"
    ]  # fmt: skip
    # Two groups of one stem, and a run that has a stem for its name.
    twins = ["a-s1-01", "a-s2-02", "a-s1-03", "a-s2-04"]
    found = names_without_seed(loaded(*two, (1, 0.5), (2, 0.5)), twins)
    assert found == ["01, 2 seeds"] * 2 + ["03, 2 seeds"] * 2
    named = names_without_seed(loaded(*two, *other), ["a-s1", "a-s2", "a"])
    assert named == ["a-s1, 2 seeds", "a-s1, 2 seeds", "a"]
    # The same seed again is no replicate.
    again = names_without_seed(loaded((1, 0.1), (1, 0.1)), ["a-s1", "b-s1"])
    assert len(set(again)) == 2 and not any("seeds" in name for name in again)


def test_a_run_named_twice_counts_once(runs: dict[str, Path]) -> None:
    twice = [runs["rope"], runs["rope"] / ".." / "rope"]
    assert len(evaluate_runs(twice, [16], device="cpu")) == 1


def test_names_lose_what_they_share() -> None:
    assert told_apart(["a-x-1-z", "a-y-1-z", "a-x-2-z"]) == ["x-1", "y-1", "x-2"]
    assert told_apart(["rope-64", "alibi-64"]) == ["rope", "alibi"]
    assert told_apart(["a", "a-b"]) == ["a", "a-b"] and told_apart(["a-b", "a-b"]) == ["a-b", "a-b"]


def test_mistakes(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rope, learned, other, recall = (str(runs[n]) for n in ("rope", "learned", "other", "recall"))
    cases = [
        (["--run", str(tmp_path / "none")], "is not the folder of a run"),
        (["--run", rope, str(tmp_path / "none")], "none is not the folder of a run: it does not exist"),
        (["--run", rope, "--lengths", "8", "0"], "a length must be at least 1, got 0"),
        (["--run", rope, "--lengths", "-3"], "a length must be at least 1, got -3"),
        (["--run", rope, "--lengths", "9" * 30], "is longer than the validation part"),
        (["--run", rope, "--lengths", "8", "--device", "meta"], "no device 'meta' here"),
        (["--run", rope, "--lengths", "8", "600"],
         "length 600 is longer than the validation part of 599 targets"),
        (["--run", rope, "--lengths", "16", "8", "--stride", "9"],
         "the stride must lie between 1 and the shortest length, 8, got 9"),
        (["--run", rope, "--lengths", "8", "--stride", "0"], "must lie between 1 and the shortest"),
        (["--run", rope, learned, other], "were trained on different texts, SHA-256"),
        (["--run", recall, "--lengths", "16"], "was not trained on a text"),
        (["--run", rope, "--lengths", "8", "--device", "abacus"], "no device 'abacus'"),
        (["--run", rope, "--lengths", "8", "--out", "/proc/here"], "cannot write to /proc/here"),
    ]  # fmt: skip
    for arguments, text in cases:
        code = main([*arguments] if "--lengths" in arguments else [*arguments, "--lengths", "8"])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), arguments
        assert err.startswith("error: ") and err.count("\n") == 1 and text in err, err
    for arguments in ([], ["--run", rope, "--lengths", "x"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_text_that_has_changed_is_refused(
    runs: dict[str, Path], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(runs["rope"], "last")
    run.record = replace(run.record, corpus_sha256="0" * 64)
    with pytest.raises(UserError, match=r"on another text than there is now: SHA-256 0{12}…, not "):
        shared_part([run], "validation")


def copied(run: Path, to: Path, **changes: object) -> Path:
    """A run under another name, with other values in its record; None takes one out."""
    shutil.copytree(run, to)
    record = json.loads((to / "result.json").read_text()) | changes
    kept = {name: value for name, value in record.items() if value is not None}
    (to / "result.json").write_text(json.dumps(kept))
    return to


def test_runs_of_a_pattern_that_are_not_finished_are_skipped(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pattern such as sweeps/NAME/* names unfinished runs too, and the files beside them."""
    for status in ("running", "interrupted", "failed", "diverged", "skipped"):
        copied(runs["rope"], tmp_path / f"a-{status}", status=status)
    (tmp_path / "report.html").touch()
    (tmp_path / "notes").mkdir()
    finished = copied(runs["rope"], tmp_path / "rope")
    pattern = [str(path) for path in sorted(tmp_path.iterdir())]
    assert main(["--run", *pattern, "--lengths", "8", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err.count("skipped: ") == err.count("\n") == 7
    assert "a-running is not finished (status running): go on with modgpt train resume=" in err
    assert (finished / "loss_by_length.csv").exists(), "the folder of the first run that counts"
    assert not (tmp_path / "a-running" / "loss_by_length.csv").exists() and "rope" in out


def test_what_cannot_be_evaluated_is_one_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rope = runs["rope"]
    interrupted = copied(rope, tmp_path / "interrupted", status="interrupted")
    imported = copied(rope, tmp_path / "imported", status="imported", corpus_sha256=None)
    without = copied(rope, tmp_path / "without")
    (without / "checkpoints" / "last.ckpt").unlink()
    other = copied(rope, tmp_path / "other", corpus_sha256="0" * 64)
    damaged = copied(rope, tmp_path / "damaged")
    (damaged / "result.json").write_text("{")
    for folders, text in (
        (
            [interrupted],
            f"is not finished (status interrupted): go on with modgpt train resume={tmp_path}",
        ),
        ([imported], "was not trained on a text: it was imported"),
        ([without], "has no last checkpoint yet"),
        ([rope, other], "were trained on different texts, SHA-256"),
        ([other], "was trained on another text than there is now: SHA-256 000000000000…, not"),
        ([damaged], "result.json is damaged"),
        ([interrupted, imported], "no finished run: "),
    ):
        before = {path: sorted(path.rglob("*")) for path in folders}
        assert main(["--run", *map(str, folders), "--lengths", "8", "--device", "cpu"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and text in err, err
        assert {path: sorted(path.rglob("*")) for path in folders} == before, "nothing is written"


def test_a_text_that_is_gone_is_one_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = runs["other"].parent / "other.txt"
    kept = text.read_bytes()
    text.unlink()
    try:
        assert main(["--run", str(runs["other"]), "--lengths", "8", "--device", "cpu"]) == 2
        err = capsys.readouterr().err
        assert err == f"error: no such file: {text}\n"
    finally:
        text.write_bytes(kept)


def test_runs_with_different_tokenizers_are_not_compared(runs: dict[str, Path]) -> None:
    first, second = load_run(runs["rope"], "last"), load_run(runs["learned"], "last")
    second.tokenizer = CharTokenizer(second.tokenizer.to_dict()["vocabulary"] + "€")
    with pytest.raises(UserError, match="another tokenizer than"):
        shared_part([first, second], "validation")


def test_names_from_elsewhere_command_nothing() -> None:
    console = Console(width=80, color_system=None)
    with console.capture() as shown:
        console.print(length_table([made_up("[red]a\x1b[2J", 2, [3.0, 2.0])]))
    assert "[red]a\\x1b[2J" in shown.get() and "\x1b[2J" not in shown.get()


def test_no_cell_of_the_files_is_a_formula(tmp_path: Path) -> None:
    write_report([made_up("=1+1", 2, [3.0, 2.0])], tmp_path)
    for name in ("loss_by_length", "loss_by_position"):
        assert all(row["run"] == "'=1+1" for row in read(tmp_path / f"{name}.csv"))
        assert read(tmp_path / f"{name}.csv")[0]["length"] == "2"


def test_ctrl_c_and_a_closed_pipe(runs: dict[str, Path], tmp_path: Path) -> None:
    command = [str(ROOT / "scripts/evaluate.py"), "--run", str(runs["rope"]), "--device", "cpu",
               "--out", str(tmp_path), "--lengths", "8"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert (process.wait(timeout=120), errors) == (141, b"")
    child = pexpect.spawn(
        sys.executable, [*command, "--stride", "1", "--lengths", *map(str, range(1, 500))],
        encoding="utf-8", timeout=120,
    )  # fmt: skip
    child.expect("length 1")  # the progress bar
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130 and "Traceback" not in (child.before or "")


def test_runs_of_one_name_are_told_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["rope"], tmp_path / "rope")
    found = evaluate_runs([runs["rope"], tmp_path / "rope"], [8], device="cpu")
    assert [e.run for e in found] == [str(runs["rope"]), str(tmp_path / "rope")]
    assert found[0].loss == found[1].loss
    assert len(write_report(found, tmp_path)) == 4


def test_the_script_runs(runs: dict[str, Path], tmp_path: Path) -> None:
    from tests.test_cli import script

    done = script("evaluate.py", "--run", str(runs["rope"]), "--lengths", "8", "--out", str(tmp_path),
                  "--device", "cpu")  # fmt: skip
    assert done.returncode == 0 and "loss_by_position.png" in done.stdout, done.stderr
