"""Cells of a sweep in processes of their own: several at once, each on its GPU.

Each cell is the command it would be without `-m`. So a cell that is killed leaves the others
alone, a signal reaches all of them as it reaches a run, and the GPU that becomes free is the next
one's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from chela.errors import ConfigError
from chela.records import sweeps
from chela.records.sweeps import SweepCell

PLUGIN = "hydra_plugins.chela"  # Hydra takes no launcher from a module that is called otherwise
FOLDER = "CHELA_SWEEP_FOLDER"  # of the sweep's own files; its cells inherit it
PARENT = "CHELA_SWEEP_PARENT"  # a file descriptor that reads its end when the sweep has ended
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # what a run saves itself for
PAUSE = 0.1  # seconds between two looks at the processes


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep, before it runs."""

    number: int
    overrides: list[str]
    label: str  # what tells it from the others
    devices: int  # GPUs it asks for


class Slots:
    """Where cells may run: ``at_once`` of them on each GPU.

    Args:
        gpus: their names for CUDA_VISIBLE_DEVICES; none: the CPU is the one place.
        at_once: cells that share one.
    """

    def __init__(self, gpus: Sequence[str], at_once: int) -> None:
        self.free = dict.fromkeys(gpus or ["CPU"], at_once)
        self.has_gpus = bool(gpus)

    def take(self, devices: int) -> list[str] | None:
        """A slot on each of ``devices`` GPUs, the emptiest first; None if they are not free.

        Who asks for more GPUs than there are gets one slot of each, and the run says the rest.
        """
        wanted = min(devices, len(self.free)) if self.has_gpus else 1
        places = sorted(self.free, key=lambda place: -self.free[place])[:wanted]
        if any(self.free[place] == 0 for place in places):
            return None
        for place in places:
            self.free[place] -= 1
        return places

    def give(self, places: Sequence[str]) -> None:
        """Take back what ``take`` gave."""
        for place in places:
            self.free[place] += 1


