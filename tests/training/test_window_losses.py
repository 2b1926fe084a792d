"""`validation.npz`: the losses of the validation windows are kept, and read as data."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modgpt.data.batch import inputs_and_targets
from modgpt.data.datamodule import CorpusDataModule
from modgpt.errors import UserError
from modgpt.runs.saved import job_of
from modgpt.runs.window_losses import FILE_NAME, WindowLosses, read_window_losses
from modgpt.training.loop import Outcome, train

Overrides = Callable[..., list[str]]


def kept(folder: Path) -> WindowLosses:
    losses = read_window_losses(folder)
    assert losses is not None
    return losses


@torch.no_grad()
def by_hand(outcome: Outcome) -> list[tuple[float, int]]:
    """Nats and targets of every validation window in the order of the data, one window at a time."""
    model, found, data = outcome.module.model.eval(), [], outcome.data
    if isinstance(data, CorpusDataModule):
        ids, n = data.tokens("validation"), data.block_size
        batches = [ids[None, i : i + n + 1] for i in range(0, len(ids) - 1, n)]
    else:
        batches = list(data.val_dataloader())
    for batch in batches:
        for inputs, targets in zip(*inputs_and_targets(batch), strict=True):
            loss = F.cross_entropy(model(inputs[None])[0].double(), targets, reduction="sum")
            found.append((float(loss), int((targets != -100).sum())))
    return found


@pytest.mark.parametrize(
    "data", [[], ["data=recall", "data.pairs=3", "data.vocabulary=12", "data.val_sequences=70"]]
)
def test_every_window_is_kept_in_order(data: list[str], overrides: Overrides) -> None:
    given = [o for o in overrides("data.eval_batch_size=7") if not (data and "data.path" in o)]
    outcome = train(job_of([*given, *data]))
    losses, wanted = kept(outcome.folder), by_hand(outcome)
    assert losses.step == outcome.record.final_step == 30
    assert losses.targets.tolist() == [n for _, n in wanted]
    np.testing.assert_allclose(losses.nats, [nats for nats, _ in wanted], rtol=1e-5, atol=1e-5)
    assert losses.mean == pytest.approx(outcome.record.final_val_loss, rel=1e-6)
    if not data:
        assert losses.targets.sum() == len(outcome.data.tokens("validation")) - 1
        assert losses.targets[:-1].tolist() == [16] * (len(losses.targets) - 1)
    assert (outcome.folder / FILE_NAME).stat().st_size < 12 * len(losses.nats) + 1000


def test_a_resumed_run_keeps_its_own_final_losses(overrides: Overrides, tmp_path: Path) -> None:
    whole = train(job_of(overrides()))
    half = train(job_of(overrides("trainer.max_steps=15", "schedule.max_steps=30")))
    assert kept(half.folder).step == 15
    again = train(job_of([f"resume={half.folder}", "trainer.max_steps=30"]))
    assert kept(again.folder).step == 30
    assert kept(again.folder).nats.tolist() == kept(whole.folder).nats.tolist()


def test_a_run_that_stopped_before_its_last_validation_makes_it_up(overrides: Overrides) -> None:
    outcome = train(job_of(overrides()))
    before = kept(outcome.folder)
    (outcome.folder / FILE_NAME).unlink()
    assert read_window_losses(outcome.folder) is None
    again = train(job_of([f"resume={outcome.folder}", "trainer.max_steps=31"]))
    assert kept(again.folder).step == 31 and len(kept(again.folder).nats) == len(before.nats)


def arrays(**changed: object) -> bytes:
    """A good file, with some arrays changed."""
    values = {
        "step": np.int64(3), "nats": np.ones(4, np.float32), "targets": np.ones(4, np.int32)
    } | changed  # fmt: skip
    file = io.BytesIO()
    np.savez(file, **{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]
    return file.getvalue()


class Trap:
    """Would make a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("trapped"),))  # type: ignore[return-value]


DAMAGED = {
    "empty": b"",
    "text": b"hello",
    "cut short": arrays()[:-30],
    "an array is missing": arrays(nats=None),
    "a pickle": arrays(nats=np.array([Trap()], dtype=object)),
    "another type": arrays(nats=np.ones(4)),
    "other lengths": arrays(targets=np.ones(3, np.int32)),
    "no window": arrays(nats=np.ones(0, np.float32), targets=np.ones(0, np.int32)),
    "not a number": arrays(nats=np.full(4, np.nan, np.float32)),
    "negative": arrays(targets=np.full(4, -1, np.int32)),
    "no target": arrays(targets=np.zeros(4, np.int32)),
    "a table": arrays(nats=np.ones((2, 2), np.float32), targets=np.ones((2, 2), np.int32)),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(DAMAGED[kind])
    with pytest.raises(UserError, match=r"validation\.npz is damaged"):
        read_window_losses(tmp_path)
    assert not Path("trapped").exists()


def test_a_huge_array_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / FILE_NAME, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nats.npy", bytes(500_000_000))
    with pytest.raises(UserError, match="larger than"):
        read_window_losses(tmp_path)


def test_a_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(UserError, match="is not a file"):
        read_window_losses(tmp_path)
    shutil.rmtree(tmp_path / FILE_NAME)
