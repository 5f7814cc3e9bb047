"""`python scripts/bench_kernels.py` in a checkout is the command `chela bench-kernels`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("bench-kernels", sys.argv[1:])
