"""What a log file says while a model trains."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from chela.training import progress
from chela.training.history import History
from chela.training.progress import TrainingProgress


def test_a_line_of_a_log_has_the_step_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anything was measured, and by the pace of this start, not of a resumed run's."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr(progress, "time", clock)
    file = io.StringIO()
    history = cast("History", SimpleNamespace(latest={}))
    bar = TrainingProgress(Console(file=file, width=100), history)
    trainer = cast("Any", SimpleNamespace(global_step=40, max_steps=100))
    bar.on_train_start(trainer, cast("Any", None))
    for now, step in ((110.0, 45), (130.0, 50), (400.0, 100)):
        clock.now, trainer.global_step = now, step
        bar.on_train_batch_end(trainer, cast("Any", None), None, None, 0)
    # ten steps took 30 seconds, and 50 were left; nothing is left at the end
    assert file.getvalue().splitlines() == ["step 50/100  2 min 30 s left", "step 100/100"]
