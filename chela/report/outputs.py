"""A report's files: every format, each written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from chela.records.files import atomic_file
from chela.report.latex import latex
from chela.report.markdown import markdown
from chela.report.page import page
from chela.report.picture import picture
from chela.report.report import Report
from chela.report.tidy import tidy


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``report.{md,tex,csv,png,html}`` into ``folder``, which is made if need be.

    Returns:
        The files, in this order.
    """
    contents = {
        "md": markdown(report).encode(),
        "tex": latex(report).encode(),
        "csv": tidy(report).encode(),
        "png": picture(report),
        "html": page(report).encode(),
    }
    for suffix, content in contents.items():
        with atomic_file(folder / f"report.{suffix}") as file:
            file.write(content)
    return [folder / f"report.{suffix}" for suffix in contents]
