"""Names of the columns of the table of runs, and of the statuses in them."""

from __future__ import annotations

from modgpt.config.keys import KEYS, SEEDS, factor_keys

# Statuses of a run, as in its record.
FINISHED, RUNNING, INTERRUPTED = "finished", "running", "interrupted"
FAILED, DIVERGED = "failed", "diverged"
PARTIAL, SKIPPED, IMPORTED = "partial", "skipped", "imported"
STATUSES = (FINISHED, DIVERGED, FAILED, RUNNING, INTERRUPTED, PARTIAL, IMPORTED, SKIPPED)
# A run with one of these statuses is listed, but is no part of the design: it defines no factor.
OUTSIDE_DESIGN = (PARTIAL, IMPORTED, SKIPPED)

# The numbers of a run, in the order of the table; the headline metric comes first.
LOSS = "final_val_loss"
ACCURACY = "final_val_accuracy"  # of tasks with answers; plain text has none
COSTS = ("active_parameters", "flops_per_token", "tokens_per_second", "peak_memory_bytes")
BITS_PER_BYTE = "final_val_bits_per_byte"  # of texts: compares tokenizers
NUMBERS = (
    *(
        LOSS,
        BITS_PER_BYTE,
        ACCURACY,
        "final_step",
        "best_val_loss",
        "best_step",
        "parameters",
        "active_parameters",
    ),
    *("flops_per_token", "tokens_seen", "tokens_per_second", "wall_seconds", "peak_memory_bytes"),
)
# How and where a run was trained.
CONDITIONS = ("device", "attention_backend", "precision", "threads", "match")
# Columns that no table shows, in three kinds. Texts and numbers of the record:
HIDDEN_TEXTS = ("corpus_sha256", "git_revision", "started_at")
HIDDEN_NUMBERS = ("matched_hidden", "match_reference", "tokens_per_byte", "vocab_size")
# and what is derived: `latest_loss` is the loss of a run that has not finished, `command` repeats it.
HIDDEN = ("path", "command", "tokens_per_step", "latest_loss", *HIDDEN_TEXTS, *HIDDEN_NUMBERS)
# Keys that decide how a run is watched, or which jobs exist, but not what the model learns.
NOT_FACTORS = (frozenset(KEYS) - factor_keys()) | frozenset(SEEDS)
# No group or key of a run may have the name of one of our own columns.
OURS = frozenset(
    (
        *(
            "run",
            "status",
            "reason",
            "budget",
            "cell",
            "n",
            "mean",
            "low",
            "high",
            "sd",
            "behind",
            "may_be_best",
        ),
        *(*NUMBERS, *CONDITIONS, *HIDDEN),
    )
) - frozenset(KEYS)
