"""The source files that compute something: a module's own and those that it imports, hashed."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SHOWN = 3  # names of files that differ


@cache  # what this process has loaded stays as it is, whatever becomes of the files
def source_files(*modules: str) -> dict[str, Path]:
    """The files of some modules and of all that they import from their own packages.

    What a package imports in its ``__init__.py`` counts where something is imported from there: to
    edit one model does not change the files of another.

    Args:
        modules: by their whole names.

    Returns:
        File by module, in the order of their names.
    """
    found: dict[str, Path] = {}
    left = list(modules)
    packages = {name.partition(".")[0] for name in left}
    while left:
        name = left.pop()
        package = name.partition(".")[0]
        is_entrance = name == package and name not in modules  # it imports everything
        if name in found or package not in packages or is_entrance:
            continue
        file = _file(name)
        if file is not None:
            found[name] = file
            left += _imports(name, file)
    return dict(sorted(found.items()))


@cache
def code_state(*modules: str) -> dict[str, Any]:
    """What a record says of the code: ``{"hash": ..., "files": {module: hash}}``."""
    files = {name: file_hash(file) for name, file in source_files(*modules).items()}
    text = "\n".join(f"{name} {digest}" for name, digest in files.items())
    return {"hash": hashlib.sha256(text.encode()).hexdigest()[:16], "files": files}


def changes(then: Any, now: Mapping[str, Any]) -> str | None:
    """Which modules differ between two states of the code, in words; None: none, or not known.

    Args:
        then: what a record says, ``code_state`` or null.
        now: of this process.
    """
    if not isinstance(then, dict) or then.get("hash") == now["hash"]:
        return None
    theirs, ours = then.get("files"), now["files"]
    if not isinstance(theirs, dict):
        return None
    names = sorted(n for n in {*theirs, *ours} if theirs.get(n) != ours.get(n))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}" if names else None


def file_hash(file: Path) -> str:
    """The beginning of a file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _file(name: str) -> Path | None:
    spec = _spec(name)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _spec(name: str) -> ModuleSpec | None:
    """Of a module; None of a name in a module. Nothing is imported, as ``find_spec`` would."""
    parent = name.rpartition(".")[0]
    if not parent:
        with suppress(ImportError, ValueError):  # ValueError: __main__, or no name at all
            return find_spec(name)
        return None
    above = _spec(parent)
    places = None if above is None else above.submodule_search_locations
    places = getattr(sys.modules.get(parent), "__path__", places)  # it may have added to it
    return None if places is None else PathFinder.find_spec(name, places)


def _imports(name: str, file: Path) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # nothing that runs has imported it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *(node.module or "").split(".")]).strip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
