"""`python scripts/costs.py` in a checkout is the command `chela costs`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("costs", sys.argv[1:])
