"""Train one model on one task: `chela train --help`."""

from collections.abc import Sequence

from omegaconf import DictConfig

from chela.launch.cli import run_hydra

TOKENS, TEMPERATURE = 160, 0.7  # of what a language model says at the end


def train(composed: DictConfig) -> float:
    """One run; what selects, of its best validation, is the sweep's objective."""
    from chela.launch.sweep import refuse_several_devices
    from chela.training.run import run  # here, so that --help need not wait for torch

    refuse_several_devices(composed)
    best = run(composed)
    go_on(composed)
    return best


def go_on(composed: DictConfig) -> None:
    """What a finished run's language model says behind ``task.prompt``, where there is one."""
    from chela.config.schema import parse
    from chela.generation import continuation
    from chela.hub import load_run
    from chela.layers.processes import alone
    from chela.training.distributed import is_leader
    from chela.training.engine import resolve
    from chela.training.folder import RunFolder
    from tasks.screen import Screen, visible

    config = parse(composed)
    prompt = getattr(config.task.config, "prompt", None)
    if prompt is None or not is_leader():
        return
    loaded = load_run(RunFolder(config).path, resolve(config).device)
    with alone():  # the other processes of the run, if it had some, do not generate
        said = "".join(continuation(loaded, prompt, TOKENS, TEMPERATURE, seed=config.seed))
    Screen().say(f"it goes on: {visible(prompt + said)}")


def main(words: Sequence[str]) -> None:
    """Run what the command line says."""
    # a screen that stands still does not stop a training
    run_hydra(train, words, patience=1.0, sweeps=True)
