"""The server of the page: this machine only, unless it is told otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from modgpt.errors import UserError
from modgpt.inference.play.panels import Player

PAGE = Path(__file__).with_name("page.html")
MOST_BYTES = 200_000  # of a request
HERE = ("127.0.0.1", "localhost", "[::1]")
# The page loads nothing and runs nothing but its own script; no other site may show it in a frame.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"

Answer = Callable[[dict[str, Any]], Any]


class PlayServer(ThreadingHTTPServer):
    """Answers the page's questions about some runs.

    Args:
        players: the runs.
        host, port: where it listens.

    Raises:
        UserError: the address cannot be used.
    """

    daemon_threads = True

    def __init__(self, players: Sequence[Player], host: str, port: int) -> None:
        self.players, self.host = players, host
        self.busy = threading.Lock()  # one question at a time: a model keeps a state while it writes
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"cannot listen on {host}, port {port}: {reason}; --port 0 finds a free one"
            ) from error

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return f"http://{self.host}:{self.server_port}/"

    def answers(self) -> dict[str, Answer]:
        """What each question is answered by."""
        return {
            "/write": lambda q: self.player(q).written(text_of(q, "prompt"), **options_of(q)),
            "/surprise": lambda q: self.player(q).surprise(text_of(q, "text")),
            "/look": lambda q: self.player(q).look(text_of(q, "text"), number_of(q, "layer")),
        }

    def player(self, question: dict[str, Any]) -> Player:
        """The run that a question is about."""
        index = number_of(question, "run")
        if not 0 <= index < len(self.players):
            raise UserError(f"there is no run {index}")
        return self.players[index]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PlayServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.is_from_here():
            return
        if self.path == "/":
            self.reply(200, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/runs":
            self.reply_json(200, [player.about() for player in self.server.players])
        else:
            self.reply_json(404, {"error": f"there is no {self.path[:100]}"})

    def do_POST(self) -> None:
        if not self.is_from_here():
            return
        answer = self.server.answers().get(self.path)
        if answer is None:
            return self.reply_json(404, {"error": f"there is no {self.path[:100]}"})
        # A form of another site cannot send this type without asking first.
        if self.headers.get_content_type() != "application/json":
            return self.reply_json(415, {"error": "questions are JSON"})
        with self.server.busy:
            try:
                found = answer(self.question())
                if isinstance(found, Iterator):
                    self.stream(found)
                else:
                    self.reply_json(200, found)
            except UserError as error:
                self.reply_json(400, {"error": str(error)})
            except (BrokenPipeError, ConnectionResetError):  # the page was closed, or asked to stop
                self.close_connection = True

    def question(self) -> dict[str, Any]:
        """The JSON object of the request.

        Raises:
            UserError: it is too large, or no JSON object.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self.close_connection = True
            raise UserError(f"a question has at most {MOST_BYTES:,} bytes")
        try:
            question = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise UserError("the question is not JSON") from None
        if not isinstance(question, dict):
            raise UserError("the question is not a JSON object")
        return question

    def stream(self, lines: Iterator[dict[str, Any]]) -> None:
        """Send one JSON object per line, each as soon as it is there; an error is the last line."""
        first = next(lines, None)  # a mistake in the question shows before the status is sent
        self.start(200, "application/x-ndjson", {"Transfer-Encoding": "chunked"})
        try:
            if first is not None:
                self.chunk(first)
            for line in lines:
                self.chunk(line)
        except UserError as error:
            self.chunk({"error": str(error)})
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, value: dict[str, Any]) -> None:
        raw = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def is_from_here(self) -> bool:
        """Whether the request names this server: a page of another name must not reach it.

        Else a site could give its own name the address of this machine, and read the answers.
        """
        host = self.headers.get("Host", "").rpartition(":")[0]
        if self.server.host in HERE and host not in HERE:
            self.reply_json(403, {"error": "this server answers this machine only"})
            return False
        return True

    def reply_json(self, status: int, value: Any) -> None:
        self.reply(status, "application/json", json.dumps(value).encode())

    def reply(self, status: int, kind: str, content: bytes) -> None:
        self.start(status, kind, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Security-Policy": POLICY, **headers}
        for name, value in {**headers, "X-Content-Type-Options": "nosniff"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Leave the terminal alone."""


def text_of(question: dict[str, Any], name: str) -> str:
    """A text of a question."""
    value = question.get(name)
    if not isinstance(value, str):
        raise UserError(f"{name} must be a text")
    return value


def number_of(question: dict[str, Any], name: str) -> int:
    """A whole number of a question."""
    value = question.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{name} must be a whole number")
    return value


def options_of(question: dict[str, Any]) -> dict[str, Any]:
    """The options of `Sampling` in a question."""
    found: dict[str, Any] = {}
    for name, kinds in (("temperature", (int, float)), ("top_k", (int,)), ("top_p", (int, float)),
                        ("seed", (int,)), ("max_new_tokens", (int,))):  # fmt: skip
        value = question.get(name)
        if value is None:
            continue
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UserError(f"{name} must be a number")
        found[name] = value
    return found
