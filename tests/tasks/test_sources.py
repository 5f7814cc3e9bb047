"""Files first, then the hub; without either one clear error, at once."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from datasets import Dataset

from tasks.errors import DataError
from tasks.sources import locate as sources
from tasks.sources.archives import Source
from tasks.sources.locate import Unreachable, check_name, load_split, locate

PLACES = ["toy", "toy.tar"]


def located(data_dir: Path, ask: sources.Ask):
    return locate("toy", data_dir, PLACES, "someone/toy", ask, "toy.tar (3 MB)")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A hub that has every dataset; the list fills with what it is asked for."""
    asked = []

    def load_dataset(repository: str, split: str) -> Dataset:
        asked.append((repository, split))
        return Dataset.from_dict({"split": [split]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_files_come_first_and_the_hub_is_not_asked(tmp_path: Path, hub) -> None:
    (tmp_path / "toy.tar").touch()
    assert located(tmp_path, "auto") == located(tmp_path, "official")
    assert located(tmp_path, "auto") == Source(tmp_path / "toy.tar")
    assert hub == []


@pytest.mark.parametrize("has_files, ask", [(False, "auto"), (False, "hub"), (True, "hub")])
def test_the_hub_is_asked_where_it_must_be(tmp_path: Path, hub, has_files: bool, ask) -> None:
    if has_files:
        (tmp_path / "toy").mkdir()
    found = located(tmp_path, ask)
    assert isinstance(found, dict)
    assert {name: split["split"][0] for name, split in found.items()} == {
        "train": "train",
        "test": "test",
    }
    assert hub == [("someone/toy", "train"), ("someone/toy", "test")]


@pytest.mark.parametrize("ask", ["auto", "hub"])
def test_offline_is_one_error_with_the_remedy(tmp_path: Path, ask) -> None:
    """The real library, told by conftest.py to stay offline."""
    with pytest.raises(DataError) as caught:
        located(tmp_path, ask)
    text = str(caught.value)
    assert (str(tmp_path / "toy.tar") in text) == (ask == "auto")
    for part in ("someone/toy on the Hugging Face hub (", "toy.tar (3 MB)", "HF_HUB_OFFLINE"):
        assert part in text
    assert "chela prepare task=toy" in text


def test_only_files_is_only_files(tmp_path: Path, hub) -> None:
    with pytest.raises(DataError, match=r"no data for toy(.|\n)*toy\.tar(.|\n)*task\.source=hub"):
        located(tmp_path, "official")
    assert hub == []


def test_where_the_hub_has_nothing_it_is_not_named(tmp_path: Path, hub) -> None:
    with pytest.raises(DataError) as caught:
        locate("toy", tmp_path, PLACES, None, "auto", "toy.tar (3 MB)")
    assert "task.source=hub" not in str(caught.value)
    assert "Hugging Face" not in str(caught.value)
    assert hub == []


def test_without_a_network_no_download_is_begun(monkeypatch: pytest.MonkeyPatch, hub) -> None:
    class Api:
        def dataset_info(self, repository: str, timeout: float) -> None:
            raise ConnectionError("Name or service not known\nand a long story")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "HfApi", Api)
    with pytest.raises(Unreachable, match=r"^Name or service not known$"):
        load_split("someone/toy", "train")
    assert hub == []


def test_an_error_without_words_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(repository: str, split: str) -> None:
        raise TimeoutError

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(Unreachable, match=r"^TimeoutError$"):
        load_split("someone/toy", "train")


@pytest.mark.parametrize("name", [None, "cifar10-jpeg", "A1", "a-b-c"])
def test_names_of_stand_ins(name: str | None) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "..", "-a", "a-", "a--b", "ä", "a\n", "official", "hub", "generated"]
)
def test_bad_names_of_stand_ins(name: str) -> None:
    with pytest.raises(ValueError, match="stand_in"):
        check_name(name)
