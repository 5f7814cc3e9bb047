"""`python scripts/upload.py` in a checkout is the command `chela upload`."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("upload", sys.argv[1:])
