"""From what Hydra composed to typed, checked values.

The YAML files under ``configs/`` hold the values, the dataclasses beside the code that uses them
types, ranges and choices. Here the two meet; how one is held against the other is ``checking``'s.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, cast

from annotated_types import Ge, Lt
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from chela.config import resolvers
from chela.config.checking import checked, fields_of, keys_of, refuse_unknown, require, validated
from chela.config.choices import Chosen, hydra_with, own_folders, without_own
from chela.config.component import Component, class_name, component
from chela.config.identity import counts, digest, flat
from chela.config.mistakes import refuse_mistyped
from chela.config.settings import (
    APART,
    NULL,
    LoggerConfig,
    Name,
    OptimizerConfig,
    ScheduleConfig,
    TrainerConfig,
)
from chela.disk import given_folder
from chela.errors import ConfigError, UnknownKey
from chela.kernels.choice import Asked
from chela.model import BackboneConfig

SECTIONS = ("task", "model", "optimizer", "schedule", "trainer", "logger")

resolvers.register()  # for whoever composes without a command


@dataclass(frozen=True)
class ModelConfig:
    """A backbone and the mixer inside each of its blocks."""

    name: str
    backbone: BackboneConfig
    mixer: Component


@dataclass(frozen=True)
class RunSettings:
    """The keys at the top of the configuration."""

    name: Name = field(metadata=APART)
    # as far as NumPy's go; it stands beside the hash in a run's id
    seed: Annotated[int, Ge(0), Lt(2**32)] = field(metadata=APART)
    data_dir: str = field(metadata=APART)
    output_dir: str = field(metadata=APART)
    resume: str | bool = field(metadata=APART)  # "auto", False, or a checkpoint's path
    # an earlier run's name-<hash>: begin with the weights it selected
    start_from: str | None = field(metadata=NULL)
    kernels: Asked  # which implementation of the operations


@dataclass(frozen=True)
class RunConfig(RunSettings):
    """Everything one run is made of."""

    task: Component
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    logger: LoggerConfig = field(metadata=APART)

    @property
    def identity(self) -> str:
        """Eight hex digits that name the computation, the seed apart.

        Equal for two runs exactly if they compute the same thing up to their seeds; the clock, the
        machine, the folders and where the code stands have no part in it.
        """
        return digest(computation(self))

    @property
    def run_id(self) -> str:
        """The run's name everywhere: its folder, its record, its Weights & Biases id."""
        return f"{self.name}-{self.identity}-seed{self.seed}"


def compose_run(overrides: Sequence[str]) -> RunConfig:
    """The checked configuration of a command line like train.py's, ``group=choice`` and so on.

    Of its flags there may be ``--config-dir``.

    Raises:
        ConfigError: see ``parse``; Hydra has errors of its own for what cannot be composed.
    """
    refuse_mistyped(overrides, with_flags=False)
    with hydra_with(own_folders(overrides)):
        return parse(compose("config", without_own(overrides), return_hydra_config=True))


def parse(composed: DictConfig) -> RunConfig:
    """The checked form of a configuration that Hydra composed.

    Args:
        composed: the ``cfg`` of ``hydra.main`` or ``hydra.compose``, with Hydra's own section or
            without.

    Raises:
        ConfigError: naming every key that is unknown, missing or has a bad value, and the choices;
            or choices that do not fit together, see ``Chosen.check``.
    """
    chosen = Chosen.of(composed)
    if chosen is not None:
        chosen.check()
    keys = [str(key) for key in composed if key != "hydra"]
    try:
        return _parsed(OmegaConf.masked_copy(composed, keys))
    except UnknownKey as error:
        raise ConfigError(str(error) if chosen is None else chosen.explain(error)) from error


