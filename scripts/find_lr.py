"""The command `modgpt find-lr` from a clone: python scripts/find_lr.py --help."""

import sys

from modgpt.commands.find_lr import main

if __name__ == "__main__":
    sys.exit(main())
