"""Bytes of any text of one's own: a file, or all files of a folder or in an archive.

Three files or more are split by document, in a random order, and each document ends with a NUL
byte; a single file, or two, by share: the first nine tenths to train. The record says which.
The bytes are known by their checksum: another text under the same path is prepared anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Len
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
from tasks.sources.archives import Source, is_archive
from tasks.sources.files import opened
from tasks.spec import Seed
from tasks.storage.meta import Origin

LARGEST = 1 << 31  # bytes of a text, which passes through memory as a whole
DOCUMENTS = 3  # files that are split by document


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class BytesConfig(WindowsConfig):
    """``configs/task/bytes.yaml`` says the same."""

    name: Literal["bytes"] = "bytes"
    # a file or a folder; counted from where the command is given
    path: Annotated[str, Len(1)] | None = None
    pattern: str = "*"  # of the files' names in a folder: *.md
    data_seed: Seed = 0  # of the split by document


class Bytes(Corpus):
    """A text of one's own."""

    version = 2
    Config = BytesConfig
    config: BytesConfig

    def origin(self) -> Origin:
        """The bytes, by their checksum, and how they are split.

        Raises:
            DataError: there is no such text.
        """
        files, digest = self._known
        parameters: dict[str, Any] = {"sha256": digest, "files": files}
        if files < DOCUMENTS:
            parameters["split"] = "share"
        else:
            parameters |= {"split": "document", "data_seed": self.config.data_seed}
        return Origin(self.name, self.version, "own", parameters)

    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The files by document, or the one text by share.

        Raises:
            DataError: they are others than when they were first looked at.
        """
        path, found = str(self.config.path), [*self._contents()]
        if _known_by(digest for digest, _ in found) != self._known:
            raise DataError(
                f"task.path={path} has changed while it was read.\n  try: again, when nothing "
                "writes there any more, or task.path=<a copy>"
            )
        if len(found) < DOCUMENTS:
            return by_share(np.concatenate([as_bytes(content, path) for _, content in found]))
        whole = [with_end(content, path) for _, content in found]
        return by_document(whole, self.config.data_seed)

    @cached_property
    def _known(self) -> tuple[int, str]:
        return _known_by(digest for digest, _ in self._contents())

    def _contents(self) -> Iterator[tuple[bytes, bytes]]:
        """Checksums and bytes of the files in order, but of empty ones among several and of copies.

        Copies and links would bring a text that is trained on into the test.
        """
        if self.config.path is None:
            raise DataError("task=bytes has no text.\n  try: task.path=<a file or a folder>")
        path, seen = Path(self.config.path).expanduser(), {hashlib.sha256(b"").digest()}
        if not path.exists():
            raise DataError(
                f"task.path={path}: there is no such file or folder (seen from {Path.cwd()}).\n"
                "  try: task.path=<a text, or a folder of texts>"
            )
        many = path.is_dir() or is_archive(path)
        for content in self._texts(path, many):
            digest = hashlib.sha256(content).digest()
            if digest not in seen:
                seen.add(digest)
                yield digest, content
        if len(seen) == 1:
            what = f"has no file {self.config.pattern} with anything in it"
            what = what if many else "is empty"
            chosen = many and self.config.pattern != "*"
            remedy = "task.pattern='*', for all its files" if chosen else "task.path=<another text>"
            raise DataError(f"task.path={path} {what}.\n  try: {remedy}")

    def _texts(self, path: Path, many: bool) -> Iterator[bytes]:
        if not many:
            with opened(path, LARGEST) as stream:
                yield stream.read()
            return

        def wanted(name: str) -> bool:
            return fnmatch(PurePosixPath(name).name, self.config.pattern)

        for _, stream in Source(path.absolute()).members(wanted, LARGEST):
            yield stream.read()


def _known_by(digests: Iterable[bytes]) -> tuple[int, str]:
    """How many files there are, and one checksum of their checksums."""
    known = [*digests]
    return len(known), hashlib.sha256(b"".join(known)).hexdigest()
