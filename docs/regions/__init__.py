"""The kinds of generated parts in the documentation: a function each, from words to Markdown."""

from __future__ import annotations

from collections.abc import Callable

from regions.commands import chat_commands, commands, flags
from regions.configs import combinations, count, definition, jobs, keys, knobs, options, parts, yaml_of
from regions.packages import packages
from regions.results import differences
from regions.sizes import attention_costs, ffn_sizes, model_sizes
from regions.source import code, fields
from regions.tasks import task, tasks

KINDS: dict[str, Callable[..., str]] = {
    "code": code,
    "definition": definition,
    "yaml": yaml_of,
    "fields": fields,
    "parts": parts,
    "options": options,
    "knobs": knobs,
    "keys": keys,
    "count": count,
    "combinations": combinations,
    "jobs": jobs,
    "attention_costs": attention_costs,
    "ffn_sizes": ffn_sizes,
    "model_sizes": model_sizes,
    "commands": commands,
    "flags": flags,
    "chat_commands": chat_commands,
    "packages": packages,
    "task": task,
    "tasks": tasks,
    "differences": differences,
}
