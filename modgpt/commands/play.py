"""A page to play with one or two runs: modgpt play [RUN …]."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser, add_device, add_trust

MOST_RUNS = 2


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="modgpt play",
        description="A page in your browser: text from one or two runs, the probabilities of the next "
        "token, the surprise at a text, and what every layer looks at.",
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN",
                        help="folder of a run, or two (default: the newest finished one)")  # fmt: skip
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument("--port", type=int, default=8765, help="default: 8765; 0 for a free one")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    add_device(parser)
    add_trust(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: play(parse_arguments(argv)))


def play(arguments: argparse.Namespace) -> int:
    """Load the runs and answer the page until Ctrl-C; returns the exit code."""
    # Only now: --help and a wrong flag need not wait for torch.
    from modgpt.config.trust import trust_package
    from modgpt.console import Output
    from modgpt.errors import UserError
    from modgpt.inference.device import pick_device
    from modgpt.inference.play.panels import Player
    from modgpt.inference.play.server import PlayServer
    from modgpt.runs.folder import load_run, newest_finished
    from modgpt.text import visible

    for package in arguments.trust:
        trust_package(package)
    folders = arguments.runs or [newest_finished(Path("outputs"))]
    if len(folders) > MOST_RUNS:
        raise UserError(f"the page shows one or two runs, got {len(folders)}")
    device = pick_device(arguments.device)
    players = []
    for folder in folders:
        run = load_run(folder)
        run.model.to(device).eval()
        players.append(Player(run, visible(folder.resolve().name)))
    with PlayServer(players, arguments.host, arguments.port) as server:
        Output().print(f"{server.address}   Ctrl-C ends it", highlight=False)
        if not arguments.no_browser:
            webbrowser.open(server.address)
        server.serve_forever()
    return 0
