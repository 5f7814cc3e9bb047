"""CIFAR-10 from its official Python batches, in a folder or in the tar: checked, then read.

A batch is a pickle, which may run code when it is loaded: ``plain_pickle`` builds arrays and plain
values alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tasks.errors import DataError
from tasks.image import plain_pickle
from tasks.image.pixels import CLASSES, Images
from tasks.sources.archives import Source
from tasks.sources.files import check_md5

PLACES = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar-10-python.tar")
WHAT = (
    "cifar-10-python.tar.gz (about 170 MB, md5 c58f30108f718f92721af3b95e74349a), the Python "
    "version of CIFAR-10, Krizhevsky 2009, www.cs.toronto.edu/~kriz/cifar.html; unpacked or not"
)
# The MD5 of each official batch, in the order of the images.
OFFICIAL = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CHANNELS, PIXELS = 3, 32 * 32
LARGEST = 1 << 28  # bytes of a batch; the official ones have 31 MB


def read_files(source: Source, is_official: bool) -> Iterator[tuple[str, Images]]:
    """The batches as ``("train" or "test", images)``, in the official order.

    A folder is read batch by batch. The official tar has another order; the batches that come too
    early are kept until their turn, 31 MB each.

    Args:
        source: the folder ``cifar-10-batches-py`` or its tar.
        is_official: whether the official checksums are demanded.

    Raises:
        DataError: a batch is missing, another than the official one, or malformed.
    """
    waiting = list(OFFICIAL)
    early: dict[str, Images] = {}
    wanted = {f"cifar-10-batches-py/{name}": name for name in OFFICIAL}
    for path, stream in source.members(wanted.__contains__, LARGEST):
        name, content = wanted[path], stream.read()
        where = f"{source.path}: {name}"
        if is_official:
            check_md5(content, OFFICIAL[name], where)
        early[name] = _images(content, where)
        while waiting and waiting[0] in early:
            first = waiting.pop(0)
            yield ("test" if first == "test_batch" else "train"), early.pop(first)
    if waiting:
        missing = ", ".join(name for name in waiting if name not in early)
        raise DataError(
            f"{source.path} has no {missing}.\n  try: fetch and unpack the archive again"
        )


def _images(content: bytes, where: str) -> Images:
    def bad(what: str) -> DataError:
        return DataError(f"{where}: {what}.\n  try: fetch and unpack the archive again")

    try:
        batch = plain_pickle.load(content)
    except plain_pickle.Refused as error:
        raise bad(f"it is truncated or no batch ({len(content):,} bytes; {error})") from error
    if isinstance(batch, dict):  # pickled by Python 2, or by Python 3 with keys that are texts
        texts = {key.encode(): batch[key] for key in ("data", "labels") if key in batch}
        batch = texts | batch
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= set(batch):
        raise bad("it has no 'data' and 'labels'")
    data, labels = batch[b"data"], batch[b"labels"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or not data.size:
        raise bad("'data' is no array of bytes")
    if data.ndim != 2 or data.shape[1] != CHANNELS * PIXELS:
        raise bad(f"'data' is {data.shape}, not (images, {CHANNELS * PIXELS})")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list | tuple) or len(labels) != len(data):
        raise bad(f"'labels' is no list of {len(data)} numbers")
    for row, label in enumerate(labels):
        if type(label) is not int or label not in range(CLASSES):
            is_short = isinstance(label, int | float) and abs(label) < 2**64
            said = label if is_short else f"of the type {type(label).__name__}"
            raise bad(f"the label of image {row} is {said}, not one of 0 .. {CLASSES - 1}")
    return Images(data.reshape(-1, CHANNELS, PIXELS), np.array(labels, dtype=np.int64))
