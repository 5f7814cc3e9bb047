"""`python scripts/status.py` in a checkout is the command `chela status`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("status", sys.argv[1:])
