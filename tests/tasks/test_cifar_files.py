"""CIFAR-10 batches: read in order, checked, and never allowed to run code."""

from __future__ import annotations

import collections
import hashlib
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.image import cifar_files, plain_pickle
from tasks.image.cifar_files import read_files
from tasks.sources.archives import Source
from tests.tasks.small_images import BATCHES, PER_BATCH, batch, write_cifar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_cifar(tmp_path)


def packed(folder: Path, order: list[str]) -> Path:
    path = folder.parent / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in order:
            archive.add(folder / name, arcname=f"{folder.name}/{name}")
    return path


def all_of(path: Path, is_official: bool = False) -> list[tuple[str, Any]]:
    return list(read_files(Source(path), is_official))


def test_the_batches_come_in_their_order_from_folder_and_tar(folder: Path) -> None:
    official_order = ["data_batch_4", "test_batch", "data_batch_3", "data_batch_2"]
    tar = packed(folder, [*official_order, "data_batch_5", "readme.html", "data_batch_1"])
    for path in (folder, tar):
        found = all_of(path)
        assert [split for split, _ in found] == ["train"] * 5 + ["test"]
        for name, (_, images) in zip(BATCHES, found, strict=True):
            assert images.labels.tolist() == batch(name)[b"labels"]
            assert images.pixels.shape == (PER_BATCH, 3, 1024)
            # the first third of a row is its red, line by line
            assert (images.pixels[:, 0] == batch(name)[b"data"][:, :1024]).all()
            assert (images.pixels.reshape(PER_BATCH, -1) == batch(name)[b"data"]).all()


def test_official_checksums(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BATCHES:
        found = hashlib.md5((folder / name).read_bytes()).hexdigest()
        monkeypatch.setitem(cifar_files.OFFICIAL, name, found)
    assert len(all_of(folder, is_official=True)) == 6
    assert len(all_of(packed(folder, BATCHES), is_official=True)) == 6
    content = bytearray((folder / "data_batch_5").read_bytes())
    content[len(content) // 2] ^= 1  # in the middle of the pixels
    (folder / "data_batch_5").write_bytes(content)
    for path in (folder, packed(folder, BATCHES)):
        with pytest.raises(DataError, match=r"data_batch_5 is not the official(.|\n)*stand_in="):
            all_of(path, is_official=True)
    assert len(all_of(folder)) == 6


def test_missing_batches_are_named(folder: Path) -> None:
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match=r"cifar-10-batches-py has no data_batch_2, test_batch"):
        all_of(folder)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "thing", [Evil(), collections.OrderedDict(a=1), os.path.join, np.random.default_rng(0)]
)
def test_a_batch_that_would_run_code_is_refused(
    folder: Path, thing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {**batch("data_batch_1"), b"extra": thing}
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=r"data_batch_1: (.|\n)*asks for \S+, which no batch needs"):
        all_of(folder)
    assert not (tmp_path / "harmed").exists()


def test_bytes_are_decoded_by_one_codec_alone(folder: Path) -> None:
    content = b"c_codecs\nencode\n(V.\nVrot13\ntR."  # encode(".", "rot13")
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match="asks for the encoding rot13"):
        all_of(folder)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_names_of_numpys_function_are_known(folder: Path, module: str) -> None:
    """The official files have the older one, newly written stand-ins the newer."""
    content = (folder / "data_batch_1").read_bytes()
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        content = content.replace(b"c" + name + b"\n", b"c" + module.encode() + b"\n")
    assert module.encode() in content
    (folder / "data_batch_1").write_bytes(content)
    assert len(all_of(folder)) == 6


def changed(**changes: Any) -> bytes:
    content = {**batch("data_batch_1"), **{key.encode(): value for key, value in changes.items()}}
    kept = {key: value for key, value in content.items() if value is not None}
    return pickle.dumps(kept, protocol=3)


