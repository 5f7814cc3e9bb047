"""Records as runs leave them, in the few keys that differ."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from chela.records.collect import Collection, Run, parse
from chela.report.frame import Report, Row

SIZES = {  # train, val, test rows and the longest sequence of the benchmark's data
    "listops": (96_000, 2_000, 2_000, 1_998),
    "text": (22_500, 2_500, 25_000, 4_096),
    "retrieval": (147_086, 18_090, 17_437, 4_000),
    "image": (45_000, 5_000, 10_000, 1_024),
    "pathfinder": (160_000, 20_000, 20_000, 1_024),
    "pathx": (160_000, 20_000, 20_000, 16_384),
}


def record(
    model: str = "chela",
    task: str = "listops",
    seed: int = 0,
    accuracy: float | None = 0.5,
    *,
    status: str = "finished",
    identity: str | None = None,
    stand_in: str | None = None,
    fingerprint: str | None = None,
    sizes: tuple[int, int, int, int] | None = None,
    protocol: str = "heldout",
    choices: dict[str, Any] | None = None,
    departures: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A record; ``choices`` are keys of the model's configuration, ``more`` of the record."""
    train, val, test, longest = sizes or SIZES.get(task, (1_000, 100, 100, 64))
    name = f"{task}-{model}"
    keys = {"name": model, "dim": 64, **(choices or {})}
    identity = identity or f"{abs(hash_of(name, choices)):08x}"[:8]
    selection = {"heldout": "highest accuracy on the whole validation split"}
    found: dict[str, Any] = {
        "record_version": 1,
        "status": status,
        "run_id": f"{name}-{identity}-seed{seed}",
        "command": f"train.py task={task} model={model} seed={seed}",
        "started": f"2026-01-01T00:00:{seed:02d}+00:00",
        "config": {
            "name": name,
            "seed": seed,
            "data_dir": "data",
            "task": {"name": task},
            "model": keys,
            "logger": {"wandb": "auto"},
        },
        "identity": {"task.name": task, **{f"model.{key}": keys[key] for key in keys}},
        "departures": departures,
        "git": {"commit": "c0ffee" * 6 + "abcd", "dirty": False},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "cuda": None},
        "hardware": {"device": "cuda", "gpu": "NVIDIA H200", "cpu": "a CPU", "torch_threads": 8},
        "precision": "bfloat16",
        "data": {
            "task": task,
            "source": stand_in or "official",
            "stand_in": stand_in is not None,
            "fingerprint": fingerprint or f"{abs(hash_of(task, stand_in, sizes)):08x}" * 8,
            "splits": {
                split: {"rows": rows, "max_length": longest}
                for split, rows in (("train", train), ("val", val), ("test", test))
            },
        },
        "protocol": {
            "name": protocol,
            "selection": selection.get(protocol, "highest accuracy on the test split itself"),
        },
        "parameters": {"total": 123_456},
        "implementations": {"long_conv": "torch"},
    }
    if status == "failed":
        found["error"] = "NonFinite: the loss is nan"
    if status != "running":
        found["training"] = {
            "steps": 900,
            "planned_steps": 1_000,
            "tokens_per_second": 1.5e6 + seed,
            "peak_memory_bytes": 2_000_000_000 + seed,
            "peak_memory_of": "GPU allocations",
            "wall_seconds": 3_725.0,
        }
        found["best"] = {"step": 800, "accuracy": accuracy}
        found["metrics"] = curve(accuracy or 0.5, seed)
    if status == "finished":
        error = None if accuracy is None else math.sqrt(abs(accuracy * (1 - accuracy)) / test)
        found["test"] = {"n": test, "accuracy": accuracy, "loss": 1.0, "standard_error": error}
    return found | more


def curve(end: float, seed: int) -> list[dict[str, float]]:
    """A training that approaches ``end``."""
    rows: list[dict[str, float]] = []
    for step in range(10, 1_001, 10):
        rise = 1 - math.exp(-step / (200 + 20 * seed))
        row = {"step": step, "train/loss": 2.3 - 1.5 * rise, "train/accuracy": end * rise}
        if step % 50 == 0:
            row |= {"val/loss": 2.3 - 1.3 * rise, "val/accuracy": end * rise * 0.98}
        rows.append(row)
    return rows


def hash_of(*parts: object) -> int:
    """A number that is the same in every process, which ``hash`` of a text is not."""
    number = 0
    for byte in json.dumps(parts, sort_keys=True, default=str).encode():
        number = (number * 131 + byte) % 0xFFFFFFFF
    return number


def run(*arguments: Any, **keys: Any) -> Run:
    """The parsed form of ``record``."""
    made = record(*arguments, **keys)
    return parse(made, Path("outputs") / made["run_id"])


def found(*runs: Run) -> Collection:
    """A collection of runs that was read without trouble."""
    return Collection(runs, (), ())


def save(folder: Path, content: dict[str, Any]) -> Path:
    """Write a record where a run would."""
    name, _, seed = content["run_id"].rpartition("-")
    file = folder / name / seed / "record.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    return file


def sweep() -> list[dict[str, Any]]:
    """A whole table with every kind of cell in it."""
    made = [
        record(model, task, seed, base + 0.02 * place + 0.003 * seed * (1 + place))
        for model, base in (("chela", 0.62), ("linear", 0.41), ("s4d", 0.6), ("transformer", 0.4))
        for place, task in enumerate(SIZES)
        for seed in range(3)
        if (model, task) not in {("transformer", "pathx"), ("linear", "pathx"), ("s4d", "image")}
    ]
    made += [
        record("transformer", "pathx", 0, None, status="failed"),
        record("linear", "pathx", 0, None, status="running"),
        record("s4d", "image", 0, 0.71),
        record("s4d", "image", 1, None, status="interrupted"),
        record("mega", "text", 0, 0.91, protocol="lra", sizes=(25_000, 0, 25_000, 4_096)),
        record("mega", "listops", 0, 0.58, choices={"depth": 2}),
        record("mega", "listops", 0, 0.57, choices={"depth": 3}),
        record("<script>alert(1)</script>", "listops", 0, 0.1),
    ]
    made += [
        record(model, "image", seed, 0.5 + 0.01 * seed, stand_in="cifar10-jpeg", identity=hash_)
        for model, hash_ in (("chela", "aaaa0001"), ("linear", "aaaa0002"))
        for seed in range(2)
    ]
    return made


def cell(report: Report, model: str, title: str) -> Any:
    """The cell of a row, by its name, in a column, by its title."""
    (cells,) = [cells for row, cells in [*report.ours, *report.published] if row.name == model]
    (found,) = [each for each in cells if each.column == title]
    return found


def ours(report: Report) -> list[Row]:
    """Our own rows."""
    return [row for row, _ in report.ours]
