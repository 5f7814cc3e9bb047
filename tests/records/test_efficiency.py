"""The efficiency of models: the table's ratios, the pictures, and the command that makes them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from chela.bench.efficiency import (
    MODELS,
    Cost,
    accuracies,
    as_csv,
    as_markdown,
    draw_bubbles,
    draw_lengths,
    from_csv,
    main,
)
from chela.commands import start
from chela.errors import RunError
from chela.report.published import reference
from tests.records.samples import record, save

COSTS = [
    Cost("chela", 1024, 8e6, 20e6, 2**30, "one GPU"),
    Cost("chela", 4096, 8e6, 20e6, 2**30, "one GPU"),
    Cost("transformer", 1024, 4e6, 10e6, 2**31),
    Cost("transformer", 4096, None, None, None),
]

CPU = "trainer.accelerator=cpu"


def test_ratios_are_to_the_transformer_of_the_same_length() -> None:
    text = as_markdown(COSTS, "one GPU")
    assert text.startswith("one GPU\n")
    assert "| chela | 8M (2.00x) | 20M (2.00x) | 1.07 GB (0.50x) |" in text
    assert "| transformer | 4M (1.00x) | 10M (1.00x) | 2.15 GB (1.00x) |" in text
    long = text.split("**4,096 tokens**")[1]
    assert "| chela | 8M | 20M | 1.07 GB |" in long  # nothing to compare with
    assert "| transformer | does not fit | does not fit | does not fit |" in long


def test_the_csv_file_has_every_number() -> None:
    rows = list(csv.DictReader(as_csv(COSTS).splitlines()))
    assert [row["model"] for row in rows] == [cost.model for cost in COSTS]
    assert float(rows[0]["training"]) == 8e6
    assert rows[3]["training"] == rows[3]["peak_bytes"] == ""


def test_the_csv_file_can_be_read_again() -> None:
    assert from_csv(as_csv(COSTS)) == COSTS
    with pytest.raises(ValueError, match="no table of costs"):
        from_csv("model,speed\nchela,1\n")


def test_pictures(tmp_path: Path) -> None:
    draw_lengths(COSTS, tmp_path / "lengths.png", "one GPU")
    own, literature = {"chela": 60.0}, {"chela": 50.0, "transformer": 50.0}
    assert draw_bubbles(COSTS, own, literature, 1024, tmp_path / "b.png", "one GPU")
    for name in ("lengths.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_bubbles_of_nothing_are_not_drawn(tmp_path: Path) -> None:
    assert not draw_bubbles(COSTS, {"s4d": 60.0}, {}, 1024, tmp_path / "b.png", "one GPU")
    assert not list(tmp_path.iterdir())


def test_published_lines_are_of_models_that_exist() -> None:
    assert set(reference("text")) < set(MODELS)
    assert reference("text")["mega"] == 90.43


def test_accuracies_are_those_on_text(tmp_path: Path) -> None:
    save(tmp_path / "0", record("chela", task="text", accuracy=0.8))
    save(tmp_path / "1", record("chela", task="listops", accuracy=0.5))
    save(tmp_path / "2", record("s4d", task="listops", accuracy=0.4))
    assert accuracies(tmp_path) == {"chela": pytest.approx(80)}


@pytest.mark.long
def test_the_command(tmp_path: Path) -> None:
    small = ["model.dim=8", "model.depth=1", "--tokens=64", "--steps=1", "--lengths=16,32"]
    start("efficiency", ["--models=transformer,s4d", CPU, *small, f"--output={tmp_path}"])
    rows = list(csv.DictReader((tmp_path / "efficiency.csv").read_text().splitlines()))
    assert [(row["model"], row["length"]) for row in rows] == [
        ("transformer", "16"),
        ("transformer", "32"),
        ("s4d", "16"),
        ("s4d", "32"),
    ]
    assert all(float(row["training"]) > 0 for row in rows)
    assert (tmp_path / "lengths.png").exists()


def test_bubbles_of_an_earlier_measurement(tmp_path: Path) -> None:
    (tmp_path / "costs.csv").write_text(as_csv(COSTS))
    save(tmp_path / "runs" / "0", record("chela", task="text", accuracy=0.8))
    costs = ["--costs", f"{tmp_path}/costs.csv", "--results", f"{tmp_path}/runs"]
    known = "--models=chela,transformer"
    main([*costs, known, CPU, f"--output={tmp_path}/out"])
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {"bubbles.png", "lengths.png"}  # nothing was measured
    with pytest.raises(RunError, match="try: without --costs"):  # s4d is of another machine
        main([*costs, "--models=s4d", f"--output={tmp_path}/out"])
    (tmp_path / "costs.csv").write_text("nothing of the kind")
    with pytest.raises(RunError, match="try: without --costs"):
        main([*costs, known, f"--output={tmp_path}/out"])


def test_an_unknown_model_is_one_message(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        start("efficiency", ["--models=s4", CPU])
    assert ended.value.code == 1
    assert "Did you mean 's4d'" in capsys.readouterr().err
