"""`python scripts/efficiency.py` in a checkout is the command `chela efficiency`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("efficiency", sys.argv[1:])
