"""Pickles of plain values and arrays of whole numbers, read without building anything else.

Python's own unpickler calls what a file names, and even NumPy's functions alone can be called so
that the process ends. Here the operations of a pickle are carried out one by one, and those few
names that arrays are pickled with mean functions of this file.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARK = object()
MOST = 10**7  # operations; an official batch of 10,000 images has some ten thousand
WHOLE = re.compile(r"[<>|=]?[ui][1248]")  # types of arrays


class Refused(Exception):
    """The pickle is none of plain values; the message is the reason, in a few words."""


def load(content: bytes) -> Any:
    """What a pickle of any protocol says: numbers, texts, lists, dictionaries, arrays.

    Byte strings, those of Python 2 among them, are ``bytes``; an array is (n, ...), of a type of
    whole numbers.

    Raises:
        Refused: it is truncated, damaged, or asks for anything else.
    """
    try:
        return _Machine().run(content)
    except Refused:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise Refused(str(error)[:200] or type(error).__name__) from error


@dataclass
class _Name:
    """What a pickle calls by a module and a name."""

    call: Callable[..., Any]


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
    "__builtin__ bytes": bytes,  # and those that are empty
    "__builtin__ bytearray": _bytes,
    "builtins bytearray": lambda raw=b"": raw,
}
KEYS = (str, bytes, int)


class _Machine:
    """The stack and the memory that the operations of a pickle work on."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for done, (operation, argument, _) in enumerate(pickletools.genops(content)):
            name = operation.name
            if done == MOST:
                raise Refused(f"it has more than {MOST:,} operations")
            if name == "STOP":
                return _whole(self.stack.pop())
            step = getattr(self, f"_{name.lower()}", None)
            if name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in VALUES:
                self.stack.append(VALUES[name](argument))
            elif step is not None:
                step(argument)
            elif name not in ("PROTO", "FRAME"):
                raise Refused(f"it asks for the operation {name}, which no batch needs")
        raise Refused("it ends too early")

    def _marked(self) -> list[Any]:
        """What lies above the last mark, taken off with it."""
        place = len(self.stack) - 1
        while self.stack[place] is not MARK:
            place -= 1
            if place < 0:
                raise Refused("it has no mark")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _put(self, place: int) -> None:
        self.memory[place] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self.memory[len(self.memory)] = self.stack[-1]

    def _get(self, place: int) -> None:
        self.stack.append(self.memory[place])

    _binget = _long_binget = _get

    def _pop(self, _: None) -> None:
        self.stack.pop()

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _tuple1(self, _: None) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: None) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: None) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._marked()))

    def _list(self, _: None) -> None:
        self.stack.append(self._marked())

    def _dict(self, _: None) -> None:
        items = self._marked()
        self.stack.append({})
        self._set(items)

    def _append(self, _: None) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("it appends to what is no list")
        self.stack[-1].extend(map(_whole, items))

    def _setitem(self, _: None) -> None:
        items = [self.stack.pop(), self.stack.pop()][::-1]
        self._set(items)

    def _setitems(self, _: None) -> None:
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(self.stack[-1]) is not dict or not isinstance(key, KEYS):
                raise Refused("it has a dictionary with other keys than texts and numbers")
            self.stack[-1][key] = _whole(value)

    def _global(self, name: str) -> None:
        known = NAMES.get(name.replace("numpy._core", "numpy.core", 1))
        if known is None:
            raise Refused(f"it asks for {name.replace(' ', '.')}, which no batch needs")
        self.stack.append(_Name(known))

    def _stack_global(self, _: None) -> None:
        module, name = self.stack[-2:]
        del self.stack[-2:]
        self._global(f"{module} {name}" if isinstance(module, str) else "?")

    def _reduce(self, _: None) -> None:
        function, arguments = self.stack[-2:]
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise Refused("it calls what is no function")
        self.stack[-2:] = [function.call(*arguments)]

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Type):
            raise Refused("it changes what is no array")
        self.stack[-1].set_state(state)

    def _mark(self, _: None) -> None:
        self.stack.append(MARK)


def _whole(value: Any) -> Any:
    """A finished array in place of the one that was being built."""
    if isinstance(value, _Array):
        if value.value is None:
            raise Refused("it has an array without content")
        return value.value
    return value


def _text(argument: str) -> bytes:
    return argument.encode("latin1")  # a byte string of Python 2


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _text),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), bytes),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), str),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), int),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), float),
}
