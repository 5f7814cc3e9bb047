"""Official files in a folder and in a tar, read the same way; damage is named."""

from __future__ import annotations

import hashlib
import random
import tarfile
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.sources.archives import Source, digest, find, nothing_found, verify

FILES = {"set/b.txt": b"two", "set/a.txt": b"one", "set/deep/c.bin": bytes(range(256)) * 40}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path / "set"


def packed(folder: Path, name: str, mode: str) -> Path:
    with tarfile.open(folder.parent / name, mode) as archive:
        archive.add(folder, arcname="./set")
    return folder.parent / name


def contents(source: Source, wanted=lambda name: True) -> dict[str, bytes]:
    return {name: stream.read() for name, stream in source.members(wanted)}


@pytest.mark.parametrize("name, mode", [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.gz", "w:gz")])
def test_a_tar_reads_like_the_folder_it_unpacks_to(folder: Path, name: str, mode: str) -> None:
    archive = Source(packed(folder, name, mode))
    assert archive.is_archive
    assert not Source(folder).is_archive
    assert contents(archive) == contents(Source(folder)) == FILES


def test_only_wanted_files_are_handed_out(folder: Path) -> None:
    for source in (Source(folder), Source(packed(folder, "s.tar", "w"))):
        assert list(contents(source, lambda name: name.endswith(".txt"))) == [
            *sorted(name for name in FILES if name.endswith(".txt"))
        ]


def test_a_folder_is_read_in_the_order_of_names(folder: Path) -> None:
    assert list(contents(Source(folder))) == ["set/a.txt", "set/b.txt", "set/deep/c.bin"]


@pytest.mark.parametrize("kept", [0.3, 0.6])  # in the first and in the second file of 20 kB
@pytest.mark.parametrize("name, mode", [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tar.xz", "w:xz")])
def test_a_truncated_archive_is_named(tmp_path: Path, name: str, mode: str, kept: float) -> None:
    (tmp_path / "set").mkdir()
    for file in ("a", "b"):
        (tmp_path / "set" / file).write_bytes(random.Random(file).randbytes(20_000))
    path = packed(tmp_path / "set", name, mode)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataError, match=rf"{name} is truncated(.|\n)*bytes(.|\n)*fetch it again"):
        contents(Source(path))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("name, mode", [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tar.xz", "w:xz")])
def test_a_cut_among_files_that_are_passed_over_is_seen(
    tmp_path: Path, name: str, mode: str, kept: float
) -> None:
    (tmp_path / "set").mkdir()
    for file in ("a", "b", "c"):
        (tmp_path / "set" / file).write_bytes(random.Random(file).randbytes(20_000))
    path = packed(tmp_path / "set", name, mode)
    assert contents(Source(path), lambda name: False) == {}
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataError, match=rf"{name} is truncated"):
        contents(Source(path), lambda name: False)


@pytest.mark.parametrize(
    "name, mode", [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tar.bz2", "w:bz2")]
)
def test_wherever_it_is_cut_it_is_named(tmp_path: Path, name: str, mode: str) -> None:
    """Between two members as well, where tarfile sees a regular end."""
    (tmp_path / "set").mkdir()
    for file in ("a", "b", "c"):
        (tmp_path / "set" / file).write_bytes(random.Random(file).randbytes(700))
    path = packed(tmp_path / "set", name, mode)
    whole = path.read_bytes()
    # the folder, three files of a header and two blocks, then the end mark
    end = 512 * (1 + 3 * 3) if mode == "w" else len(whole) - 1
    for kept in range(0, end + 1, 128):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=rf"{name} is truncated"):
            contents(Source(path))
    path.write_bytes(whole)
    assert len(contents(Source(path))) == 3


@pytest.mark.parametrize("content", [b"", b"<html>moved</html>" * 100], ids=["empty", "html"])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"s\.tar\.gz is truncated or not a tar archive"):
        contents(Source(tmp_path / "s.tar.gz"))


def test_the_first_of_several_places_counts(folder: Path) -> None:
    path = packed(folder, "s.tar", "w")
    assert find(folder.parent, ["absent", "s.tar", "set"]) == Source(path)
    assert find(folder.parent, ["absent"]) is None


def test_checksums(folder: Path) -> None:
    file, right = folder / "a.txt", hashlib.md5(b"one").hexdigest()
    assert digest(file, "md5") == right
    verify(file, "md5", right, "task.source=other")
    with pytest.raises(DataError, match=r"a\.txt is not the official(.|\n)*task\.source=other"):
        verify(file, "md5", "0" * 32, "task.source=other")
    with pytest.raises(DataError, match=r"absent cannot be read"):
        digest(folder / "absent")


def test_the_error_without_a_source_names_all_that_helps() -> None:
    text = str(nothing_found("toy", [Path("data/toy")], "toy.tar (3 MB)", "task.source=made"))
    for part in ("data/toy", "toy.tar (3 MB)", "scripts/prepare.py task=toy", "task.source=made"):
        assert part in text
