"""Does a mixer keep what all keep? `chela test-model model=mine --config-dir my/configs`."""

import os
import sys
from collections.abc import Sequence

from omegaconf import DictConfig
from rich.text import Text

from chela.launch.cli import run_hydra
from tasks.screen import Screen


def check_model(composed: DictConfig) -> None:
    """Print a line per check of the chosen model's mixer; the exit status is 1 if one failed."""
    from chela.config.schema import parse
    from chela.testing import CHECKS, Subject, without_dropout

    model, console, wrong = parse(composed).model, Screen(), 0
    subject = Subject(model.mixer.target, without_dropout(model.mixer.config), model.backbone)
    target = model.mixer.target
    what = f"{target.__module__}.{target.__qualname__}, {model.backbone.dim} channels"
    console.say(f"model={model.name}: {what}")
    for check in CHECKS:
        for causal in (False, True):
            mark, why = Text("OK   ", "green"), ""
            try:
                check(subject, causal)
            except NotImplementedError as error:
                mark, why = Text("NONE ", "yellow"), f": {error}"
            except Exception as error:  # whatever a mixer of one's own raises
                if os.environ.get("CHELA_TRACEBACK") == "1":
                    raise
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                mark, why = Text("WRONG", "red"), f": {kind}{str(error).strip()}"
                wrong += 1
            form = "causal" if causal else "bidirectional"
            name = check.__name__.replace("_", " ")
            console.say(mark.append(f" {form:<13} {name}{why}", "default"))
    if wrong:
        sys.exit(1)


def main(words: Sequence[str]) -> None:
    """Test the model that the command line names, eight channels wide unless it says otherwise."""
    run_hydra(check_model, ["~experiment/lra", "model.dim=8", *words])
