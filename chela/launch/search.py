"""A search for a recipe: trials drawn by Optuna, each an ordinary run, the unpromising ones pruned.

A search selects by the task's metric on the validation split, never on the test split: of a task
whose protocol selects on the test split (``task.protocol=lra``) the trials run with ``heldout``. A
finished trial is tested once, as every run is, but the search does not read that.

Everything is below ``<output_dir>/search/<name>/``: Optuna's journal, which several processes may
share and which a repeated command goes on with, and the trials' run folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from chela.config.identity import flat
from chela.config.schema import apart, parse
from chela.errors import ConfigError, suggestion
from chela.launch.cli import explain, is_plain
from chela.launch.space import SearchConfig, drawn
from chela.launch.sweep import refuse_one_run
from chela.objectives import METRICS
from chela.records.collect import SEARCHES
from chela.records.sweeps import NAME
from tasks.lease import hold, holder_of
from tasks.screen import Screen

JOURNAL = "journal.log"
GOES_ON = "goes_on"  # of a trial: the number of one that died, whose run it goes on with


class JournalLock:
    """A lock that ends with its process, however that ends; Optuna's own would stay.

    Args:
        journal: the file that is written to under the lock.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._held = ExitStack()

    def acquire(self) -> bool:
        """Wait for it, and drop the half line of a writer that was killed or had no room."""
        lease = self._journal.with_name(f".{self._journal.name}.lease")
        self._held.enter_context(hold(lease, wait=lambda _: True))
        with self._journal.open("r+b") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Let the next one write."""
        self._held.close()


class Search:
    """A study: ask for a trial, run it, tell what came out, until there are enough.

    Args:
        config: of the search.
        overrides: of the configuration that all trials have in common, as on train.py's command
            line. Hydra must be initialised with the folder of the configuration.

    Raises:
        ConfigError: the configuration cannot be run, or the space does not fit it.
    """

    def __init__(self, config: SearchConfig, overrides: Sequence[str]) -> None:
        refuse_one_run("a search", "jobs of a process each, all with the same command")
        self.dimensions = config.dimensions()
        self.asked_for = list(overrides)
        composed = compose("config", self.asked_for)
        self.selects_on_test = OmegaConf.select(composed, "task.protocol") == "lra"
        self.fixed = [*self.asked_for, *["task.protocol=heldout"] * self.selects_on_test]
        run = parse(compose("config", self.fixed, return_hydra_config=True))
        self.metric: str = run.task.target.metric
        self.maximizes = METRICS[self.metric].direction == "max"
        self._check(composed)
        self.apart = apart(run)  # where trials run and what they show: no part of a recipe
        content = json.dumps([run.identity, run.seed, asdict(config)], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        self.name = f"{run.name}-{digest}"
        self.folder = Path(run.output_dir, SEARCHES, self.name)
        (self.folder / "trials").mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=_storage(self.folder / JOURNAL),
            study_name=self.name,
            direction="maximize" if self.maximizes else "minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(config.startup_trials, config.warmup_validations),
        )
        # else a second process, or a repeated command, would draw the first one's trials again
        seed = config.seed + len(self.study.trials)
        self.study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=config.startup_trials, seed=seed
        )
        os.environ[NAME] = self.name  # the group in Weights & Biases

    def run(self, trials: int) -> None:
        """Run trials until the study has ``trials``, those of other processes included.

        A trial that fails is told, and the next one begins. One whose process died is gone on with.

        Raises:
            SystemExit: a signal; the trial is saved, and a repeated command goes on with it.
        """
        self._take_up()
        while len(self.trials()) < trials or self.study.get_trials(states=(TrialState.WAITING,)):
            self._one(self.study.ask())

    def trials(self) -> list[FrozenTrial]:
        """All trials, those left out that another one goes on with."""
        every = self.study.trials
        replaced = {trial.user_attrs.get(GOES_ON) for trial in every}
        return [trial for trial in every if trial.number not in replaced]

    def overrides_of(self, params: Mapping[str, Any]) -> list[str]:
        """What to add on train.py's command line for the parameters of a trial."""
        fixed = optuna.trial.FixedTrial(dict(params))
        # all of them, unless its process is just drawing
        known = {key: each for key, each in self.dimensions.items() if key in params}
        return drawn(known, fixed)

    def best(self) -> FrozenTrial | None:
        """The finished trial with the best validation; None: none is finished."""
        finished = self.study.get_trials(states=(TrialState.COMPLETE,))
        best = max if self.maximizes else min
        return best(finished, key=lambda trial: trial.value or 0.0, default=None)

    def _one(self, trial: Trial) -> None:
        from chela.training.pruning import Pruned
        from chela.training.run import run

        screen = Screen()
        overrides = drawn(self.dimensions, trial)
        screen.say(f"trial {trial.number}: {' '.join(overrides)}")

        def report(validation: int, value: float) -> bool:
            trial.report(value, validation)
            return trial.should_prune()

        with hold(self._lease(trial.number)):
            trial.set_user_attr("started", True)
            try:
                best = run(self._compose(overrides), report)
            except Pruned as pruned:
                screen.say(f"trial {trial.number}: {pruned}")
                self.study.tell(trial, state=TrialState.PRUNED)
            except Exception as error:
                if not is_plain(error):
                    Screen(stderr=True).say("".join(traceback.format_exception(error)))
                trial.set_user_attr("error", explain(error))
                screen.say(f"trial {trial.number} failed: {explain(error)}")
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, best)

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        composed = compose("config", [*self.fixed, *overrides])
        composed.output_dir = str(self.folder)
        return composed

    def _take_up(self) -> None:
        """Put trials that died in the queue again: the same run, which its folder resumes."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if "started" not in trial.user_attrs or holder_of(self._lease(trial.number)):
                continue  # it is just about to begin, or another process is at it
            try:
                self.study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, RuntimeError):  # another process was faster
                continue
            self.study.enqueue_trial(trial.params, user_attrs={GOES_ON: trial.number})

    def _lease(self, number: int) -> Path:
        return self.folder / "trials" / f".{number}.lease"

    def _check(self, composed: DictConfig) -> None:
        """Refuse a space that no trial could be drawn from.

        Raises:
            ConfigError: a key is not of the configuration, or is on the command line too, or a
                trial would have several devices: the processes that it started would have the
                search's command, and begin it again.
        """
        plain: Any = OmegaConf.to_container(composed, resolve=True)
        for key in ("devices", "num_nodes"):
            if f"trainer.{key}" in self.dimensions or plain["trainer"][key] != 1:
                raise ConfigError(
                    f"trainer.{key}: a trial of a search has one device.\n"
                    f"  try: trainer.{key}=1; several processes with the same command, a GPU each, "
                    "share the search"
                )
        given = {each.split("=")[0].lstrip("+~") for each in self.asked_for}
        for key in self.dimensions:
            if key not in flat(plain):
                known = suggestion(key, flat(plain))
                raise ConfigError(f"search.space: unknown key '{key}'. {known}")
            if key in given:
                raise ConfigError(
                    f"{key} is on the command line and in the search space.\n"
                    "  try: leave it out of one of them"
                )


def _storage(journal: Path) -> optuna.storages.JournalStorage:
    # Optuna calls acquire and release; the class it would have them from is not public
    backend = JournalFileBackend(str(journal), JournalLock(journal))  # type: ignore[arg-type]
    return optuna.storages.JournalStorage(backend)
