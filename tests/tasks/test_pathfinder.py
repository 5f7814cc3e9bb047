"""The Pathfinder and Path-X tasks: official and generated, splits, batches, and damage."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import DataError
from tasks.pathfinder.generator import generate
from tasks.pathfinder.law import PUBLISHED
from tasks.pathfinder.official import membership
from tasks.pathfinder.task import Pathfinder, PathfinderConfig, PathX, PathXConfig, grey
from tests.tasks.pathfinder_release import SET, packed, png, release, unpacked
from tests.tasks.samples import block, ready

PREFIX = f"lra_release/lra_release/pathfinder32/{SET}/"
FORMS = ("release", "s4", "plain", "lra_release.gz", "lra_release.tar.gz")
ROWS = 30


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Pathfinder]:
    """``make(source="generated")``: a task in a folder of its own; not yet prepared."""

    def build(task: type[Pathfinder] = Pathfinder, **changes: Any) -> Pathfinder:
        given = {"num_train": 20, "num_val": 4, "num_test": 6, "workers": 1, **changes}
        return task(task.Config(**given), tmp_path)

    return build


def lay(files: dict[str, bytes], data_dir: Path, form: str) -> None:
    places = {
        "release": PREFIX,
        "s4": f"pathfinder/pathfinder32/{SET}",
        "plain": f"pathfinder32/{SET}",
    }
    if form in places:
        unpacked(files, data_dir / places[form])
    else:
        packed(files, data_dir / form, PREFIX)


def numbers(task: Pathfinder, split: str) -> list[int]:
    """The numbers of a split's pictures, which their first two pixels hold."""
    pictures = [task.sample(split, row) for row in range(len(getattr(task, split)))]
    return [256 * int(picture[0, 0]) + int(picture[0, 1]) for picture in pictures]


# --- official ---


@pytest.mark.parametrize("form", FORMS)
def test_an_official_set_is_read_in_every_form(make, tmp_path: Path, form: str) -> None:
    files = release(3, 10)
    lay(files, tmp_path, form)
    task = ready(make(official_rows=ROWS))
    assert task.meta.source == "official-part"
    assert task.meta.stand_in
    split = membership(ROWS)
    for number, name in enumerate(("train", "val", "test")):
        assert numbers(task, name) == np.flatnonzero(split == number).tolist()
        labels = [row["label"] for row in getattr(task, name)]
        assert labels == [each * 7 % 3 % 2 for each in numbers(task, name)]
    first = numbers(task, "test")[0]
    content = files[f"imgs/{first // 10}/sample_{first % 10}.png"]
    assert np.array_equal(task.sample("test", 0), np.asarray(Image.open(BytesIO(content))))


def test_lists_are_ordered_by_number_and_not_by_name(make, tmp_path: Path) -> None:
    lay(release(12, 5), tmp_path, "release")
    task = ready(make(official_rows=60))
    everything = numbers(task, "train") + numbers(task, "val") + numbers(task, "test")
    assert sorted(everything) == list(range(60))
    assert numbers(task, "train") == sorted(numbers(task, "train"))


def test_the_split_is_s4_s() -> None:
    for n in (30, 199_999, 200_000):
        lengths = [n - 2 * int(0.1 * n), int(0.1 * n), int(0.1 * n)]
        theirs = torch.utils.data.random_split(
            range(n),  # type: ignore[arg-type]
            lengths,
            generator=torch.Generator().manual_seed(42),
        )
        split = membership(n)
        for number, part in enumerate(theirs):
            assert sorted(part.indices) == np.flatnonzero(split == number).tolist()


def test_the_split_never_changes() -> None:
    split = membership(200_000)
    assert np.bincount(split).tolist() == [160_000, 20_000, 20_000]
    assert np.flatnonzero(split == 2)[:5].tolist() == [1, 11, 15, 37, 53]
    assert np.flatnonzero(split == 1)[:5].tolist() == [18, 20, 23, 25, 34]


def damaged(change: Callable[[dict[str, bytes]], None]) -> dict[str, bytes]:
    files = release()
    change(files)
    return files


def _columns(line: bytes, place: int, value: bytes) -> bytes:
    columns = line.split(b" ")
    columns[place] = value
    return b" ".join(columns)


def _edit_first_line(files: dict[str, bytes], line: Callable[[bytes], bytes]) -> None:
    first, rest = files["metadata/1.npy"].split(b"\n", 1)
    files["metadata/1.npy"] = line(first) + b"\n" + rest


