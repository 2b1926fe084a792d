"""Numbers with their nouns."""

from __future__ import annotations


def several(n: int, thing: str) -> str:
    """`1 job`, `1,200 jobs`."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"
