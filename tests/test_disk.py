"""A disk that takes no more: one message, nothing half-written, a record that says so."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from chela.commands import start
from chela.errors import RunError
from chela.launch.cli import explain, is_plain, plain_errors
from chela.records.files import atomic_file, write_text
from chela.training.run import run
from tests.records.samples import record, save
from tests.training.runs import folder_of, record_of

TINY_RUN = ["trainer.max_steps=2", "trainer.validate_every_steps=1", "task.num_test=16"]


class Disk:
    """Counts what is written whole, and is full from a certain one on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int | None = None) -> None:
        self.written, self.room = 0, room
        self._sync = os.fsync
        monkeypatch.setattr("chela.records.files.os.fsync", self.sync)

    def sync(self, descriptor: int) -> None:
        if self.room is not None and self.written >= self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.written += 1
        self._sync(descriptor)


@pytest.mark.training
def test_wherever_the_disk_becomes_full_a_run_says_so_and_goes_on_later(
    composed, monkeypatch
) -> None:
    """A run that is repeated, each time with room for one write more, until it is finished."""
    uninterrupted = composed(*TINY_RUN, "name=whole")
    accuracy = run(uninterrupted)
    config = composed(*TINY_RUN)
    folder, file = folder_of(config), folder_of(config) / "record.json"
    for room in range(20):
        with monkeypatch.context() as patch:
            disk = Disk(patch, room)
            try:
                best = run(config)
                break
            except RunError as error:
                message = str(error)
        for part in ("No space left on device", str(folder), " free of ", "try: ", "last whole"):
            assert part in message
        assert not list(folder.rglob(".*.unfinished"))
        assert not file.exists() or json.loads(file.read_text())["status"] == "failed"
    assert 3 < room == disk.written
    record = record_of(config)
    assert record["status"] == "finished"
    assert best == accuracy
    assert record["test"] == record_of(uninterrupted)["test"]


@pytest.mark.parametrize("where", ["{}/taken", "{}/taken/below", "taken"])
def test_an_output_dir_that_cannot_be_is_one_message(
    composed, tmp_path, monkeypatch, where
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.chdir(tmp_path)
    where = where.format(tmp_path)
    with pytest.raises(OSError, match="taken") as caught:
        run(composed(f"output_dir={where}"))
    assert is_plain(caught.value)
    assert re.search("taken.*\n  try: .*another output_dir", explain(caught.value))


def test_a_report_that_cannot_be_written_is_one_message(tmp_path, capsys) -> None:
    save(tmp_path, record())
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as ended:
        start("report", [str(tmp_path), f"out={tmp_path}/taken/report"])
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {tmp_path}/taken/report: Not a directory (")


def test_a_library_that_hides_the_disk_behind_its_own_error_is_seen_through(tmp_path: Path) -> None:
    """As torch.save does, and Arrow."""
    with pytest.raises(RuntimeError) as caught, atomic_file(tmp_path / "x.ckpt"):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")
    assert is_plain(caught.value)
    assert explain(caught.value).startswith(f"{tmp_path}/x.ckpt: No space left on device (")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "make it writable"),
        (errno.EDQUOT, "make room"),
        (errno.ENOLCK, "has locks"),
        (errno.ENAMETOOLONG, "another output_dir"),
        (errno.EEXIST, "another output_dir"),
    ],
)
@pytest.mark.parametrize("place", ["{}/x", "x"])
def test_each_kind_has_its_remedy(
    number: int, part: str, place: str, tmp_path: Path, capsys
) -> None:
    file = place.format(tmp_path)
    with pytest.raises(SystemExit), plain_errors():
        raise OSError(number, os.strerror(number), file)
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {file}: {os.strerror(number)} (")
    assert part in shown


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "gcc"), ValueError("x"), OSError("x")]
)
def test_what_is_not_of_the_disk_keeps_its_traceback(error: Exception) -> None:
    assert not is_plain(error)


def test_a_whole_file_stays_when_the_next_one_has_no_room(tmp_path, monkeypatch) -> None:
    write_text(tmp_path / "a", "old")
    Disk(monkeypatch, 0)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(tmp_path / "a", "new")
    assert caught.value.filename == str(tmp_path / "a")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"