class ProcessLauncher(Launcher):
    """Hydra's launcher ``processes``.

    Args:
        at_once: cells at a time on each GPU, or on the CPU of a machine without one.

    Raises:
        ConfigError: ``at_once`` is no positive number.
    """

    __module__ = PLUGIN

    def __init__(self, at_once: int = 1) -> None:
        if not isinstance(at_once, int) or at_once < 1:
            raise ConfigError(f"hydra.launcher.at_once={at_once!r} should be a number from 1 up")
        self.at_once = at_once
        self.console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
        self.stopped: int | None = None
        self.running: dict[subprocess.Popen[bytes], tuple[Cell, list[str], float]] = {}

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Hydra's hook; cells have their own task function, which the command leads to."""
        self.loader, self.config = hydra_context.config_loader, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run the cells, and return what became of them.

        Raises:
            ConfigError: a cell cannot be composed; nothing has run. Hydra has errors of its own.
            SystemExit: a signal stopped the sweep; its cells have saved themselves. Status 128 +
                the signal's number.
        """
        self.folder = Path(os.environ[FOLDER])
        cells = self._cells([list(each) for each in job_overrides], initial_job_idx)
        slots = Slots(visible_gpus(), self.at_once)
        threads = str(max(1, (os.cpu_count() or 1) // sum(slots.free.values())))
        waiting = deque(cells)
        reader, writer = os.pipe()  # closed with this process, however it ends
        try:
            with self._passing_signals_on():
                while self.running or (waiting and self.stopped is None):
                    while waiting and self.stopped is None:
                        places = slots.take(waiting[0].devices)
                        if places is None:
                            break
                        self._start(waiting.popleft(), places, slots.has_gpus, threads, reader)
                    time.sleep(PAUSE)
                    for process in [each for each in self.running if each.poll() is not None]:
                        cell, places, began = self.running.pop(process)
                        slots.give(places)
                        self._finish(cell, process.returncode, time.monotonic() - began)
        finally:
            os.close(reader)
            os.close(writer)
        if self.stopped is not None:
            name = signal.Signals(self.stopped).name
            self.console.print(f"stopped by {name}; to go on, repeat the command", soft_wrap=True)
            sys.exit(128 + self.stopped)
        return [self._returned(cell) for cell in cells]

    def _cells(self, job_overrides: list[list[str]], first: int) -> list[Cell]:
        varied = sweeps.varied(job_overrides)
        found = []
        for number, (overrides, differs) in enumerate(
            zip(job_overrides, varied, strict=True), first
        ):
            composed = self.loader.load_sweep_config(self.config, overrides)
            devices = OmegaConf.select(composed, "trainer.devices")
            asked = devices if isinstance(devices, int) else 1
            label = " ".join([f"[{number + 1}]", *differs])
            found.append(Cell(number, overrides, label, max(1, asked)))
        return found

    def _start(
        self, cell: Cell, places: list[str], on_gpus: bool, threads: str, reader: int
    ) -> None:
        environment = {"OMP_NUM_THREADS": threads, **os.environ, PARENT: str(reader)}
        if on_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(places)
        log = sweeps.log_file(self.folder, cell.number)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self._command(), *cell.overrides, f"hydra.job.num={cell.number}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[reader],
                start_new_session=True,  # Ctrl-C comes through us, once
            )
        self.running[process] = (cell, places, time.monotonic())
        where = f"GPU {','.join(places)}" if on_gpus else "the CPU"
        self.console.print(f"{cell.label}: begins on {where}; {log}", markup=False, soft_wrap=True)

    def _command(self) -> list[str]:
        """What this process was started as, without the overrides."""
        asked = get_args_parser().parse_args(sys.argv[1:])
        flags = {
            "--config-path": asked.config_path,
            "--config-name": asked.config_name,
            "--config-dir": asked.config_dir,
        }
        given = [part for flag, value in flags.items() if value for part in (flag, value)]
        return [sys.executable, str(Path(sys.argv[0]).absolute()), *given]

    def _finish(self, cell: Cell, status: int, seconds: float) -> None:
        known = sweeps.read_cells(self.folder).get(cell.number, SweepCell(cell.overrides))
        if self.stopped is None and known.error is None and known.best is None:
            log = sweeps.log_file(self.folder, cell.number)
            sweeps.write_cell(self.folder, cell.number, known)
            sweeps.finish_cell(self.folder, cell.number, f"{ending(status)}; see {log}", None)
            known = sweeps.read_cells(self.folder)[cell.number]
        if known.error is not None:
            became = f"failed after {seconds:.0f} s: {known.error.splitlines()[0]}"
        elif known.best is not None:
            became = f"best validation {known.best:.4f} after {seconds:.0f} s"
        else:
            became = ending(status)
        self.console.print(f"{cell.label}: {became}", markup=False, soft_wrap=True)

    def _returned(self, cell: Cell) -> JobReturn:
        best = sweeps.read_cells(self.folder)[cell.number].best
        result = JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED)
        result.return_value = float("nan") if best is None else best
        return result

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """While this lasts a signal goes to every cell that runs, and no other one begins."""

        def handle(number: int, frame: FrameType | None) -> None:
            self.stopped = number
            self.console.print(
                f"{signal.Signals(number).name}: waiting for the cells to save themselves; send it "
                "again to stop them at once",
                soft_wrap=True,
            )
            for process in list(self.running):
                process.send_signal(number)

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def visible_gpus() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # here, so that --help need not wait for it

    count = torch.cuda.device_count()
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    return asked.split(",")[:count] if asked else [str(gpu) for gpu in range(count)]


def ending(status: int) -> str:
    """In words: how a process ended that did not say so itself."""
    number = -status if status < 0 else status - 128 if status > 128 else None
    if number is None:
        return f"ended with status {status}"
    name = signal.Signals(number).name
    return f"killed by {name}" if status < 0 else f"stopped by {name}"


def end_with_the_sweep() -> None:
    """In a cell's process: stop and save, as by SIGTERM, when the sweep's process is gone."""
    descriptor = os.environ.pop(PARENT, None)
    if descriptor is None:
        return

    def watch() -> None:
        os.read(int(descriptor), 1)  # nothing is ever written: it returns when that end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def register() -> None:
    """Make the launcher known to Hydra; safe to call twice."""
    Plugins.instance().register(ProcessLauncher)
    package, _, name = PLUGIN.rpartition(".")
    parent = sys.modules.setdefault(package, ModuleType(package))
    module = sys.modules.setdefault(PLUGIN, ModuleType(PLUGIN))
    setattr(parent, name, module)
    setattr(module, ProcessLauncher.__name__, ProcessLauncher)
