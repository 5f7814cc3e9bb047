"""The recipes of language: models of one size that do not look ahead, on the same tokens."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from chela.bench.params import run_config, size_of
from chela.config.choices import CONFIGS
from chela.config.schema import compose_run
from chela.testing import unsettled
from chela.training.build import build_model, build_task
from tasks.language.rfc import RfcBytesConfig
from tests.conftest import ROOT
from tests.test_sweep import cells_of

RECIPES = CONFIGS / "experiment" / "lra"
MODELS = sorted(file.stem.partition("-")[2] for file in RECIPES.glob("rfc_bytes-*.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_a_later_token_changes_no_earlier_output(name: str) -> None:
    torch.set_num_threads(1)
    config = run_config(name, ["task=rfc_bytes", "model.depth=2"])
    spec = dataclasses.replace(build_task(config).spec, max_length=80)
    model = unsettled(build_model(config.model, spec)).double().eval()
    ids = torch.randint(256, (2, 80))
    changed = ids.clone()
    changed[:, 50:] += torch.randint(1, 256, (2, 30))  # each is another one
    changed %= 256
    with torch.no_grad():
        one, other = model(ids), model(changed)
    torch.testing.assert_close(one[:, :50], other[:, :50], rtol=1e-9, atol=1e-9)
    assert (one[:, 50:] - other[:, 50:]).abs().amax(-1).min() > 1e-3
    # and the earlier ones matter: what is far behind reaches the last output
    changed = ids.clone()
    changed[:, :10] += torch.randint(1, 256, (2, 10))
    changed %= 256
    with torch.no_grad():
        assert (model(changed)[:, -1] - one[:, -1]).abs().amax() > 1e-6


@pytest.mark.long
def test_the_models_have_one_documented_size_and_the_same_training() -> None:
    configs = {name: run_config(name, ["task=rfc_bytes"]) for name in MODELS}
    sizes = {n: size_of(each, build_task(each).spec) for n, each in configs.items()}
    parameters = {name: size.parameters for name, size in sizes.items()}
    assert {"chela", "transformer", "linear_transformer", "s4d"} <= set(sizes)  # of the sweep
    assert max(parameters.values()) < 1.1 * min(parameters.values())
    assert 1e7 < parameters["chela"] < 1.02 * parameters["transformer"]
    assert len({config.trainer for config in configs.values()}) == 1
    text = (ROOT / "docs/language.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([\d,]+) \| ([\d.]+)", text, re.M)
    counted = [
        (name, f"{size.parameters:,}", f"{size.flops_per_token / 1e6:.1f}")
        for name, size in sizes.items()
    ]
    assert sorted(rows) == sorted(counted)


def test_the_sweep_of_language_differs_in_the_model_alone() -> None:
    cells = cells_of("+sweep=language", "task.length=64")  # a key of its task
    configs = [compose_run(cell) for cell in cells]
    names = [config.model.name for config in configs]
    assert names == ["chela", "transformer", "linear_transformer", "s4d"]
    assert {config.task.config for config in configs} == {RfcBytesConfig(length=64)}
    assert {config.model.backbone.dim for config in configs} == {384, 512}  # by their recipes
    assert len({config.schedule for config in configs}) == 1


@pytest.mark.parametrize("name", MODELS)
def test_enwik8_has_the_recipes_of_the_rfcs(name: str) -> None:
    one, other = (run_config(name, [f"task={task}"]) for task in ("rfc_bytes", "enwik8"))
    assert dataclasses.replace(one, task=other.task, name=other.name) == other


COMMANDS = re.findall(r"^chela train ([^#\n]+)", (ROOT / "docs/language.md").read_text(), re.M)


@pytest.mark.parametrize("words", COMMANDS)
def test_the_documented_commands_compose(words: str) -> None:
    assert len(COMMANDS) >= 8
    *_, last = [compose_run(cell) for cell in cells_of(*words.replace("-m ", "").split())]
    assert last.model.backbone.causal
