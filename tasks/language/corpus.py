"""A corpus: texts as tokens, one document behind the other, and the windows cut of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tasks import bits
from tasks.base import Task, TaskSpec
from tasks.errors import DataError
from tasks.language.windows import Windows
from tasks.sources.locate import check_name
from tasks.spec import Objective
from tasks.storage.rows import Rows, offsets_of

Tokens = NDArray[Any]  # (n,) of the stored type

PIECE = 1 << 16  # tokens of a stored row: a document, or a stretch of a longer one
BLOCK = 1 << 20  # tokens written at once
END = b"\0"  # behind each document, where there are several: no text has it
HELD_OUT = 0.05  # of the tokens for each of validation and test, as of enwik8


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class WindowsConfig:
    """How a corpus is cut; it is prepared once for all windows."""

    length: Annotated[int, Gt(0)] = 4096  # tokens of a window
    # tokens carried before what a window scores in a test; null: half of the window
    context: Annotated[int, Ge(0)] | None = None
    # what the trained model goes on from at the end of its run; null: nothing
    prompt: str | None = field(default=None, metadata={"identity": False})

    def __post_init__(self) -> None:
        if self.context is not None and self.context >= self.length:
            raise ValueError(
                f"context={self.context} leaves nothing of length={self.length} to be scored; "
                f"try context={self.length // 2}"
            )

    @property
    def carried(self) -> int:
        """``context``, or what null means."""
        return self.length // 2 if self.context is None else self.context


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class OfficialConfig(WindowsConfig):
    """Of a corpus that there are official files of."""

    # a name for other files in the official form; without it only the official pass
    stand_in: str | None = field(default=None, metadata={"neutral": None})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.stand_in)


class Corpus(Task):
    """A text whose bytes are its tokens, if a subclass says nothing else.

    It has ``documents``, ``origin`` and ``find_source``.
    """

    version = 1
    dtype = "uint8"
    metric = "bits_per_byte"
    causal = True
    endless = True
    objective: ClassVar[Objective] = "bytes"
    config: Any  # a WindowsConfig

    @abstractmethod
    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The splits and their documents, split after split.

        Raises:
            DataError: the source is malformed.
        """

    @property
    def symbols(self) -> int:
        """How many tokens there are."""
        return 256

    @property
    def end(self) -> int | None:
        """That of a document."""
        return END[0]

    @property
    def spec(self) -> TaskSpec:
        """Tokens, and the next token everywhere."""
        n = self.symbols
        return TaskSpec(self.name, n, self.config.length, n, input_dim=1, objective=self.objective)

    @property
    def is_padded(self) -> bool:
        """No: all windows have one length."""
        return False

    @property
    def evaluation(self) -> dict[str, int]:
        """Tokens carried before what is scored, and tokens scored, in each window but the first."""
        carried = self.config.carried
        return {"context": carried, "stride": self.config.length - carried}

    def samples(self, split: str) -> Windows:
        """The windows of a split.

        Raises:
            DataError: it is shorter than one.
        """
        context = None if split == "train" else self.config.carried
        return Windows(self.split(split), self.config.length, context, split)

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The documents in pieces, many at a time."""
        for split, group in groupby(self.documents(), key=lambda each: each[0]):
            block: list[Tokens] = []
            held = 0
            for _, tokens in group:
                for start in range(0, len(tokens), PIECE):
                    block.append(tokens[start : start + PIECE])
                    held += len(block[-1])
                    if held >= BLOCK:
                        yield split, as_rows(block)
                        block, held = [], 0
            if block:
                yield split, as_rows(block)

    def sample(self, split: str, index: int) -> str:
        """A document, or a piece of a long one."""
        return self.text_of(self.split(split)[index]["values"])

    def tokens_of(self, text: str) -> Tokens:
        """The tokens of a text of one's own.

        Raises:
            DataError: it has a sign that the corpus does not know.
        """
        return np.frombuffer(text.encode(), dtype=np.uint8)

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that tokens stand for; bytes that are none show as U+FFFD."""
        return bytes(tokens).decode(errors="replace")

    def own_rows(self, examples: Sequence[str]) -> Rows:
        """Texts."""
        return as_rows([self.tokens_of(text) for text in examples])


def as_rows(documents: Sequence[Tokens]) -> Rows:
    """Each a row; nothing else is known of them."""
    lengths = np.array([len(each) for each in documents], dtype=np.int64)
    labels = np.zeros(len(documents), dtype=np.int64)
    return Rows(np.concatenate(documents), offsets_of(lengths), labels)


def by_share(tokens: Tokens) -> Iterator[tuple[str, Tokens]]:
    """One text as three: nine tenths to train, then half of the rest each; as enwik8 is split.

    Raises:
        DataError: there is nothing to split.
    """
    held_out = int(HELD_OUT * len(tokens))
    first, second = len(tokens) - 2 * held_out, len(tokens) - held_out
    yield "train", tokens[:first]
    yield "val", tokens[first:second]
    yield "test", tokens[second:]


def by_document(documents: Sequence[Tokens], seed: int) -> Iterator[tuple[str, Tokens]]:
    """Whole documents to splits, in a random order: to val and test until each has its share.

    A document that has more than half of all tokens is trained on.

    Args:
        documents: three at least.
        seed: of the order.
    """
    raw = bits.stream(bits.CORPUS_SPLITS, seed, 0).random_raw(len(documents))
    order = np.argsort(raw, kind="stable").tolist()
    total = sum(map(len, documents))
    order.sort(key=lambda number: 2 * len(documents[number]) <= total)  # the last are held out
    share = HELD_OUT * total
    for split in ("val", "test"):
        found = 0
        while found < share and len(order) > 1 + (split == "val"):
            chosen = documents[order.pop()]
            found += len(chosen)
            yield split, chosen
    for each in order:
        yield "train", documents[each]


def with_end(content: bytes, place: Path | str) -> Tokens:
    """The bytes of a document with the end symbol.

    Raises:
        DataError: it is empty.
    """
    return as_bytes(content + END if content else content, place)


def as_bytes(content: bytes, place: Path | str) -> Tokens:
    """The bytes of a text.

    Raises:
        DataError: it is empty.
    """
    if not content:
        raise DataError(f"{place} is empty.\n  try: look at the file, or copy it again")
    return np.frombuffer(content, dtype=np.uint8)
