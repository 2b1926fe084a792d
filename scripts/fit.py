"""The command `modgpt fit` from a clone: python scripts/fit.py --help."""

import sys

from modgpt.commands.fit import main

if __name__ == "__main__":
    sys.exit(main())
