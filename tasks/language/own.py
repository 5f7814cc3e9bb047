"""Bytes of any text of one's own: a file, or all files of a folder.

A folder of three files or more is split by document, in a random order, and each document ends with
a NUL byte; a single file, or two, by share: the first nine tenths to train. The record says which.
The bytes are known by their checksum: another text under the same path is prepared anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Lt
from pydantic.dataclasses import dataclass

from tasks.errors import DataError
from tasks.language.corpus import (
    Corpus,
    Tokens,
    WindowsConfig,
    as_bytes,
    by_document,
    by_share,
    with_end,
)
from tasks.sources.archives import Source
from tasks.sources.files import opened, readable
from tasks.storage.meta import Origin

LARGEST = 1 << 31  # bytes of a text, which passes through memory as a whole
DOCUMENTS = 3  # files that are split by document


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class BytesConfig(WindowsConfig):
    """``configs/task/bytes.yaml`` says the same."""

    name: Literal["bytes"] = "bytes"
    path: str | None = None  # a file or a folder; counted from where the command is given
    pattern: str = "*"  # of the files' names in a folder: *.md
    data_seed: Annotated[int, Ge(0), Lt(2**63)] = 0  # of the split by document


class Bytes(Corpus):
    """A text of one's own."""

    Config = BytesConfig
    config: BytesConfig

    def origin(self) -> Origin:
        """The bytes, by their checksum, and how they are split.

        Raises:
            DataError: there is no such text.
        """
        digest = hashlib.sha256()
        for content in self._contents:
            digest.update(hashlib.sha256(content).digest())
        parameters = {"sha256": digest.hexdigest(), "files": len(self._contents)}
        if len(self._contents) < DOCUMENTS:
            parameters["split"] = "share"
        else:
            parameters |= {"split": "document", "data_seed": self.config.data_seed}
        return Origin(self.name, self.version, "own", parameters)

    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The files by document, or the one text by share."""
        path = str(self.config.path)
        if len(self._contents) < DOCUMENTS:
            return by_share(np.concatenate([as_bytes(each, path) for each in self._contents]))
        each = [with_end(content, path) for content in self._contents]
        return by_document(each, self.config.data_seed)

    @cached_property
    def _contents(self) -> list[bytes]:
        """Of the files in the order of their names; empty ones in a folder are passed over."""
        if self.config.path is None:
            raise DataError("task=bytes has no text.\n  try: task.path=<a file or a folder>")
        path = Path(self.config.path).expanduser()
        if not path.exists():
            raise DataError(
                f"task.path={path}: there is no such file or folder (seen from {Path.cwd()}).\n"
                "  try: the path of a text, or of a folder of texts"
            )
        if path.is_dir():
            members = Source(path.absolute()).members(self._wanted, LARGEST)
            contents = [content for _, stream in members if (content := stream.read())]
        else:
            with readable(path), opened(path, LARGEST) as stream:
                contents = [stream.read()]
        if not any(contents):
            what = f"has no file {self.config.pattern} with anything in it"
            what = what if path.is_dir() else "is empty"
            raise DataError(f"task.path={path} {what}.\n  try: the path of a text")
        return contents

    def _wanted(self, name: str) -> bool:
        return fnmatch(PurePosixPath(name).name, self.config.pattern)
