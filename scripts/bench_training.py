"""`python scripts/bench_training.py` in a checkout is the command `chela bench-training`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("bench-training", sys.argv[1:])
