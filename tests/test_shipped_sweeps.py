"""The sweeps of configs/sweep: each can be run, and asks for what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from chela.config.schema import compose_run
from tasks.spec import LRA
from tests.arena import arena_models
from tests.conftest import ROOT
from tests.test_sweep import cells_of

SWEEPS = sorted((ROOT / "configs/sweep").glob("*.yaml"))


@pytest.mark.long
@pytest.mark.parametrize("name, tasks, models", [("lra_table", 6, 7), ("small_table", 2, 3)])
def test_a_choice_of_sweep_can_be_run(name: str, tasks: int, models: int) -> None:
    """Each cell, but for its seed, is a configuration; the command line narrows the table."""
    cells = cells_of(f"+sweep={name}")
    seeds = {each for cell in cells for each in cell if each.startswith("seed=")}
    configs = [compose_run(cell) for cell in cells if "seed=0" in cell]
    narrow = cells_of(f"+sweep={name}", "model=chela", "seed=5,6")
    assert len(cells) == tasks * models * len(seeds)
    assert len({config.identity for config in configs}) == tasks * models
    assert len({config.task.config.name for config in configs}) == tasks
    assert len({config.model.name for config in configs}) == models
    assert len(narrow) == 2 * tasks
    assert all("model=chela" in cell for cell in narrow)


@pytest.mark.long
def test_the_small_table_shows_all_models_the_same_samples() -> None:
    """Whatever a recipe of the same task and model does to them."""
    configs = [compose_run(cell) for cell in cells_of("+sweep=small_table", "seed=0")]
    shown = {
        (each.task.config.name, each.trainer.augment, each.trainer.mixing, each.trainer.max_epochs)
        for each in configs
    }
    assert len(shown) == 2 < len(configs)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_of_one_task_takes_the_keys_of_it(file: Path) -> None:
    """They are composed with the task of its defaults, before any cell is."""
    swept = yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]
    assert "," in swept.get("task", ","), "say override /task in its defaults"


def test_the_lra_table_has_every_recipe() -> None:
    cells = cells_of("+sweep=lra_table", "seed=0")
    pairs = {f"{task[5:]}-{model[6:]}" for task, model, *_ in cells}
    recipes = {file.stem for file in (ROOT / "configs/experiment/lra").glob("*.yaml")}
    ours = {each for each in recipes if each.partition("-")[2] in arena_models()}
    assert pairs == {each for each in ours if each.partition("-")[0] in LRA}


@pytest.mark.parametrize(
    ("task", "of_attention"),
    [
        ("text", {}),
        (
            "rfc_bytes",  # whose attention has several heads
            {
                "qk_norm": "none",
                "key_shift": False,
                "attention_decay": "none",
                "qk_dim": 64,
                "num_heads": 1,
            },
        ),
    ],
)
def test_each_ablation_leaves_one_part_out(task: str, of_attention: dict[str, object]) -> None:
    cells = cells_of("+sweep=ablations", f"task={task}")
    runs = [compose_run(cell) for cell in cells]
    plain = compose_run([f"task={task}", "model=chela"])
    whole, *others = [dataclasses.asdict(run.model.mixer.config) for run in runs]
    assert runs[0].identity == plain.identity
    left_out = [
        {key: value for key, value in other.items() if value != whole[key]} for other in others
    ]
    assert left_out == [
        {"use_short_conv": False},
        {"use_long_conv": False},
        {"use_attention": False, **of_attention},
        {"gate": "none"},
        {"branch_widths": ()},
    ]
    assert {run.trainer for run in runs} == {plain.trainer}


def test_claims_ask_for_each_part_once() -> None:
    """And a cell that is the recipe under another name is the recipe's run."""
    runs = [compose_run(cell) for cell in cells_of("+sweep=claims", "task=image")]
    assert [run.model.backbone.ffn for run in runs[-2:]] == ["none", "mlp"]
    recipe = compose_run(["task=image", "model=chela"]).identity
    assert [run.identity == recipe for run in runs].count(True) == 4  # wavelet, glu, no FFN
    assert len({str(run.identity) for run in runs}) == len(runs) - 3
