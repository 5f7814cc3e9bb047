"""What goes out with a release agrees with itself; ``make dist`` builds and checks the rest."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def test_version_and_date_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (version,) = re.findall(r'^version = "(.+)"$', PROJECT, re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## (\d+\.\d+\.\d+)(?: \((.+)\))?$", changes, re.MULTILINE)[0]
    assert citation["version"] == version
    assert newest == (version, citation["date-released"])


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: each with its arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for line in lines if line for word, _, rest in [line.partition(" ")]
    ]


def test_the_image_copies_what_is_there_and_not_ignored() -> None:
    kept = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        place for word, rest in instructions() if word == "COPY" for place in rest.split()[:-1]
    ]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / place).exists() for place in copied)
    assert {"chela", "tasks", "configs", "pyproject.toml", "setup.py"} <= {*copied}


def test_the_image_installs_extras_that_there_are_on_a_python_that_is_tested() -> None:
    (install,) = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    (extras,) = re.findall(r"\.\[(.*)\]", shlex.split(install)[-1])
    known = re.findall(r"^(\w+) = \[", PROJECT.partition("[project.optional")[2], re.MULTILINE)
    assert {*extras.split(",")} <= {*known}
    (base,) = [rest for word, rest in instructions() if word == "FROM"]
    assert fnmatch(base, "python:3.1[0-3]-*")


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_template_is_a_form(file: Path) -> None:
    form = yaml.safe_load(file.read_text())
    assert {"name", "description", "body"} <= form.keys()
    parts = form["body"]
    assert {part["type"] for part in parts} <= {"input", "textarea"}
    assert len({part["id"] for part in parts}) == len(parts)
    assert all(part["attributes"]["label"] for part in parts)


def test_there_is_a_template_for_faults_numbers_and_wishes() -> None:
    assert [file.stem for file in TEMPLATES] == ["fault", "number", "wish"]
