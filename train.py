"""Train one model on one Long Range Arena task: `python train.py --help`; see chela.commands."""

import sys

from chela.commands import start

if __name__ == "__main__":
    start("train", sys.argv[1:])
