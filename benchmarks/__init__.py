"""Measurements of the product itself, printed by scripts/benchmark.py."""
