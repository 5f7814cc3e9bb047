"""`python scripts/params.py` in a checkout is the command `chela params`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("params", sys.argv[1:])
