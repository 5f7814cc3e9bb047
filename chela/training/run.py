"""The life of one run: configuration, data, model, training, one test, record."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from torch import nn

from chela.config.choices import Chosen
from chela.config.schema import RunConfig, as_dict, parse
from chela.errors import OwnError, RunError
from chela.records.curve import draw_curve
from chela.records.files import write_text
from chela.records.record import FILE, number
from chela.records.summary import summary_table
from chela.records.sweeps import sweep_name
from chela.track.wandb_run import final_numbers, open_wandb, wandb_mode
from chela.training import build
from chela.training.agreement import agreed, decided, refuse_others
from chela.training.announcement import opening, warm_up_note
from chela.training.checkpoints import Checkpointer, step_of
from chela.training.checks import check_beforehand, check_data, check_finished, check_memory
from chela.training.data import DataModule
from chela.training.distributed import as_started, is_leader, is_started_outside
from chela.training.ending import Ending, disk_errors
from chela.training.engine import Engine, resolve
from chela.training.evidence import (
    Provenance,
    beginning,
    code_note,
    outcome,
    peak_of,
    test_result,
)
from chela.training.folder import RunFolder, Start
from chela.training.guards import Plateau, out_of_memory
from chela.training.heartbeat import Heartbeat
from chela.training.history import History
from chela.training.initial import load_initial
from chela.training.module import TrainingModule
from chela.training.nonfinite import NonFinite
from chela.training.progress import TrainingProgress
from chela.training.pruning import Pruning
from chela.training.random_state import RandomState
from chela.training.statistics import RunningStatistics
from chela.training.wandb_rows import WandbRows
from tasks.screen import Screen


def run(composed: DictConfig, report: Callable[[int, float], bool] | None = None) -> float:
    """Run what Hydra composed, or go on with it, or show it when it is finished.

    Args:
        composed: the configuration.
        report: of a search, told each validation and answering whether to stop; see ``Pruning``.

    Returns:
        The best validation's value of the metric that selects; NaN without one.

    Raises:
        Pruned: ``report`` stopped it; everything is saved.
        ConfigError: the configuration cannot be run.
        RunError: the run could not start, or would not fit, or stopped; what it had is saved.
        SystemExit: a signal stopped it, between two steps or in the test; status 128 + the
            signal's number. A second one ends the process.
    """
    config = as_started(parse(composed))
    engine = resolve(config)
    leads = is_leader()
    console = Screen(quiet=not leads)
    folder = RunFolder(config)
    build.quiet_lightning()
    with ExitStack() as held:

        def begin() -> Start:
            held.enter_context(folder.held(console.say))
            with disk_errors(folder, leads):
                return folder.start()

        if is_started_outside():
            start = agreed(begin, engine.device)
        else:
            start = begin() if leads else folder.start(leads=False)
        held.enter_context(disk_errors(folder, leads))
        if start.finished is not None:
            check_finished(build.build_task(config), config, start.finished)
            console.say(f"{config.run_id} is finished; resume=false runs it anew.")
            if note := code_note(config, start.finished):
                console.say(f"{note}; the numbers are of the code then, resume=false runs this one")
            if sweep_name() is None:  # whose end has a table of all cells
                console.print(summary_table(start.finished, folder.path))
            return _or_nan(number(start.finished, "best.value"))
        chosen = Chosen.of(composed)
        note = None if chosen is None else chosen.without_recipe()
        return Run(config, folder, start, engine, console, leads, report, note).execute()


@dataclass
class Run:
    """One run on its way from start to record.

    With several devices each process runs all of this; only the one that ``leads`` writes files,
    talks to W&B and prints.
    """

    config: RunConfig
    folder: RunFolder
    start: Start
    engine: Engine
    console: Screen
    leads: bool
    report: Callable[[int, float], bool] | None
    without_recipe: str | None  # a note

    def __post_init__(self) -> None:
        self.group = sweep_name() or f"{self.config.name}-{self.config.identity}"
        self.ending = Ending(self.folder, self.console, self.leads)

    def execute(self) -> float:
        """Prepare, train, test once, record. Returns the best validation's value."""
        config, engine = self.config, self.engine
        self.measured = build.free_memory(engine.device)
        if is_started_outside():
            refuse_others(decided(config))
        task = build.build_task(config)
        check_beforehand(task, config, engine)
        L.seed_everything(config.seed, workers=True, verbose=False)
        task.prepare_data(show=self.leads)
        task.setup()
        if is_started_outside():
            refuse_others({"the data's fingerprint": task.meta.fingerprint})
        check_data(task, config, self.start.provenance)
        steps = build.total_steps(config.trainer, len(task.samples("train")))
        data = DataModule(task, config.trainer, engine, config.seed, steps)
        module = build.build_module(config, task.spec, engine, steps, task.is_padded, task.metric)
        model = module.model
        initial = None
        if config.start_from is not None and self.start.checkpoint is None:
            initial = load_initial(model, Path(config.output_dir), config.start_from, config.seed)
        check = partial(check_memory, model, task, config, engine, self.console.say)
        if is_started_outside():  # the others are there, and would wait
            agreed(check, engine.device)
        elif self.leads:
            check()
        self.ending.trainer = trainer = self._trainer(data, module, initial)
        self._announce(data, model)
        record = beginning(config, self.provenance, self.wandb, self.group, data, module)
        if self.leads:
            write_text(self.folder.path / "config.yaml", OmegaConf.to_yaml(as_dict(config)))
        self.ending.record("running", record)
        # until the record is written: Lightning's own handler of SIGTERM loses it
        with self.ending.stoppable():
            self._train_and_test(trainer, module, data, record)
            if self.leads:
                self._finish(record)
        self.wandb.close()  # last: it may wait for the server, and all else is safe by now
        if not self.wandb.offline_by_choice and (hint := self.wandb.hint()):
            self.console.say(f"W&B does not have all of this run; to upload it: {hint}")
        self.ending.leave()
        return _or_nan(self.checkpointer.best)

    def _train_and_test(
        self,
        trainer: L.Trainer,
        module: TrainingModule,
        data: DataModule,
        record: dict[str, Any],
    ) -> None:
        """Train and test; what comes of it is added to the record."""

        def so_far() -> dict[str, Any]:
            peak = peak_of(self.engine.device, self.measured)
            came = outcome(self.history, self.checkpointer, self.provenance, data.steps, peak)
            return record | came

        self.ending.so_far = so_far
        if self.config.trainer.processes > 1:
            self.ending.companions.watch()
        try:
            with self.ending.recorded():
                with self.provenance.other_code():
                    trainer.fit(module, datamodule=data, ckpt_path=self.start.checkpoint)
                tested = self._test(trainer, module, data)
                record |= so_far() | {"test": tested}
                self.wandb.summarize(final_numbers(record))
        except BaseException as error:
            self.wandb.close(int(error.code or 0) if isinstance(error, SystemExit) else 1)
            if isinstance(error, NonFinite) and self.leads:
                raise RunError(
                    f"{error}\n  last good checkpoint: {self.folder.whole()}\n"
                    f"  all rows, the weights and the random state: {error.keep(self.folder.path)}"
                ) from error
            if isinstance(error, torch.cuda.OutOfMemoryError):
                total = torch.cuda.get_device_properties(self.engine.device).total_memory
                message = out_of_memory(self.config.trainer, data.task.spec.max_length, total)
                raise OwnError(message) from error
            raise
        finally:
            module.forget_graphs()
            data.close()

    def _trainer(
        self, data: DataModule, module: TrainingModule, initial: dict[str, Any] | None
    ) -> L.Trainer:
        config, trainer, path = self.config, self.config.trainer, self.folder.path
        task, objective, stopping = data.task, module.objective, self.ending.stopping
        samples = len(task.samples("train"))
        self.history = History(path / "metrics.csv", trainer, samples, objective)
        self.checkpointer = Checkpointer(
            self.folder.checkpoints, trainer.checkpoint_every_steps, stopping, objective.primary
        )
        self.provenance = Provenance(
            config, self.start, task.meta.fingerprint, self.engine.precision, initial
        )
        callbacks: list[Callback] = [
            self.history,
            self.checkpointer,
            self.provenance,
            RandomState(config.seed),
            RunningStatistics(),
            Plateau(self.history, trainer.plateau_steps, self.console),
            Heartbeat(path, self.history),
        ]
        if self.report is not None:
            callbacks.append(Pruning(self.history, self.report))
        if trainer.progress:
            callbacks.append(TrainingProgress(self.console, self.history))
        self.wandb = open_wandb(
            config.logger,
            wandb_mode(config.logger) if self.leads else "disabled",
            path,
            run_id=self.start.wandb_id,
            group=self.group,
            tags=[task.name, config.model.name, task.protocol],
            content=as_dict(config),
        )
        callbacks.append(WandbRows(self.history, self.wandb))
        every = build.validate_every(trainer, samples)
        return build.build_trainer(trainer, self.engine, path, data.steps, every, callbacks)

    def _test(self, trainer: L.Trainer, module: TrainingModule, data: DataModule) -> dict[str, Any]:
        """The one test: the weights of the best validation, every sample of the split.

        Raises:
            RunError: those weights are not there, or are of another step than the one selected.
        """
        best, step = self.folder.best, self.checkpointer.best_step
        if not best.is_file():
            raise RunError(f"{best} is missing, the weights of step {step}.\n  try: resume=false")
        found = step_of(best)  # which says so of a file that is not whole
        if found != step:
            raise RunError(
                f"{best} has the weights of step {found}, but step {step} was selected.\n"
                "  try: resume=false (what is there is moved aside)"
            )
        if kinds := data.task.kinds:
            module.evaluation.tell_apart(torch.tensor(data.task.test["label"]), len(kinds))
        trainer.test(module, datamodule=data, ckpt_path=best, verbose=False)
        n, expected = round(module.tested.n), data.task.samples("test").targets
        if n != expected:
            raise RunError(f"{n} targets were tested, but the test split asks for {expected}")
        of_kinds = dict(zip(kinds, module.tested_kinds, strict=True))
        return test_result(module.objective, module.tested, data.task.meta, of_kinds)

    def _finish(self, record: dict[str, Any]) -> None:
        path, run_id, step = self.folder.path, self.config.run_id, self.checkpointer.best_step
        draw_curve(path, run_id, self.history.rows, record["test"], step)
        record["files"] = {
            "record": FILE,
            "curve": "curve.png",
            "metrics": "metrics.csv",
            "configuration": "config.yaml",
            "weights": str(self.folder.best.relative_to(path)),
        }
        self.ending.record("finished", record)
        if self.wandb.offline_by_choice:
            self.console.say(f"W&B: offline; upload with {self.wandb.hint()}")
        self.console.print(summary_table(record, path))

    def _announce(self, data: DataModule, model: nn.Module) -> None:
        if not self.leads:
            return
        initial = self.provenance.fixed["initial_weights"]
        lines = opening(self.config, self.folder, self.start, data, model, initial)
        if self.config.trainer.verbose or self.wandb.mode == "online":  # its address
            lines.append(("W&B", self.wandb.describe()))
        notices = [self.without_recipe, self.start.notice, *self.provenance.notices]
        notices += [self.wandb.notice, warm_up_note(self.config, data.steps)]
        for name, said in lines:
            self.console.say(f"{name:<10} {said}")
        for note in filter(None, notices):
            self.console.tell(f"{'note':<10} {note}")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
