"""Paths of the corpus, in config.yaml and in the checkpoints, from which reading never ends."""

from __future__ import annotations

import os

from tests.hostile.world import World, set_in


def pipe_that_nobody_writes(world: World) -> None:
    os.mkfifo(world.folder / "pipe")
    world.change_config(set_in("data.path", str(world.folder / "pipe")))


def device_that_never_ends(world: World) -> None:
    world.change_config(set_in("data.path", "/dev/zero"))


def folder(world: World) -> None:
    world.change_config(set_in("data.path", str(world.folder)))
