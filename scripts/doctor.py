"""`python scripts/doctor.py` in a checkout is the command `chela doctor`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("doctor", sys.argv[1:])
