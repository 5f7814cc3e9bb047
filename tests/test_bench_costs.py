"""`chela costs`: what the recipes take, from records and speeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chela.bench import costs
from chela.bench.efficiency import Cost, as_csv
from chela.bench.profiling import Profile
from chela.bench.throughput import Speed
from chela.bench.training import Loop, loops_in, row
from chela.config.schema import compose_run, computation
from chela.errors import RunError
from chela.records.collect import Run, collect
from tests.conftest import ROOT

CONFIG = compose_run(["task=listops", "model=chela", "trainer.max_epochs=10"])
SPEEDS = [Cost("chela", length, 1e6 * length, None, None, "NVIDIA H200") for length in (1, 4)]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """The three shipped runs of CHELA on ListOps."""
    return list(collect([ROOT / "outputs" / "records" / "listops-orders-15f80ac9"]).runs)


@pytest.mark.parametrize("data", [{}, {"task.stand_in": "other", "task.source": "official"}])
def test_a_recipes_own_record_says_what_it_takes(runs: list[Run], data: dict[str, str]) -> None:
    """Also one on a stand-in for its data."""
    record = {**runs[0].record, "identity": {**computation(CONFIG), **data}}
    own = replace(runs[0], record=record)
    wall = own.number("training.wall_seconds")
    assert wall
    found = costs.hours_of(CONFIG, [own, *runs[1:]], SPEEDS, (1e9, 4))
    assert found == costs.Hours(wall / 3600, "")


def test_the_shipped_stand_in_of_retrieval_says_what_its_recipe_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs under a name of its own."""
    monkeypatch.chdir(ROOT)
    costs.main([])
    (run,) = collect([ROOT / "outputs" / "records" / "retr-0f17f1cd"]).runs
    wall = run.number("training.wall_seconds")
    assert wall
    ours = next(line for line in capsys.readouterr().out.splitlines() if line[:7] == "| ours ")
    assert ours.split(" | ")[3] == costs.Hours(wall / 3600, "").minutes


def test_tokens_at_a_rate_of_the_task_come_next_and_then_of_the_length(runs: list[Run]) -> None:
    rates = sorted(run.number("training.tokens_per_second") or 0 for run in runs)
    found = costs.hours_of(CONFIG, runs, SPEEDS, (1e9, 4))
    assert found.mark == "~"
    assert found.hours == pytest.approx(10 * 1e9 / rates[1] / 3600)  # the median
    of_speeds = costs.hours_of(CONFIG, [], SPEEDS, (1e9, 3))
    assert of_speeds == costs.Hours(10 * 1e9 / 4e6 / 3600, "~~")
    with pytest.raises(RunError, match="no speed of chela was measured"):
        costs.hours_of(CONFIG, [], [], (1e9, 3))


LOG = """
chela, NVIDIA H200, torch 2.11.0+cu130, bf16
model          form                   shape            loop     step     eval  true
chela          auto, graph            image           3.00M    4.00M   17.54M  100%  3.68GiB   15.2s
  a step's 12.27 ms: compiled element-wise 35%, matrix products 23%, optimizer 1%
chela          torch, compile         image           0.50M    0.69M    9.82M  100%  4.25GiB   18.3s
chela          auto, graph            64x4096         8.00M   10.97M   37.81M  100%  6.51GiB   13.4s
chela          torch, compile         64x4096         4.00M    4.74M   18.59M  100% 11.78GiB   17.2s
chela          auto, graph            16x16384       10.00M   10.05M   33.63M  100%  6.71GiB   12.8s
"""


def test_the_plain_form_takes_as_much_longer_as_its_loop_does() -> None:
    loops = loops_in(LOG)
    assert [each.rate for each in loops] == [3e6, 0.5e6, 8e6, 4e6, 10e6]
    ours = costs.Hours(2.0, "")
    assert costs.plain_of(ours, "image", 1024, loops) == costs.Hours(12.0, "~")
    assert costs.plain_of(ours, "pathx", 16384, loops) == costs.Hours(4.0, "~~")
    guessed = costs.Hours(2.0, "~~")
    assert costs.plain_of(guessed, "image", 1024, loops) == costs.Hours(12.0, "~~")
    with pytest.raises(RunError, match="both forms"):
        costs.plain_of(ours, "pathx", 16384, loops[-1:])


def test_a_log_is_read_as_it_is_written() -> None:
    profile = Profile((), {})
    speed = Speed(2.5e6, 3e6, 4e6, 0.9, 0, 1.0, profile, 0, 0, 0)
    (found,) = loops_in(f"before\n{row(CONFIG, 'listops', speed)}\nbehind")
    assert found == Loop("chela", "auto", "listops", 2.5e6)


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
    records = ROOT / "outputs" / "records"
    logs = [str(ROOT / file) for file in costs.LOGS]
    costs.main([str(records), "--speeds", str(speeds), "--logs", *logs])
    out, minutes = capsys.readouterr().out.split("Minutes of one GPU")
    assert [len(line.split(" | ")) for line in minutes.splitlines() if line[:2] == "| "] == [8] * 3
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert {row[0] for row in rows[1:-2]} == set(models)
    assert all(len(row) == 8 for row in rows[1:-2])
    one, eight, many = (float(each.replace(",", "")) for each in rows[-1])
    longest = float(out.rsplit("longest run, ", 1)[1].split()[0].replace(",", ""))
    assert longest <= many <= eight <= one


def test_where_no_speeds_are_the_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot read .*none.csv(.|\n)*try: .* --speeds <"):
        costs.main(["--speeds", str(tmp_path / "none.csv")])
