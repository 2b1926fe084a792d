"""The command `modgpt query` from a clone: python scripts/query.py --help."""

import sys

from modgpt.commands.query import main

if __name__ == "__main__":
    sys.exit(main())
