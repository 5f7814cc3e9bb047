"""Prepared data: whole or absent whatever happens, made once, checked when opened."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.meta import Origin, SplitCounts, fingerprint
from tasks.rows import Rows, offsets_of
from tasks.store import Recipe, load, prepare, stored_rows, verify

ROOT = Path(__file__).parents[2]


def block(*samples: tuple[list[int], int], dtype: str = "uint8") -> Rows:
    values = np.array([value for sample, _ in samples for value in sample], dtype=dtype)
    lengths = np.array([len(sample) for sample, _ in samples], dtype=np.int64)
    return Rows(values, offsets_of(lengths), np.array([label for _, label in samples], np.int64))


SAMPLES = {
    "train": [([1, 2, 3], 0), ([], 2), ([4], 2), ([5, 6], 1)],
    "val": [([7, 7], 1)],
    "test": [([9] * 300, 0), ([8], 1), ([8, 8], 0), ([8], 0)],
}


def rows_of_samples() -> Iterator[tuple[str, Rows]]:
    for split, samples in SAMPLES.items():
        for start in range(0, len(samples), 3):
            yield split, block(*samples[start : start + 3])


def recipe(rows=rows_of_samples, dtype: str = "uint8") -> Recipe:
    return Recipe(Origin("toy", 1, "made", {"size": 9}), dtype, rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "toy" / "made-1"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def run(script: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """A process that has this file's names and does ``script``."""
    text = "from tests.tasks.test_store import *\n" + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_what_is_prepared_is_loaded(folder: Path) -> None:
    prepare(folder, recipe())
    prepared = load(folder)
    assert sorted(contents(folder)) == ["meta.json", "test.arrow", "train.arrow", "val.arrow"]
    for split, samples in SAMPLES.items():
        found = prepared.splits[split]
        assert list(zip(found["values"], found["label"], strict=True)) == samples
        assert str(found.features["values"].feature.dtype) == "uint8"
        assert str(found.features["label"].dtype) == "int64"
        file = folder / f"{split}.arrow"
        assert prepared.meta.splits[split].bytes == file.stat().st_size
    meta = prepared.meta
    assert (meta.task, meta.version, meta.source) == ("toy", 1, "made")
    assert meta.parameters == {"size": 9}
    train = meta.splits["train"]
    assert (train.rows, train.class_counts) == (4, [1, 1, 2])
    assert (train.min_length, train.mean_length, train.max_length) == (0, 1.5, 3)
    assert set(meta.libraries) == {"numpy", "pyarrow", "datasets"}
    assert meta.majority_accuracy("train") == 2 / 4
    assert meta.majority_accuracy("test") == 0  # the class most frequent in train is not in test
    assert "4 train / 1 val / 4 test" in meta.describe()
    assert meta.summary()["fingerprint"] == meta.fingerprint == verify(folder)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_values_keep_their_type(folder: Path, dtype: str) -> None:
    prepare(folder, recipe(lambda: iter([("train", block(([1, 2], 0), dtype=dtype))]), dtype))
    rows = next(stored_rows(load(folder).splits["train"]))
    assert rows.values.dtype == dtype
    assert rows.values.tolist() == [1, 2]


def test_rows_of_another_type_are_refused(folder: Path) -> None:
    with pytest.raises(TypeError, match="uint16"):
        prepare(folder, recipe(lambda: iter([("train", block(([300], 0), dtype="uint16"))])))
    assert not folder.exists()


samples_of_a_split = st.lists(
    st.tuples(st.lists(st.integers(0, 255), max_size=6), st.integers(0, 3)), min_size=1, max_size=12
)


def named(samples: list[tuple[list[int], int]], cuts: list[int]) -> str:
    counts = SplitCounts()
    bounds = [0, *sorted(cut % (len(samples) + 1) for cut in cuts), len(samples)]
    for start, stop in itertools.pairwise(bounds):
        counts.add(block(*samples[start:stop]))
    return fingerprint(1, {"train": counts})


@settings(deadline=None)
@given(samples_of_a_split, st.lists(st.integers(0, 12), max_size=4))
def test_the_fingerprint_is_of_the_content_not_of_its_blocks(samples, cuts) -> None:
    assert named(samples, cuts) == named(samples, [])


@settings(deadline=None)
@given(samples_of_a_split, st.data())
def test_any_change_of_the_content_changes_the_fingerprint(samples, data) -> None:
    before = named(samples, [])
    row = data.draw(st.integers(0, len(samples) - 1))
    values, label = samples[row]
    others = [(values, label + 1), ([*values, 0], label)]
    if values:
        others.append(([*values[:-1], values[-1] ^ 1], label))
    for other in others:
        assert named([*samples[:row], other, *samples[row + 1 :]], []) != before


