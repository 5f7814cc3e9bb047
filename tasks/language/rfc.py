"""rfc_bytes: the texts of the IETF's RFCs as bytes, a corpus of enwik8's size.

The texts are those of the Retrieval task's stand-in (``tasks.retrieval.rfc``): without page breaks,
headers and the sections that all share, the numbers of other documents masked. Of each the first
8,000 characters, which is what the packed form of the corpus holds. Split by document, seeded;
each document ends with a NUL byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

from annotated_types import Gt
from pydantic.dataclasses import dataclass

from tasks.errors import DataError
from tasks.language.corpus import Corpus, Tokens, WindowsConfig, by_document, with_end
from tasks.retrieval import rfc
from tasks.sources.archives import Source
from tasks.spec import Seed
from tasks.storage.meta import Origin


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class RfcBytesConfig(WindowsConfig):
    """``configs/task/rfc_bytes.yaml`` says the same."""

    name: Literal["rfc_bytes"] = "rfc_bytes"
    max_characters: Annotated[int, Gt(0)] = 8_000  # of a document
    data_seed: Seed = 0  # of the split by document


class RfcBytes(Corpus):
    """The bytes of the RFCs."""

    Config = RfcBytesConfig
    config: RfcBytesConfig

    def origin(self) -> Origin:
        """The RFCs, and how they are cut and split; which there were is in ``meta.facts``."""
        config = self.config
        parameters = {"max_characters": config.max_characters, "data_seed": config.data_seed}
        return Origin(self.name, self.version, "rfc", {**parameters, "split": "document"})

    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The documents that are no list of others.

        Raises:
            DataError: there are too few, or a file is malformed.
        """
        found = rfc.read_documents(self._source)
        kept = sorted(number for number, each in found.items() if not each.listing and each.text)
        if len(kept) < 3:  # one for each split
            raise DataError(
                f"{self._source.path}: {len(kept)} RFCs that are no list of others, too few to be "
                f"split.\n  get: {rfc.WHAT}"
            )
        self.found = {"documents": len(kept), "newest": kept[-1]}
        cut = (found[number].text[: self.config.max_characters] for number in kept)
        texts = [with_end(text.encode(), f"{self._source.path}") for text in cut]
        return by_document(texts, self.config.data_seed)

    @cached_property
    def _source(self) -> Source:
        return rfc.locate(self.data_dir, self.name)
