"""The command `modgpt play` from a clone: python scripts/play.py --help."""

import sys

from modgpt.commands.play import main

if __name__ == "__main__":
    sys.exit(main())
