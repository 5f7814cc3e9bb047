"""Where a task's data are: official files on disk, else the Hugging Face hub; stand-ins by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import datasets
from datasets import Dataset
from huggingface_hub import HfApi

from tasks.errors import first_line
from tasks.sources.archives import Source, find, nothing_found

Ask = Literal["auto", "official", "hub"]  # auto: the files, and the hub where there are none

TIMEOUT = 10  # seconds for one small answer, before a download with all its retries is begun
RESERVED = ("auto", "official", "hub", "generated")  # what ``Origin.source`` means otherwise


class Unreachable(Exception):
    """The hub does not give us a dataset; the message is the reason, in one line."""


def locate(
    task: str,
    data_dir: Path,
    places: Sequence[str],
    repository: str | None,
    ask: Ask,
    what: str,
    edition: str | None = None,
    splits: Sequence[str] = ("train", "test"),
) -> Source | dict[str, Dataset]:
    """The official files below ``data_dir``, or splits of the hub.

    Args:
        task: its name, for the message.
        data_dir: below which ``places`` are looked for.
        places: folders or archives, in order.
        repository: ``owner/name`` on the hub; None: it has no such data.
        ask: which of the two.
        what: what to get when there is nothing: its name, size, checksum and author.
        edition: which of the repository's data sets, where it has several.
        splits: of it.

    Raises:
        DataError: there is nothing; it names all places and what to do.
    """
    looked_for: list[Path | str] = []
    if ask != "hub":
        found = find(data_dir, places)
        if found is not None:
            return found
        looked_for += [data_dir / place for place in places]
    if ask == "official" or repository is None:
        remedy = "" if repository is None else "task.source=hub, with a network"
        raise nothing_found(task, looked_for, what, remedy)
    try:
        return {split: load_split(repository, split, edition) for split in splits}
    except Unreachable as error:
        looked_for.append(f"{repository} on the Hugging Face hub ({error})")
        network = "give it a network, and not HF_HUB_OFFLINE=1, to fetch from the hub"
        raise nothing_found(task, looked_for, what, network) from error


def load_split(repository: str, split: str, edition: str | None = None) -> Dataset:
    """One split of a dataset, downloaded if the hub's cache on this machine has none.

    With ``HF_HUB_OFFLINE=1`` only the cache is asked.

    Raises:
        Unreachable: there is no network, no such dataset, or its download fails.
    """
    try:
        if not datasets.config.HF_HUB_OFFLINE:
            # Without a network the download tries for minutes; this call fails at once.
            HfApi().dataset_info(repository, timeout=TIMEOUT)
        which = [] if edition is None else [edition]
        return datasets.load_dataset(repository, *which, split=split)
    except Exception as error:  # of the library, its HTTP client or the system: the same to us
        raise Unreachable(first_line(error)) from error


def check_name(stand_in: str | None) -> None:
    """Whether a stand-in may be called so: it becomes part of a folder's name.

    Raises:
        ValueError: it is empty, has other signs than letters, digits and dashes, or is taken.
    """
    if stand_in is None:
        return
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", stand_in):
        raise ValueError(
            f"stand_in must be letters, digits and single dashes, e.g. cifar10-jpeg, "
            f"not {stand_in!r}"
        )
    if stand_in in RESERVED:
        raise ValueError(f"stand_in={stand_in} has another meaning; give the data their own name")
