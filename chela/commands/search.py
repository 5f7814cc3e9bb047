"""Search a recipe with Optuna: `chela search search=chela task=listops trials=20`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from chela.config.choices import CONFIGS, OWN, hydra_with, own_folders, without_own
from chela.config.mistakes import refuse_mistyped
from chela.errors import ConfigError
from chela.records.files import write_text
from tasks.screen import Screen

if TYPE_CHECKING:
    from chela.launch.search import Search

USAGE = """\
usage: chela search search=NAME [trials=20] [write=FILE] [group=choice] [key=value] ...

  search=NAME   the space: configs/search/NAME.yaml, or a file
  trials=20     of the study in all; the same command again goes on until there are so many, and
                several processes with the same command share the study
  write=FILE    the best trial as an experiment, e.g. configs/experiment/found.yaml
  the rest      as for chela train, the same for all trials; --config-dir FOLDER too
"""


def main(arguments: Sequence[str]) -> None:
    """Run the trials, show them, and print the command of the best.

    Raises:
        ConfigError: an argument, the configuration or the space cannot be used.
    """
    if {"-h", "--help"} & set(arguments):
        Screen().say(USAGE)
        return
    try:
        from chela.launch.search import Search
        from chela.launch.space import read_search
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError("the search needs Optuna.\n  try: pip install 'chela[search]'") from error
    own = {"search": "", "trials": "20", "write": ""}
    overrides = []
    for each in arguments:
        key, _, value = each.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(each)
    refuse_mistyped(overrides, with_flags=False)
    if not own["search"]:
        raise ConfigError(f"search=NAME is missing.\n{USAGE}")
    if not own["trials"].isdecimal() or int(own["trials"]) < 1:
        raise ConfigError(f"trials={own['trials']} is not a whole number from 1 on")
    named, folders = Path(own["search"]), own_folders(overrides)
    if named.suffix != ".yaml":
        files = [folder / "search" / f"{named}.yaml" for folder in (*folders, CONFIGS)]
        named = next((file for file in files if file.is_file()), files[-1])
    with hydra_with(folders):
        search = Search(read_search(named), without_own(overrides))
        Screen().say(f"{search.name} in {search.folder}")
        if search.selects_on_test:
            Screen().say(
                "note: the trials run with task.protocol=heldout, since a search must not select "
                "on the test split; the command of the best has your protocol again"
            )
        search.run(int(own["trials"]))
        flags = [word for folder in folders for word in (OWN[0], str(folder))]
        _show(search, own["write"], flags)


def _show(search: Search, write: str, flags: Sequence[str]) -> None:
    from chela.config.recipe import experiment

    console = Screen(120)
    table = Table(title=search.name, title_justify="left")
    for name in ("trial", "state", "validation"):
        table.add_column(name, justify="right")
    table.add_column("what was drawn, or why it failed", overflow="fold")
    for trial in search.trials():
        drawn = " ".join(search.overrides_of(trial.params)) if trial.params else ""
        value = "" if trial.value is None else f"{trial.value:.4f}"
        text = "\n".join(filter(None, [drawn, trial.user_attrs.get("error")]))
        table.add_row(str(trial.number), trial.state.name.lower(), value, text)
    console.print(table)
    best = search.best()
    if best is None:
        raise ConfigError("no trial is finished, so there is no best one; see why above")
    overrides = [*search.asked_for, *search.overrides_of(best.params)]
    console.say(f"the best is trial {best.number}, validation {search.metric} {best.value:.4f}:")
    console.say(shlex.join(["chela", "train", *overrides, *flags]))
    if write:
        comment = (
            f"The best of {len(search.trials())} trials of the search {search.name}: validation\n"
            f"{search.metric} {best.value:.4f} (trial {best.number}, seed as configured)."
        )
        write_text(Path(write), experiment(overrides, search.apart, comment))
        console.say(f"written to {write}")
