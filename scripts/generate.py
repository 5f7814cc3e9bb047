"""`python scripts/generate.py` in a checkout is the command `chela generate`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("generate", sys.argv[1:])
