"""Official files in a folder and in a tar, read the same way; damage is named."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.sources import archives
from tasks.sources.archives import Source, find, nothing_found
from tasks.sources.files import digest

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


def contents(source: Source, wanted=lambda name: True, limit=100_000) -> dict[str, bytes]:
    return {name: stream.read() for name, stream in source.members(wanted, limit)}


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
    with pytest.raises(DataError, match=rf"{name} is truncated(.|\n)*bytes(.|\n)*fetch it again"):
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
    with pytest.raises(DataError, match=r"s\.tar\.gz is truncated or not what its name says"):
        contents(Source(tmp_path / "s.tar.gz"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("size", [512, 1024, 10_240, 20_000])
def test_zeros_are_no_empty_tar(tmp_path: Path, pack: Callable[[bytes], bytes], size: int) -> None:
    (tmp_path / "s.tar.gz").write_bytes(pack(bytes(size)))
    with pytest.raises(DataError, match=r"s\.tar\.gz is truncated(.|\n)*: it begins with zeros"):
        contents(Source(tmp_path / "s.tar.gz"))


def test_the_first_of_several_places_counts(folder: Path) -> None:
    path = packed(folder, "s.tar", "w")
    assert find(folder.parent, ["absent", "s.tar", "set"]) == Source(path)
    assert find(folder.parent, ["absent"]) is None


def test_checksums(folder: Path) -> None:
    with pytest.raises(DataError, match=r"absent cannot be read"):
        digest(folder / "absent")
    with pytest.raises(DataError, match=r"null is no regular file"):
        digest(Path("/dev/null"))


@pytest.mark.parametrize("mode", ["w", "w:gz", None])
def test_what_has_more_bytes_than_any_such_file_is_refused(folder: Path, mode) -> None:
    source = Source(folder if mode is None else packed(folder, "s.tar", mode))
    assert len(contents(source, limit=10_240)) == 3
    with pytest.raises(DataError, match=r"c\.bin has more than 10,239 bytes"):
        contents(source, limit=10_239)


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], form=tarfile.GNU_FORMAT) -> Source:
    with tarfile.open(path, "w", format=form) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return Source(path)


def member(name: str, size: int = 0, **kept: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size = size
    for key, value in kept.items():
        setattr(found, key, value)
    return found


def test_a_member_that_claims_a_petabyte_is_refused(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 50), "GNU.sparse.numblocks": "1"}
    bomb = member("set/a", 1, pax_headers=sparse)
    source = tar_of(tmp_path / "s.tar", (bomb, b"x"), form=tarfile.PAX_FORMAT)
    with pytest.raises(DataError, match=r"set/a has more than 100,000 bytes"):
        contents(source)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path, kind: bytes) -> None:
    """tarfile would read it whole."""
    bomb = member("set/a", 1 << 40, type=kind)
    (tmp_path / "s.tar").write_bytes(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DataError, match="a header that says it has 1,099,511,627,776 bytes"):
        contents(Source(tmp_path / "s.tar"))


def test_gigabytes_of_zeros_behind_the_end_are_not_unpacked(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "LONGEST_END", 3 << 20)
    path = packed(folder, "s.tar", "w")
    path.write_bytes(path.read_bytes() + bytes(1 << 20))
    assert len(contents(Source(path))) == 3
    path.write_bytes(path.read_bytes() + bytes(4 << 20))
    with pytest.raises(DataError, match="more than 3,145,728 bytes behind its end mark"):
        contents(Source(path))


def test_a_damaged_header_is_not_taken_for_the_end(folder: Path) -> None:
    """What stands behind it would be missing, and nothing would say so."""
    path = packed(folder, "s.tar", "w")
    content = bytearray(path.read_bytes())
    content[content.index(b"./set/b.txt") + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="bad checksum"):
        contents(Source(path))


def test_a_file_that_is_there_twice_is_named(tmp_path: Path) -> None:
    twice = [(member("set/a", 1), b"x"), (member("./set/a", 1), b"y")]
    with pytest.raises(DataError, match=r"s\.tar has set/a twice"):
        contents(tar_of(tmp_path / "s.tar", *twice))


def test_hidden_files_are_not_part_of_a_set(folder: Path) -> None:
    """macOS leaves one beside each file, in folders and in archives."""
    for name in ("._a.txt", "deep/._c.bin", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    for source in (Source(folder), Source(packed(folder, "s.tar", "w"))):
        assert contents(source) == FILES


def test_linked_folders_and_files_are_read(folder: Path, tmp_path: Path) -> None:
    (folder / "deep").rename(tmp_path / "elsewhere")
    (folder / "deep").symlink_to(tmp_path / "elsewhere")
    (folder / "a.txt").rename(tmp_path / "one")
    (folder / "a.txt").symlink_to(tmp_path / "one")
    (tmp_path / "elsewhere" / "round").symlink_to(folder)
    assert contents(Source(folder)) == FILES
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "set").symlink_to(folder)
    assert contents(Source(folder.parent / "other" / "set")) == FILES


@pytest.mark.parametrize("place", ["gone", "b2.bin", "x" * 300])  # a circle; no name of any file
def test_a_link_that_leads_nowhere_is_named_where_it_is_wanted(folder: Path, place: str) -> None:
    (folder / "b2.bin").symlink_to(place)
    texts = {name: content for name, content in FILES.items() if name.endswith(".txt")}
    assert contents(Source(folder), lambda name: name.endswith(".txt")) == texts
    with pytest.raises(DataError, match=rf"b2\.bin is a link to {place}"):
        contents(Source(folder))


def test_a_pipe_or_device_is_never_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    assert contents(Source(folder)) == FILES


def test_the_error_without_a_source_names_all_that_helps() -> None:
    text = str(nothing_found("toy", [Path("data/toy")], "toy.tar (3 MB)", "task.source=made"))
    for part in ("data/toy", "toy.tar (3 MB)", "chela prepare task=toy", "task.source=made"):
        assert part in text
