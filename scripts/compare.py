"""The command `modgpt compare` from a clone: python scripts/compare.py --help."""

import sys

from modgpt.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
