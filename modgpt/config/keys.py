"""What each key of a configuration is: its type, and what depends on it.

One table, read by the check of types, by resume, by the identity of a job and by the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        type: of its value; None for a config group.
        recipe: belongs to what is trained. The others belong to one command: where to write, what to
            resume; a record does not keep them.
        identity: decides what the training computes, so that two jobs that differ in it are two jobs.
        factor: a comparison may ask what it changes.
        required: the group cannot be left out.
        several: the group takes a list of options, such as `logger=[default,mlflow]`.
    """

    type: Any = None
    recipe: bool = True
    identity: bool = True
    factor: bool = True
    required: bool = True
    several: bool = False


KEYS: dict[str, Key] = {
    # Parts of the model.
    "attention": Key(),
    "ffn": Key(),
    "norm": Key(),
    "pos": Key(),
    "block": Key(),
    # What else a training is made of.
    "model": Key(),
    "tokenizer": Key(),
    "data": Key(),
    "optimizer": Key(),
    "schedule": Key(),
    "trainer": Key(),
    "callbacks": Key(identity=False, factor=False, several=True),
    "logger": Key(identity=False, factor=False, several=True),
    "experiment": Key(required=False),
    "sweep": Key(recipe=False, identity=False, factor=False, required=False),
    # Plain keys.
    "seed": Key(int, factor=False),
    "init_from": Key(str | None),
    # The width that it leads to stands for `match` in the identity; the comparison has a column for it.
    "match": Key(str, identity=False, factor=False),
    "max_bytes": Key(int | None),
    # Techniques of the training (modgpt/training/techniques.py).
    "label_smoothing": Key(float),
    "z_loss": Key(float),
    "ema": Key(float),
    "tail_average": Key(float),
    "activation_checkpointing": Key(bool),
    "skip_spikes": Key(float),
    "max_skipped_steps": Key(int | None),
    # The same for all jobs of a sweep (`modgpt.sweep.settings`), so no two of its jobs differ in them.
    "threads": Key(int | None, identity=False, factor=False),
    "compile": Key(bool | None, identity=False, factor=False),
    "run_name": Key(str | None, recipe=False, identity=False, factor=False),
    "resume": Key(str | None, recipe=False, identity=False, factor=False),
    "output_dir": Key(str, recipe=False, identity=False, factor=False),
    "sweep_dir": Key(str, recipe=False, identity=False, factor=False),
    "sweep_name": Key(str | None, recipe=False, identity=False, factor=False),
    "job_folder": Key(str | None, recipe=False, identity=False, factor=False),
    "dry_run": Key(bool, recipe=False, identity=False, factor=False),
    "retry_failed": Key(bool, recipe=False, identity=False, factor=False),
}

# Keys that came later than the first runs, each with the value under which it changes nothing. With that
# value it is no part of a job's identity, and a saved configuration without the key means the same.
LATER: dict[str, Any] = {
    "label_smoothing": 0.0,
    "z_loss": 0.0,
    "ema": 0.0,
    "tail_average": 0.0,
    "activation_checkpointing": False,
    "skip_spikes": 0.0,
    "max_skipped_steps": None,
}

# Keys inside groups that place or watch a run and leave its weights and losses as they are.
# The digest of the corpus stands for its path. A cache changes no token.
NOT_IDENTITY = (
    "data.path", "data.data_dir", "tokenizer.cache_dir",
    "trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar",
    "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.num_sanity_val_steps",
)  # fmt: skip

# Callbacks that watch a training and do not change it. Any other belongs to the identity of a job.
WATCHING = (
    *("lightning.pytorch.callbacks.ModelCheckpoint", "lightning.pytorch.callbacks.LearningRateMonitor"),
    *("lightning.pytorch.callbacks.DeviceStatsMonitor", "lightning.pytorch.callbacks.TQDMProgressBar"),
    *("modgpt.training.callbacks.progress.ProgressBar", "modgpt.training.callbacks.sample.Sample"),
    "modgpt.training.callbacks.profiler.Profiler",
)

# The seed of everything; those of the initial weights and of the training data, which follow it.
SEEDS = ("seed", "model.seed", "data.seed")

# The groups that make the model; a run keeps them from its first step on.
PARTS = ("attention", "ffn", "norm", "pos", "block")
MOST_LEVELS = 12  # of a key that is no part, before its values are a search


def command_keys() -> frozenset[str]:
    """The keys that belong to one command and not to the recipe."""
    return frozenset(name for name, key in KEYS.items() if not key.recipe)


def factor_keys() -> frozenset[str]:
    """The keys that a comparison may ask about."""
    return frozenset(name for name, key in KEYS.items() if key.factor)


def group_order(group: str) -> tuple[int, str]:
    """A key for sorting groups: parts of the model first, the others by name."""
    return (PARTS.index(group) if group in PARTS else len(PARTS), group)


def is_designed(key: str, levels: int) -> bool:
    """Whether the values of a key are a factor of a designed experiment.

    More than a dozen are a search, unless they are the options of a part, which are compared by name.
    """
    return key in PARTS or levels <= MOST_LEVELS
