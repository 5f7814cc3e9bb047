"""Is everything in order for a run? `python scripts/doctor.py task=listops model=chela`."""

import sys

import hydra
from omegaconf import DictConfig
from rich.text import Text

from chela.launch.cli import run_hydra
from tasks.screen import Screen


@hydra.main(version_base="1.3", config_path="../configs", config_name="config")
def main(composed: DictConfig) -> None:
    """Print a line per finding, OK or what to do; the exit status is 1 if something is wrong."""
    from chela.config.schema import parse
    from chela.doctor import diagnose

    console, wrong = Screen(), 0
    for finding in diagnose(parse(composed)):
        mark = Text("OK   ", "green") if finding.fine else Text("WRONG", "red")
        console.say(mark.append(f" {finding.subject:<25} {finding.text}", "default"))
        wrong += not finding.fine
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    run_hydra(main)
