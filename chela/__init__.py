"""CHELA and the engine that trains any model on any Long Range Arena task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chela.hub import from_pretrained, load_run

    __version__: str

__all__ = ["__version__", "from_pretrained", "load_run"]


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for: ``--help`` need not wait for torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("chela")
    if name not in ("from_pretrained", "load_run"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chela import hub

    return getattr(hub, name)
