"""The seeds of a run: one for everything, or one each for initial weights, data and dropout."""

from __future__ import annotations

from omegaconf import DictConfig

from modgpt.config.keys import SEEDS

SEED, WEIGHTS, DATA = SEEDS


def seed_label(seed: object, weights: object, data: object, dropout: bool) -> str:
    """`1` where all seeds agree, else `model 1, data 2`, with `dropout 3` where something is dropped.

    Runs of one combination with different labels are replicates. Runs with one label computed the same.

    Args:
        seed: `seed`, which dropout follows.
        weights: `model.seed`, of the initial weights.
        data: `data.seed`, of the training data and their order.
        dropout: whether the run drops anything; otherwise `seed` itself decides nothing more.
    """
    used = {"model": weights, "data": data} | ({"dropout": seed} if dropout else {})
    if len(set(map(str, used.values()))) == 1:
        return str(weights)
    return ", ".join(f"{name} {value}" for name, value in used.items())


def seed_in_name(cfg: DictConfig) -> str:
    """The seeds in the name of a run's folder: `s1`, else `m1-d2`."""
    label = seed_label(
        cfg.seed,
        cfg.model.get("seed", cfg.seed),
        cfg.data.get("seed", cfg.seed),
        bool(cfg.model.get("dropout")),
    )
    if " " not in label:
        return f"s{label}"
    return "-".join(part[0] + part.split()[1] for part in label.split(", "))
