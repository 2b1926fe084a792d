"""Checkpoints whose file, rather than the configuration in it, is hostile."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.hostile.targets import Payload, touch
from tests.hostile.world import World


def pickle_that_calls_os_system(world: World) -> None:
    world.write_checkpoints(pickle.dumps(Payload(os.system, touch(world))))


def pickle_that_calls_exec(world: World) -> None:
    world.write_checkpoints(pickle.dumps(Payload(exec, f"open({str(world.canary)!r}, 'w')")))


def pickle_of_protocol_0(world: World) -> None:
    world.write_checkpoints(pickle.dumps(Payload(os.system, touch(world)), protocol=0))


def archive_that_calls_os_system(world: World) -> None:
    world.save_checkpoints(Payload(os.system, touch(world)))


def archive_that_opens_a_process(world: World) -> None:
    world.save_checkpoints(Payload(subprocess.Popen, ["touch", str(world.canary)]))


def archive_that_loads_without_weights_only(world: World) -> None:
    inner = world.folder / "inner.pt"
    inner.write_bytes(pickle.dumps(Payload(os.system, touch(world))))
    world.save_checkpoints(Payload(torch.load, str(inner)))


def payload_among_the_weights(world: World) -> None:
    world.change_checkpoints(lambda c: c["state_dict"].update(x=Payload(os.system, touch(world))))


def payload_in_the_configuration(world: World) -> None:
    world.change_checkpoints(lambda c: c["modgpt"]["config"].update(x=Payload(Path.touch, world.canary)))


def payload_as_a_key(world: World) -> None:
    world.change_checkpoints(lambda c: c.update({Payload(os.getpid): Payload(os.system, touch(world))}))


def payload_in_the_optimizer(world: World) -> None:
    world.change_checkpoints(
        lambda c: c.update(optimizer_states=[{"state": Payload(os.system, touch(world))}])
    )


def payload_in_the_format_before_archives(world: World) -> None:
    for path in world.checkpoints:
        torch.save({"x": Payload(os.system, touch(world))}, path, _use_new_zipfile_serialization=False)


def payload_inside_bytes_of_a_storage(world: World) -> None:
    inner = io.BytesIO()
    torch.save(Payload(os.system, touch(world)), inner)
    world.save_checkpoints(Payload(torch.storage._load_from_bytes, inner.getvalue()))


def program_of_torchscript(world: World) -> None:
    class Program(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    for path in world.checkpoints:
        torch.jit.save(torch.jit.script(Program()), str(path))


def archive_of_tar(world: World) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("pickle")
        content = pickle.dumps(Payload(os.system, touch(world)))
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    world.write_checkpoints(buffer.getvalue())


def compressed_archive(world: World) -> None:
    """A zip bomb: 256 MB of zeros in place of the first tensor, 256 kB on disk."""
    for path in world.checkpoints:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, bytes(2**28) if name.endswith("data/0") else content)


def archive_without_end(world: World) -> None:
    for path in world.checkpoints:
        path.write_bytes(path.read_bytes()[:-30])


def expanded_tensor(world: World) -> None:
    """A tensor of stride 0 that claims 10^12 elements and holds one."""
    name = "model.embedding.weight"
    huge = torch.zeros(1, 1).expand(10**6, 10**6)
    world.change_checkpoints(lambda c: c["state_dict"].update({name: huge}))


def expanded_optimizer_state(world: World) -> None:
    huge = torch.zeros(1).expand(10**12)
    world.change_checkpoints(lambda c: c.update(optimizer_states=[{"state": {0: {"exp_avg": huge}}}]))


def tensor_on_the_device_meta(world: World) -> None:
    world.change_checkpoints(
        lambda c: c["state_dict"].update({"model.norm.weight": torch.empty(10**12, device="meta")})
    )


def sparse_tensor(world: World) -> None:
    huge = torch.sparse_coo_tensor(
        torch.tensor([[0]]), torch.tensor([1.0]), (10**12,), check_invariants=True
    )
    world.change_checkpoints(lambda c: c["state_dict"].update({"model.norm.weight": huge}))


def bytearray_of_a_terabyte(world: World) -> None:
    world.save_checkpoints(Payload(bytearray, 10**12))


def list_that_contains_itself(world: World) -> None:
    endless: list[Any] = []
    endless.append(endless)
    world.change_checkpoints(lambda c: c["modgpt"]["config"].update(x=endless))


def lists_that_double_forty_times(world: World) -> None:
    """A billion laughs: 40 lists on disk, 2^40 values for whoever walks through them."""
    doubled: list[Any] = ["ha"]
    for _ in range(40):
        doubled = [doubled, doubled]
    world.change_checkpoints(lambda c: c["modgpt"]["config"].update(x=doubled))


def nested_a_hundred_thousand_deep(world: World) -> None:
    deep = b"]" * 100_000 + b"a" * 99_999
    _write_pickle(world, b"\x80\x02" + deep + b".")


def not_a_dictionary(world: World) -> None:
    world.save_checkpoints([1, 2, 3])


def description_that_is_a_number(world: World) -> None:
    world.change_checkpoints(lambda c: c.update(modgpt=7))


def configuration_that_is_a_list(world: World) -> None:
    world.change_checkpoints(lambda c: c["modgpt"].update(config=[1, 2]))


def configuration_that_is_a_text(world: World) -> None:
    world.change_checkpoints(lambda c: c["modgpt"].update(config="${oc.env:HOME}"))


def weights_that_are_a_list(world: World) -> None:
    world.change_checkpoints(lambda c: c.update(state_dict=[1, 2]))


def weights_named_by_numbers(world: World) -> None:
    world.change_checkpoints(lambda c: c.update(state_dict=dict.fromkeys(range(5), torch.zeros(1))))


def weights_that_are_texts(world: World) -> None:
    world.change_checkpoints(lambda c: c["state_dict"].update({"model.norm.weight": "x"}))


def weights_named_by_escape_characters(world: World) -> None:
    world.change_checkpoints(
        lambda c: c["state_dict"].update({"model.\x1b[2J\n\x1b]0;x": torch.zeros(1)})
    )


def step_that_is_a_text(world: World) -> None:
    world.change_checkpoints(lambda c: c.update(global_step="${oc.env:HOME}", state_dict={}))


def device_in_place_of_the_file(world: World) -> None:
    """A checkpoint that never ends."""
    for path in world.checkpoints:
        path.unlink()
        path.symlink_to("/dev/zero")


def pipe_in_place_of_the_file(world: World) -> None:
    """A checkpoint that nobody writes."""
    for path in world.checkpoints:
        path.unlink()
        os.mkfifo(path)


def _write_pickle(world: World, pickled: bytes) -> None:
    """Put a pickle into an archive as `torch.save` makes it."""
    for path in world.checkpoints:
        torch.save({}, path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, pickled if name.endswith("data.pkl") else content)


def storage_of_a_terabyte(world: World) -> None:
    """An archive whose pickle claims a storage that the archive does not hold."""
    for path in world.checkpoints:
        torch.save({"x": torch.zeros(77, dtype=torch.uint8)}, path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                claim = b"\x8a\x06" + struct.pack("<Q", 10**12)[:6]
                archive.writestr(name, content.replace(b"K\x4d", claim))
