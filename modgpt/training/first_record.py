"""The record of a run that begins or goes on: all that is known before the first step."""

from __future__ import annotations

from dataclasses import replace

from modgpt.config.keys import command_keys
from modgpt.config.overrides import parse_one
from modgpt.runs.provenance import git_revision, now, versions
from modgpt.runs.record import RunRecord
from modgpt.training.prepare import Prepared
from modgpt.training.resume import Resumed

# What a resumed run goes on with.
KEPT = (
    *("final_val_loss", "final_val_bits_per_byte", "final_val_accuracy", "final_step"),
    *("final_val_windows", "best_val_loss", "best_val_windows", "best_step"),
    *("tokens_seen", "skipped_steps", "wall_seconds", "started_at"),
)
MATCHED = ("match", "matched_hidden", "match_reference")


def first_record(prepared: Prepared, resumed: Resumed | None) -> RunRecord:
    """The record of a run that begins or goes on, all that is known before the first step."""
    job, cfg, cost, matched = prepared.job, prepared.config, prepared.cost, prepared.matched
    kept = [o for o in job.overrides if parse_one(o).key_or_group not in command_keys()]
    begun = RunRecord(
        status="running",
        choices=job.choices,
        overrides=kept,
        seed=cfg.seed,
        init_from=cfg.init_from,
        parameters=cost.parameters,
        active_parameters=cost.active_parameters,
        match=matched.quantity if matched else "none",
        matched_hidden=matched.hidden if matched else None,
        match_reference=matched.reference if matched else None,
        flops_per_token=cost.flops,
        threads=cfg.threads,
        precision=str(cfg.trainer.precision),
        compiled=cfg.compile,
        vocab_size=cfg.model.vocab_size,
        corpus_sha256=prepared.data.digest,
        tokens_per_character=prepared.data.tokens_per_character,
        tokens_per_byte=None if prepared.data.has_answers else prepared.data.tokens_per_byte,
        started_at=now(),
        versions=versions(),
        git_revision=git_revision(),
    )
    if resumed is None:
        return begun
    earlier = {name: getattr(resumed.record, name) for name in KEPT}
    if resumed.record.match != "none":  # the width is in the saved configuration since
        earlier |= {name: getattr(resumed.record, name) for name in MATCHED}
    steps = [*resumed.record.resumed_at_steps, resumed.step]
    return replace(begun, **earlier, resumed_at_steps=steps)
