"""Trackers, each read back by its own means: what they are told, resume, failures, missing packages."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from modgpt.commands.train import main
from modgpt.config.compose import compose_job
from modgpt.runs.saved import job_of
from modgpt.training.loop import Outcome, train
from modgpt.training.trackers import tracking

Overrides = Callable[..., list[str]]
SHORT = [
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=2",
    "run_name=a",
]
FILES = {"best.ckpt", "config.yaml", "tokenizer.json", "result.json", "sample.txt"}


def run(arguments: list[str]) -> Outcome:
    return train(job_of(arguments))


def in_sweep(folder: Path) -> None:
    """Make `folder` the folder of a sweep."""
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text("{}")


# --- MLflow -----------------------------------------------------------------------------------------


def mlflow_run(store: str, experiment: str) -> tuple[Any, Any]:
    """MLflow's own client, and the only run of an experiment."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (only,) = client.search_runs([found.experiment_id])
    return client, only


def test_mlflow_has_choices_metrics_and_files_and_goes_on(overrides: Overrides, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    in_sweep(tmp_path / "runs")  # the sweep's name is that of its folder
    store = f"logger.mlflow.tracking_uri=sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = overrides(*SHORT, "logger=[csv,mlflow]", store, "logger.mlflow.tags={team: blue}")
    outcome = run(arguments)
    uri = store.partition("=")[2]
    client, first = mlflow_run(uri, "runs")
    assert first.info.run_name == "a" and first.info.status == "FINISHED"
    assert first.data.params["ffn"] == "swiglu" and first.data.params["seed"] == "1"
    assert first.data.params["logger"] == "[csv,mlflow]"
    assert first.data.tags["team"] == "blue" and first.data.tags["sweep"] == "runs"
    assert first.data.tags["status"] == "finished"
    assert first.data.metrics["final_val_loss"] == pytest.approx(outcome.record.final_val_loss)
    steps = [m.step for m in client.get_metric_history(first.info.run_id, "train/loss")]
    assert steps == [1, 2, 3, 4]
    assert {file.path for file in client.list_artifacts(first.info.run_id)} == FILES
    assert (outcome.folder / "metrics.csv").exists()

    run([f"resume={outcome.folder}", "trainer.max_steps=6", store])
    client, again = mlflow_run(uri, "runs")
    assert again.info.run_id == first.info.run_id
    steps = [m.step for m in client.get_metric_history(first.info.run_id, "train/loss")]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert again.data.params["trainer.max_steps"] == "4", "MLflow's parameters are fixed"
    assert again.data.tags["trainer.max_steps"] == "6"
    assert again.info.status == "FINISHED"


# --- Weights & Biases -------------------------------------------------------------------------------


def wandb_records(folder: Path) -> Iterator[Any]:
    """The records of the one offline run in a folder. Its file has LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    raw, place, whole = path.read_bytes(), 7, b""
    while place < len(raw):
        if 32768 - place % 32768 < 7:  # the rest of a block is padding
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", raw[place : place + 7])
        whole += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def test_wandb_offline_has_config_metrics_and_an_artifact(overrides: Overrides, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    in_sweep(tmp_path / "runs")
    offline = ["logger=wandb", "logger.wandb.offline=true", "logger.wandb.tags=[small]"]
    folder = run(overrides(*SHORT, *offline)).folder
    wandb.teardown()  # waits for its process, which writes the file
    records = list(wandb_records(folder))
    about = next(r.run for r in records if r.WhichOneof("record_type") == "run")
    assert (about.project, about.run_group, about.display_name) == ("modgpt", "runs", "a")
    assert list(about.tags) == ["small"]
    assert json.loads((folder / "trackers.json").read_text()) == {"wandb": about.run_id}
    config = {
        item.key: item.value_json for r in records for item in (*r.run.config.update, *r.config.update)
    }
    assert config["ffn"] == '"swiglu"' and config["optimizer.lr"] == "0.01"
    logged = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    assert [row["trainer/global_step"] for row in logged if "train/loss" in row] == [1, 2, 3, 4]
    assert any("final_val_loss" in row for row in logged)
    artifacts = [r for r in records if r.WhichOneof("record_type") in ("artifact", "request")]
    names = {
        entry.path
        for r in artifacts
        for entry in (*r.artifact.manifest.contents, *r.request.log_artifact.artifact.manifest.contents)
    }
    assert names == FILES
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]


# --- Trackio and Comet ------------------------------------------------------------------------------


def test_trackio_on_this_machine(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr(utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    folder = run(overrides(*SHORT, "logger=trackio")).folder
    assert SQLiteStorage.get_runs("modgpt") == ["a"]
    rows = SQLiteStorage.get_logs("modgpt", "a")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
    assert SQLiteStorage.get_run_config("modgpt", "a")["ffn"] == "swiglu"
    run([f"resume={folder}", "trainer.max_steps=6"])
    assert SQLiteStorage.get_runs("modgpt") == ["a"]
    rows = SQLiteStorage.get_logs("modgpt", "a")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4, 5, 6]


def test_comet_offline_writes_an_archive(overrides: Overrides) -> None:
    pytest.importorskip("comet_ml")
    folder = run(overrides(*SHORT, "logger=comet", "logger.comet.offline=true")).folder
    key = json.loads((folder / "trackers.json").read_text())["comet"]
    (archive,) = (folder / "comet" / "1").glob("*.zip")
    with zipfile.ZipFile(archive) as file:
        text, about = file.read("messages.json").decode(), json.loads(file.read("experiment.json"))
    assert '"train/loss"' in text and '"swiglu"' in text and "best.ckpt" in text
    assert about["offline_id"] == key
    run([f"resume={folder}", "trainer.max_steps=6"])
    assert json.loads((folder / "trackers.json").read_text())["comet"] == key
    assert len([*(folder / "comet").glob(f"*/{key}*.zip")]) == 2, "one for each start"


# --- failures ---------------------------------------------------------------------------------------


class Failing(CSVLogger):
    """A tracker whose server goes away at step 2."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        if (step or 0) >= 2:
            raise ConnectionError("no route\nto host")
        super().log_metrics(metrics, step)


class Unreachable(CSVLogger):
    """A tracker whose server cannot be reached."""

    def __init__(self, save_dir: str) -> None:
        raise ConnectionError("no network")


@pytest.mark.parametrize(
    ("name", "reason"), [("Failing", "no route to host"), ("Unreachable", "no network")]
)
def test_a_tracker_that_fails_is_switched_off_and_told_once(
    name: str, reason: str, overrides: Overrides, caplog: pytest.LogCaptureFixture
) -> None:
    mine = f"+logger.mine._target_={__name__}.{name}"
    outcome = run(overrides(*SHORT, "logger=csv", mine))
    assert outcome.record.status == "finished"
    told = [r.message for r in caplog.records if "logger.mine" in r.message]
    assert told == [
        "logger.mine failed and is switched off; the training goes on: ConnectionError: " + reason
    ]


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("mlflow", ["logger=mlflow", "logger.mlflow.tracking_uri=http://127.0.0.1:9"]),
        ("wandb", ["logger=wandb"]),
        ("comet_ml", ["logger=comet"]),
    ],
)
def test_no_server_and_no_login_lose_no_training(
    package: str,
    arguments: list[str],
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip(package)
    monkeypatch.setenv("HOME", str(tmp_path))  # no login of this user's
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "COMET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    outcome = run(overrides(*SHORT, *arguments))
    assert outcome.record.status == "finished"
    told = [r.message for r in caplog.records if "is switched off; the training goes on" in r.message]
    assert len(told) == 1
    assert not (outcome.folder / "trackers.json").exists()


@pytest.mark.parametrize("option", ["mlflow", "wandb", "trackio", "comet"])
def test_a_missing_package_is_one_line_and_nothing_is_written(
    option: str,
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda package: None)
    assert main(overrides(f"logger={option}")) == 2
    assert f"install with pip install -e '.[{option}]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_several_loggers_stand_in_the_choices() -> None:
    job = compose_job(["logger=[default,mlflow]", "callbacks=[default,profiler]"])
    assert list(job.config.logger) == ["tensorboard", "csv", "mlflow"]
    assert job.choices["logger"] == "[default,mlflow]"
    assert "profiler" in job.config.callbacks and "best" in job.config.callbacks


@pytest.mark.parametrize("override", ["logger=[default,wandbb]", "ffn=[moe,swiglu]", "logger=[]"])
def test_a_list_that_is_none_of_options_is_refused(
    override: str, overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(overrides(override)) == 2
    assert override.partition("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_damaged_ids_are_left_out(tmp_path: Path) -> None:
    for content in ("{", "[1]", '{"wandb": "../../x y"}', '{"wandb": 3}'):
        (tmp_path / "trackers.json").write_text(content)
        assert tracking.known_ids(tmp_path) == {}
