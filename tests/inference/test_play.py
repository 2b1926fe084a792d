"""The page to play with: what it shows of every composition, and what its server refuses."""

from __future__ import annotations

import http.client
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modgpt.commands.play import main
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.errors import UserError
from modgpt.inference.generation import generate
from modgpt.inference.play import panels
from modgpt.inference.play.contributions import contributions, inputs_of
from modgpt.inference.play.panels import Player
from modgpt.inference.play.server import PlayServer
from modgpt.runs.folder import Run
from tests.compositions import alone, name_of, small_model

LETTERS = CharTokenizer("\n abcdefghij<>&")
TEXT = "abc bad cafe\ndeed fig <b> jade"


def player(name: str = "mine", **choices: str) -> Player:
    torch.manual_seed(0)
    model = small_model(choices, block_size=16, vocab_size=len(LETTERS)).eval()
    run = Run(path=Path(name), model=model, tokenizer=LETTERS, config=None, record=None)  # type: ignore
    return Player(run, name)


@pytest.mark.parametrize("choices", alone(), ids=name_of)
def test_contributions_add_up_to_what_the_attention_does(choices: dict[str, str]) -> None:
    """Weights times values are the output of `mix`; no token looks at a later one."""
    model = small_model(choices, block_size=64).eval()
    tokens = torch.arange(21)[None] % 7
    for block in model.blocks:
        attention = block.attention
        [x] = inputs_of(model, [attention], tokens)
        weights = contributions(attention, x, model.pos)  # (H,T,T)
        positions = torch.arange(21)
        pos = model.pos.of_layer(attention.layer)
        projected = attention.project(x, pos, positions)
        with torch.no_grad():
            wanted, _ = attention.mix(**projected, pos=pos, positions=positions, state=None)
        values = projected["v"][0]
        values = values.repeat_interleave(len(weights) // len(values), dim=0)
        assert torch.allclose(weights @ values, wanted[0], atol=1e-4)
        assert torch.equal(weights.triu(1), torch.zeros_like(weights))


@pytest.mark.parametrize("choices", alone(), ids=name_of)
def test_every_composition_has_a_picture(choices: dict[str, str]) -> None:
    found = player(**choices).look(TEXT, layer=1)
    json.dumps(found, allow_nan=False)
    assert len(found["heads"][0]) == len(found["tokens"]) and found["explained"]
    assert (found["experts"] is None) == (choices["ffn"] not in ("moe", "hybrid"))
    for gates in found["experts"] or []:
        assert sum(gate for _, gate in gates) == pytest.approx(1, abs=0.01)


def test_what_is_written_is_what_generate_writes() -> None:
    one = player(attention="flash", pos="rope")
    options = {"temperature": 0.7, "top_k": 5, "seed": 3, "max_new_tokens": 40}
    pieces = list(one.written("abc", **options))
    text = "".join(piece["text"] for piece in pieces)
    assert "abc" + text == generate(one.run.model, LETTERS, "abc", **options)  # type: ignore[arg-type]
    for piece in pieces:
        probabilities = [p for _, p in piece["probabilities"]]
        assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1.001
        assert piece["text"] in [token for token, _ in piece["probabilities"][:5]], "top-k"


@pytest.mark.parametrize("pos", ["rope", "learned", "alibi"])
def test_surprise_is_the_cross_entropy(pos: str) -> None:
    """Of a text within the window in one pass; of a longer one with half a window before each token."""
    one = player(pos=pos, attention="flash")
    ids = LETTERS.encode(TEXT)
    found = one.surprise(TEXT[:16])
    with torch.no_grad():
        logits = one.run.model(ids[None, :15])[0]
    wanted = F.cross_entropy(logits, ids[1:16], reduction="none").tolist()
    assert found["tokens"][0] == ["a", None]
    assert [nats for _, nats in found["tokens"][1:]] == pytest.approx(wanted, abs=1e-5)
    assert found["nats_per_token"] == pytest.approx(sum(wanted) / 15)
    assert found["bits_per_byte"] == pytest.approx(sum(wanted) / math.log(2) / 16)
    longer = one.surprise(TEXT)
    assert [token for token, _ in longer["tokens"]] == list(TEXT)
    assert all(nats > 0 for _, nats in longer["tokens"][1:])


def test_one_token_has_no_surprise() -> None:
    assert player().surprise("a")["nats_per_token"] is None


# --- the server -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[PlayServer]:
    players = [player("<b>first</b>"), player("second", ffn="moe", attention="linear")]
    with PlayServer(players, "127.0.0.1", 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def ask(server: PlayServer, path: str, question: Any, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_it_streams_a_text(server: PlayServer) -> None:
    status, raw = ask(server, "/write", {"run": 1, "prompt": "abc", "seed": 1, "max_new_tokens": 7})
    lines = [json.loads(line) for line in raw.splitlines()]
    assert status == 200 and len(lines) == 7 and all("probabilities" in line for line in lines)


@pytest.mark.parametrize(
    ("path", "question", "message"),
    [
        ("/write", {"run": 0, "prompt": "xyz"}, "does not know 'x', 'y', 'z'"),
        ("/write", {"run": 0, "prompt": "a", "temperature": -1}, "temperature must be 0"),
        ("/write", {"run": 0, "prompt": "a", "top_p": 2}, "top_p must lie in"),
        ("/write", {"run": 0, "prompt": "a", "seed": "1"}, "seed must be a number"),
        ("/write", {"run": 0, "prompt": "a", "max_new_tokens": 10**9}, "at most 2,000 tokens"),
        ("/write", {"run": 2, "prompt": "a"}, "there is no run 2"),
        ("/write", {"run": True, "prompt": "a"}, "run must be a whole number"),
        ("/surprise", {"run": 0, "text": ""}, "the text has no tokens"),
        ("/surprise", {"run": 0, "text": "a" * 20_001}, "at most 20,000 characters"),
        ("/surprise", {"run": 0}, "text must be a text"),
        ("/look", {"run": 0, "text": "a", "layer": 9}, "has layers 1 to 2, got 10"),
        ("/look", [1], "not a JSON object"),
        ("/look", b"{", "not JSON"),
        ("/look", b"[" * 100_000, "not JSON"),
        ("/nothing", {}, "there is no /nothing"),
    ],
)
def test_a_mistake_is_one_line(server: PlayServer, path: str, question: Any, message: str) -> None:
    status, raw = ask(server, path, question)
    error = json.loads(raw)["error"]
    assert status in (400, 404) and message in error and "\n" not in error


def test_other_sites_get_nothing(server: PlayServer) -> None:
    """Not by a form, not by a name that points here, not by a question without end."""
    question = {"run": 0, "text": "abc"}
    assert ask(server, "/surprise", question, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(server, "/surprise", question, Host="evil.example:80")[0] == 403
    assert ask(server, "/surprise", b"x" * 200_001)[0] == 400
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", "/")
    answer = connection.getresponse()
    page = answer.read().decode()
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "innerHTML" not in page and "http://" not in page and "https://" not in page


def test_an_address_that_is_taken_is_one_line(server: PlayServer) -> None:
    with pytest.raises(UserError, match=r"cannot listen on 127.0.0.1, port \d+: Address already in use"):
        PlayServer([], "127.0.0.1", server.server_port)
    with pytest.raises(UserError, match=r"cannot listen on 127.0.0.1, port 99999"):
        PlayServer([], "127.0.0.1", 99999)


def test_the_command_names_its_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--no-browser"]) == 2
    assert main(["a", "b", "c", "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert "the page shows one or two runs, got 3" in error and error.count("\n") == 2


def test_a_map_of_a_state_is_explained_as_one() -> None:
    assert player(attention="flash").look(TEXT, 0)["explained"] == panels.WEIGHTS
    assert player(attention="local_window").look(TEXT, 0)["explained"] == panels.WEIGHTS
    assert player(attention="gated_delta").look(TEXT, 0)["explained"] == panels.SIGNED
