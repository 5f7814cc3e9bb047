"""WikiText-103 as the pieces of a tokenizer: GPT-2's, or that of a file of one's own.

The articles are those of ``wikitext-103-raw``, cut by the library tokenizers (the extra
``chela[bpe]``), line by line with the line's end, as is usual; blank lines are left out, as on the
hub. The tokenizer is kept beside the prepared text. Perplexity is of a piece: it is not to be
compared with that of words, nor with that of another tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Len
from huggingface_hub import hf_hub_download
from pydantic.dataclasses import dataclass

from tasks.errors import DataError, first_line
from tasks.language.corpus import Tokens, as_bytes, as_rows
from tasks.language.wikitext import SPLITS, WikiText, WikiTextConfig
from tasks.sources.files import opened
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows

GPT2 = "openai-community/gpt2"  # on the hub
GPT2_PIECES = 50_257
END = "<|endoftext|>"  # a piece of GPT-2's
LARGEST = 1 << 27  # bytes of a tokenizer's file; GPT-2's has 1.4 million
LINES = 1 << 12  # of the text, cut at once


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class PiecesConfig(WikiTextConfig):
    """``configs/task/wikitext103_bpe.yaml`` says the same."""

    name: Literal["wikitext103_bpe"] = "wikitext103_bpe"
    # a tokenizer.json, counted from where the command is given; null: GPT-2's, of the hub
    tokenizer: Annotated[str, Len(1)] | None = None


class WikiText103Pieces(WikiText):
    """The pieces of WikiText-103."""

    Config: ClassVar[type] = PiecesConfig
    edition = "wikitext-103-raw"
    ending = "raw"
    sha256 = "91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794"

    @property
    def symbols(self) -> int:
        """Pieces of the tokenizer."""
        return GPT2_PIECES if self.config.tokenizer is None else int(self.known_facts["pieces"])

    @property
    def end(self) -> int | None:
        """GPT-2's, if the tokenizer has it."""
        found = self._tokenizer.token_to_id(END)
        return None if found is None else int(found)

    def origin(self) -> Origin:
        """The articles, and the tokenizer: GPT-2's, or a file's by its checksum.

        Of a run that is loaded its record knows it, and the file need not be there any more.
        """
        known = (self._expected or {}).get("parameters", {}).get("tokenizer")
        if self.config.tokenizer is None:
            known = "gpt2"
        elif known is None:
            known = hashlib.sha256(self._file).hexdigest()
        return replace(super().origin(), parameters={"tokenizer": known})

    def find_source(self) -> None:
        """The articles and the tokenizer."""
        super().find_source()
        tokenizer_of(self._file)

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The tokenizer's file as a row of bytes; then the text, in numbers."""
        self.check_source()
        self._tokenizer = tokenizer_of(self._file)
        pieces = pieces_of(self._tokenizer)
        self.found = {"pieces": pieces}
        if self.config.tokenizer is None and pieces != GPT2_PIECES:
            raise DataError(f"{GPT2} has {pieces:,} pieces instead of {GPT2_PIECES:,}")
        yield "tokenizer", as_rows([as_bytes(self._file, "").astype(np.int32)])
        yield from super().rows()

    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The text of each split, some lines at a time."""
        for split in SPLITS:
            lines = (f"{line}\n" for line in self.lines(split) if line.strip())
            while some := [*islice(lines, LINES)]:
                yield split, np.concatenate(self._cut(some))

    def lexicon(self) -> str:
        """The tokenizer's file."""
        if self._lexicon is not None:
            return self._lexicon
        return bytes(self.split("tokenizer")[0]["values"]).decode()

    def tokens_of(self, text: str) -> Tokens:
        """The pieces of a text of one's own."""
        return self._cut([text])[0]

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that pieces stand for."""
        return str(self._tokenizer.decode([*map(int, tokens)], skip_special_tokens=False))

    def _cut(self, texts: list[str]) -> list[Tokens]:
        """The pieces of each text.

        Raises:
            DataError: the tokenizer has none for something in them.
        """
        cutter = self._tokenizer
        try:
            found = cutter.encode_batch(texts, add_special_tokens=False)
        except Exception as error:  # the library's own has no other name
            raise DataError(
                f"the tokenizer cannot cut the text: {error}\n  try: a tokenizer.json that has a "
                "piece for what it does not know, or pieces for all bytes"
            ) from error
        return [np.array(each.ids, dtype=np.int32) for each in found]

    @cached_property
    def _tokenizer(self) -> Any:
        """That of the prepared text."""
        return tokenizer_of(self.lexicon().encode())

    @cached_property
    def _file(self) -> bytes:
        """What is in the tokenizer's file.

        Raises:
            DataError: there is none.
        """
        remedy = "\n  try: task.tokenizer=<a tokenizer.json of the library tokenizers>"
        if self.config.tokenizer is not None:
            path = Path(self.config.tokenizer).expanduser()
            if not path.is_file():
                raise DataError(f"task.tokenizer={path}: there is no such file.{remedy}")
        else:
            try:
                path = Path(hf_hub_download(GPT2, "tokenizer.json"))
            except Exception as error:  # of the library, its HTTP client or the system
                why = f"{GPT2} on the Hugging Face hub: {first_line(error)}"
                raise DataError(f"{why}{remedy}") from error
        with opened(path, LARGEST) as stream:
            return stream.read()


def tokenizer_of(content: bytes) -> Any:
    """The tokenizer of a file's content.

    Raises:
        DataError: it is none, or the library is not installed.
    """
    try:
        from tokenizers import Tokenizer  # an extra, which other tasks do without
    except ImportError as error:
        raise DataError(
            "task=wikitext103_bpe needs tokenizers.\n  try: pip install 'chela[bpe]'"
        ) from error
    try:
        found = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library's own has no other name
        raise DataError(
            f"the tokenizer cannot be read: {error}\n  try: a tokenizer.json of the library "
            "tokenizers"
        ) from error
    found.no_truncation()  # which a model's file may ask for, so that it fits into that model
    found.no_padding()
    return found


def pieces_of(tokenizer: Any) -> int:
    """How many there are: up to the highest number, and some below it may be of none."""
    return 1 + max(tokenizer.get_vocab().values(), default=-1)
