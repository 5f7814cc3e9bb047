"""`python scripts/report.py` in a checkout is the command `chela report`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("report", sys.argv[1:])
