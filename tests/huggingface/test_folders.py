"""Folders of transformers: a run goes out and comes back, a model comes in and is fine-tuned."""

from __future__ import annotations

import csv
import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from omegaconf import open_dict

from modgpt import generate, load_run
from modgpt.commands.train import main
from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.tokenizers.pretrained import PretrainedTokenizer
from modgpt.data.tokenizers.saved import load_tokenizer
from modgpt.errors import UserError
from modgpt.huggingface.configs import match_architecture
from modgpt.huggingface.export import check_same_logits, export, tokenizer_class
from modgpt.huggingface.importing import import_folder
from modgpt.huggingface.tables import ARCHITECTURES
from modgpt.runs.saved import job_of
from modgpt.training.loop import Outcome, train
from tests.checkout import ROOT
from tests.huggingface.test_parity import SIZES, theirs

Overrides = Callable[..., list[str]]
PRESETS = list(dict.fromkeys(architecture.preset for architecture in ARCHITECTURES))


def script(name: str, *arguments: str) -> int:
    return runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["main"](list(arguments))


def run(arguments: list[str]) -> Outcome:
    return train(job_of(arguments))


def trained(overrides: Overrides, *more: str) -> Outcome:
    short = ["trainer.max_steps=4", "trainer.val_check_interval=4", "logger=none", "model.n_heads=4"]
    return run(overrides(*short, *more))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_goes_out_and_comes_back(
    preset: str, overrides: Overrides, tmp_path: Path
) -> None:
    outcome = trained(overrides, f"experiment={preset}")
    out, back = tmp_path / "out", tmp_path / "back"
    architecture = export(load_run(outcome.folder), out)
    assert architecture.preset == preset
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    opener = tokenizer_class(out, outcome.data.tokenizer)
    assert opener == ("PreTrainedTokenizerFast" if preset == "qwen2" else "AutoTokenizer")
    tokenizer = getattr(transformers, opener).from_pretrained(out)
    text = "to be¿ü\n that"
    ids = outcome.data.tokenizer.encode(text)
    assert tokenizer(text, add_special_tokens=False).input_ids == ids.tolist()
    assert tokenizer.decode(ids) == text
    run_again = load_run(outcome.folder)
    with torch.no_grad():
        wanted = run_again.model(ids[None])
        assert (model.eval()(ids[None]).logits - wanted).abs().max() <= 1e-5
        assert import_folder(out, back).preset == preset
        returned = load_run(back)
        assert torch.equal(returned.model(ids[None]), wanted)
    assert isinstance(returned.tokenizer, CharTokenizer)
    assert returned.tokenizer.vocabulary == outcome.data.tokenizer.vocabulary
    greedy = {"max_new_tokens": 20, "temperature": 0.0}
    assert generate(returned.model, returned.tokenizer, "to be", **greedy) == generate(
        run_again.model, run_again.tokenizer, "to be", **greedy
    )


