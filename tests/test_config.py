"""The configuration: what is refused, how, and what makes two runs the same."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from chela.bench.params import LRA
from chela.config.choices import offered
from chela.config.component import Component
from chela.config.recipe import departures
from chela.config.schema import RunConfig, as_dict, compose_run, computation, parse
from chela.errors import ConfigError
from chela.launch.cli import arranged
from chela.launch.sweep import SweepCallback
from tests.conftest import ROOT


def test_the_command_line_names_the_choices(command) -> None:
    """What is said of other words is in test_mistakes.py."""
    result = command("train", "trainer.maxsteps=3")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")  # nothing above it, no traceback
    assert "trainer.maxsteps" in result.stderr
    assert "max_steps" in result.stderr


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("model.norm", "laier", ["model.norm=laier", "'layer'", "'batch'"]),
        ("model.depth", 0, ["model.depth=0", "greater than 0"]),
        ("model.depth", "two", ["model.depth='two'", "integer"]),
        ("model.mixer.gate", "soft", ["model.mixer.gate=soft", "'silu'", "'mega'", "'none'"]),
        (
            "model.mixer.long_conv_state_space.state_dim",
            7,
            ["model.mixer.long_conv_state_space", "set state_dim=8"],
        ),
        ("optimizer.name", "sgd", ["optimizer.name=sgd", "'adam'", "'adamw'"]),
        ("trainer.precision", "fp8", ["trainer.precision=fp8", "'bf16'"]),
        ("trainer.batch_size", -1, ["trainer.batch_size=-1"]),
        ("task.source", "hub", ["task.source=hub", "'official'", "'generated'"]),
        ("seed", -1, ["seed=-1"]),
        ("kernels", "cuda", ["kernels=cuda", "'auto'", "'triton'", "'torch'"]),
        ("resume", True, ["resume=True"]),
    ],
)
def test_a_bad_value_is_named_with_its_choices(composed, key, value, parts) -> None:
    config = composed()
    OmegaConf.update(config, key, value)
    with pytest.raises(ConfigError) as caught:
        parse(config)
    for part in parts:
        assert part in str(caught.value)


def test_a_list_that_is_too_short_is_named_as_a_whole() -> None:
    with pytest.raises(ConfigError, match=r"task\.train\.1=\[64, 4\] has too few values"):
        compose_run(["task=mqar_mixture", "task.train=[[64,4,9],[64,4]]"])


def test_what_a_list_of_sizes_refuses_is_said_without_its_inside() -> None:
    with pytest.raises(ConfigError, match=r"^task: length=64 has no room for pairs=400; try"):
        compose_run(["task=mqar_mixture", "task.test=[[64,400]]"])


@pytest.mark.parametrize(
    "section",
    [
        "",
        "task",
        "model",
        "model.mixer",
        "model.mixer.long_conv_state_space",
        "trainer",
        "optimizer",
    ],
)
def test_an_unknown_key_in_a_file_is_refused(composed, section) -> None:
    config = composed()
    key = f"{section}.surprise".lstrip(".")
    OmegaConf.update(config, key, 1, force_add=True)
    with pytest.raises(ConfigError, match=f"unknown key '{key}'.*Choices: "):
        parse(config)


def test_keys_that_do_not_fit_together_are_named_without_their_section(composed) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(composed("task.min_length=50"))
    assert str(caught.value) == (
        "task: max_length must be at least min_length + 2: both are exclusive"
    )


def test_several_bad_values_are_named_at_once(composed) -> None:
    config = composed("trainer.batch_size=-1", "trainer.precision=fp8")
    with pytest.raises(ConfigError, match=r"(?s)batch_size.*precision|precision.*batch_size"):
        parse(config)


def test_identity_comes_from_what_is_computed(composed) -> None:
    base = parse(composed())
    for same in ["seed=7", "logger=wandb", "trainer.num_workers=2", "resume=false", "name=other"]:
        assert parse(composed(same)).identity == base.identity, same
    for other in [
        "model.depth=2",
        "optimizer.lr=0.5",
        "task.num_train=201",
        "optimizer=adam",
        "kernels=torch",
    ]:
        assert parse(composed(other)).identity != base.identity, other
    assert parse(composed("seed=7")).run_id != base.run_id


CLASS = """
from dataclasses import dataclass, field
@dataclass(frozen=True)
class Config:
    width: int = 3
    {key}
