"""Every recipe with every single part swapped: Hydra alone composes what fits together."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from modgpt.config.check import check_arguments
from modgpt.config.compose import compose_job
from modgpt.config.search import options, variants

SWAPPED = ("attention", "ffn", "norm", "pos", "block", "optimizer", "schedule", "data")


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_part_of_a_recipe_can_be_swapped(experiment: str) -> None:
    """One option of every group at a time is enough: the groups set nothing of each other."""
    listed = {group: options(group) for group in SWAPPED}
    for n in range(max(map(len, listed.values()))):
        swaps = {group: names[n % len(names)] for group, names in listed.items()}
        path = ["data.path=somewhere"] if swaps["data"] == "text" else []
        job = compose_job([f"experiment={experiment}", *map("=".join, swaps.items()), *path])
        config = job.config.copy()
        OmegaConf.resolve(config)
        config.trainer.precision = "32-true"  # what `auto` becomes
        check_arguments(config)
        assert swaps.items() <= job.choices.items()


def test_a_recipe_brings_its_own_variant_of_an_option() -> None:
    job = compose_job(["experiment=gpt2"])
    assert job.choices["ffn"] == "gpt2/standard"
    assert job.config.ffn.activation == "gelu_tanh" and job.config.ffn.bias


def test_variants_are_no_options() -> None:
    assert "gpt2/standard" in variants("ffn")
    assert not [option for option in options("ffn") if "/" in option]
