"""The code that the documentation shows, run by tests as a user would copy it."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chela.commands import start
from tests.conftest import ROOT

FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
SHOWN = ("text", "latex")  # what is printed, and what is for other programs
ELSEWHERE = ("sbatch",)  # commands of a cluster
LAUNCHER = re.compile(r" hydra[/.]launcher\S*")  # processes of their own are too slow for a test
SHARED = "/shared/$USER"


def blocks(file: str, heading: str, language: str) -> list[str]:
    """The code of ``language`` below a heading of a Markdown file, block by block."""
    _, _, below = (ROOT / file).read_text().partition(f"\n## {heading}\n")
    section = re.split(r"^## ", below, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert found, f"{file} has no {language} below '{heading}'"
    return found


def titled(file: str, title: str) -> str:
    """The block of a Markdown file that is to be saved as ``title``."""
    (code,) = [code for _, name, code in FENCE.findall((ROOT / file).read_text()) if name == title]
    return code


def smaller(words: Sequence[str], small: Sequence[str]) -> tuple[str, ...]:
    """A training's words with those of a small one: its sizes replace, its choices only add."""
    said = {word.partition("=")[0] for word in words}
    added = [each for each in small if (key := each.partition("=")[0]) not in said or "." in key]
    sizes = {each.partition("=")[0] for each in added}
    return (*(word for word in words if word.partition("=")[0] not in sizes), *added)


def expanded(word: str) -> list[str]:
    """A word of a shell as the files that it stands for, if it stands for some."""
    return sorted(map(str, Path().glob(word))) if "*" in word and "=" not in word else [word]


@dataclass
class Reader:
    """Follows a tutorial block by block, in the current folder and in this process.

    A block with a title is a file; other ``bash`` is typed, other ``python`` executed.
    Trainings are made small by ``words``.
    """

    patch: pytest.MonkeyPatch
    words: Sequence[str] = ()
    names: dict[str, Any] = field(default_factory=dict)  # of the Python so far
    ran: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)  # what the tutorial says that is printed

    def follow(self, tutorial: str) -> None:
        """Every block of ``docs/tutorials/<tutorial>.md``, in order."""
        text = (ROOT / "docs" / "tutorials" / f"{tutorial}.md").read_text()
        assert text.count("\n```") == 2 * len(FENCE.findall(text)), "a block says its language"
        for language, title, code in FENCE.findall(text):
            code = code.replace(SHARED, str(Path.cwd()))
            if title:
                Path(title).parent.mkdir(parents=True, exist_ok=True)
                Path(title).write_text(code)
            if title and language == "bash":
                code = "\n".join(re.findall(r"^srun (chela .*)", code, re.M))
            elif title:
                continue
            if language == "python":
                exec(code, self.names)
            elif language == "bash":
                for line in filter(None, code.replace("\\\n", " ").splitlines()):
                    self.type(LAUNCHER.sub("", line))
            else:
                assert language in SHOWN
                self.shown += code.splitlines() if language == "text" else []

    def type(self, line: str) -> None:
        """One line of a shell."""
        program, *given = shlex.split(os.path.expandvars(line), comments=True)
        words = [word for each in given for word in expanded(each)]
        act: Callable[..., None] = getattr(self, program, self.unknown)
        act(*words) if act != self.unknown else act(program)

    def unknown(self, program: str) -> None:
        """Only a few programs are there."""
        assert program in ELSEWHERE, program

    def chela(self, name: str, *words: str) -> None:
        """A command of the project, as small as can be."""
        if "<run>" in " ".join(words):
            latest = max(Path("outputs").glob("*-*/seed0"), key=lambda each: each.stat().st_mtime)
            words = tuple(word.replace("<run>", latest.parent.name) for word in words)
        if name == "train":
            words = smaller(words, self.words)
        self.patch.setattr(sys, "argv", ["chela", name, *words])
        start(name, words)
        self.ran.append(name)

    def mkdir(self, *words: str) -> None:
        """Folders with their parents."""
        Path(words[-1]).mkdir(parents=True)

    def export(self, *words: str) -> None:
        """Variables of the environment; Python's path is that of this process."""
        for name, _, value in (word.partition("=") for word in words):
            self.patch.setenv(name, value)
            if name == "PYTHONPATH":
                self.patch.syspath_prepend(value)

    def pytest(self, file: str) -> None:
        """The tests of a file, each in a folder of its own."""
        names: dict[str, Any] = {}
        exec(Path(file).read_text(), names)
        tests = [each for name, each in names.items() if name.startswith("test_")]
        assert tests
        for test in tests:
            test(*(Path(test.__name__) for _ in inspect.signature(test).parameters))
