"""`python scripts/bench_generation.py` in a checkout is the command `chela bench-generation`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("bench-generation", sys.argv[1:])
