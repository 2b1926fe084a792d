"""Targets that a hostile configuration names: each would make the canary, or read the secret."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from tests.hostile.world import World

Node = dict[str, Any]


class Payload:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def touch(world: World) -> str:
    """The shell command that makes the canary."""
    return f"touch {world.canary}"


def node(target: str, *arguments: Any, **named: Any) -> Node:
    """A node that Hydra would build by calling the target."""
    return {"_target_": target} | ({"_args_": list(arguments)} if arguments else {}) | named


def run(world: World) -> Node:
    """The attack that stands for all others where the place is what varies."""
    return node("torch.utils.collect_env.run", command=touch(world))


def write_helpers(world: World) -> None:
    """The files that some targets read."""
    (world.folder / "script.py").write_text(f"open({str(world.canary)!r}, 'w')")
    (world.folder / "unsafe.pt").write_bytes(pickle.dumps(Payload(Path.touch, world.canary)))


def every_target(world: World) -> dict[str, Node]:
    """All targets, by a name for the test's output."""
    canary, python = str(world.canary), f"open({str(world.canary)!r}, 'w')"
    path = node("pathlib.Path", canary)
    script, unsafe = world.folder / "script.py", world.folder / "unsafe.pt"
    secret = str(world.secret)
    return {
        "collect_env": run(world),
        "collect_env_positional": node("torch.utils.collect_env.run", touch(world)),
        "path_write_text": node("pathlib.Path.write_text", path, "x"),
        "path_touch": node("pathlib.Path.touch", path),
        "path_mkdir": node("pathlib.Path.mkdir", path),
        "copyfile": node("shutil.copyfile", src=secret, dst=canary),
        "torch_load": node("torch.load", f=str(unsafe), weights_only=False),
        "pickle_load": node("pickle.load", node("builtins.open", str(unsafe), "rb")),
        "prefix_shutil": node("modgpt.training.loop.shutil.copyfile", src=secret, dst=canary),
        "prefix_files": node("modgpt.files.shutil.copyfile", src=secret, dst=canary),
        "prefix_hardware": node("modgpt.training.hardware.shutil.copyfile", src=secret, dst=canary),
        "prefix_subprocess": node("modgpt.runs.provenance.subprocess.run", ["touch", canary]),
        "own_function": node("modgpt.files.write_json", path=path, value="x"),
        "own_method": node("modgpt.data.tokenizers.base.Tokenizer.save", {}, path),
        "builtins_open": node("builtins.open", canary, "w"),
        "builtins_exec": node("builtins.exec", python),
        "builtins_eval": node("builtins.eval", python),
        "builtins_import": node("builtins.__import__", "antigravity"),
        "bare_exec": node("exec", python),
        "os_system": node("os.system", touch(world)),
        "posix_system": node("posix.system", touch(world)),
        "os_mkdir": node("os.mkdir", canary),
        "subprocess": node("subprocess.check_output", ["touch", canary]),
        "popen": node("subprocess.Popen", ["touch", canary]),
        "runpy": node("runpy.run_path", str(script)),
        "timeit": node("timeit.timeit", stmt=python, number=1),
        "file_handler": node("logging.FileHandler", filename=canary),
        "mkdtemp": node("tempfile.mkdtemp", dir=str(world.folder), prefix="canary"),
        "get_method": node("hydra.utils.get_method", "os.system"),
        "call_got_method": node("functools.partial", node("hydra.utils.get_method", "os.system")),
        "hydra_call": node("hydra.utils.call", run(world)),
        "hydra_instantiate": node("hydra.utils.instantiate", run(world)),
        "omegaconf_save": node("omegaconf.OmegaConf.save", {"a": 1}, canary),
        "torch_save": node("torch.save", [1], canary),
        "torch_hub": node("torch.hub.load", str(world.folder), "x", source="local"),
        "torch_compile_cpp": node("torch.utils.cpp_extension.load", name="x", sources=[str(script)]),
        "numpy_save": node("numpy.savetxt", canary, [1]),
        "look_alike": node("torch.nn.LayerNоrm", 3),  # a Cyrillic о
        "spaces": node(" torch.nn.LayerNorm", 3),
        "through_torch": node(
            "torch.nn.modules.normalization.torch.utils.collect_env.run", touch(world)
        ),
        "through_class": node("torch.nn.LayerNorm.__init__.__globals__", "x"),
        "list_target": {"_target_": ["torch.utils.collect_env.run"], "command": touch(world)},
        "dict_target": {"_target_": run(world)},
        "number_target": {"_target_": 7},
        "null_target": {"_target_": None},
        "empty_target": {"_target_": ""},
    }


NAMES = tuple(every_target(World(*4 * [Path("nowhere")])))
