"""What the documents name is there: commands, files, modules, keys, choices."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from chela.commands import COMMANDS
from chela.config.identity import flat
from tests.conftest import ROOT

GROUPS = ("task", "model", "trainer", "optimizer", "schedule", "logger")
CHOSEN = (*GROUPS, "experiment", "ablation", "sweep", "search")
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
    ]
)
# what a reader is to write himself or makes by a command, and a notebook's `task`, an object
OWN = re.compile(r"(^|[/=._])(test_)?(mine|parity|found|all)\b|^model\.safetensors$")
OBJECTS = {
    "task": {
        "prepare_data",
        "setup",
        "test",
        "sample",
        "batches",
        "encode",
        "tokens_of",
        "text_of",
        "spec.num_classes",
    },
    "model": {"fold"},
}


def keys() -> set[str]:
    """All keys of the shipped configuration below a group, their sections among them."""
    found = set()
    for group in GROUPS:
        for file in (ROOT / "configs" / group).rglob("*.yaml"):
            content = yaml.safe_load(file.read_text()) or {}
            for key in flat({group: content}):
                parts = key.split(".")
                found |= {".".join(parts[:end]) for end in range(2, len(parts) + 1)}
    return found | set(flat(yaml.safe_load((ROOT / "configs/config.yaml").read_text())))


KEYS = keys()


def missing(text: str) -> list[str]:
    """What a document names that is not there.

    What a reader's own configuration is for is left to the tests that follow the tutorials.
    """
    text = re.sub(r"^.*--config-dir.*$", "", text, flags=re.MULTILINE)
    names = [
        *(
            name
            for name in re.findall(r"\bpython ([\w/]+\.\w+)", text)
            if not (ROOT / name).exists()
        ),
        *(
            name
            for name in re.findall(
                r"(?<!my/)\b(?:chela|tasks|tests|configs|scripts|docs)/[\w/]+\.\w+", text
            )
            if not (ROOT / name).exists()
        ),
        *(
            f"chela {name}"
            for name in re.findall(r"(?:^ *|`)chela ([a-z-]+)(?= |`|$)", text, re.MULTILINE)
            if name not in COMMANDS
        ),
        *(
            f"{group}={choice}"
            for group, choice in re.findall(rf"(?<!\.)\b({'|'.join(CHOSEN)})=([\w/]+)", text)
            if not (ROOT / "configs" / group / f"{choice}.yaml").exists()
        ),
        *(
            f"{group}.{key}"
            for group, key in re.findall(
                rf"(?<!/)\b({'|'.join(GROUPS)})\.([a-z_.0-9]*[a-z0-9])\b", text
            )
            if f"{group}.{key}" not in KEYS and key not in OBJECTS.get(group, ())
        ),
    ]
    return [name for name in dict.fromkeys(names) if not OWN.search(name)]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_document_names_what_is_there(file: Path) -> None:
    assert not missing(file.read_text())


def anchors(file: Path) -> set[str]:
    """What the headings of a page can be linked by."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_to_a_heading_in_it(file: Path) -> None:
    """What `make docs` asks of the site, in a moment."""
    wrong = []
    for to, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", file.read_text()):
        target = (file.parent / to).resolve() if to else file
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{to}#{anchor}")
    assert not wrong


def test_what_is_not_there_is_found() -> None:
    text = (
        "python scripts/no.py, `chela nothing x`, `chela/model/no.py`, `task=none`, model.no=1,\n"
        "but `python train.py task=listops model.depth=2`, `chela report` and `task.encode`"
    )
    named = ["scripts/no.py", "chela/model/no.py", "chela nothing", "task=none", "model.no"]
    assert missing(text) == named