def test_the_fingerprint_knows_boundaries_splits_and_version() -> None:
    def counted(*samples: tuple[list[int], int]) -> SplitCounts:
        counts = SplitCounts()
        counts.add(block(*samples))
        return counts

    one, other = counted(([1, 2], 0), ([3], 0)), counted(([1], 0), ([2, 3], 0))
    names = {
        fingerprint(1, {"train": one, "test": other}),
        fingerprint(1, {"train": other, "test": one}),
        fingerprint(1, {"train": one, "val": other}),
        fingerprint(2, {"train": one, "test": other}),
    }
    assert len(names) == 4


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
    assert verify(folder) == load(neighbour).meta.fingerprint


def test_a_killed_preparation_is_cleared_away_by_the_next(folder: Path) -> None:
    script = """
        import time
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
    verify(folder)


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


def test_prepared_data_are_used_without_writing(folder: Path) -> None:
    prepare(folder, recipe())
    folder.with_name("made-1.lock").unlink()
    script = """
        prepare(Path(sys.argv[1], "toy", "made-1"), recipe())
        print(load(Path(sys.argv[1], "toy", "made-1")).splits["train"][0])
        print(verify(Path(sys.argv[1], "toy", "made-1")))
    """
    process = run(textwrap.dedent(READ_ONLY) + textwrap.dedent(script), folder.parents[1])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "[1, 2, 3]" in out
    assert not folder.with_name("made-1.lock").exists()


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
    assert [each.name for each in (tmp_path / "data" / "toy").iterdir()] == ["made-1.lock"]


def test_a_truncated_file_is_named(folder: Path) -> None:
    prepare(folder, recipe())
    file = folder / "val.arrow"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"val.arrow has .* instead of(.|\n)*delete {folder}"):
        load(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    prepare(folder, recipe())
    (folder / "test.arrow").unlink()
    with pytest.raises(DataError, match=rf"test.arrow is missing(.|\n)*delete {folder}"):
        load(folder)


def test_a_file_of_the_right_size_that_is_none_of_ours_is_named(folder: Path) -> None:
    prepare(folder, recipe())
    file = folder / "train.arrow"
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(DataError, match=r"train.arrow cannot be read"):
        load(folder)


@pytest.mark.parametrize("text", [None, "", "{", "{}", '{"splits": {}}', '{"splits": {"a": {}}}'])
def test_a_broken_meta_is_named(folder: Path, text: str | None) -> None:
    prepare(folder, recipe())
    (folder / "meta.json").unlink()
    if text is not None:
        (folder / "meta.json").write_text(text)
    with pytest.raises(DataError, match=rf"meta.json cannot be read(.|\n)*delete {folder}"):
        load(folder)


def test_verify_finds_one_changed_value(folder: Path) -> None:
    prepare(folder, recipe())
    file = folder / "test.arrow"
    content = file.read_bytes()
    place = content.index(b"\x09" * 300)
    file.write_bytes(content[:place] + b"\x08" + content[place + 1 :])
    load(folder)  # cheap: it does not read the content
    with pytest.raises(DataError, match=r"fingerprint(.|\n)*delete"):
        verify(folder)


def test_the_same_rows_in_other_blocks_are_the_same_dataset(folder: Path) -> None:
    def one_by_one() -> Iterator[tuple[str, Rows]]:
        for split, samples in SAMPLES.items():
            for sample in samples:
                yield split, block(sample)

    prepare(folder, recipe())
    other = folder.with_name("made-2")
    prepare(other, recipe(one_by_one))
    assert verify(folder) == verify(other)


def test_a_prepared_folder_may_be_moved(folder: Path, tmp_path: Path) -> None:
    prepare(folder, recipe())
    shutil.move(folder, tmp_path / "elsewhere")
    assert load(tmp_path / "elsewhere").splits["train"][3] == {"values": [5, 6], "label": 1}


def test_what_is_prepared_is_said_only_when_asked(folder: Path, capfd) -> None:
    prepare(folder, recipe(), show=False)
    assert capfd.readouterr().err == ""
    prepare(folder.with_name("made-2"), recipe())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "preparing toy (made) ..."
    assert lines[1].startswith("prepared toy (made): 4 train")


def test_the_key_names_everything_that_determines_the_content() -> None:
    base = Origin("toy", 1, "made", {"size": 9})
    others = [
        Origin("toy", 2, "made", {"size": 9}),
        Origin("toy", 1, "found", {"size": 9}),
        Origin("toy", 1, "made", {"size": 8}),
    ]
    assert len({origin.key for origin in [base, *others]}) == 4
    assert Origin("toy", 1, "made", {"size": 9}).key == base.key
    assert base.key.startswith("made-")
