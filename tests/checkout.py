"""Where this checkout is, for tests that run its scripts."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
