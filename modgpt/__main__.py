"""`python -m modgpt`, the same as the command `modgpt`."""

import sys

from modgpt.cli import main

if __name__ == "__main__":
    sys.exit(main())
