"""`python scripts/show.py` in a checkout is the command `chela show`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("show", sys.argv[1:])
