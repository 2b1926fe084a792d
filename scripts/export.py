"""The command `modgpt export` from a clone: python scripts/export.py --help."""

import sys

from modgpt.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
