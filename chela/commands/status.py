"""The state of the runs and sweeps below a folder: `chela status outputs --watch`."""

import argparse
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.live import Live

from chela.records.collect import OUTPUTS
from chela.records.progress import overview
from tasks.errors import DataError
from tasks.screen import Screen


def main(arguments: Sequence[str]) -> None:
    """Show each run: waiting, preparing, running (step, time left), finished, failed (why), ...

    Reads the files in the runs' folders and nothing else, so that it can be called at any time,
    on any machine that sees the folder.

    Raises:
        DataError: there is no such folder.
    """
    parser = argparse.ArgumentParser(
        prog="chela status",
        description="Show the state of the runs and sweeps below an output_dir.",
    )
    parser.add_argument("folder", nargs="?", default=OUTPUTS, metavar="FOLDER", type=Path)
    parser.add_argument(
        "--watch",
        nargs="?",
        const=5.0,
        type=_seconds,
        metavar="SECONDS",
        help="show it anew every few seconds (5), until Ctrl-C",
    )
    parser.add_argument("--all", action="store_true", help="list what is finished, too")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        raise DataError(f"there is no folder {given.folder}\n  try: the output_dir of your runs")
    console = Screen(140)
    if given.watch is None:
        console.print(overview(given.folder, given.all, console.width))
        return
    with (
        Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live
    ):
        while not console.gone:
            shown = overview(given.folder, given.all, console.width)
            if live is None:
                console.print(shown)
            else:
                live.update(shown, refresh=True)
            time.sleep(given.watch)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600 seconds")
    return seconds
