"""The command `modgpt evaluate` from a clone: python scripts/evaluate.py --help."""

import sys

from modgpt.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
