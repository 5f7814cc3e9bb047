"""Let a run's language model go on: `chela generate run=outputs/<run>/seed0 prompt="Once"`."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from chela.errors import ConfigError, RunError
from tasks.screen import Screen, visible
from tasks.spec import Seed

USAGE = """\
usage: chela generate run=FOLDER prompt=TEXT [key=value ...]

  run=outputs/<run>/seed0  a finished run of a causal language model, or what save_pretrained wrote
  prompt=TEXT              what it goes on from
  tokens=200               how many more
  temperature=1.0          of the draws; 0: always the most likely token
  top_k=null               only the so many most likely tokens can come
  seed=0                   of the draws
  stream=true              print each piece as it comes
  device=auto              cuda where there is one, else cpu"""


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class GenerateConfig:
    """The keys above."""

    run: str
    prompt: str
    tokens: PositiveInt = 200
    temperature: NonNegativeFloat = 1.0
    top_k: PositiveInt | None = None
    seed: Seed = 0
    stream: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"


def parsed(words: Sequence[str]) -> GenerateConfig:
    """The command line, checked.

    Raises:
        ConfigError: a word that is no key=value, an unknown key, or a value that cannot be.
    """
    from chela.config.checking import checked, values_of

    values = values_of(words, ("run", "prompt", "device"), _remedy)
    if missing := [f"{key}=..." for key in ("run", "prompt") if not values.get(key)]:
        raise ConfigError(f"{' and '.join(missing)} must be given.\n{USAGE}")
    return checked(GenerateConfig, values, path="")


def _remedy(word: str) -> str:
    """What was meant by a word that is no ``key=value``."""
    bare = word.lstrip("-")
    if bare in GenerateConfig.__dataclass_fields__:
        return f"{bare}=..."
    return shlex.quote(f"{'run' if Path(word).is_dir() else 'prompt'}={word}")


def main(words: Sequence[str]) -> None:
    """Print the prompt and what the model says behind it; below it, how fast that was."""
    if {"-h", "--help"} & {*words}:
        Screen().say(USAGE)
        return
    generate(parsed(words))


def generate(given: GenerateConfig) -> None:
    """Load the run, and print as it comes.

    Raises:
        RunError: the text cannot be written, as the disk is full; a reader that leaves is no fault.
    """
    import torch

    from chela.generation import continuation
    from chela.hub import device_for, load

    device = device_for(given.device)
    run = load(given.run, device)
    sampling = (given.temperature, given.top_k, given.seed)
    pieces = continuation(run, given.prompt, given.tokens, *sampling)
    screen, began = Screen(), time.perf_counter()
    first = next(pieces)  # an error of the prompt comes before anything is printed
    for piece in [given.prompt, first] if given.stream else []:
        screen.file.write(visible(piece))
    for piece in pieces if given.stream else [given.prompt + first + "".join(pieces)]:
        screen.file.write(visible(piece))
        if screen.gone:
            return
    screen.file.write("\n")
    if screen.failed:
        raise RunError(
            f"the text could not all be written: {screen.failed}.\n  try: another place for it"
        )
    seconds = time.perf_counter() - began
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    Screen(stderr=True).say(
        f"{given.tokens:,} tokens in {seconds:.1f} s on {name}, the first with the prompt; "
        f"temperature {given.temperature:g}, seed {given.seed}"
    )
