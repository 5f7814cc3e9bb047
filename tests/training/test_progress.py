"""What a log file says while a model trains."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.text import Text

from chela.objectives.base import ACCURACY
from chela.training import progress
from chela.training.history import History
from chela.training.progress import TrainingProgress
from chela.training.run import run
from tasks.screen import Screen
from tests.training.replayed import replay_on_cpu

OBJECTIVE = SimpleNamespace(primary=ACCURACY)


def test_a_line_of_a_log_has_the_step_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anything was measured, and by the pace of this start, not of a resumed run's."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr(progress, "time", clock)
    file = io.StringIO()
    history = cast("History", SimpleNamespace(latest={}, objective=OBJECTIVE))
    bar = TrainingProgress(Screen(file=file), history)
    trainer = cast("Any", SimpleNamespace(global_step=40, max_steps=100))
    bar.on_train_start(trainer, cast("Any", None))
    for now, step in ((110.0, 45), (130.0, 50), (400.0, 100)):
        clock.now, trainer.global_step = now, step
        bar.on_train_batch_end(trainer, cast("Any", None), None, None, 0)
    # ten steps took 30 seconds, and 50 were left; nothing is left at the end
    assert file.getvalue().splitlines() == ["step 50/100  2 min 30 s left", "step 100/100"]


def test_a_log_says_that_widths_are_recorded_before_the_first_step(
    composed, tmp_path, monkeypatch, capsys
) -> None:
    replay_on_cpu(monkeypatch)
    ragged = ["task.min_length=30", "trainer.length_window=4", "trainer.max_steps=2"]
    run(composed("trainer.progress=true", *ragged, f"output_dir={tmp_path}"))
    said = re.findall(r"^step 0/2  records \d widths of batches$", capsys.readouterr().out, re.M)
    assert len(said) == 1


@pytest.mark.parametrize(("width", "seen"), [(200, 6), (80, 4), (60, 3), (40, 2), (15, 1)])
def test_a_narrow_terminal_shows_what_matters_first(
    monkeypatch: pytest.MonkeyPatch, width: int, seen: int
) -> None:
    """Whole parts, in one line: nothing is broken or cut."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(progress.Progress, "start", lambda self: None)
    latest = {
        "train/loss": 2.30259,
        "train/accuracy": 0.1,
        "val/accuracy": 0.125,
        "tokens_per_second": 1234567.0,
    }
    screen = Screen(file=io.StringIO())
    screen._force_terminal, screen.width = True, width
    history = SimpleNamespace(latest=latest, objective=OBJECTIVE)
    bar = TrainingProgress(screen, cast("History", history))
    trainer = cast("Any", SimpleNamespace(global_step=0, max_steps=37500))
    bar.on_train_start(trainer, cast("Any", None))
    clock.now, trainer.global_step = 200.0, 1000
    bar.on_train_batch_end(trainer, cast("Any", None), None, None, 0)
    assert bar._bar is not None
    with screen.capture() as drawn:
        screen.print(bar._bar.get_renderable())
    (line,) = Text.from_ansi(drawn.get()).plain.rstrip("\n").splitlines()
    assert len(line) <= width
    line = line.rstrip(" \u2501\u2578\u257a")
    parts = [
        "step 1000/37500",
        "1 h 00 min left",
        "loss 2.303",
        "val accuracy 0.125",
        "train accuracy 0.100",
    ]
    parts += ["1.23M tokens/s"]
    assert line.split("  ") == parts[:seen]
