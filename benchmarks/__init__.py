"""Measurements of the product, printed by scripts/benchmark.py."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
