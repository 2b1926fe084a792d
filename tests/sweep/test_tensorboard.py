"""A sweep as TensorBoard shows it, asked of a real server through its HTTP API."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modgpt import generate, load_run
from tests.sweep.script import sweep as start_sweep
from tests.training.test_loop import interrupted_run, run

pytestmark = pytest.mark.slow  # a sweep and a server, both the real programs

# A learning rate that rises until it does harm: the last loss is not the best.
ARGUMENTS = (
    "ffn=standard,moe", "seed=1,2", "sweep_name=s", "data=text", "data.batch_size=4", "model.d_model=16",
    "model.n_layers=1", "model.n_heads=2", "model.block_size=8", "trainer.max_steps=20",
    "trainer.val_check_interval=5", "trainer.log_every_n_steps=5", "trainer.accelerator=cpu",
    "schedule=constant", "schedule.warmup_steps=19", "optimizer.lr=1", "callbacks.sample.length=30",
)  # fmt: skip
SCALARS = {
    "loss/train", "loss/val", "train/grad_norm", "lr", "tokens_per_second", "val/bpc", "val/perplexity",
}  # fmt: skip
LOSSES = {"hp/final_val_loss": "final_val_loss", "hp/best_val_loss": "best_val_loss"}


@pytest.fixture(scope="module")
def sweep(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep of four runs."""
    folder = tmp_path_factory.mktemp("sweeps")
    code, _, err = start_sweep(*ARGUMENTS, f"data.path={corpus}", f"sweep_dir={folder}")
    assert code == 0, err
    return folder / "s"


@pytest.fixture(scope="module")
def records(sweep: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/result.json")}


class Server:
    """A TensorBoard that listens at an address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.opener = build_opener(ProxyHandler({}))  # whatever proxy the environment names

    def ask(self, route: str, body: dict[str, Any] | None = None, **query: str) -> Any:
        """The answer of a route, POSTed to where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.address}data/{route}?{urlencode(query)}", data, headers)
        with self.opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the HParams page, by their run: parameters and metrics."""
        every = {"allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS"], "sliceSize": 100}
        answer = self.ask("plugin/hparams/session_groups", every)
        return {
            group["name"]: group["hparams"]
            | {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
            for group in answer["sessionGroups"]
        }


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it never came to that")


@pytest.fixture(scope="module")
def server(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    said = tmp_path_factory.mktemp("tensorboard") / "output.txt"
    with said.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", str(sweep), "--host", "127.0.0.1",
             "--port", "0"],
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:

        def address() -> re.Match[str] | None:
            assert process.poll() is None, said.read_text()
            return re.search(r"TensorBoard \S+ at (http://\S+/)", said.read_text())

        server = Server(wait_for(address)[1])
        # What the HParams page shows is written last: the files have been read.
        wait_for(lambda: len(server.rows()) == 4)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and its helper that reads the files
        process.wait()


def test_a_run_is_named_by_its_choices(server: Server, records: dict[str, Any]) -> None:
    names = server.ask("runs")
    assert sorted(names) == sorted(records)
    seen = [re.fullmatch(r"flash-(\w+)-rmsnorm-rope-s(\d)-[0-9a-f]{8}", name) for name in names]
    assert sorted(match.groups() for match in seen if match) == [
        ("moe", "1"), ("moe", "2"), ("standard", "1"), ("standard", "2"),
    ]  # fmt: skip


def test_every_run_has_its_curves(server: Server, records: dict[str, Any]) -> None:
    tags = server.ask("plugin/scalars/tags")
    for name, record in records.items():
        load = {f"train/expert_load/{i}" for i in range(8)}
        assert tags[name].keys() >= SCALARS | LOSSES.keys()
        assert tags[name].keys() & load == (load if record["choices"]["ffn"] == "moe" else set())
        for tag in SCALARS:
            points = server.ask("plugin/scalars/scalars", run=name, tag=tag)
            assert [step for _, step, _ in points] == [5, 10, 15, 20], tag
            assert np.isfinite([value for _, _, value in points]).all(), tag
        curve = [value for _, _, value in server.ask("plugin/scalars/scalars", run=name, tag="loss/val")]
        assert np.float32(curve[-1]) == np.float32(record["final_val_loss"])
        assert np.float32(min(curve)) == np.float32(record["best_val_loss"])


def test_samples_are_what_the_model_writes(server: Server, sweep: Path, records: dict[str, Any]) -> None:
    for name in records:
        samples = server.ask("plugin/text/text", run=name, tag="sample/text_summary")
        assert [sample["step"] for sample in samples] == [5, 10, 15, 20]
        verbatim = re.search("<pre><code>(.*)</code></pre>", samples[-1]["text"], re.DOTALL)
        assert verbatim
        loaded = load_run(sweep / name, "last")
        text = generate(loaded.model, loaded.tokenizer, "", max_new_tokens=30, temperature=0.8, seed=1)
        assert "".join(html.unescape(verbatim[1]).split()) == "".join(text.split())


def test_hparams_compare_choices_with_losses(server: Server, records: dict[str, Any]) -> None:
    rows = server.rows()
    assert rows.keys() == records.keys()
    for name, record in records.items():
        for group, choice in record["choices"].items():
            assert rows[name][group] == choice
        for key in ("seed", "parameters"):
            assert rows[name][key] == record[key]
        for tag, key in LOSSES.items():
            assert np.float32(rows[name][tag]) == np.float32(record[key])
    assert {(row["ffn"], row["seed"]) for row in rows.values()} == {
        ("standard", 1), ("standard", 2), ("moe", 1), ("moe", 2),
    }  # fmt: skip
    both = [(record["final_val_loss"], record["best_val_loss"]) for record in records.values()]
    assert any(final > best for final, best in both), "these losses cannot be told apart"


def test_hparams_columns_serve_every_run(server: Server, records: dict[str, Any]) -> None:
    columns = server.ask("plugin/hparams/experiment", {})
    names = [column["name"] for column in columns["hparamInfos"]]
    assert {metric["name"]["tag"] for metric in columns["metricInfos"]} == LOSSES.keys()
    for record in records.values():
        assert set(names) >= record["choices"].keys() | {"seed", "parameters"}
    # TensorBoard asks any one run for the columns, and shows five of them at first.
    assert "experiment" in names, "runs beside these may have one"
    assert set(names[:5]) == {"attention", "ffn", "norm", "pos", "seed"}


def test_a_run_resumed_for_its_last_validation_has_hparams(
    overrides: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted_run(overrides("trainer.max_steps=10"), 10, monkeypatch)
    outcome = run([f"resume={folder}"])
    events = EventAccumulator(str(folder)).Reload()
    for tag, key in {"loss/val": "final_val_loss", **LOSSES}.items():
        (event,) = events.Scalars(tag)
        assert (event.step, np.float32(event.value)) == (10, np.float32(getattr(outcome.record, key)))
    start = events.SummaryMetadata("_hparams_/session_start_info")
    assert start.plugin_data.plugin_name == "hparams"
