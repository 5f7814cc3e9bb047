"""The report reads what training writes: the one place where the two meet in a test."""

from __future__ import annotations

import csv
import io
import json

import pytest

from chela.config.schema import parse
from chela.records.collect import collect
from chela.report.details import configuration, facts
from chela.report.published import published
from chela.report.render import page, table_csv
from chela.report.table import build
from chela.training.run import run

pytestmark = pytest.mark.training


def test_two_real_runs_become_a_row(composed, tmp_path) -> None:
    for seed in (0, 1):
        run(composed(f"seed={seed}"))
    found = collect([tmp_path])
    assert not found.unread
    first, second = found.runs
    config = parse(composed())
    assert (first.model, first.task, first.seed, second.seed) == ("chela", "listops", 0, 1)
    assert first.identity == second.identity == config.identity
    report = build(found, published())
    ((row, (cell,)),) = report.ours
    assert row.name == "chela"
    recorded = [
        json.loads((each.folder / "record.json").read_text())["test"]["metrics"]["accuracy"][
            "value"
        ]
        for each in found.runs
    ]
    assert cell.value == pytest.approx(100 * sum(recorded) / 2)
    assert cell.std == pytest.approx(100 * abs(recorded[0] - recorded[1]) / 2**0.5)
    names = {name for name, _ in facts(first)}
    assert names >= {"test", "selected", "training", "peak memory", "versions", "command"}
    assert dict(configuration(first))["model.mixer.qk_dim"] == "8"
    assert first.fingerprint in page(report)
    (line,) = [each for each in csv.DictReader(io.StringIO(table_csv(report))) if each["seeds"]]
    assert line["configuration"] == config.identity
    assert float(line["tokens_per_second"]) > 0
    assert int(line["parameters"]) > 1000
