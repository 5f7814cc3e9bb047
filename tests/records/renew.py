"""After a recipe changed, `python -m tests.records.renew`: how shipped records depart from it."""

from __future__ import annotations

import json

from chela.config.recipe import departures
from chela.config.schema import compose_run
from chela.records.files import write_text
from tests.records.test_shipped_records import RECORDS, as_held, command

for file in RECORDS:
    text = file.read_text()
    held = json.loads(text)
    found = as_held(departures(compose_run(command(file))))
    if held["departures"] != found:
        held["departures"] = found
        indent = len(text) - len(text[1:].lstrip()) - 2  # the file's own: a diff has one place
        write_text(file, json.dumps(held, indent=indent) + "\n")
        print("/".join(file.parts[-3:-1]))
