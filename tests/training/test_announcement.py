"""What a run says before it trains."""

from __future__ import annotations

import json

import pytest

from chela.config.schema import parse
from chela.training.announcement import of_other_budgets
from chela.training.run import run
from tests.training.runs import folder_of

NOTE = "differs in its budget alone and has trained 12 steps"


@pytest.fixture
def shorter(composed) -> str:
    """The name of a finished run of ``composed()``."""
    run(composed())
    return folder_of(composed()).parent.name


def said_by(config, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    run(config)
    return capsys.readouterr().out


def test_a_longer_budget_is_told_of_the_shorter_run(composed, shorter, capsys) -> None:
    said = said_by(composed("trainer.max_steps=14"), capsys)
    assert f"  note       {shorter} {NOTE}. The schedule follows" in said
    assert f"start_from={shorter} would begin with its weights" in said
    assert "differs in its budget" not in said_by(composed("trainer.max_steps=6"), capsys)
    begun = said_by(composed("trainer.max_steps=14", f"start_from={shorter}"), capsys)
    assert "with the weights of" in begun
    assert NOTE not in begun


def test_it_is_the_same_run_but_for_its_budget(composed, shorter) -> None:
    def found(*overrides: str) -> list[tuple[int, str]]:
        return of_other_budgets(parse(composed(*overrides)))

    assert found("trainer.max_steps=14") == [(12, shorter)]
    assert found("trainer.max_steps=null", "trainer.max_epochs=1") == [(12, shorter)]
    assert found() == []  # itself
    assert found("trainer.max_steps=14", "seed=1") == []
    assert found("trainer.max_steps=14", "optimizer.lr=2e-3") == []
    assert found("trainer.max_steps=14", "name=another") == []
    assert found("trainer.max_steps=14", "name='a**b[c]'") == []
    record = folder_of(composed()) / "record.json"
    whole = json.loads(record.read_text())
    odd = [{"status": "failed"}, *({**whole, key: None} for key in ("identity", "training"))]
    for nothing in ("{", "[]", *map(json.dumps, odd)):
        record.write_text(nothing)
        assert found("trainer.max_steps=14") == []
