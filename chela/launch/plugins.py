"""The launchers, as Hydra finds them: those of this machine, Slurm's and Ray's."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import cast

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

from chela.errors import ConfigError
from chela.launch.launcher import ProcessLauncher
from chela.launch.turns import PLUGIN, TurnLauncher

# Launchers that need a package which need not be installed: its name, where it is, the extra.
EXTRAS = (
    ("SlurmLauncher", "chela.launch.slurm", "hydra_plugins.hydra_submitit_launcher", "slurm"),
    ("RayLauncher", "chela.launch.ray", "hydra_plugins.hydra_ray_launcher", "ray"),
)


def register() -> None:
    """Make the launchers known to Hydra; safe to call twice."""
    plugins = Plugins.instance()  # first: it imports those of other packages
    package, _, name = PLUGIN.rpartition(".")
    parent = sys.modules.setdefault(package, ModuleType(package))
    module = sys.modules.setdefault(PLUGIN, ModuleType(PLUGIN))
    setattr(parent, name, module)
    launchers: list[type[Launcher]] = [
        ProcessLauncher,
        TurnLauncher,
        *(_extra(*each) for each in EXTRAS),
    ]
    for launcher in launchers:
        plugins.register(launcher)
        setattr(module, launcher.__name__, launcher)


def _extra(name: str, module: str, package: str, extra: str) -> type[Launcher]:
    """A launcher by another package, or what says that the package is missing."""
    if package in sys.modules:  # Hydra has imported it, if it is there
        return cast("type[Launcher]", getattr(import_module(module), name))

    def refuse(*_: object, **__: object) -> None:
        raise ConfigError(
            f"hydra/launcher={extra} needs {package.partition('.')[2]}.\n"
            f"  try: pip install 'chela[{extra}]'"
        )

    return type(name, (TurnLauncher,), {"__module__": PLUGIN, "__init__": refuse})
