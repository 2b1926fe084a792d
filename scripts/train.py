"""Train a GPT composed from config groups: python scripts/train.py [overrides]."""

import sys

from modgpt.cli import main

if __name__ == "__main__":
    sys.exit(main())