DAMAGE = {
    "a picture is missing": (
        lambda files: files.pop("imgs/1/sample_3.png"),
        r"metadata/1\.npy, line 4: there is no imgs/1/sample_3\.png",
    ),
    "a picture is empty": (
        lambda files: files.update({"imgs/1/sample_3.png": b""}),
        r"imgs/1/sample_3\.png is no whole PNG \(0 bytes\)",
    ),
    "a picture is truncated": (
        lambda files: files.update({"imgs/0/sample_0.png": files["imgs/0/sample_0.png"][:500]}),
        r"imgs/0/sample_0\.png is no whole PNG \(500 bytes\)",
    ),
    "a picture is of another size": (
        lambda files: files.update({"imgs/0/sample_0.png": png(np.zeros((16, 32), np.uint8))}),
        r"16 x 32 pixels, not 32 x 32(.|\n)*task\.resolution",
    ),
    "a label is out of range": (
        lambda files: _edit_first_line(files, lambda line: _columns(line, 3, b"2")),
        r"metadata/1\.npy, line 1: the label is '2', not 0 or 1",
    ),
    "a column is missing": (
        lambda files: _edit_first_line(files, lambda line: line.rsplit(b" ", 1)[0]),
        r"metadata/1\.npy, line 1: 10 columns instead of 11",
    ),
    "a list is empty": (
        lambda files: files.update({"metadata/1.npy": b""}),
        r"lists 20 pictures(.|\n)*not 30(.|\n)*task\.official_rows=20",
    ),
    "a list is in NumPy's format": (
        lambda files: files.update({"metadata/1.npy": b"\x93NUMPY\x01\x00"}),
        r"metadata/1\.npy is not the plain text",
    ),
    "a list has a strange name": (
        lambda files: files.update({"metadata/old.npy": b""}),
        r"metadata/old\.npy is no list",
    ),
}


@pytest.mark.parametrize("form", ["release", "lra_release.gz"])
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(make, tmp_path: Path, what: str, form: str) -> None:
    change, message = DAMAGE[what]
    lay(damaged(change), tmp_path, form)
    task = make(official_rows=ROWS)
    with pytest.raises(DataError, match=message):
        task.prepare_data()
    assert not task.folder.exists()


def named(place: bytes) -> dict[str, bytes]:
    """A set whose first line names ``place``, a folder and a file."""
    folder, _, file = place.rpartition(b"/")
    return damaged(
        lambda files: _edit_first_line(
            files, lambda line: _columns(_columns(line, 0, folder or b"/"), 1, file)
        )
    )


@pytest.mark.parametrize("form", ["release", "lra_release.gz"])
@pytest.mark.parametrize(
    "place", ["../../x.png", "imgs/../../x.png", "/dev/zero", "imgs//x", "a\0/b"]
)
def test_a_list_names_files_below_its_own_folder_alone(
    make, tmp_path: Path, place: str, form: str
) -> None:
    lay(named(place.encode()), tmp_path, form)
    if form == "release":
        (tmp_path / PREFIX / "../x.png").write_bytes(png(np.zeros((32, 32), np.uint8)))
    with pytest.raises(DataError, match=r"1\.npy, line 1: .*(no place below|there is no imgs/x)"):
        make(official_rows=ROWS).prepare_data()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link"])
def test_what_a_list_names_is_a_regular_file(make, tmp_path: Path, kind: str) -> None:
    folder = unpacked(release(), tmp_path / PREFIX)
    place = folder / "imgs/1/sample_3.png"
    place.rename(tmp_path / "x.png")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero" if kind == "device" else tmp_path / "x.png")
    with pytest.raises(
        DataError, match=r"sample_3\.png (is no regular file|leads to \S+, outside)"
    ):
        make(official_rows=ROWS).prepare_data()


def test_harmless_oddities_of_a_set_are_read(make, tmp_path: Path) -> None:
    """What other systems leave: hidden files, a byte-order mark, a blank line, a linked set."""
    lay(release(), tmp_path, "s4")
    expected = ready(make(official_rows=ROWS)).meta.fingerprint
    shutil.rmtree(tmp_path / "pathfinder")
    files = release()
    files["metadata/0.npy"] = b"\xef\xbb\xbf" + files["metadata/0.npy"].replace(b"\n", b" \r\n")
    files["metadata/1.npy"] += b"\n \n"
    files["metadata/._0.npy"] = files["imgs/0/._sample_0.png"] = b"\0\5\x16\7"
    unpacked(files, tmp_path / "far")
    (tmp_path / "pathfinder32").mkdir()
    (tmp_path / f"pathfinder32/{SET}").symlink_to(tmp_path / "far")
    found = ready(make(source="official", official_rows=ROWS))
    assert found.meta.fingerprint == expected


def test_a_set_too_small_for_its_splits_is_named(make, tmp_path: Path) -> None:
    lay(release(1, 5), tmp_path, "s4")
    task = ready(make(official_rows=5))
    assert len(task.train) == 5
    with pytest.raises(DataError, match=r"pathfinder has no sample in val(.|\n)*more data"):
        task.val  # noqa: B018


def test_an_archive_without_the_set_is_named(make, tmp_path: Path) -> None:
    packed({}, tmp_path / "lra_release.gz", PREFIX)
    with pytest.raises(DataError, match=rf"lra_release\.gz has no lists(.|\n)*{PREFIX}metadata"):
        make(official_rows=ROWS).prepare_data()


