"""Files config.yaml that are hostile as YAML, beside intact checkpoints."""

from __future__ import annotations

import os

from tests.hostile.targets import touch
from tests.hostile.world import World


def tag_that_applies_a_function(world: World) -> None:
    _append(world, f"evil: !!python/object/apply:os.system ['{touch(world)}']\n")


def tag_that_makes_an_object(world: World) -> None:
    _append(world, f"evil: !!python/object/new:subprocess.Popen [['touch', '{world.canary}']]\n")


def tag_that_names_a_module(world: World) -> None:
    _append(world, "evil: !!python/module:antigravity ''\n")


def tag_of_a_name(world: World) -> None:
    _append(world, "evil: !!python/name:os.system ''\n")


def anchors_that_double_forty_times(world: World) -> None:
    """A billion laughs: 2 kB on disk, 2^40 values."""
    lines = ["evil:", "  a0: &a0 [x, x]"]
    lines += [f"  a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    _append(world, "\n".join(lines) + "\n")


def anchor_that_contains_itself(world: World) -> None:
    _append(world, "evil: &a [*a]\n")


def merge_keys_that_double(world: World) -> None:
    lines = ["evil0: &m0 {x: 1}"]
    lines += [f"evil{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 40)]
    _append(world, "\n".join(lines) + "\n")


def nested_a_hundred_thousand_deep(world: World) -> None:
    _append(world, "evil: " + "[" * 100_000 + "]" * 100_000 + "\n")


def keys_twice(world: World) -> None:
    """The second one wins for some readers."""
    _append(world, "norm: {_target_: os.system}\n")


def another_document_behind(world: World) -> None:
    _append(world, "---\nnorm: {_target_: os.system}\n")


def keys_that_are_lists(world: World) -> None:
    _append(world, "? [1, 2]\n: x\n")


def values_that_are_bytes(world: World) -> None:
    _append(world, "evil: !!binary aGVsbG8=\n")


def text_that_is_not_utf8(world: World) -> None:
    path = world.run / "config.yaml"
    path.write_bytes(path.read_bytes() + b"evil: \xff\xfe\n")


def zero_bytes(world: World) -> None:
    path = world.run / "config.yaml"
    path.write_bytes(path.read_bytes() + b"\0" * 100)


def half_a_gigabyte(world: World) -> None:
    with (world.run / "config.yaml").open("r+b") as file:
        file.truncate(2**29)  # sparse: it takes no room on disk


def a_list(world: World) -> None:
    (world.run / "config.yaml").write_text("- 1\n- 2\n")


def nothing(world: World) -> None:
    (world.run / "config.yaml").write_text("")


def device_in_place_of_the_file(world: World) -> None:
    (world.run / "config.yaml").unlink()
    (world.run / "config.yaml").symlink_to("/dev/zero")


def pipe_in_place_of_the_file(world: World) -> None:
    (world.run / "config.yaml").unlink()
    os.mkfifo(world.run / "config.yaml")


def _append(world: World, text: str) -> None:
    path = world.run / "config.yaml"
    path.write_text(path.read_text() + text)
