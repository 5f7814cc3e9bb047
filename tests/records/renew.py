"""After a recipe changed, `python -m tests.records.renew`: how shipped records depart from it."""

from __future__ import annotations

import json

from chela.config.recipe import departures
from chela.config.schema import compose_run
from chela.records.record import write_record
from tests.records.test_shipped_records import RECORDS, command

for file in RECORDS:
    before = file.read_text()
    found = departures(compose_run(command(file)))
    write_record(file.parent, {**json.loads(before), "departures": found})
    if file.read_text() != before:
        print("/".join(file.parts[-3:-1]))
