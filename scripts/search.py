"""`python scripts/search.py` in a checkout is the command `chela search`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("search", sys.argv[1:])