def test_the_empty_picture_of_the_release_is_left_out(make, tmp_path: Path) -> None:
    files = release(1, 180)
    files["imgs/0/sample_172.png"] = b""
    unpacked(files, tmp_path / "pathfinder32/curv_baseline")
    task = ready(make(official_rows=180, contour_length=6))
    everything = numbers(task, "train") + numbers(task, "val") + numbers(task, "test")
    assert sorted(everything) == [number for number in range(180) if number != 172]


def test_the_folder_with_other_labels_is_not_read(make, tmp_path: Path) -> None:
    unpacked(release(), tmp_path / f"lra_release/pathfinder32/{SET}")
    with pytest.raises(DataError, match="no data for pathfinder"):
        make(source="official", official_rows=ROWS).prepare_data()


def test_without_any_source_the_error_says_what_to_do(make) -> None:
    with pytest.raises(DataError) as caught:
        make(task=PathX, source="official").prepare_data()
    for part in (
        "pathx",
        "lra_release.gz",
        "7.7 GB",
        "chela prepare task=pathx",
        "task.source=generated",
    ):
        assert part in str(caught.value)


def test_no_official_set_has_other_contours(make, tmp_path: Path) -> None:
    lay(release(), tmp_path, "release")
    with pytest.raises(DataError, match=r"contours of 10(.|\n)*task\.contour_length=14"):
        make(source="official", contour_length=10).origin()
    assert make(contour_length=10).origin().source == "generated"


# --- generated ---


def test_generated_rows_are_dealt_out_in_order(make) -> None:
    task = ready(make())
    assert task.meta.source == "generated"
    assert not task.meta.stand_in
    drawn = next(generate(30, PUBLISHED[32], seed=0, workers=1))
    start = 0
    for split, size in (("train", 20), ("val", 4), ("test", 6)):
        for row in range(size):
            assert np.array_equal(task.sample(split, row), drawn.pixels[start + row])
            assert getattr(task, split)[row]["label"] == drawn.labels[start + row]
        start += size
    assert task.expected_rows() == 30


def test_what_changes_the_pictures_changes_the_folder(make) -> None:
    folders = [make().folder] + [
        make(**change).folder
        for change in (
            {"data_seed": 1},
            {"distractors": 10},
            {"margins": (1, 2)},
            {"snake_contrast": 1.0},
            {"continuity": 1.8},
            {"contour_length": 9},
            {"resolution": 64},
            {"num_train": 21},
        )
    ]
    assert len(set(folders)) == len(folders)
    assert make(workers=3).folder == make(distractors=5).folder == make(center=False).folder
    assert make(task=PathX).folder != make(resolution=128).folder


def test_batches_are_real_numbers_in_raster_order(make) -> None:
    for center in (True, False):
        task = ready(make(center=center))
        batch = next(iter(task.batches("test", 4)))
        assert batch.values.shape == (4, 1024)
        assert batch.values.dtype == torch.float32
        assert batch.lengths.tolist() == [1024] * 4
        pixels = torch.from_numpy(task.sample("test", 1).reshape(-1).astype(np.float32)) / 255
        expected = (pixels - 0.5) / 0.5 if center else pixels
        torch.testing.assert_close(batch.values[1], expected)
        spec = task.spec
        assert (spec.max_length, spec.num_classes, spec.vocab_size, spec.input_dim) == (
            1024,
            2,
            None,
            1,
        )


def test_the_extremes_of_grey() -> None:
    stored = torch.tensor([[0, 255, 51]], dtype=torch.uint8)
    assert grey(stored, center=False).tolist() == [[0.0, 1.0, pytest.approx(0.2)]]
    assert grey(stored, center=True).tolist() == [[-1.0, 1.0, pytest.approx(-0.6)]]


def test_encode_goes_to_other_processes(make) -> None:
    encoding = pickle.loads(pickle.dumps(make().encoding))
    values, lengths, *_ = encoding.read(block(([7] * 1024, 0)), [0])
    assert values.shape == (1, 1024)
    assert lengths.tolist() == [1024]


def test_path_x_is_pathfinder_at_128(make) -> None:
    task = ready(make(task=PathX, num_train=2, num_val=1, num_test=1))
    assert task.meta.task == task.spec.name == "pathx"
    assert task.sample("train", 0).shape == (128, 128)
    assert task.spec.max_length == 16_384


# --- configuration ---


def test_the_law_is_the_published_one_with_what_is_set() -> None:
    assert PathXConfig().law == PUBLISHED[128]
    changed = PathfinderConfig(resolution=64, distractors=11, margins=(2,), contour_length=9).law
    assert changed == dataclasses.replace(
        PUBLISHED[64], distractors=11, margins=(2,), contour_length=9
    )


def test_contours_need_three_paddles() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        PathfinderConfig(contour_length=2)
