"""Sampling, going on past the window, and the scripts that show text."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pexpect
import pytest
import torch
from torch import Tensor

import modgpt.inference.generation
from modgpt import generate, load_run
from modgpt.config.compose import compose_job
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.inference.context import trained_context
from modgpt.inference.generation import stream
from modgpt.inference.sampling import sample
from modgpt.runs.folder import newest_finished
from modgpt.runs.record import RunRecord, write_record
from modgpt.training.loop import train
from tests.checkout import ROOT
from tests.compositions import alone, name_of, small_model

LETTERS = CharTokenizer("\nabcdefghij")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("choices", alone(), ids=name_of)
def test_text_goes_on_past_the_window(choices: dict[str, str]) -> None:
    """Greedy text over the decoding state is that of whole forward passes, as far as they agree."""
    model = small_model(choices, block_size=16)
    text = generate(model, LETTERS, "abc", max_new_tokens=40, temperature=0)
    assert len(text) == 43
    ids = LETTERS.encode("abc")[None]
    model.eval()
    with torch.no_grad():
        for _ in range(10):
            ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert text[:13] == LETTERS.decode(ids[0])


def test_the_last_half_is_read_anew() -> None:
    model = small_model({"pos": "learned", "attention": "flash"}, block_size=8)
    read: list[tuple[int, int]] = []
    original = model.decode

    def decode(tokens: Tensor, state):  # type: ignore[no-untyped-def]
        read.append((state.length, tokens.shape[1]))
        return original(tokens, state)

    model.decode = decode  # type: ignore[method-assign]
    out = list(stream(model, torch.zeros(1, 5, dtype=torch.long), lambda x: x.argmax(-1), 10))
    assert len(out) == 10
    assert read == [(0, 5), (5, 1), (6, 1), (7, 1), (0, 4), (4, 1), (5, 1), (6, 1), (7, 1), (0, 4)]


def test_what_was_read_anew_is_the_end_of_the_text() -> None:
    model = small_model({"pos": "learned"}, block_size=8).eval()
    prompt = LETTERS.encode("abcdefghijabc")[None]  # longer than the table
    (token,) = stream(model, prompt, lambda x: x.argmax(-1), 1)
    with torch.no_grad():
        assert token == model(prompt[:, -4:])[0, -1].argmax()


@pytest.mark.parametrize(
    ("attention", "pos", "bounded"),
    [
        ("flash", "rope", True),
        ("flash", "sinusoidal", True),
        ("flash", "learned", True),
        ("flash", "alibi", False),
        ("local_window", "rope", False),
        ("local_window", "sinusoidal", True),
        ("linear", "rope", True),
        ("linear", "alibi", False),
        ("flash", "none", True),
        ("local_window", "none", False),
    ],
)
def test_trained_context(attention: str, pos: str, bounded: bool) -> None:
    model = small_model({"attention": attention, "pos": pos}, block_size=16)
    assert trained_context(model) == (16 if bounded else None)


def test_state_of_bounded_attention_stays_small() -> None:
    for attention in ("local_window", "linear"):
        model = small_model({"attention": attention, "pos": "alibi"}).eval()
        sizes = []
        state = model.initial_state(1, 200)
        with torch.no_grad():
            for _ in range(60):
                _, state = model.decode(torch.zeros(1, 1, dtype=torch.long), state)
                sizes.append(state.nbytes)
        assert sizes[10] == sizes[-1]


@pytest.mark.parametrize("choices", [
    {"attention": "flash", "pos": "alibi"},
    {"attention": "sparse", "pos": "alibi"},
    {"attention": "bigbird", "pos": "alibi"},
    {"attention": "local_window", "pos": "rope"},
    {"attention": "linear", "pos": "alibi"},
], ids=name_of)  # fmt: skip
def test_the_state_grows_with_the_text(choices: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is made in steps, and the text is that of a state with room for everything."""
    model = small_model(choices, block_size=8)
    prompt, greedy = torch.zeros(2, 3, dtype=torch.long), lambda logits: logits.argmax(-1)
    whole = torch.stack(list(stream(model, prompt, greedy, 60, None)))
    monkeypatch.setattr(modgpt.inference.generation, "FIRST_ROOM", 1)
    assert torch.equal(torch.stack(list(stream(model, prompt, greedy, 60, None))), whole)


def test_memory_is_not_reserved_for_what_may_come() -> None:
    for choices, context in (({"pos": "alibi"}, None), ({}, 10**12), ({}, "auto")):
        model = small_model(choices)
        text = stream(
            model, torch.zeros(1, 3, dtype=torch.long), lambda x: x.argmax(-1), 10**12, context
        )  # type: ignore[arg-type]
        assert len(list(itertools.islice(text, 300))) == 300


def test_a_context_past_the_table_of_positions_is_refused() -> None:
    model = small_model({"pos": "learned"}, block_size=8)
    for context, asked in ((9, "9 tokens"), (None, "no limit")):
        with pytest.raises(ValueError, match=f"a table of 8 positions: its context cannot have {asked}"):
            generate(model, LETTERS, "a", max_new_tokens=1, context=context)
    assert len(generate(model, LETTERS, "a", max_new_tokens=20, context=8)) == 21
    assert len(generate(model, LETTERS, "abc", max_new_tokens=20, context=1)) == 23


LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])


def draws(n: int = 4000, **options: float) -> Counter[int]:
    rows = LOGITS.expand(n, -1)
    return Counter(sample(rows, generator(), **({"temperature": 1.0} | options)).tolist())  # type: ignore[arg-type]


def test_temperature() -> None:
    assert set(draws(temperature=0)) == {0}
    for temperature in (0.5, 1.0, 2.0):
        wanted = (LOGITS[0] / temperature).softmax(-1)
        got = draws(temperature=temperature)
        for i in range(4):
            assert got[i] / 4000 == pytest.approx(wanted[i].item(), abs=0.03)


def test_top_k() -> None:
    assert set(draws(top_k=1)) == {0}
    assert set(draws(top_k=2)) == {0, 1}
    assert set(draws(top_k=100)) == {0, 1, 2, 3}


def test_top_p() -> None:
    probabilities = LOGITS[0].softmax(-1)  # 0.64, 0.24, 0.09, 0.03
    assert set(draws(top_p=0.5)) == {0}
    assert set(draws(top_p=0.7)) == {0, 1}, "the token that crosses p belongs to it"
    assert set(draws(top_p=0.95)) == {0, 1, 2}
    got, kept = draws(top_p=0.7), probabilities[:2] / probabilities[:2].sum()
    assert got[0] / 4000 == pytest.approx(kept[0].item(), abs=0.03), "renormalised"


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-24])  # torch.rand's lowest and highest among them
def test_what_has_no_probability_is_never_drawn(u: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, u))
    logits = torch.full((1, 65), float("-inf"))
    logits[0, [3, 40]] = torch.tensor([1.0, -30.0])
    assert sample(logits, generator(), temperature=1.0).item() in (3, 40)
    assert sample(LOGITS, generator(), temperature=1.0, top_k=1).item() == 0


