"""From folders to runs: every ``record.json`` below them, read, checked, and each run once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chela.config.identity import flat
from chela.records.files import as_typed
from chela.records.record import FILE, check, number, primary, read_json, text
from tasks.errors import DataError

# where runs are by themselves; configs/config.yaml says the same
OUTPUTS = os.environ.get("CHELA_OUTPUTS", "outputs")
SEARCHES = "search"  # below an output_dir: the trials of searches, apart from a table's runs
APART = (SEARCHES, "records")  # outputs/records holds what came with the code
MOVED_ASIDE = re.compile(r"\.earlier-\d+$")  # what resume=false left behind


@dataclass(frozen=True)
class Run:
    """What a table needs of one record."""

    folder: Path
    record: Mapping[str, Any]  # the whole of it
    model: str
    task: str  # of the code that made the data: "image", also for a stand-in
    source: str  # "official", "generated", ..., or a stand-in's own name
    stand_in: bool
    fingerprint: str
    rows: Mapping[str, int]  # samples by split
    longest: int  # test sequence, in values
    protocol: str
    selection: str
    seed: int
    identity: str  # of the configuration, the seed apart: as in the folder's name
    status: str  # one of record.STATUSES
    error: str | None  # why it failed
    metric: str  # that selects
    unit: str  # "%" where the record has fractions
    direction: str  # which values are better, "max" or "min"
    value: float | None  # on the test split, in that unit; only of a finished run
    error_of_value: float  # its standard error
    test_n: int | None
    evaluation: Mapping[str, int]  # how a test saw its tokens: context and stride; mostly nothing

    @property
    def choices(self) -> dict[str, Any]:
        """What the id is made of, flat: keys that are not there have their neutral value."""
        return self.record.get("identity") or {}

    @property
    def departures(self) -> list[str] | None:
        """The keys that its recipe had otherwise, in order; None where there was none."""
        found = self.record.get("departures")
        return None if found is None else list(found)

    def values(self, keys: Iterable[str]) -> dict[str, Any]:
        """What the run had for keys that may be at their neutral value, or younger than it."""
        known = {**flat(self.record["config"]), **self.choices}
        return {key: known.get(key) for key in keys}

    def number(self, path: str | Iterable[str]) -> float | None:
        """A number of the record by its place, ``"training.tokens_per_second"``; None if absent."""
        return number(self.record, path)

    def text(self, path: str) -> str | None:
        """A text of the record by its place, ``"hardware.gpu"``; None if it is absent."""
        return text(self.record, path)


@dataclass(frozen=True)
class Unread:
    """A file that should be a record and could not be read as one."""

    file: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """What was found."""

    runs: tuple[Run, ...]
    unread: tuple[Unread, ...]
    repeated: tuple[str, ...]  # a sentence for each run that was found in more than one place


def collect(folders: Iterable[Path]) -> Collection:
    """Every run below ``folders``, in the order of their names.

    Folders that ``resume=false`` moved aside are left out, and the trials of searches and the
    records that came with the code unless one names a folder of them; damaged records are listed. A
    run found twice (a copy of its folder) counts once: the finished record, else the one started
    last.

    Raises:
        DataError: a folder does not exist, or no record is below any of them.
    """
    folders = list(folders)
    files: dict[Path, None] = {}  # a set in order
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}\n  try: a folder that holds runs")
        files |= dict.fromkeys(
            Path(os.path.realpath(file.parent), FILE) for file in _records(folder)
        )
    if not files:
        raise DataError(
            f"no {FILE} below {', '.join(map(str, folders))}\n"
            "  try: train first (chela train experiment=demo), or another folder"
        )
    runs: list[Run] = []
    unread: list[Unread] = []
    for file in files:
        place = as_typed(file)
        try:
            _refuse_what_is_no_text(place)
            runs.append(parse(read_json(file), place.parent))
        except (FileNotFoundError, ValueError) as error:
            shown = Path(os.fsencode(place).decode(errors="backslashreplace"))
            unread.append(Unread(shown, str(error) or type(error).__name__))
    once, repeated = _once(runs)
    return Collection(once, tuple(unread), repeated)


def parse(record: Any, folder: Path) -> Run:
    """A record's content as a run.

    Raises:
        ValueError: it is no record, see ``record.check``.
    """
    record = check(record)
    status, error = record["status"], record.get("error")
    metric, tested, value = record["protocol"]["metric"], primary(record), None
    fraction = metric["unit"] == "fraction"
    if status == "finished":
        value = number(tested, "value")
        if value is None or (fraction and not 0 <= value <= 1):
            between = " between 0 and 1" * fraction
            status, error = "failed", f"its test {metric['name']} is not a number{between}"
            value = None
    scale = 100.0 if fraction else 1.0
    config, data = record["config"], record["data"]
    seed = config["seed"]
    return Run(
        folder=folder,
        record=record,
        model=config["model"]["name"],
        task=data["task"],
        source=data["source"],
        stand_in=data["stand_in"],
        fingerprint=data["fingerprint"],
        rows={split: its["rows"] for split, its in data["splits"].items()},
        longest=data["splits"]["test"]["max_length"],
        protocol=record["protocol"]["name"],
        selection=record["protocol"]["selection"],
        seed=seed,
        identity=record["run_id"].removeprefix(f"{config['name']}-").removesuffix(f"-seed{seed}"),
        status=status,
        error=error,
        metric=metric["name"],
        unit="%" if fraction else metric["unit"],
        direction="min" if metric.get("direction") == "min" else "max",
        value=None if value is None else scale * value,
        error_of_value=scale * abs(number(tested, "standard_error") or 0.0),
        test_n=record["test"]["n"] if record["status"] == "finished" else None,
        evaluation=record["protocol"].get("evaluation") or {},
    )


def _records(folder: Path) -> Iterator[Path]:
    for path, names, files in os.walk(folder):
        if FILE in files:
            names.clear()  # nothing below a run's folder is another run
            yield Path(path) / FILE
        wanted = (name for name in names if name not in APART and not MOVED_ASIDE.search(name))
        names[:] = sorted(wanted)


def _refuse_what_is_no_text(place: Path) -> None:
    """A path may hold any bytes, and a table of runs, which names their folders, only texts."""
    try:
        str(place).encode()
    except UnicodeEncodeError as error:
        raise ValueError("the name of its folder is not UTF-8: rename it") from error


def _once(runs: list[Run]) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    groups: dict[tuple[str, str, str, str, int], list[Run]] = {}
    for run in runs:
        key = (run.model, run.task, run.identity, run.fingerprint, run.seed)
        groups.setdefault(key, []).append(run)
    kept, sentences = [], []
    for group in groups.values():
        best = max(group, key=lambda run: (run.status == "finished", run.text("started") or ""))
        kept.append(best)
        if len(group) > 1:
            others = ", ".join(str(run.folder) for run in group if run is not best)
            sentences.append(f"{best.folder} is also in {others}: counted once")
    return tuple(kept), tuple(sentences)
