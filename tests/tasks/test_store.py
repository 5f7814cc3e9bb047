"""Prepared data: whole or absent whatever happens, made once, checked when opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.storage.rows import Rows
from tasks.storage.store import load, prepare
from tests.tasks.samples import fingerprint_of, recipe, rows_of_samples

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "toy" / "made-1"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from tasks.errors import DataError
from tasks.storage.store import load, prepare
from tests.tasks.samples import block, fingerprint_of, recipe, rows_of_samples
"""


def run(script: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """Another process that does ``script``."""
    text = PRELUDE + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("at", ["data", "data/toy"])
def test_a_file_where_a_folder_has_to_be_is_said(tmp_path: Path, at: str) -> None:
    """As `unzip enwik8.zip` leaves one."""
    (tmp_path / at).parent.mkdir(exist_ok=True)
    (tmp_path / at).write_bytes(b"a")
    with pytest.raises(DataError, match=rf"{at} is a file(.|\n)*move it elsewhere"):
        prepare(tmp_path / "data" / "toy" / "made-1", recipe(rows_of_samples))


def test_what_is_there_is_not_prepared_again(folder: Path) -> None:
    prepare(folder, recipe())
    before = contents(folder)
    prepare(folder, recipe(lambda: pytest.fail("prepared again")))
    assert contents(folder) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, DataError, GeneratorExit])
def test_an_interrupted_preparation_leaves_nothing(folder: Path, error: type) -> None:
    neighbour = folder.with_name("made-2")
    prepare(neighbour, recipe())
    before = contents(neighbour)

    def stops() -> Iterator[tuple[str, Rows]]:
        yield from rows_of_samples()
        raise error("stop")

    with pytest.raises(error, match="stop"):
        prepare(folder, recipe(stops))
    assert [each.name for each in folder.parent.iterdir() if each.is_dir()] == ["made-2"]
    assert contents(neighbour) == before
    prepare(folder, recipe())
    assert fingerprint_of(folder) == load(neighbour).meta.fingerprint


@pytest.mark.kill
def test_a_killed_preparation_is_cleared_away_by_the_next(folder: Path) -> None:
    script = """
        def slow():
            yield from rows_of_samples()
            print("half", flush=True)
            time.sleep(60)
        prepare(Path(sys.argv[1]), recipe(slow))
    """
    process = run(script, folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    partial = folder.with_name("made-1.partial")
    assert partial.exists()
    assert not folder.exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert partial.exists()
    (partial / "left over").touch()
    prepare(folder, recipe())
    assert not partial.exists()
    assert sorted(contents(folder)) == ["meta.json", "test.arrow", "train.arrow", "val.arrow"]
    assert fingerprint_of(folder) == load(folder).meta.fingerprint


@pytest.mark.process
def test_two_processes_prepare_once(folder: Path, tmp_path: Path) -> None:
    script = """
        def slow():
            with open(sys.argv[2], "a") as log:
                print("prepared", file=log)
            print("begun", flush=True)
            sys.stdin.readline()
            yield from rows_of_samples()
        prepare(Path(sys.argv[1]), recipe(slow))
        print(load(Path(sys.argv[1])).meta.fingerprint)
    """
    log = tmp_path / "log"
    first = run(script, folder, log, stdin=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == "begun\n"
    second = run(script, folder, log, stdin=subprocess.PIPE)
    assert second.stderr is not None
    assert "another process prepares" in second.stderr.readline()
    fingerprints = [process.communicate("\n", timeout=60)[0].strip() for process in (first, second)]
    assert log.read_text() == "prepared\n"
    assert fingerprints == [load(folder).meta.fingerprint] * 2


def test_everything_is_on_the_disk_before_it_has_its_name(folder: Path, monkeypatch) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.rename

    def seen_sync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def seen_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    prepare(folder, recipe())
    cut = events.index("rename")
    files = {"train.arrow", "val.arrow", "test.arrow", "meta.json", "made-1.partial"}
    assert set(events[:cut]) == files
    assert events[cut + 1 :] == ["toy"]


# A process in which every attempt to write below sys.argv[1] fails, whoever runs it (root, whom
# permissions do not stop, included).
READ_ONLY = """
    def refuse(event, arguments):
        writes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod"}
        if event == "open":
            path, mode, flags = arguments
            writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            path, writing = arguments[0] if arguments else None, event in writes
        if writing and str(path).startswith(sys.argv[1]):
            raise OSError(30, "Read-only file system", path)
    sys.addaudithook(refuse)
"""


@pytest.mark.process
def test_prepared_data_are_used_without_writing(folder: Path) -> None:
    prepare(folder, recipe())
    script = """
        prepare(Path(sys.argv[1], "toy", "made-1"), recipe())
        print(load(Path(sys.argv[1], "toy", "made-1")).splits["train"][0])
        print(fingerprint_of(Path(sys.argv[1], "toy", "made-1")))
    """
    process = run(textwrap.dedent(READ_ONLY) + textwrap.dedent(script), folder.parents[1])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "[1, 2, 3]" in out
    assert [each.name for each in folder.parent.iterdir()] == ["made-1"]


@pytest.mark.process
@pytest.mark.parametrize("exists", ["data", "data/toy"])
def test_a_read_only_disk_is_an_error_with_a_remedy(tmp_path: Path, exists: str) -> None:
    (tmp_path / exists).mkdir(parents=True)
    script = """
        try:
            prepare(Path(sys.argv[1], "toy", "made-1"), recipe())
        except DataError as error:
            print(error)
    """
    process = run(textwrap.dedent(READ_ONLY) + textwrap.dedent(script), tmp_path / "data")
    out, err = process.communicate(timeout=60)
    assert "Read-only file system" in out, err
    assert "data_dir=" in out


@pytest.mark.process
def test_a_full_disk_is_an_error_with_a_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write itself fails."""
    script = """
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        def large():
            yield from rows_of_samples()
            for _ in range(100):
                yield "test", block(([1] * 1000, 0))
        try:
            prepare(Path(sys.argv[1], "toy", "made-1"), recipe(large))
        except DataError as error:
            print(error)
    """
    process = run(script, tmp_path / "data")
    out, err = process.communicate(timeout=60)
    assert "cannot be written" in out, err
    assert "data_dir=" in out
    assert "Traceback" not in err
    assert not list((tmp_path / "data" / "toy").iterdir())


def test_what_is_prepared_is_said_only_when_asked(folder: Path, capfd) -> None:
    prepare(folder, recipe(), show=False)
    assert capfd.readouterr().err == ""
    prepare(folder.with_name("made-2"), recipe())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "preparing toy (made) ..."
    assert lines[1].startswith("prepared toy (made): 4 train")