def as_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, in the form of the YAML files."""
    return cast("dict[str, Any]", _plain(config, lambda field, value: True))


def computation(config: RunConfig) -> dict[str, Any]:
    """What a run's id is made of: the keys that decide what is computed, flat, the seed apart.

    A class stands there by its name and its version, not by where it is imported from.
    """
    keys = flat(_plain(config, counts))
    named = {key: value for key, value in keys.items() if not key.endswith("_target_")}
    return {"task.version": config.task.target.version, **named}


def apart(config: RunConfig) -> set[str]:
    """The keys that never decide what is computed, flat."""
    deciding = _plain(config, lambda field, value: field.metadata.get("identity", True))
    return flat(as_dict(config)).keys() - flat(deciding).keys()


def _plain(value: Any, wanted: Callable[[dataclasses.Field[Any], Any], bool]) -> Any:
    """A configuration or a part of one as plain values, of the fields that are ``wanted``."""
    if isinstance(value, Component):
        return {"_target_": class_name(value.target), **_plain(value.config, wanted)}
    if isinstance(value, ModelConfig):
        mixer = _plain(value.mixer, wanted)
        return {"name": value.name, **_plain(value.backbone, wanted), "mixer": mixer}
    if dataclasses.is_dataclass(value):
        pairs = ((each, getattr(value, each.name)) for each in dataclasses.fields(value))
        return {each.name: _plain(inner, wanted) for each, inner in pairs if wanted(each, inner)}
    return list(value) if isinstance(value, tuple) else value


def _parsed(composed: DictConfig) -> RunConfig:
    for key, value in OmegaConf.to_container(composed).items():  # type: ignore[union-attr]
        if key in SECTIONS:
            keys_of(value, str(key))  # before what refers to its keys is resolved
    try:
        raw = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        where = f" (in {error.full_key})" if error.full_key else ""
        raise ConfigError(f"{str(error).splitlines()[0]}{where}") from error
    return of_values(cast("dict[str, Any]", raw))


def of_values(values: Mapping[str, Any], classes: Mapping[str, type] | None = None) -> RunConfig:
    """The checked form of plain values, such as a record has; none of them is resolved.

    Args:
        values: the whole configuration.
        classes: those that ``_target_`` may name; None: it names any, which is imported.

    Raises:
        ConfigError: see ``parse``.
    """
    names = fields_of(RunConfig)
    refuse_unknown(values, names, path="")
    require(values, names, path="")
    values = dict(values)
    for place in ("data_dir", "output_dir"):
        if isinstance(values[place], str):  # a file may say ~ as a shell does
            values[place] = str(given_folder(values[place], f"{place}=").expanduser())
    resume = values["resume"]
    if resume is not False and (resume == "" or not isinstance(resume, str)):
        raise ConfigError(f"resume={resume} is not one of auto, false, a checkpoint's path")
    start = values["start_from"]
    if start is not None and not re.fullmatch(r"[^/]+-[0-9a-f]{8}", str(start)):
        raise ConfigError(
            f"start_from={start!r} is neither null nor the id that an earlier run printed, "
            "without -seed<seed>: listops-chela-1234abcd"
        )
    settings = checked(RunSettings, {key: values[key] for key in fields_of(RunSettings)}, path="")
    task = component(values["task"], "task", classes)
    model = _model(values["model"], classes)
    if task.target.causal:
        model = _of_what_comes_next(model)
    trainer = checked(TrainerConfig, values["trainer"], path="trainer")
    if task.target.endless and trainer.length_window > 1:
        raise ConfigError(
            f"trainer.length_window={trainer.length_window} sorts samples by their lengths, and "
            f"all windows of {task.config.name} have one.\n  try: trainer.length_window=1"
        )
    return RunConfig(
        **dataclasses.asdict(settings),
        task=task,
        model=model,
        optimizer=checked(OptimizerConfig, values["optimizer"], path="optimizer"),
        schedule=checked(ScheduleConfig, values["schedule"], path="schedule"),
        trainer=trainer,
        logger=checked(LoggerConfig, values["logger"], path="logger"),
    )


def _model(section: Mapping[str, Any], classes: Mapping[str, type] | None) -> ModelConfig:
    values = keys_of(section, "model")
    refuse_unknown(values, ["name", "mixer", *fields_of(BackboneConfig)], path="model")
    require(values, ["name", "mixer"], path="model")
    mixer = component(values.pop("mixer"), "model.mixer", classes)
    given = values.pop("name")  # a tag in W&B, and a part of the run's name
    name = validated(Name, given, "model.name")
    backbone = checked(BackboneConfig, values, path="model")
    if not backbone.dropout and not getattr(mixer.config, "dropout", 0.0):
        backbone = replace(backbone, tie_dropout=False)  # of nothing; one model, one id
    return ModelConfig(name, backbone, mixer)


def _of_what_comes_next(model: ModelConfig) -> ModelConfig:
    """The model of a task that asks for what comes next: nobody could want it seen.

    Raises:
        ConfigError: a norm of it looks at all tokens of a batch while it is trained.
    """
    of_branches = getattr(model.mixer.config, "branch_norm", None)  # CHELA has it
    for key, norm, remedy in (
        ("model.norm", model.backbone.norm, "layer"),
        ("model.mixer.branch_norm", of_branches, "none"),
    ):
        if norm == "batch":
            raise ConfigError(
                f"{key}=batch takes its statistics over the tokens that are still to come as well, "
                f"and the task asks for these.\n  try: {key}={remedy}"
            )
    return replace(model, backbone=replace(model.backbone, causal=True))
