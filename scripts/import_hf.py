"""The command `modgpt import` from a clone: python scripts/import_hf.py --help."""

import sys

from modgpt.commands.import_hf import main

if __name__ == "__main__":
    sys.exit(main())
