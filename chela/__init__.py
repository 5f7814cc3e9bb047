"""CHELA and the engine that trains any model on any Long Range Arena task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chela.hub import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    """``load_run``, imported when it is asked for: ``--help`` need not wait for torch."""
    if name != "load_run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chela.hub import load_run

    return load_run
