"""`chela costs`: what the recipes take, from records and speeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chela.bench import costs
from chela.bench.efficiency import Cost, as_csv
from chela.config.schema import compose_run
from chela.errors import RunError
from chela.records.collect import Run, collect
from tests.conftest import ROOT

CONFIG = compose_run(["task=listops", "model=chela", "trainer.max_epochs=10"])
SPEEDS = [Cost("chela", length, 1e6 * length, None, None, "NVIDIA H200") for length in (1, 4)]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """The three shipped runs of CHELA on ListOps."""
    return list(collect([ROOT / "outputs" / "records" / "listops-chela-9e92138f"]).runs)


def test_a_recipes_own_record_says_what_it_takes(runs: list[Run]) -> None:
    own = replace(runs[0], identity=CONFIG.identity)
    wall = own.number("training.wall_seconds")
    assert wall
    found = costs.hours_of(CONFIG, [own, *runs[1:]], SPEEDS, (1e9, 4))
    assert found == costs.Hours(wall / 3600, "")


def test_tokens_at_a_rate_of_the_task_come_next_and_then_of_the_length(runs: list[Run]) -> None:
    rates = sorted(run.number("training.tokens_per_second") or 0 for run in runs)
    found = costs.hours_of(CONFIG, runs, SPEEDS, (1e9, 4))
    assert found.mark == "~"
    assert found.hours == pytest.approx(10 * 1e9 / rates[1] / 3600)  # the median
    of_speeds = costs.hours_of(CONFIG, [], SPEEDS, (1e9, 3))
    assert of_speeds == costs.Hours(10 * 1e9 / 4e6 / 3600, "~~")
    with pytest.raises(RunError, match="no speed of chela was measured"):
        costs.hours_of(CONFIG, [], [], (1e9, 3))


def test_an_epochs_tokens_are_a_records(runs: list[Run]) -> None:
    tokens, mean = costs.epoch_of("listops", runs)
    assert tokens == pytest.approx(runs[0].rows["train"] * mean)
    steps = runs[0].number("training.tokens")
    assert steps == pytest.approx(25 * tokens, rel=1e-6)
    assert costs.epoch_of("pathx", []) == (160_000 * 16_384, 16_384)
    with pytest.raises(RunError, match="no record of text"):
        costs.epoch_of("text", [])


def test_the_table_has_every_model_and_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(costs, "compose_run", lambda _: CONFIG)
    models = [file.stem for file in (ROOT / "configs" / "model").glob("*.yaml")]
    speeds = tmp_path / "speeds.csv"
    speeds.write_text(as_csv([replace(each, model=model) for model in models for each in SPEEDS]))
    costs.main([str(ROOT / "outputs" / "records"), "--speeds", str(speeds)])
    out = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert {row[0] for row in rows[1:-2]} == set(models)
    assert all(len(row) == 8 for row in rows[1:-2])
    one, eight, many = (float(each.replace(",", "")) for each in rows[-1])
    longest = float(out.rsplit("longest run, ", 1)[1].split()[0].replace(",", ""))
    assert longest <= many <= eight <= one


def test_where_no_speeds_are_the_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot read .*none.csv(.|\n)*try: .* --speeds <"):
        costs.main(["--speeds", str(tmp_path / "none.csv")])
