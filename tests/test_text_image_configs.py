"""The files of Text and the image tasks: the code's defaults, and recipes that reach the model."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from chela.config.schema import RunConfig, parse
from tasks.image.gratings import GratingsConfig
from tasks.image.task import ImageConfig
from tasks.text.task import TextConfig
from tests.conftest import ROOT


def run_config(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return parse(compose("config", list(overrides)))


@pytest.mark.parametrize(
    "task, config",
    [
        ("text", TextConfig()),
        ("image", ImageConfig()),
        ("cifar", ImageConfig(name="cifar", channels="rgb")),
        ("mnist", ImageConfig(name="mnist", dataset="mnist")),
        ("gratings", GratingsConfig()),
    ],
)
def test_the_files_state_the_defaults_of_the_code(task: str, config: Any) -> None:
    assert run_config(f"task={task}").task.config == config


# Mega's for Image: depth, D, v (as wide as the FFN), z, norm, whether pre-norm, batch, learning
# rate, dropout, weight decay, epochs and warm-up steps.
IMAGE = (8, 160, 320, 96, "batch", True, 50, 1e-2, 0.0, 0.02, 200, 9000)
MEGA = {
    "cifar": IMAGE,
    "mnist": IMAGE,
}


@pytest.mark.parametrize("task", list(MEGA))
def test_the_recipes_are_megas(task: str) -> None:
    config = run_config(f"task={task}", "model=chela")
    backbone, mixer = config.model.backbone, config.model.mixer.config
    assert mixer.v_dim == backbone.ffn_dim
    assert MEGA[task] == (
        backbone.depth,
        backbone.dim,
        backbone.ffn_dim,
        mixer.qk_dim,
        backbone.norm,
        backbone.prenorm,
        config.trainer.batch_size,
        config.optimizer.lr,
        backbone.dropout,
        config.optimizer.weight_decay,
        config.trainer.max_epochs,
        config.schedule.warmup_steps,
    )
    assert config.name == f"{task}-chela"