class Mixer:
    Config = Config
"""
KEY = "later: str = field(default='b', metadata={'neutral': 'a'})"


def test_an_id_outlives_a_renamed_module_and_a_new_key(composed, monkeypatch) -> None:
    def config(module: str, key: str = "", **values: object) -> RunConfig:
        made = types.ModuleType(module)
        monkeypatch.setitem(sys.modules, module, made)
        exec(CLASS.format(key=key), made.__dict__)
        whole = composed()
        OmegaConf.update(
            whole, "model.mixer", {"_target_": f"{module}.Mixer", "width": 3, **values}, merge=False
        )
        return parse(whole)

    first = config("before")
    assert config("after").identity == first.identity
    assert config("after", KEY, later="a").identity == first.identity
    changed = config("after", KEY)  # its default is not its neutral value
    assert changed.identity == config("after", KEY, later="b").identity != first.identity
    assert computation(changed)["model.mixer.later"] == "b"
    assert config("after", width=4).identity != first.identity


def test_data_of_another_version_are_another_run(composed, monkeypatch) -> None:
    config = parse(composed())
    before = config.identity
    monkeypatch.setattr(config.task.target, "version", config.task.target.version + 1)
    assert config.identity != before


def test_departures_from_a_recipe_are_told_with_its_values(composed) -> None:
    chosen = ["task=text", "model=chela", "model.tie_dropout=true", "logger=csv"]
    plain = compose_run(chosen[:2])
    other = compose_run([*chosen, "trainer.batch_size=7", "~experiment/lra"])
    assert departures(plain) == {}
    found = departures(other)
    assert found is not None
    assert (found["model.tie_dropout"], found["trainer.batch_size"]) == (
        False,
        plain.trainer.batch_size,
    )
    assert departures(replace(plain, model=replace(plain.model, name="mine"))) is None
    stand_in = compose_run(["task=retrieval", "task.data=rfc", "model=chela"])
    assert departures(stand_in) == {"task.data": "aan", "task.name": "retrieval"}


def _schemas(value: object) -> Iterator[type]:
    if isinstance(value, Component):
        yield from _schemas(value.config)
    elif dataclasses.is_dataclass(value):
        yield type(value)
        for each in dataclasses.fields(value):
            yield from _schemas(getattr(value, each.name))


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={file.stem}"
        for group in ("task", "model")
        for file in sorted((ROOT / "configs" / group).glob("*.yaml"))
    ],
)
def test_a_choice_composes_and_what_its_fields_say_is_read(choice: str) -> None:
    """A misspelt word would be overlooked, and give every run another id.

    Of a task two places name a default, the dataclass and its YAML: they must agree.
    """
    config = compose_run([choice])
    for schema in _schemas(config):
        for each in dataclasses.fields(schema):
            assert each.metadata.keys() <= {"identity", "neutral"}, (schema, each.name)
    unlike = {
        "task=cifar": {"name": "cifar", "channels": "rgb"},
        "task=mnist": {"name": "mnist", "dataset": "mnist"},
    }
    if choice.startswith("task="):
        assert config.task.config == config.task.target.Config(**unlike.get(choice, {}))


def test_a_resolved_configuration_can_be_run_again(composed) -> None:
    """What a run writes as config.yaml is a configuration, and the same run."""
    config = parse(composed())
    again = parse(OmegaConf.create(as_dict(config)))
    assert again == config
    assert again.run_id == config.run_id


def test_a_recipe_gives_way_to_the_command_line() -> None:
    """Also one that chooses a group by its `name`, which would undo `optimizer=adam`."""
    recipes = (ROOT / "configs/experiment/lra").glob("*.yaml")
    naming = [file.stem for file in recipes if "  name:" in file.read_text()]
    for task, model in (stem.split("-") for stem in [*naming, "text-chela"]):
        chosen = [f"task={task}", f"model={model}", "optimizer=adam", "schedule=cosine"]
        config = compose_run(chosen)
        assert (config.optimizer.name, config.schedule.name) == ("adam", "cosine"), (task, model)


def test_the_demo_is_what_its_file_says() -> None:
    """A change of ListOps' recipe is none of the demo."""
    config = compose_run(["experiment=demo"])
    alone = compose_run(["experiment=demo", "~experiment/lra"])
    assert config.schedule.name == "cosine"
    assert config == alone
    picture = (ROOT / "docs/demo.svg").read_text()
    assert config.run_id in picture, "outputs/README.md shows the demo of before: draw it anew"