LABELS = batch("data_batch_1")[b"labels"]
DATA = batch("data_batch_1")[b"data"]


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "truncated or no batch"),
        (b"<html>moved</html>", "truncated or no batch"),
        (changed()[:-1000], "truncated or no batch"),
        (pickle.dumps([1, 2], 2), "no 'data' and 'labels'"),
        (changed(labels=None), "no 'data' and 'labels'"),
        (changed(data=DATA.astype(np.int16)), "no array of bytes"),
        (changed(data=DATA.tolist()), "no array of bytes"),
        (changed(data=DATA[:0], labels=[]), "no array of bytes"),
        (changed(data=DATA[:, :1024]), r"\(20, 1024\), not \(images, 3072\)"),
        (changed(data=DATA.reshape(20, 3, 1024)), r"\(20, 3, 1024\), not"),
        (changed(labels=LABELS[:-1]), "no list of 20 numbers"),
        (changed(labels="0" * 20), "no list of 20 numbers"),
        (changed(labels=[*LABELS[:-1], 10]), "the label of image 19 is 10, not one of 0 .. 9"),
        (changed(labels=[-1, *LABELS[1:]]), "the label of image 0 is -1"),
        (changed(labels=[0.5, *LABELS[1:]]), r"the label of image 0 is 0\.5"),
        (changed(labels=[1 << 20_000, *LABELS[1:]]), "the label of image 0 is of the type int"),
    ],
)
def test_malformed_batches_are_named(folder: Path, content: bytes, what: str) -> None:
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=rf"data_batch_1: .*{what}(.|\n)*try:"):
        all_of(folder)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "form", ["bytes", "texts", "fortran", "scalars", "array of labels", "a key in no UTF-8"]
)
def test_the_same_arrays_in_other_pickles_are_read(folder: Path, protocol: int, form: str) -> None:
    content: dict[Any, Any] = dict(batch("data_batch_1"))
    if form == "texts":
        content = {key.decode(): value for key, value in content.items()}
    elif form == "fortran":
        content[b"data"] = np.asfortranarray(content[b"data"])
    elif form == "scalars":
        content[b"labels"] = [np.int64(label) for label in content[b"labels"]]
    elif form == "a key in no UTF-8":
        content["\ud800"] = None
    elif form == "array of labels":
        content[b"labels"] = np.array(content[b"labels"], dtype=">i4")
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, protocol=protocol))
    (_, images), *_ = all_of(folder)
    assert images.labels.tolist() == LABELS
    assert (images.pixels.reshape(PER_BATCH, -1) == DATA).all()


# Each ends the process, or fills the memory, where Python's and NumPy's own code reads it.
STATE = b"(K\x01(M\xe8\x03tcnumpy\ndtype\n(X\x01\x00\x00\x00O\x89\x88tR\x89(lNatb."
HOSTILE = {
    "objects at any address": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    b"(K\x00tX\x01\x00\x00\x00btR" + STATE,
    "a memory of 2 ** 32 places": b"\x80\x02Nr\xff\xff\xff\xff.",
    "2 ** 60 bytes": b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little"),
    "room for 2 ** 36 bytes": b"\x80\x05\x96" + (1 << 36).to_bytes(8, "little"),
    "2 ** 36 zeros": b"c__builtin__\nbytes\n(L68719476736L\ntR.",
    "a key nested deeply": b"\x80\x02}N" + b"\x85" * 50_000 + b"Ns.",
    "a label nested deeply": b"\x80\x02]N" + b"\x85" * 50_000 + b"a.",
    "a change of a function": b"\x80\x02cnumpy\ndtype\n}X\x01\x00\x00\x00aNsb.",
    "operations without end": b"\x80\x02" + b"]" * 2_000 + b".",
    "no mark": b"\x80\x02t.",
    "itself": b"\x80\x02]q\x00h\x00a.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_nothing_happens(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "operations without end":
        monkeypatch.setattr(plain_pickle, "MOST", 1_000)
    (folder / "data_batch_1").write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=r"data_batch_1: .*(no batch|no 'data' and 'labels')"):
        all_of(folder)
