"""The benchmark of generation: every model has a row, and a state that grows or does not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from chela.bench.generation import Cost, as_markdown
from chela.commands import start

pytestmark = pytest.mark.long

MODELS = "chela,chela/s4d,transformer"
SMALL = ["--device=cpu", "--tokens=3", f"--models={MODELS}", "model.dim=16", "model.depth=1"]


def test_a_state_grows_with_the_prompt_or_does_not(tmp_path: Path, capsys) -> None:
    start("bench-generation", [*SMALL, "--prompts", "64,128", "--output", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "generation.csv").open()))
    bytes_of = {(row["model"], int(row["prompt"])): int(row["state_bytes"]) for row in rows}
    assert all(float(row[kind]) > 0 for row in rows for kind in ("prefill", "steps"))
    growing = {name for name, _ in bytes_of if bytes_of[name, 128] > bytes_of[name, 64]}
    assert growing == {"chela", "transformer"}  # free taps, and all keys and values
    assert {name for name, _ in bytes_of} == {*MODELS.split(",")}
    assert (tmp_path / "generation.png").stat().st_size > 0
    table = (tmp_path / "generation.md").read_text()
    assert "3 new tokens" in table and table.count("| prompt (tokens) | 64 | 128 |") == 4
    assert table.count("| transformer |") == 4 and "—" not in table
    assert "transformer" in capsys.readouterr().out


def test_what_did_not_fit_is_a_dash() -> None:
    costs = [Cost("a", 64, 5e3, 20.0, 100, 0), Cost("a", 128, 1e3, 10.0, 200, 0)]
    table = as_markdown([*costs, Cost("b", 64, 1e3, 30.0, 400, 0)], "facts")
    assert table.startswith("facts\n\n**Generated, tokens/s**\n\n| prompt (tokens) | 64 | 128 |\n")
    assert "| a | 20 | 10 |\n| b | 30 | — |\n" in table


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("bench-generation", ["--prompts", "8,0"], "argument --prompts: '0' is no number from 1"),
        ("bench-generation", ["--tokens=-2"], "'-2' is no number from 1 up"),
        ("bench-generation", ["--batch", "x"], "'x' is no number from 1 up"),
        ("bench-generation", [*SMALL, "model.causal=false"], "this model cannot generate"),
        ("bench-training", ["--lengths", "64,"], "argument --lengths: '' is no number"),
        ("bench-sequence", ["--devices", "0"], "argument --devices: '0' is no number"),
        ("efficiency", ["--steps", "1.5"], "argument --steps: '1.5' is no number"),
        ("efficiency", ["model=s4d"], "model=s4d would take the place of every model"),
        ("bench-generation", [*SMALL, "model=s4d"], "try: --models <some of them>"),
        ("params", ["task=listops", "model=s4d"], "try: without it"),
    ],
)
def test_numbers_from_1_up_and_causal_models_alone(
    command: str, words: list[str], said: str, capsys
) -> None:
    with pytest.raises(SystemExit):
        start(command, words)
    assert said in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_one_message(capsys, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        start("bench-generation", [])
    assert "torch finds no GPU" in capsys.readouterr().err
