"""The list of pieces, each in a process of its own, and the files that they fill."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.gpu import __doc__ as about
from benchmarks.gpu import equality, runs, speed
from benchmarks.gpu.page import page
from benchmarks.gpu.piece import Device, Piece, Result
from modgpt.files import replaced, write_json
from modgpt.runs.provenance import device_name, git_revision, now, versions

SECONDS = 540  # of one piece
# The most telling first.
PIECES: Mapping[str, Piece] = {
    "attention": partial(equality.options, "attention", False),
    "waiting": speed.waiting,
    "default recipe": partial(speed.recipe, "mini"),
    "attention, compiled": partial(equality.options, "attention", True),
    "ffn": partial(equality.options, "ffn", False),
    "pos": partial(equality.options, "pos", False),
    "norm": partial(equality.options, "norm", False),
    "block": partial(equality.options, "block", False),
    "resuming": runs.resuming,
    "packing": runs.packing,
    "out of memory": runs.out_of_memory,
    "nanogpt recipe": partial(speed.recipe, "nanogpt"),
    "time to loss": runs.time_to_loss,
    "small recipe": partial(speed.recipe, "small"),
    "launching": speed.steps_in_one_go,
    "batches": speed.batches,
    "flex": equality.flex,
    "flex by length": speed.flex_by_length,
    "ffn, compiled": partial(equality.options, "ffn", True),
    "pos, compiled": partial(equality.options, "pos", True),
    "norm, compiled": partial(equality.options, "norm", True),
    "block, compiled": partial(equality.options, "block", True),
    "grid": runs.grid,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), help="folder of both files")
    parser.add_argument("--only", nargs="+", choices=PIECES, default=list(PIECES), metavar="NAME",
                        help=f"these pieces alone: {', '.join(PIECES)}")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="run pieces again that are done")
    parser.add_argument("--piece", choices=PIECES, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.piece:
        result = PIECES[arguments.piece](Device.here())
        write_json(arguments.out / "piece.json", asdict(result))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = known(arguments.out / "gpu.json")
    for name in arguments.only:
        if name in found["pieces"] and not arguments.again:
            continue
        print(f"{name} …", flush=True)
        found["pieces"][name] = measured(name, arguments.out)
        print(f"  {found['pieces'][name]['outcome']}", flush=True)
        write_json(arguments.out / "gpu.json", found)
        with replaced(arguments.out / "gpu.md") as beside:
            beside.write_text(page(found, list(PIECES)), encoding="utf-8")
    print(arguments.out / "gpu.md")
    wrong = [
        n
        for n in arguments.only
        if found["pieces"][n]["outcome"] in ("failed", "broke", "over its time")
    ]
    if wrong:
        print(f"not as it should be: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def known(path: Path) -> dict[str, Any]:
    """What earlier calls found on this machine with this code; else a new beginning."""
    cuda = torch.cuda.is_available()
    here = {
        "device": device_name(torch.device("cuda" if cuda else "cpu")),
        "miniature": not cuda,
        "revision": git_revision(),
        "versions": versions(),
    }
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if all(before.get(key) == value for key, value in here.items()):
            return before
    return here | {"begun": now(), "pieces": {}}


def measured(name: str, out: Path) -> dict[str, Any]:
    """What a piece found, and the seconds it took."""
    start = time.perf_counter()
    if Device.here().is_cuda:
        result = in_a_process(name, out)
    else:
        try:
            result = asdict(PIECES[name](Device.here()))
        except Exception as error:  # whatever it is, the other pieces run
            result = asdict(Result("broke", note=f"{type(error).__name__}: {error}"[:500]))
    return result | {"seconds": time.perf_counter() - start}


def in_a_process(name: str, out: Path) -> dict[str, Any]:
    """Run a piece in a process, which may crash or take too long without harm to the others."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--piece", name, "--out", str(out.resolve())]
    file = out / "piece.json"
    file.unlink(missing_ok=True)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        result = asdict(Result("over its time", note=f"{SECONDS} s were not enough"))
    else:
        if file.exists():
            result = json.loads(file.read_text(encoding="utf-8"))
        else:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            result = asdict(Result("broke", note=last[:500]))
    file.unlink(missing_ok=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
