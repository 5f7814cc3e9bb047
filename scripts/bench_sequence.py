"""`python scripts/bench_sequence.py` in a checkout is the command `chela bench-sequence`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("bench-sequence", sys.argv[1:])
