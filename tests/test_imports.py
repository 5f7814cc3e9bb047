"""The house: imports run one way, drawn from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the ground up: a room imports from those before it, never from one behind it.
ROOMS = [
    "tasks",
    "chela.errors",
    "chela.disk",
    "chela.signals",
    "chela.kernels",
    "chela.layers",
    "chela.mixers",
    "chela.model",
    "chela.inside",
    "chela.testing",
    "chela.objectives",
    "chela.config",
    "chela.records",
    "chela.report",
    "chela.track",
    "chela.training",
    "chela.pretrained",
    "chela.hub",
    "chela.generation",
    "chela.hf",
    "chela.doctor",
    "chela.bench",
    "chela.launch",
    "chela.commands",
    "chela.__main__",
]
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for top in ("chela", "tasks")
    for file in (ROOT / top).rglob("*.py")
}


def room(module: str) -> str:
    return next((each for each in ROOMS if f"{module}.".startswith(f"{each}.")), module)


def imported(file: Path) -> Iterator[str]:
    """The project's modules that a file imports, those inside of functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in FILES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


ARROWS = {
    (module, other)
    for module, file in FILES.items()
    for other in imported(file)
    if other in FILES and other != module
}


def test_every_room_is_known() -> None:
    assert {room(module) for module in FILES} - {"chela"} == set(ROOMS)


def test_no_arrow_points_upwards() -> None:
    place = {name: number for number, name in enumerate(ROOMS)}
    upwards = [
        f"{module} -> {other}"
        for module, other in sorted(ARROWS)
        if "chela" not in (module, other) and place[room(other)] > place[room(module)]
    ]
    assert not upwards


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {module: {b for a, b in ARROWS if a == module} for module in FILES}
    left.pop("chela")  # whose load_run is imported when it is asked for
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_nothing_imports_from_the_scripts() -> None:
    files = [*FILES.values(), *(ROOT / "scripts").glob("*.py"), *(ROOT / "tests").rglob("*.py")]
    found = [file for file in files for name in imported(file) if name.split(".")[0] == "scripts"]
    assert not found
