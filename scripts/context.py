"""`python scripts/context.py` in a checkout is the command `chela context`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("context", sys.argv[1:])
