"""Designs of sweeps and the identity of jobs."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from modgpt.config.compose import compose_job
from modgpt.errors import UserError
from modgpt.sweep.design import expand
from modgpt.sweep.identity import job_hash, job_name

DEFAULTS = {"attention": "flash", "ffn": "swiglu"}


def jobs(*overrides: str, design: str = "grid") -> list[list[str]]:
    return expand(OverridesParser.create().parse_overrides(list(overrides)), design, DEFAULTS)


def test_a_grid_crosses_everything() -> None:
    got = jobs("attention=flash,linear", "ffn=moe", "seed=1,2")
    assert got == [
        ["attention=flash", "ffn=moe", "seed=1"],
        ["attention=flash", "ffn=moe", "seed=2"],
        ["attention=linear", "ffn=moe", "seed=1"],
        ["attention=linear", "ffn=moe", "seed=2"],
    ]


def test_one_at_a_time_changes_one_and_crosses_seeds() -> None:
    got = jobs("attention=linear,flash", "ffn=standard,swiglu,moe", "optimizer.lr=1,2", "seed=1,2",
               design="one_at_a_time")  # fmt: skip
    assert len(got) == 2 * (1 + 1 + 2 + 1)
    assert got[0] == ["attention=flash", "ffn=swiglu", "optimizer.lr=1", "seed=1"], "the baseline"
    for job in got:
        assert sum(a != b for a, b in zip(job[:3], got[0][:3], strict=True)) <= 1
    assert len({tuple(job) for job in got}) == len(got)


def test_one_at_a_time_crosses_the_seeds_of_weights_and_data() -> None:
    got = jobs("ffn=swiglu,moe", "model.seed=1,2", "data.seed=1,2", design="one_at_a_time")
    assert len(got) == 2 * 4 and len({tuple(job) for job in got}) == 8


def test_the_command_line_narrows_a_list() -> None:
    assert jobs("attention=flash,linear", "attention=linear") == [["attention=linear"]]


def test_ranges_and_unknown_designs() -> None:
    assert [job[0] for job in jobs("seed=range(1,4)")] == ["seed=1", "seed=2", "seed=3"]
    with pytest.raises(UserError, match="has no end"):
        jobs("optimizer.lr=interval(0,1)")
    with pytest.raises(UserError, match="must be grid or one_at_a_time, got 'star'"):
        jobs("seed=1", design="star")


def hash_of(*overrides: str, digest: str = "corpus") -> str:
    return job_hash(compose_job(overrides).config, digest)


@pytest.mark.parametrize(
    "change",
    ["seed=2", "ffn=moe", "optimizer.lr=1e-3", "trainer.max_steps=5", "model.dropout=0.1", "pos.theta=5",
     "norm@attention.qk_norm=rmsnorm", "data.batch_size=3"],
)  # fmt: skip
def test_what_makes_another_job(change: str) -> None:
    assert hash_of(change) != hash_of()


@pytest.mark.parametrize(
    "change",
    ["run_name=x", "output_dir=/x", "logger=none", "callbacks=none", "threads=1", "sweep_name=y",
     "trainer.accelerator=cpu", "data.data_dir=/elsewhere", "hydra/launcher=basic", "dry_run=true",
     "trainer.log_every_n_steps=3"],
)  # fmt: skip
def test_what_leaves_a_job_the_same(change: str) -> None:
    assert hash_of(change) == hash_of()


def test_the_corpus_belongs_to_the_identity() -> None:
    assert hash_of(digest="other") != hash_of()


def test_names_tell_the_choices() -> None:
    job = compose_job(["ffn=moe", "pos=alibi", "seed=7"])
    name = job_name(job.choices, job.config, "corpus")
    assert name.startswith("flash-moe-rmsnorm-alibi-s7-") and len(name.split("-")[-1]) == 8
    crossed = compose_job(["model.seed=7", "data.seed=8"])
    assert "-rope-m7-d8-" in job_name(crossed.choices, crossed.config, "corpus")
    preset = compose_job(["experiment=olmo2"])  # of the very parts of experiment=llama
    name = job_name(preset.choices, preset.config, "corpus")
    assert name.startswith("olmo2-flash-swiglu-rmsnorm-rope-s1-")
