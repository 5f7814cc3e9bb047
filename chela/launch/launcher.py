"""Cells of a sweep in processes of their own: several at once, each on its GPU.

Each cell is the command it would be without `-m`. So a cell that is killed leaves the others
alone, a signal reaches all of them as it reaches a run, and the GPU that becomes free is the next
one's.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from chela.config.command import program
from chela.errors import ConfigError, InUse
from chela.launch.places import Slots, cores, visible_gpus, warning_of
from chela.launch.turns import FOLDER, PLUGIN, Cell, Turns
from chela.records import sweeps
from chela.records.files import as_typed
from chela.records.sweeps import SweepCell
from chela.signals import StoppingSignals, exit_status
from tasks.screen import Screen

PARENT = "CHELA_SWEEP_PARENT"  # a file descriptor that reads its end when the sweep has ended
PAUSE = 0.1  # seconds between two looks at the processes
PATIENCE = 10.0  # seconds that cells have to end after a second signal


@dataclass
class Running:
    """A cell's process."""

    cell: Cell
    places: list[str]
    began: float  # time.monotonic()


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
        self.console = Screen()
        self.running: dict[subprocess.Popen[bytes], Running] = {}
        self.received: deque[int] = deque()  # signals that were not passed on yet
        self.passed_on: list[int] = []
        self.kill_at = math.inf  # time.monotonic() from which on cells that go on are killed
        self.asked: dict[int, int] = {}  # GPUs, by a cell's number
        self.chosen: Cell | None = None  # that waits for a place
        self.interrupted = False  # a cell stopped before its end because it was asked to

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Hydra's hook; cells have their own task function, which the command leads to."""
        self.loader, self.config = hydra_context.config_loader, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run the cells, and return what became of them.

        Raises:
            SystemExit: a signal stopped the sweep; its cells have saved themselves. Status 128 +
                the signal's number.
        """
        self.folder = Path(os.environ[FOLDER])
        self.turns = turns = Turns(self.folder, job_overrides, initial_job_idx)
        gpus = visible_gpus()
        if warning := warning_of(gpus, self.at_once):
            self.console.say(warning)
        slots = Slots(gpus, self.at_once)
        threads = max(1, cores() // min(sum(slots.free.values()), max(1, len(turns.cells))))
        logs = as_typed(sweeps.log_file(self.folder, 0).parent)
        self.console.say(f"what each of {len(turns.cells)} cells prints is in {logs}")
        reader, writer = os.pipe()  # closed with this process, however it ends
        try:
            # a cell gets a signal up to a pause later, and must not take for one what are two here
            with StoppingSignals(self.received.append, slack=2 * PAUSE):
                while self._goes_on():
                    while not self.received and not self.passed_on:
                        self.chosen = self.chosen or turns.next()
                        if self.chosen is None:
                            break
                        places = slots.take(self._devices(self.chosen))
                        if places is None:
                            break
                        if not self._start(self.chosen, places, slots, threads, reader):
                            slots.give(places)
                        self.chosen = None
                    time.sleep(PAUSE)
                    self._pass_signals_on()
                    for process in [each for each in self.running if each.poll() is not None]:
                        slots.give(self.running[process].places)
                        self._finish(process)
        finally:
            self._end_all()
            os.close(reader)
            os.close(writer)
        if self.passed_on and (self.chosen or turns.waiting or self.interrupted):
            name = signal.Signals(self.passed_on[0]).name
            self.console.say(f"stopped by {name}; to go on, repeat the command")
            sys.exit(exit_status(self.passed_on[0]))
        return turns.returned()

    def _goes_on(self) -> bool:
        """Whether a cell runs, or one is left that no other process runs."""
        if self.running or self.passed_on:
            return bool(self.running)
        return self.chosen is not None or (
            bool(self.turns.waiting) and self.turns.may_become_free()
        )

    def _devices(self, cell: Cell) -> int:
        """How many GPUs a cell asks for; composed when its turn comes, for that takes a while."""
        if cell.number not in self.asked:
            composed = self.loader.load_sweep_config(self.config, cell.overrides)
            devices = OmegaConf.select(composed, "trainer.devices")
            self.asked[cell.number] = max(1, devices) if isinstance(devices, int) else 1
        return self.asked[cell.number]

    def _start(
        self, cell: Cell, places: list[str], slots: Slots, threads: int, reader: int
    ) -> bool:
        """Begin a cell; False if the machine could not, which is the cell's error."""
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, PARENT: str(reader)}
        if slots.has_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(places)
        # What became of it in an earlier sweep does not count, but where its run is.
        earlier = SweepCell(cell.overrides, self.turns.known(cell).folder)
        sweeps.write_cell(self.folder, cell.number, earlier)
        log = sweeps.log_file(self.folder, cell.number)
        command = [*self._command(), *cell.overrides, f"hydra.job.num={cell.number}"]
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    pass_fds=[reader],
                    start_new_session=True,  # Ctrl-C comes through us, once
                )
        except OSError as error:
            sweeps.finish_cell(self.folder, cell.number, f"could not be started: {error}", None)
            self.console.say(f"{cell.label}: failed: could not be started: {error}")
            return False
        self.running[process] = Running(cell, places, time.monotonic())
        where = f"GPU {','.join(places)}" if slots.has_gpus else "the CPU"
        self.console.say(f"{cell.label}: begins on {where}")
        return True

    def _command(self) -> list[str]:
        """What this process was started as, without what is the sweep's alone."""
        asked = get_args_parser().parse_intermixed_args(sys.argv[1:])
        flags = {
            "--config-path": asked.config_path,
            "--config-name": asked.config_name,
            "--config-dir": asked.config_dir,
        }
        given = [part for flag, value in flags.items() if value for part in (flag, value)]
        own = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweep", "hydra.mode")
        hydra = [
            override
            for override in self.config.hydra.overrides.hydra
            if not override.lstrip("+~").startswith(own)
        ]
        return [sys.executable, *program(sys.argv), *given, *hydra]

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        """Keep what became of a cell whose process has ended, and say it."""
        ended = self.running.pop(process)
        cell, status = ended.cell, process.returncode
        if status < 0:  # what it had started itself is still there
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        seconds = time.monotonic() - ended.began
        known = self.turns.known(cell)
        if status == InUse.STATUS and self.turns.put_back(cell):
            self.console.say(f"{cell.label}: another process runs it")
            return
        if not known.has_ended and not self.passed_on:
            error = f"{ending(status)}; see {sweeps.log_file(self.folder, cell.number)}"
            known = replace(known, error=error)
            sweeps.write_cell(self.folder, cell.number, known)
        if known.error is not None:
            became = f"failed after {seconds:.0f} s: {known.why}"
        elif known.best is not None:
            became = f"best validation {known.best:.4f} after {seconds:.0f} s"
        else:
            self.interrupted = True
            became = ending(status)
        self.console.say(f"{cell.label}: {became}")

    def _pass_signals_on(self) -> None:
        """Give each signal to every cell that runs; after the second one wait for a short time."""
        while self.received:
            number = self.received.popleft()
            for process in self.running:
                process.send_signal(number)
            self.passed_on.append(number)
            name = signal.Signals(number).name
            if len(self.passed_on) == 1:
                self.console.say(
                    f"{name}: waiting for the cells to save themselves; send it again to stop them "
                    "at once"
                )
            else:
                self.kill_at = min(self.kill_at, time.monotonic() + PATIENCE)
        if time.monotonic() >= self.kill_at:
            for process in self.running:
                process.kill()

    def _end_all(self) -> None:
        """If this process fails: the cells that run save themselves, as by SIGTERM."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait()


def ending(status: int) -> str:
    """In words: how a process ended that did not say so itself."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
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
