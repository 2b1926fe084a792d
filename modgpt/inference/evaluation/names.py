"""Short names for runs that are shown side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import OmegaConf

from modgpt.config.keys import SEEDS
from modgpt.runs.folder import Run
from modgpt.sweep.identity import job_hash


def names_of(runs: Sequence[Run]) -> list[str]:
    """The names of the runs' folders, or their paths where two have the same name."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def names_without_seed(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """For each run the name that it shares with all that differ from it in their seed alone.

    Runs of the same seed repeat one training and are no replicates: they keep their own names.
    """
    alike: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        alike.setdefault(hash_without_seed(run), []).append(index)
    groups = [
        group for group in alike.values() if len({runs[i].config.seed for i in group}) == len(group)
    ]
    stems = [re.sub(r"[-_]s(eed)?\d+(-.*)?$", "", names[group[0]]) for group in groups]
    shared = list(names)
    for group, stem in zip(groups, stems, strict=True):
        # Where a stem would name other runs as well, the group is named by its first run.
        clear = stems.count(stem) == 1 and stem not in names
        for index in group if len(group) > 1 else ():
            shared[index] = stem if clear else names[group[0]]
    told = told_apart(shared)
    return [f"{name}, {n} seeds" if (n := told.count(name)) > 1 else name for name in told]


def hash_without_seed(run: Run) -> str:
    """The hash of all settings that decide a training, without its seeds."""
    config = run.config.copy()
    for key in SEEDS:
        OmegaConf.update(config, key, 0)
    return job_hash(config, str(run.record and run.record.corpus_sha256))


def told_apart(names: Sequence[str]) -> list[str]:
    """The names without the hyphenated words that all of them begin or end with."""
    words = [name.split("-") for name in names]
    if len(set(names)) > 1:
        for end in (0, -1):
            while len({name[end] for name in words}) == 1 and min(map(len, words)) > 1:
                words = [name[1:] if end == 0 else name[:-1] for name in words]
    return ["-".join(name) for name in words]
