"""Random records, cells, signs of life and tables: each is read or refused, and nothing else."""

from __future__ import annotations

import copy
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from chela.records.collect import collect
from chela.records.progress import overview
from chela.records.record import read_record
from chela.records.state import PROGRESS
from chela.records.summary import summary_table
from chela.records.sweeps import Plan, write_plan
from tests.records.samples import record

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def paths(content: Any, above: tuple = ()) -> list[tuple]:
    """The places of all values, those of sections too."""
    here = [above] if above else []
    if not isinstance(content, dict):
        return here
    return here + [each for key in content for each in paths(content[key], (*above, key))]


PLACES = paths(record())


@st.composite
def records(draw: st.DrawFn) -> Any:
    """A record with a few values replaced; now and then anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    made = copy.deepcopy(record(status=draw(st.sampled_from(["finished", "failed", "running"]))))
    for place in draw(st.lists(st.sampled_from(PLACES), max_size=3)):
        section = made
        for key in place[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[place[-1]] = draw(values)
    return made


cells = st.fixed_dictionaries(
    {},
    optional={
        "overrides": values | st.lists(st.text()),
        "folder": values,
        "error": values,
        "best": values,
    },
)


@settings.get_profile("fuzz")
@given(records(), cells, values, st.integers(0, 200) | st.none())
def test_one_line_for_what_cannot_be_read_and_the_rest_is_shown(made, cell, sign, cut) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folders = [root / name / "seed0" for name in ("good", "bad")]
        for folder in folders:
            folder.mkdir(parents=True)
        (folders[0] / "record.json").write_text(json.dumps(record(status="failed", seed=7)))
        (folders[1] / "record.json").write_bytes(json.dumps(made).encode()[slice(cut)])
        (folders[1] / PROGRESS).write_text(json.dumps(sign))
        write_plan(root / "sweeps" / "s", Plan("s", "python", [["a"]]))
        (root / "sweeps" / "s" / "cells").mkdir()
        (root / "sweeps" / "s" / "cells" / "000000.json").write_text(json.dumps(cell))
        console = Console(width=200, file=io.StringIO())
        console.print(overview(root, everything=True))
        assert "good/seed0" in console.file.getvalue()  # type: ignore[attr-defined]
        found = collect([root])
        assert 7 in {run.seed for run in found.runs}
        assert len(found.runs) + len(found.unread) + len(found.repeated) >= 2
        try:
            read = read_record(folders[1])
        except ValueError:
            assert len(found.unread) == 1
            return
        if read is not None and read["status"] == "finished":
            console.print(summary_table(read, folders[1]))
