"""Pickles of plain values and arrays of whole numbers, read without building anything else.

Python's own unpickler calls what a file names, and even NumPy's functions alone can be called so
that the process ends. Here it knows fewer operations, and those few names that arrays are pickled
with mean functions of this file. It is the one in Python: the one in C keeps its memory in a list
that is as long as a file likes.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

MOST = 10**7  # operations; an official batch of 10,000 images has some ten thousand
WHOLE = re.compile(r"[<>|=]?[ui][1248]")  # types of arrays
KEYS = (str, bytes, int)  # of dictionaries
OPERATIONS = (
    "PROTO FRAME STOP MARK POP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL "
    "STACK_GLOBAL REDUCE BUILD EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG "
    "LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE BINUNICODE8 "
    "SHORT_BINUNICODE BINBYTES BINBYTES8 SHORT_BINBYTES"
)


class Refused(Exception):
    """The pickle is none of plain values; the message is the reason, in a few words."""


def load(content: bytes) -> Any:
    """What a pickle of any protocol says: numbers, texts, lists, dictionaries, arrays.

    Byte strings, those of Python 2 among them, are ``bytes``; an array is (n, ...), of a type of
    whole numbers, and the value of a key.

    Raises:
        Refused: it is truncated, damaged, or asks for anything else.
    """
    try:
        found = _Unpickler(content).load()
        if not isinstance(found, dict):
            return found
        return {key: _whole(value) for key, value in found.items()}
    except Refused:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise Refused(str(error)[:200] or type(error).__name__) from error


@dataclass
class _Type:
    """An array's type, of which the state follows."""

    code: str

    def set_state(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.code = order + self.code.lstrip("<>|=")

    @property
    def dtype(self) -> np.dtype[Any]:
        if not WHOLE.fullmatch(self.code):
            raise Refused(f"it has an array of {self.code!r}, not of whole numbers")
        return np.dtype(self.code)


class _Array:
    """An array, of which the state follows."""

    value: NDArray[Any] | None = None

    def set_state(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, raw = state
        self.value = _array(raw, kind, shape, "F" if is_fortran else "C")


def _array(raw: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(kind, _Type) or not isinstance(raw, bytes):
        raise Refused("it has an array of other things than numbers")
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise Refused("it has an array without a shape")
    if len(shape) > 4 or len(raw) != math.prod(shape) * kind.dtype.itemsize or order not in "CF":
        raise Refused(f"it has an array of {len(raw):,} bytes for another shape")
    return np.frombuffer(raw, kind.dtype).reshape(shape, order=order)


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise Refused(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def _scalar(kind: _Type, raw: bytes) -> int:
    return int(_array(raw, kind, (), "C"))


# NumPy has moved its modules: core became _core.
NAMES: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray _reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray scalar": _scalar,
    "numpy.core.numeric _frombuffer": _array,  # protocol 5
    "numpy ndarray": lambda *_: _Array(),
    "numpy dtype": lambda code, *_: _Type(code if isinstance(code, str) else code.decode("latin1")),
    "_codecs encode": _bytes,  # how Python 3 writes bytes in Python 2's form
    "__builtin__ bytes": lambda: b"",  # and those that are empty
    "__builtin__ bytearray": _bytes,
    "builtins bytearray": lambda raw=b"": raw,
}


class _Counted(dict[int, Callable[..., None]]):
    """What each operation calls, until there were too many."""

    done = 0

    def __getitem__(self, code: int) -> Callable[..., None]:
        self.done += 1
        if self.done > MOST:
            raise Refused(f"it has more than {MOST:,} operations")
        return super().__getitem__(code)


class _Unpickler(pickle._Unpickler):
    """Python's own, whose attributes its types do not tell."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in OPERATIONS.split())
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.dispatch = _Counted(self.dispatch)  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        known = NAMES.get(f"{module} {name}".replace("numpy._core", "numpy.core", 1))
        if known is None:
            raise Refused(f"it asks for {module}.{name}, which no batch needs")
        return known

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Type):
            raise Refused("it changes what is no array")
        self.stack[-1].set_state(state)

    def _bytearray8(self) -> None:
        """Python's own has room for as many bytes as the file says, before it reads them."""
        self.stack.append(self.read(int.from_bytes(self.read(8), "little")))

    def _setitems(self) -> None:
        self._set(self.pop_mark())

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        """A key that is something else, and nested deeply, cannot be looked up without harm."""
        if type(self.stack[-1]) is not dict or not all(isinstance(k, KEYS) for k in items[::2]):
            raise Refused("it has a dictionary with other keys than texts and numbers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch |= {
        pickle.BUILD[0]: _build,
        pickle.BYTEARRAY8[0]: _bytearray8,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: _setitems,
        pickle.DICT[0]: _dict,
    }


def _whole(value: Any) -> Any:
    """A finished array in place of the one that was being built."""
    if isinstance(value, _Array):
        if value.value is None:
            raise Refused("it has an array without content")
        return value.value
    return value
