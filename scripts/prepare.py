"""`python scripts/prepare.py` in a checkout is the command `chela prepare`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("prepare", sys.argv[1:])
