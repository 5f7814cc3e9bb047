"""What is chosen from the groups of the configuration: what does not fit together is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chela.config.choices import CONFIGS, RECIPE
from chela.config.schema import compose_run
from chela.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("experiment=lra/listops-s4d", "task=listops model=s4d, without"),
        ("experiment=lra/text-transformer model=transformer", "task=text"),
        ("experiment=small/listops-s4d", "experiment=small/listops-s4d task=listops model=s4d"),
        ("experiment=small/gratings model=s4d", "experiment=small/gratings task=gratings"),
    ],
)
def test_an_experiment_of_another_task_or_model_is_refused(words: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"try: {remedy}"):
        compose_run(words.split())


def test_an_experiment_of_this_task_and_model_is_not() -> None:
    plain = ["task=listops", "model=s4d"]
    recipe = compose_run(plain)
    assert compose_run(["experiment=lra/listops-s4d", *plain]).run_id == recipe.run_id
    compose_run(["experiment=small/listops-s4d", *plain])
    compose_run(["experiment=small/listops", *plain])
    compose_run(["+sweep=small_table", *plain, "seed=0"])


BUILT = [each for each in (CONFIGS / RECIPE).glob("*.yaml") if "defaults:" in each.read_text()]


@pytest.mark.parametrize("recipe", sorted(file.stem for file in BUILT))
def test_a_recipe_that_builds_on_another_finds_it_from_wherever_it_is_chosen(recipe: str) -> None:
    other = "task=gratings" if recipe.startswith("listops") else "task=listops"
    with pytest.raises(ConfigError, match=f"experiment=lra/{recipe} is the recipe of task="):
        compose_run([f"experiment=lra/{recipe}", other])
    assert len(BUILT) >= 10


def test_a_recipe_of_ones_own_that_builds_on_nothing_says_so(command, tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "lra" / "gratings-mega.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\ndefaults: [listops-mega]\n")
    result = command("train", f"--config-dir={tmp_path}", "experiment=lra/gratings-mega")
    assert result.returncode == 1
    assert "builds on experiment/listops-mega, which is not there" in result.stderr
    assert "/experiment/<folder>/listops-mega" in result.stderr


@pytest.mark.parametrize("words", ["+sweep=small_table", "+sweep=ablations task=text seed=0"])
def test_a_sweep_without_its_flag_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=r"single run\.\n  try: chela train -m \+sweep="):
        compose_run(words.split())


def test_the_command_of_a_cell_is_not() -> None:
    """A record keeps it, and a launcher of processes starts it."""
    cell = ["+sweep=ablations", "task=text", "model=chela", "ablation=no_gate", "seed=0"]
    assert compose_run(cell).model.mixer.config.gate == "none"


def test_a_command_refuses_it_too(command) -> None:
    result = command("train", "experiment=lra/listops-s4d")
    assert result.returncode == 1
    assert "is the recipe of task=listops model=s4d" in result.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("experiment=demo model=s4d", "file of experiment=demo.\n  try: leave out experiment=demo"),
        ("experiment=demo task=gratings", "file of experiment=demo.\n"),
        ("task=text model=s4d ablation=no_gate", "try: leave out ablation=no_gate"),
        (
            "+sweep=recall task=mqar model=chela model.dim=64 seed=0",
            "file of +sweep=recall.\n  try: leave out +sweep=recall, or task=mqar_mixture,",
        ),
        (
            "+sweep=recall model=mega model.dim=64 seed=0 task=listops",
            "recall, or task=mqar_mixture",
        ),
        ("experiment=demo model=s4d model.mixer.qk_dim=3", None),
        ("model=s4d +model.mixer.qk_dim=3", None),
        ("experiment=demo +section.key=3", None),
    ],
)
def test_an_unknown_key_that_nobody_typed_is_traced(words: str, part: str | None) -> None:
    with pytest.raises(ConfigError, match=r"unknown key .*Choices: ") as caught:
        compose_run(words.split())
    said = str(caught.value)
    assert ("not typed" in said) == (part is not None)
    assert (part or "") in said


def test_the_help_offers_experiments_and_no_recipes(command) -> None:
    shown = command("train", "--help").stdout
    assert re.search(r"experiment: demo, .*small/gratings, ", shown)
    assert "lra/" not in shown
