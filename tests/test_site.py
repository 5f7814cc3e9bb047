"""The documentation as a site; `make docs` builds it with every link checked."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.conftest import ROOT
from tests.test_documents import DOCUMENTS, KEYS


@pytest.fixture(scope="module")
def rows() -> dict[str, str]:
    """What the page of keys says of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        import keys

    return dict(re.findall(r"^\| `([\w.]+)`(?: °)? \| (.*) \|$", keys.page(), re.M))


def test_every_key_of_the_configuration_is_told_with_its_reason(rows: dict[str, str]) -> None:
    sections = {key.rpartition(".")[0] for key in KEYS}
    told = {*rows, *sections, "task.name", "model.name"}
    assert [key for key in KEYS - told if not re.search("_target_|^hydra|defaults", key)] == []
    assert [key for key, row in rows.items() if not row.split(" | ")[-1]] == []


def test_a_key_is_told_with_its_value_and_what_it_may_be(rows: dict[str, str]) -> None:
    value, may, why = rows["trainer.max_steps"].split(" | ")
    assert (value, may) == ("`null`", "integer > 0, null")
    assert why.startswith("optimizer steps")
    assert rows["model.mixer.long_conv_state_space.init"].startswith("`lin` | `lin`, `inv` | ")


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_list_and_a_table_are_apart_from_the_text_before(file) -> None:
    """GitHub does without the empty line between, the site does not."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.M | re.S)
    lines = ["", *text.splitlines()]
    begun = re.compile(r"([-*] |\d+\. |\|)")
    wrong = [
        line
        for before, line in itertools.pairwise(lines)
        if begun.match(line) and before and not re.match(r"[-*|# ]|\d+\. ", before)
    ]
    assert not wrong
