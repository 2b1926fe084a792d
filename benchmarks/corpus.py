"""Reading and encoding of large texts: speed, memory, and the time of a later start.

python -m benchmarks.corpus                 speed of encoding, beside the library alone and nanoGPT's way
python -m benchmarks.corpus --megabytes 2000 --tokenizer char    one large text: memory and both starts
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from modgpt.data.datamodule import TextDataModule
from modgpt.data.sources.shakespeare import prepare_shakespeare
from modgpt.data.tokenizers.bpe import bpe_tokenizer
from modgpt.data.tokenizers.byte import ByteTokenizer
from modgpt.data.tokenizers.char import CharTokenizer

MEGABYTE = 10**6


def write_text(path: Path, megabytes: int) -> None:
    """A text of so many megabytes: Tiny Shakespeare again and again, each time with its number."""
    play = prepare_shakespeare(Path("data")).read_text(encoding="utf-8")
    with path.open("w", encoding="utf-8") as file:
        for number in range(megabytes * MEGABYTE // len(play)):
            file.write(f"\n\n{number}\n\n{play}")


def start(path: Path, cache: Path, tokenizer: str) -> dict[str, float]:
    """One start of a data module in this process: seconds, and the memory beyond that before it."""
    make = {
        "char": CharTokenizer.from_text,
        "byte": ByteTokenizer.for_text,
        "bpe": partial(bpe_tokenizer, vocab_size=1024, cache_dir=str(cache)),
    }
    memory = psutil.Process().memory_info()
    data = TextDataModule(
        path=str(path), field="text", cache_dir=str(cache), tokenizer=make[tokenizer],
        batch_size=32, eval_batch_size=64, block_size=64, seed=0,
    )  # fmt: skip
    begun = time.perf_counter()
    with PeakMemory() as watched:
        data.load()
        for index in range(100):
            data.training_batches().batch(index)
    seconds = time.perf_counter() - begun
    above = watched.peak - (memory.rss - memory.shared)
    return {"seconds": seconds, "tokens": len(data.parts["train"].ids), "MB above": above / MEGABYTE}


class PeakMemory:
    """The peak of this process's own memory in bytes, files that are mapped into memory left out."""

    def __enter__(self) -> PeakMemory:
        self.peak, self.running = 0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()

    def watch(self) -> None:
        while self.running:
            memory = psutil.Process().memory_info()
            self.peak = max(self.peak, memory.rss - memory.shared)
            time.sleep(0.005)


def large(megabytes: int, tokenizer: str) -> list[dict[str, object]]:
    """The first and the second start on one large text, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt", megabytes)
        rows = []
        for which in ("first", "second"):
            command = [sys.executable, "-m", "benchmarks.corpus", "--start", str(folder), tokenizer]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"start": which, "text MB": megabytes, **json.loads(done.stdout)})
        return rows


def speeds(megabytes: int = 50) -> list[dict[str, object]]:
    """Megabytes per second of encoding, by tokenizer and way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt", megabytes)
        text = (folder / "text.txt").read_text(encoding="utf-8")
        start(folder / "text.txt", folder / "cache", "bpe")  # trains the tokenizer
        for path in (folder / "cache").glob("tokens-*/*"):
            path.unlink()
        [file] = (folder / "cache").glob("tokenizer-bpe-*.json")
        library = json.loads(file.read_text())["tokenizer"]
        rows = []
        for tokenizer in ("char", "byte", "bpe"):
            seconds = start(folder / "text.txt", folder / "cache", tokenizer)["seconds"]
            rows.append(
                {"tokenizer": tokenizer, "way": "modgpt, all of it", "MB/s": megabytes / seconds}
            )
        rows.append({"tokenizer": "char", "way": "nanoGPT's", "MB/s": megabytes / nanogpt(text, folder)})
        seconds = alone(text, library)
        rows.append({"tokenizer": "bpe", "way": "tokenizers alone", "MB/s": megabytes / seconds})
        return rows


def nanogpt(text: str, folder: Path) -> float:
    """Seconds of nanoGPT's way for characters: a list of ids, an array, a file."""
    begun = time.perf_counter()
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    cut = int(len(text) * 0.9)
    for part, name in ((text[:cut], "train"), (text[cut:], "val")):
        np.array([ids[character] for character in part], dtype=np.uint16).tofile(folder / f"{name}.bin")
    return time.perf_counter() - begun


def alone(text: str, description: dict[str, object]) -> float:
    """Seconds of the library tokenizers for the lines of the text, on all cores, ids thrown away."""
    import tokenizers

    fast = tokenizers.Tokenizer.from_str(json.dumps(description))
    pieces = [text[at : at + 2**20] for at in range(0, len(text), 2**20)]
    begun = time.perf_counter()
    for at in range(0, len(pieces), 8):
        fast.encode_batch_fast(pieces[at : at + 8])
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, help="of one large text")
    parser.add_argument("--tokenizer", choices=("char", "byte", "bpe"), default="char")
    parser.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        folder, tokenizer = arguments.start
        print(json.dumps(start(Path(folder) / "text.txt", Path(folder) / "cache", tokenizer)))
        return
    rows = large(arguments.megabytes, arguments.tokenizer) if arguments.megabytes else speeds()
    table = Table(*map(str, rows[0]), header_style="bold")
    for row in rows:
        table.add_row(*(f"{v:,.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
