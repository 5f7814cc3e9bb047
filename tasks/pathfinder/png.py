"""The grey levels of a PNG: of every kind the right ones, or a refusal that names the kind."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
DEPTH, KIND = 24, 25  # places of the bits per channel and of the kind of channels
KINDS = {
    0: "grey",
    2: "colour (RGB)",
    3: "a palette",
    4: "grey with transparency (LA)",
    6: "colour with transparency (RGBA)",
}


class Unfit(Exception):
    """What is wrong with a picture and what helps; to stand behind its name."""


def grey_levels(content: bytes, side: int) -> NDArray[np.uint8]:
    """A picture's levels (side, side), black 0, white 255.

    Grey of 1 to 16 bits, palettes and colours of 8 bits pass, the latter as Pillow's L; 16 bits are
    rounded to 8. What would have to be guessed does not: transparent pixels, colours of 16 bits.

    Args:
        content: of the file.
        side: pixels that it must have, before any of them is unpacked.

    Raises:
        Unfit: it is damaged, has another size, or is of a kind that has no one grey form.
    """
    if len(content) <= KIND or not content.startswith(SIGNATURE):
        raise _no_png(content)
    try:
        # Its first bytes tell the size, so no more than that is ever unpacked.
        width, height = np.frombuffer(content, ">u4", 2, len(SIGNATURE)).tolist()
        if (height, width) != (side, side):
            raise Unfit(
                f"has {height:,} x {width:,} pixels, not {side} x {side}.\n"
                "  try: the task.resolution of these data"
            )
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            if image.size != (side, side):
                raise _no_png(content)
            return _levels(image, content[DEPTH], content[KIND])
    except Unfit:
        raise
    except Exception as error:  # damage leads to whatever
        raise _no_png(content) from error


def _levels(image: Image.Image, depth: int, kind: int) -> NDArray[np.uint8]:
    name = f"is {KINDS[kind]} of {depth} bits"
    if depth == 16 and kind != 0:
        raise Unfit(f"{name}.\n  try: save it as grey of 8 or 16 bits")
    if not _is_opaque(image, depth, kind):
        raise Unfit(f"{name} and partly transparent.\n  try: save it as grey of 8 bits (L)")
    if depth == 16:
        wide = np.asarray(image).astype(np.uint32)
        return ((wide + 128) // 257).astype(np.uint8)  # 65535 is 255 * 257
    image.info.pop("transparency", None)  # of a palette Pillow would warn
    return np.asarray(image.convert("L"))


def _is_opaque(image: Image.Image, depth: int, kind: int) -> bool:
    """Whether each pixel is, whatever the file says of colours that none of them has."""
    clear = image.info.get("transparency")
    if clear is None and kind not in (4, 6):
        return True
    if kind in (0, 2):  # one colour is clear, told in as many bits as a pixel has
        shown = np.asarray(image)
        most = (1 << depth) - 1
        full = 1 if depth == 1 else 65535 if depth == 16 else 255  # as Pillow unpacks it
        key = (np.asarray(clear) & most) * (full // most)
        return not (shown.reshape(image.height, image.width, -1) == key).all(-1).any()
    opacity: Any = image.convert("RGBA").getextrema()[-1]
    return bool(opacity == (255, 255))


def _no_png(content: bytes) -> Unfit:
    return Unfit(f"is no whole PNG ({len(content):,} bytes).\n  try: fetch the data again")
