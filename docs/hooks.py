"""What mkdocs needs beside its configuration: the pages at their places in the tree.

A page links to what it speaks of as on disk: other pages, also outside of ``docs/``, records, files
of the configuration. So the site has them at the same places, and ``mkdocs build --strict`` checks
the links that a reader of the tree follows.
"""

from __future__ import annotations

import re
from pathlib import Path

import keys
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "outputs/README.md")
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")  # of Markdown, to a file


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages, and the files that they link to."""
    pages = [*(ROOT / page for page in PAGES), *sorted((ROOT / "docs").rglob("*.md"))]
    linked = {
        (page.parent / to).resolve() for page in pages for to in LINK.findall(page.read_text())
    }
    inside = (each for each in linked if each.is_file() and each.is_relative_to(ROOT))
    wanted = sorted({each.relative_to(ROOT) for each in (*pages, *inside, ROOT / "docs/site.css")})

    def file(path: Path) -> File:
        return File(str(path), str(ROOT), config.site_dir, config.use_directory_urls)

    theme = [each for each in files if each.src_dir != config.docs_dir]
    made = File.generated(config, "docs/keys.md", content=keys.page())
    return Files([*theme, *map(file, wanted), made])