def test_help_is_a_page_one_can_use(command) -> None:
    result = command("train", "--help")
    assert result.returncode == 0
    for part in ["task=listops model=chela", "experiment=demo", "seed=0,1,2", "max_steps: null"]:
        assert part in result.stdout
    assert "hydra:" not in result.stdout


def test_every_group_file_is_reached() -> None:
    """Each choice of each group composes and parses: none lies about unused and broken.

    Tasks and models: above; sweeps, the recipes among them: test_shipped_sweeps; test_search.
    """
    for file in sorted((ROOT / "configs").rglob("*.yaml")):
        group = file.parent.relative_to(ROOT / "configs")
        if group == Path("experiment/lra"):  # a recipe is applied by its task and model
            task, model = file.stem.split("-")
            if task not in LRA:
                compose_run([f"task={task}", f"model={model}"])
        elif group == Path("experiment/small"):  # of the same pairs, or what those share
            task, _, model = file.stem.partition("-")
            pair = [f"task={task}", f"model={model or 'chela'}"]
            compose_run([f"experiment=small/{file.stem}", *pair])
        elif group.name == "_base":  # others are built on it
            assert f"{group.name}/{file.stem}" not in offered()[group.parent.name]
        elif str(group) not in (".", "task", "model", "sweep", "search"):
            compose_run([f"{group}={file.stem}"])


@pytest.mark.parametrize("key", ["name", "model.name", "logger.project", "logger.entity"])
def test_a_name_is_what_every_part_can_carry(composed, key) -> None:
    config = composed()
    refused = ["a/b", "a:b", "../../x", "..", ".", "", "-x", " a", "a ", "a\\b", "a\nb", "\x1b[2J"]
    for given in [*refused, "a" * 300]:
        OmegaConf.update(config, key, given)
        with pytest.raises(ConfigError) as caught:
            parse(config)
        assert re.search(r"(?s)name.*\n  try: letters, digits and \. _ -$", str(caught.value))
        assert "\x1b" not in str(caught.value)
    for given in ("demo", "my run", "[b]x", "\u00fcber", "=1+1"):
        OmegaConf.update(config, key, given)
        assert OmegaConf.select(OmegaConf.create(as_dict(parse(config))), key) == given


def test_flags_and_overrides_stand_in_any_order() -> None:
    given = ["a=1", "-m", "seed=0,1", "--config-dir", "mine", "~b"]
    assert arranged(given, sweeps=True) == ["-m", "--config-dir", "mine", "a=1", "seed=0,1", "~b"]


@pytest.mark.parametrize(
    "given", [["-m", "--cfg", "job"], ["a=1", "--info", "all", "-m"], ["--resolve", "a=1"]]
)
def test_flags_that_exclude_each_other_are_a_message(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="\n  try: "):
        arranged(given, sweeps=True)


def test_paths_count_from_where_the_command_was_started(tmp_path, monkeypatch) -> None:
    """With hydra.job.chdir=true too, which takes the job elsewhere before it starts."""
    monkeypatch.chdir(tmp_path)
    SweepCallback().on_job_start(OmegaConf.create({"hydra": {"runtime": {"cwd": str(ROOT)}}}))
    assert Path.cwd() == ROOT


def test_what_trains_nothing_is_not_swept() -> None:
    """Its end would say that every cell failed, for none has an accuracy."""
    with pytest.raises(ConfigError, match="-m is for chela train"):
        arranged(["-m", "task=listops,text"], sweeps=False)
    with pytest.raises(ConfigError, match="-m is a flag of chela train"):
        compose_run(["-m", "seed=0,1"])
