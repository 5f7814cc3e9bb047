"""Make the paper's table of the runs below some folders: `chela report outputs/`."""

import argparse
from collections.abc import Sequence

from chela.disk import given_folder
from chela.records.collect import OUTPUTS, collect
from chela.report.published import published
from chela.report.table import build
from tasks.errors import DataError
from tasks.screen import Screen


def main(arguments: Sequence[str]) -> None:
    """Read the records, write every format, show the table.

    Raises:
        ConfigError: a folder has an empty path.
        DataError: there is nothing to report, or an argument is none of the known ones.
    """
    parser = argparse.ArgumentParser(
        usage="chela report [FOLDER ...] [out=FOLDER]",
        description="Make the paper's table (Markdown, LaTeX, CSV, PNG, HTML) of local records.",
        epilog="To leave configurations out, name the run folders to read one by one.",
    )
    parser.add_argument(
        "given",
        nargs="*",
        metavar="FOLDER",
        help=f"a folder with runs below it (default: {OUTPUTS}); out=FOLDER says where to write "
        "(default: report/ inside the first)",
    )
    given = parser.parse_args(arguments).given
    settings = [each for each in given if each.startswith("out=")]
    named = [each for each in given if each not in settings]
    folders = [given_folder(each) for each in named or [OUTPUTS]]
    if len(settings) > 1:
        raise DataError("there is more than one out=FOLDER.\n  try: one of them")
    for folder in folders:
        if "=" in folder.name and not folder.exists():
            raise DataError(
                f"there is no setting {folder}; every format is written.\n"
                "  try: out=FOLDER says where"
            )
    out = settings[0].removeprefix("out=") if settings else folders[0] / "report"
    target = given_folder(out, "out=")
    report = build(collect(folders), published())

    # after the errors: drawing takes a while to import
    from chela.report.render import write
    from chela.report.terminal import terminal_tables, whole_width

    written = write(report, target)
    # where there is no terminal, a file's lines may be as long as the table needs
    console = Screen(max(160, whole_width(report)))
    for table in terminal_tables(report, console.width):
        console.print(table)
    for remark in report.remarks:
        console.print(remark, style="dim")
    for text, mark in report.marks.items():
        console.print(f"{mark}  {text}")
    for sentence in [*report.unfinished, *(f"{e.file}: {e.reason}" for e in report.unread)]:
        console.say(f"!  {sentence}")
    for file in written:
        console.say(str(file))
