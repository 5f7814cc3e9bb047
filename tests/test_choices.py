"""What is chosen from the groups of the configuration: what does not fit together is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chela.config.schema import compose_run
from chela.errors import ConfigError
from tests.conftest import ROOT
from tests.test_config import command

CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("experiment=lra/listops-s4d", "task=listops model=s4d, without"),
        ("experiment=lra/text-linear_transformer model=linear_transformer", "task=text"),
        ("experiment=small/listops-s4d", "experiment=small/listops-s4d task=listops model=s4d"),
        ("experiment=small/gratings model=s4d", "experiment=small/gratings task=gratings"),
    ],
)
def test_an_experiment_of_another_task_or_model_is_refused(words: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"try: {remedy}"):
        compose_run(CONFIGS, words.split())


def test_an_experiment_of_this_task_and_model_is_not() -> None:
    plain = ["task=listops", "model=s4d"]
    recipe = compose_run(CONFIGS, plain)
    assert compose_run(CONFIGS, ["experiment=lra/listops-s4d", *plain]).run_id == recipe.run_id
    compose_run(CONFIGS, ["experiment=small/listops-s4d", *plain])
    compose_run(CONFIGS, ["experiment=small/listops", *plain])
    compose_run(CONFIGS, ["+sweep=small_table", *plain, "seed=0"])


@pytest.mark.parametrize("words", ["+sweep=small_table", "+sweep=ablations task=text seed=0"])
def test_a_sweep_without_its_flag_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=r"single run\.\n  try: python train\.py -m \+sweep="):
        compose_run(CONFIGS, words.split())


def test_the_command_of_a_cell_is_not() -> None:
    """A record keeps it, and a launcher of processes starts it."""
    cell = ["+sweep=ablations", "task=text", "model=chela", "ablation=no_gate", "seed=0"]
    assert compose_run(CONFIGS, cell).model.mixer.config.gate == "none"


def test_a_command_refuses_it_too() -> None:
    result = command("experiment=lra/listops-s4d")
    assert result.returncode == 1
    assert "is the recipe of task=listops model=s4d" in result.stderr


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            "experiment=demo model=s4d",
            [
                "experiment=demo sets model.mixer.qk_dim for model=chela, but model=s4d has no",
                "try: experiment=small/listops-s4d task=listops model=s4d, or leave out",
            ],
        ),
        ("experiment=demo task=gratings", ["for task=listops", "task=gratings model=chela"]),
        ("experiment=demo model=sgconv", ["model=sgconv", "try: leave out experiment=demo"]),
        ("model=s4d ablation=no_gate", ["model.mixer.gate", "try: leave out ablation=no_gate"]),
        ("experiment=demo model=s4d model.mixer.qk_dim=3", ["unknown key", "Choices: "]),
        ("model=s4d +model.mixer.qk_dim=3", ["unknown key", "Choices: "]),
    ],
)
def test_an_unknown_key_that_nobody_typed_is_traced(words: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(CONFIGS, words.split())
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "words", "parts"),
    [
        (
            "experiment/mine",
            "defaults: [demo]\nmodel: {depth: 3}",
            "experiment=mine model=s4d",
            [
                "experiment=mine sets model.mixer.qk_dim for model=chela, which it has from "
                "configs/experiment/demo.yaml, but model=s4d has no such key.",
                "or leave out experiment=mine",
            ],
        ),
        (
            "experiment/mine",
            "defaults: [demo]\nmodel: {mixer: {qk_dim: 3}}",
            "experiment=mine model=s4d",
            ["experiment=mine sets model.mixer.qk_dim for model=chela, but model=s4d has no"],
        ),
        (
            "experiment/mine",
            "defaults: [small/listops-chela]",
            "experiment=mine model=s4d",
            ["which it has from configs/experiment/small/listops-chela.yaml, but model=s4d has"],
        ),
        (
            "experiment/small/gratings",
            "model: {mixer: {qk_dim: 3}}",
            "experiment=small/gratings-s4d task=gratings model=s4d",
            ["qk_dim, which it has from configs/experiment/small/gratings.yaml, but model=s4d"],
        ),
        (
            "experiment/lra/gratings-s4d",
            "defaults: [listops-mega_chunk]",
            "task=gratings model=s4d",
            [
                "the recipe configs/experiment/lra/gratings-s4d.yaml sets model.mixer.",
                "which it has from configs/experiment/lra/listops-mega.yaml, but model=s4d has no",
                "try: ~model.mixer.",
            ],
        ),
    ],
)
def test_a_key_of_a_base_is_traced_to_its_file(
    file: str,
    text: str,
    words: str,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    (configs / f"{file}.yaml").write_text(f"# @package _global_\n{text}\n")
    monkeypatch.setattr("chela.config.choices.CONFIGS", configs)
    with pytest.raises(ConfigError) as caught:
        compose_run(configs, words.split())
    for part in parts:
        assert part in str(caught.value)


def test_the_help_offers_experiments_and_no_recipes() -> None:
    shown = command("--help").stdout
    assert "experiment: demo, small/gratings," in shown
    assert "lra/" not in shown
