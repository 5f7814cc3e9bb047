"""Triton's interpreter without what it would do again at every call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from triton.runtime import interpreter


def hasten() -> None:
    """Half of its time goes: it looks through Triton's language for what it replaces each time a
    kernel calls a function, and makes a table of dtypes for each tile.

    What it replaces stays replaced: a process that interprets does not compile.
    """
    replace, dtype_of = interpreter._patch_lang, interpreter._get_np_dtype
    replaced: set[int] = set()
    dtypes: dict[str, np.dtype] = {}

    def replace_once(function: Any) -> SimpleNamespace:
        module = id(function.__globals__)
        if module not in replaced:
            replace(function)
            replaced.add(module)
        return SimpleNamespace(restore=lambda: None)

    def known_dtype(given: Any) -> np.dtype:
        scalar = given.scalar
        if scalar.name not in dtypes:
            dtypes[scalar.name] = dtype_of(scalar)
        return dtypes[scalar.name]

    interpreter._patch_lang, interpreter._get_np_dtype = replace_once, known_dtype
