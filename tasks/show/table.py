"""Prepared data in figures: what a person checks before trusting a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from tasks.base import Task


def table(task: Task) -> Table:
    """Rows, class balance and lengths of every split, under one line on the whole."""
    meta, spec = task.meta, task.spec
    symbols = (
        f"{spec.input_dim} channel(s)" if spec.vocab_size is None else f"{spec.vocab_size} symbols"
    )
    source = f"{meta.source}, a stand-in" if meta.stand_in else meta.source
    title = (
        f"{task.name} ({source}), version {meta.version}: {symbols}, {spec.num_classes} classes, "
        f"protocol {task.protocol}"
    )
    caption = f"fingerprint {meta.fingerprint}\nin {task.folder}"
    found = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in ("split", "rows", "classes (%)", "shortest", "mean length", "longest"):
        found.add_column(name, justify="left" if name == "split" else "right")
    for name, split in meta.splits.items():
        shares = " ".join(f"{100 * count / split.rows:.1f}" for count in split.class_counts)
        lengths = f"{split.min_length:,}", f"{split.mean_length:,.1f}", f"{split.max_length:,}"
        found.add_row(name, f"{split.rows:,}", shares, *lengths)
    return found