def test_transformers_generates_what_we_do(overrides: Overrides, tmp_path: Path) -> None:
    outcome = trained(overrides, "experiment=llama", "trainer.max_steps=30")
    export(load_run(outcome.folder), tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("to be", return_tensors="pt", add_special_tokens=False).input_ids
    theirs_ = model.generate(ids, max_new_tokens=11, do_sample=False)  # within the window of 16
    found = load_run(outcome.folder)
    ours = generate(found.model, found.tokenizer, "to be", max_new_tokens=11, temperature=0.0)
    assert tokenizer.decode(theirs_[0]) == ours


# --- a model with a tokenizer of its own ----------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path, corpus: Path) -> Path:
    """A small GPT-2 with byte-level BPE, as from elsewhere; more rows in the embedding than tokens."""
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train([str(corpus)], vocab_size=280, special_tokens=["<|endoftext|>"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer)
    model = theirs("gpt2", SIZES["gpt2"][0] | {"vocab_size": len(fast) + 8})
    folder = tmp_path / "foreign"
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_a_foreign_model_is_imported_and_fine_tuned(
    foreign: Path, overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = tmp_path / "imported"
    assert script("import_hf", "--source", str(foreign), "--out", str(imported)) == 0
    assert "experiment=gpt2" in capsys.readouterr().out
    start = load_run(imported)
    theirs_ = transformers.AutoModelForCausalLM.from_pretrained(foreign).eval()
    fast = transformers.AutoTokenizer.from_pretrained(foreign)
    text = "to be or not to be: ¿ünï, that\n\nis"
    ids = start.tokenizer.encode(text)
    assert fast(text).input_ids == ids.tolist() and start.tokenizer.decode(ids) == text
    with torch.no_grad():
        assert (theirs_(ids[None]).logits - start.model(ids[None])).abs().max() <= 1e-5
    assert generate(start.model, start.tokenizer, "", max_new_tokens=5, seed=1)

    sizes = ("model.d_model", "model.n_layers", "model.n_heads", "model.block_size")
    arguments = [a for a in overrides("optimizer.lr=1e-3") if not a.startswith(sizes)]
    arguments += ["data.block_size=16", f"init_from={imported}", "model.dropout=0.1"]
    tuned, rows = run(arguments), len(start.tokenizer) + 8
    assert tuned.record.choices["ffn"] == "gpt2/standard" and tuned.record.vocab_size == rows
    assert tuned.module.model.dropout == 0.1
    # Bits per character are those of the characters, not of the tokens.
    held_out = tuned.data.tokens("validation")
    ratio = len(held_out) / len(start.tokenizer.decode(held_out))
    assert ratio < 0.6 and tuned.record.tokens_per_character == ratio
    with (tuned.folder / "metrics.csv").open(newline="") as file:
        last = [row for row in csv.DictReader(file) if row["val/bpc"]][-1]
    assert float(last["val/bpc"]) == pytest.approx(float(last["val/loss"]) / math.log(2) * ratio)
    assert load_run(tuned.folder).tokenizer.to_dict() == start.tokenizer.to_dict()

    # It resumes without the model it began from.
    (imported / "checkpoints" / "last.ckpt").unlink()
    longer = run([f"resume={tuned.folder}", "trainer.max_steps=33"])
    assert longer.record.final_step == 33 and longer.record.init_from == str(imported)


def test_fine_tuning_begins_with_the_weights(overrides: Overrides) -> None:
    """With a learning rate of 0 the weights at the end are those at the start."""
    base = trained(overrides, "ffn=standard", "norm@attention.qk_norm=rmsnorm", "ffn.hidden=40")
    plain = [a for a in overrides() if not a.startswith("model.")]
    arguments = [*plain, "trainer.max_steps=1", f"init_from={base.folder}"]
    tuned = run(
        [*arguments, "schedule.warmup_steps=0", "optimizer.lr=0", "model.block_size=8", "seed=5"]
    )
    before, after = base.module.model.state_dict(), tuned.module.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert tuned.record.init_from == str(base.folder)


def test_what_init_from_refuses(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = trained(overrides, "pos=learned")
    plain = [a for a in overrides() if not a.startswith("model.")]
    before = sorted(p.name for p in base.folder.parent.iterdir())
    text = tmp_path / "greek.txt"
    text.write_text("αβγ " * 500)
    for more, message in (
        (["ffn=moe"], "init_from keeps the architecture of"),
        (["model.n_layers=3"], "model.n_layers is 2 there, not 3"),
        (["model.block_size=8"], "model.block_size is 16 there, not 8"),
        ([f"data.path={text}"], "not in the vocabulary"),
    ):
        assert main([*plain, f"init_from={base.folder}", *more]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main([*plain, f"init_from={tmp_path}"]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    assert sorted(p.name for p in base.folder.parent.iterdir()) == before


# --- tokenizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
def test_an_exported_tokenizer_gives_the_same_ids(
    kind: str, overrides: Overrides, tmp_path: Path
) -> None:
    # 257: the corpus has few words, so the trained ones have few tokens besides the bytes.
    size = [] if kind == "byte" else ["tokenizer.vocab_size=257"]
    cache = [] if kind == "byte" else [f"tokenizer.cache_dir={tmp_path / 'cache'}"]
    outcome = trained(overrides, "experiment=llama", f"tokenizer={kind}", *size, *cache)
    run_ = load_run(outcome.folder)
    export(run_, tmp_path / "out")
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (" to be¿ü\r\n\0 that  😀", "e\u0301\n", "汉字"):
        ids = run_.tokenizer.encode(text).tolist()
        assert fast(text, add_special_tokens=False).input_ids == ids
        assert fast.decode(ids) == text
    import_folder(tmp_path / "out", tmp_path / "back")
    back = load_run(tmp_path / "back").tokenizer
    assert back.encode(text).tolist() == ids and len(back) == len(run_.tokenizer)


def test_text_streams_whole_characters(foreign: Path) -> None:
    """Byte-level tokens cut through characters, and hold the spaces before words."""
    description = json.loads((foreign / "tokenizer.json").read_text())
    tokenizer = load_tokenizer(description)
    assert isinstance(tokenizer, PretrainedTokenizer)
    text = " to be: ¿ünï € that"
    pieces = list(tokenizer.decode_stream(iter(tokenizer.encode(text)[:, None])))
    assert "".join(pieces) == text and "�" not in "".join(pieces)
    assert tokenizer.start == "<|endoftext|>"
    assert tokenizer.unknown(text) == []


def test_words_without_a_token_are_named() -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"to": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer = PretrainedTokenizer(json.loads(words.to_str()))
    assert tokenizer.unknown("x") == ["x"]


# --- errors ---------------------------------------------------------------------------------------


def test_what_export_refuses(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(overrides, "attention=linear").folder
    out = tmp_path / "out"
    for run_, to, message in (
        (folder, out, "attention is LinearAttention, not FlashAttention"),
        (tmp_path / "nothing", out, "is not the folder of a run"),
    ):
        assert script("export", "--run", str(run_), "--out", str(to)) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not out.exists()
    folder = trained(overrides, "run_name=llama").folder
    assert script("export", "--run", str(folder), "--out", str(out)) == 0
    before = {p: p.read_bytes() for p in out.iterdir()}
    assert script("export", "--run", str(folder), "--out", str(out)) == 2
    assert "exists: choose another folder" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in out.iterdir()} == before


def test_an_export_that_is_wrong_leaves_nothing(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_run(trained(overrides).folder)

    def wrong(ours: Any, theirs_: Any) -> None:
        with torch.no_grad():
            theirs_.lm_head.weight.add_(0.1)
        check_same_logits(ours, theirs_)

    monkeypatch.setattr("modgpt.huggingface.export.check_same_logits", wrong)
    with pytest.raises(UserError, match="logits differ by"):
        export(found, tmp_path / "out")
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_what_import_refuses(foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "imported"
    with pytest.raises(UserError, match="is no folder of a model: it has no config"):
        import_folder(tmp_path / "nothing", out)
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    with pytest.raises(UserError, match="activation_function='relu' has no counterpart"):
        import_folder(foreign, out)
    (foreign / "config.json").write_text(json.dumps(config))
    for file in foreign.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="no tokenizer that can be read"):
        import_folder(foreign, out)
    assert not out.exists()


def test_without_transformers_one_line_says_so(tmp_path: Path) -> None:
    """In a process that cannot import it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'transformers' else find(name, *a)\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/export.py"), "--run", "x", "--out", "y"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "error: this needs transformers: pip install -e '.[hf]'\n"


def test_a_run_older_than_a_knob_is_still_exported(tmp_path: Path) -> None:
    """Its config.yaml lacks the knob, so its parts have the default of their class."""
    cfg = compose(["experiment=llama", "model.d_model=32", "model.n_layers=1", "model.n_heads=2"])
    with open_dict(cfg):
        cfg.model.vocab_size = 11
        for knob in ("sinks", "output_gate", "clip_qkv"):
            del cfg.attention[knob]
        del cfg.norm.zero_centred, cfg.pos.scaling, cfg.pos.factor
    architecture, _ = match_architecture(cfg, build_model(cfg))
    assert architecture.preset == "llama"
    cfg.attention.softcap = 5.0
    with pytest.raises(UserError, match=r"attention\.softcap is 5\.0, not None"):
        match_architecture(cfg, build_model(cfg))
