"""``python -m chela``: the command ``chela``."""

from chela.commands import main

if __name__ == "__main__":
    main()
