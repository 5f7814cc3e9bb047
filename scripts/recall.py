"""`python scripts/recall.py` in a checkout is the command `chela recall`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("recall", sys.argv[1:])
