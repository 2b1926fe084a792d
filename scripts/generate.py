"""The command `modgpt generate` from a clone: python scripts/generate.py --help."""

import sys

from modgpt.commands.generate import main

if __name__ == "__main__":
    sys.exit(main())