def test_seeds() -> None:
    model = small_model({})
    texts = [generate(model, LETTERS, "a", max_new_tokens=30, seed=s) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    before = torch.get_rng_state()
    generate(model, LETTERS, "a", max_new_tokens=5)
    assert torch.equal(before, torch.get_rng_state()), "the global generator is left alone"


def test_the_training_mode_is_restored() -> None:
    model = small_model({})
    for mode in (True, False):
        model.train(mode)
        generate(model, LETTERS, max_new_tokens=2)
        assert model.training is mode


def test_parts_at_hand_are_put_back() -> None:
    """Also after an end that comes early, and with one text inside another."""
    model, prompt = small_model({}), torch.zeros(1, 1, dtype=torch.long)
    before = {name: set(vars(module)) for name, module in model.named_modules()}

    def texts() -> tuple[list[int], list[int]]:
        outer, inner = [], []
        for token in stream(model, prompt, lambda logits: logits.argmax(-1), 5):
            assert inner or "qkv" in vars(model.blocks[0].attention)
            outer.append(int(token))
            if not inner:
                more = stream(model, prompt, lambda logits: logits.argmax(-1), 5)
                inner += [int(next(more)), *map(int, more)]
        return outer, inner

    outer, inner = texts()
    assert outer == inner
    begun = stream(model, prompt, lambda logits: logits.argmax(-1), 5)
    next(begun)
    begun.close()
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": -1.0}, r"temperature must be 0 \(greedy\) or a positive number, got -1.0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, got -1"),
        ({"prompt": "xyz"}, "not in the vocabulary of 11 characters: 'x', 'y', 'z'"),
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        generate(small_model({}), LETTERS, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A run of a few steps: what it writes does not matter, that it does."""
    folder = tmp_path_factory.mktemp("outputs")
    sizes = ["model.d_model=32", "model.n_layers=1", "model.n_heads=2", "model.block_size=16"]
    words = corpus.with_name("prompts.txt")
    words.write_text(corpus.read_text() + "The quick brown fox Once upon a time In Hello world\n" * 9)
    job = compose_job([
        "data=text", f"data.path={words}", f"output_dir={folder}", "run_name=run", *sizes,
        "trainer.max_steps=5", "schedule.warmup_steps=1", "trainer.accelerator=cpu", "threads=1",
    ])  # fmt: skip
    return train(job).folder


def script(*arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/generate.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip


def test_prompts_on_the_command_line(trained: Path) -> None:
    done = script("--run", str(trained), "--prompt", "to be", "or not", "--max-new-tokens", "20",
                  "--num-samples", "2", "--seed", "3")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("to be") >= 2 and done.stdout.count("or not") >= 2
    again = script("--run", str(trained), "--prompt", "to be", "or not", "--max-new-tokens", "20",
                   "--num-samples", "2", "--seed", "3")  # fmt: skip
    assert again.stdout == done.stdout


def test_without_a_prompt_five_samples_are_shown(trained: Path) -> None:
    file = trained / "checkpoints" / "last.ckpt"
    done = script("--checkpoint", str(file), "--max-new-tokens", "10", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    for prompt in ("The quick brown fox", "Once upon a time", "In the beginning", "Hello world"):
        assert prompt in done.stdout
    assert "no prompt" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--prompt", "€uro"], "lacks '€': leave them out, or give --on-unknown skip"),
        (["--temperature", "-1"], "temperature must be 0 (greedy) or a positive number"),
        (["--temperature", "hot"], "invalid float value: 'hot'"),
        (["--top-p", "2"], "top_p must lie in (0, 1], got 2.0"),
        (["--temperature", "nan"], "temperature must be 0 (greedy) or a positive number, got nan"),
        (["--top-k", "0"], "top_k must be at least 1, got 0"),
        (["--top-p", "nan"], "top_p must lie in (0, 1], got nan"),
        (["--context", "-1"], "--context must be at least 0 (no limit), got -1"),
        (["--seed", "-1"], "seed must lie between 0 and 9223372036854775807, got -1"),
        (["--seed", "99999999999999999999"], "seed must lie between 0 and"),
        (["--max-new-tokens", "-5"], "max_new_tokens must be at least 0, got -5"),
        (["--num-samples", "0"], "--num-samples must be at least 1, got 0"),
        (
            ["--prompt", "привет"],
            "lacks 'п', 'р', 'и', 'в', 'е', 'т': the prompt 'привет' has nothing else",
        ),
        (["--prompt", "привет", "--on-unknown", "skip"], "the prompt 'привет' has nothing else"),
        (["--prompt", "\x1b[2J€to"], "lacks '\\x1b', '[', '2', 'J', '€': leave them out"),
        (["--prompt", b"to \xff"], "lacks '\\udcff': leave them out, or give --on-unknown skip"),
        (["--device", "warp"], "no device 'warp' here"),
        (["--device", "meta"], "no device 'meta' here"),
        (["--checkpoint", "/no/such.ckpt"], "/no/such.ckpt"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
    ids=str,
)
def test_mistakes(arguments: list[str], text: str, trained: Path) -> None:
    source = [] if "--checkpoint" in arguments else ["--run", str(trained)]
    done = script(*source, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert text in done.stderr


def test_unknown_characters_can_be_skipped(trained: Path) -> None:
    done = script("--run", str(trained), "--prompt", "t€o", "--on-unknown", "skip",
                  "--max-new-tokens", "5")  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("to")
    assert done.stderr == "note: left out '€'\n"


def interactive(trained: Path) -> pexpect.spawn:
    command = [str(ROOT / "scripts/generate.py"), "--run", str(trained), "--max-new-tokens", "30"]
    child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=60, dimensions=(50, 100))
    child.expect("prompt> ")
    return child


def test_interactive_mode(trained: Path) -> None:
    child = interactive(trained)
    child.sendline("to be")
    child.expect("to be.*prompt> ")
    child.sendline("€")
    child.expect("lacks '€'")
    child.expect("prompt> ")
    child.sendline("clear")
    child.expect_exact("\x1b[2J")
    child.expect("prompt> ")
    child.sendline("quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.parametrize("leave", ["exit", "q", "ctrl-d", "ctrl-c"])
def test_ways_to_leave(trained: Path, leave: str) -> None:
    child = interactive(trained)
    if leave == "ctrl-d":
        child.sendeof()
    elif leave == "ctrl-c":
        child.sendintr()
    else:
        child.sendline(leave)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in (child.before or "")


def test_ctrl_c_while_generating_comes_back_to_the_prompt(trained: Path) -> None:
    command = [str(ROOT / "scripts/generate.py"), "--run", str(trained), "--max-new-tokens", "60"]
    child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=60, dimensions=(50, 100))
    child.expect("prompt> ")
    child.sendline("to")
    child.expect("to")
    child.sendintr()
    child.expect("prompt> ")
    child.sendline("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in (child.before or "")


def test_the_newest_finished_run_is_taken(tmp_path: Path) -> None:
    for name, status, at in (("a", "finished", "2026-01-02"), ("b", "finished", "2026-01-03"),
                             ("c", "running", "2026-01-04"), ("d", "failed", "2026-01-05")):  # fmt: skip
        (tmp_path / "runs" / name).mkdir(parents=True)
        record = RunRecord(status=status, choices={}, overrides=[], seed=0, finished_at=at)  # type: ignore[arg-type]
        write_record(tmp_path / "runs" / name, record)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "result.json").write_text("not JSON")
    assert newest_finished(tmp_path).name == "b"
    with pytest.raises(ValueError, match="no finished run"):
        newest_finished(tmp_path / "e")


def test_load_run_says_what_is_missing(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ValueError, match="not the folder of a run"):
        load_run(tmp_path)
    write_record(tmp_path, RunRecord(status="running", choices={}, overrides=[], seed=0))
    with pytest.raises(ValueError, match="has no best or last checkpoint yet"):
        load_run(tmp_path)
    assert load_run(trained).record.finished
