"""Plain mistakes, in words and in files: a sentence and the remedy, no traceback, no grammar."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from chela.config.choices import Chosen
from chela.config.mistakes import refuse_mistyped
from chela.config.schema import RunConfig, compose_run, parse
from chela.launch.cli import plain_errors
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
GLOBAL = "# @package _global_\n"


class OwnFolder(SearchPathPlugin):
    """What --config-dir does, for a test that composes in its own process."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if OwnFolder.folder is not None:
            search_path.prepend("command-line", f"file://{OwnFolder.folder}")


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """``train("model=x", "experiment/mine: text of a file")``: what a command line is told."""
    Plugins.instance().register(OwnFolder)

    def tell(*words: str, **files: str | bytes) -> str:
        own = tmp_path / "own"
        for name, text in files.items():
            file = own / f"{name.replace('__', '/')}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        flags = ["--config-dir", str(own)] if files else []
        monkeypatch.setattr(OwnFolder, "folder", own if files else None)
        monkeypatch.setattr(sys, "argv", ["train.py", *flags, *words])
        with pytest.raises(SystemExit) as ended, plain_errors(sys.argv[1:]):
            config(words)
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return said

    return tell


def config(words: tuple[str, ...]) -> RunConfig:
    return compose_run(words)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("optimizer=1", ["there is no optimizer=1. Choices: adam, adamw, muon."]),
        ("task=listop", ["no task=listop.", "Did you mean 'listops'?", "Choices: bytes, cifar, "]),
        ("model=s5d", ["no model=s5d.", "Did you mean 's4d'?"]),
        ("experiment=foo", ["no experiment=foo.", "Choices: demo, ", "small/gratings, "]),
        ("experiment=small/listop", ["Did you mean 'small/listops'?"]),
        ("+sweep=smal_table", ["Did you mean 'small_table'?"]),
        ("hydra/launcher=proceses", ["hydra/launcher/proceses", "processes"]),
        ("model.dept=3", ["model.dept", "Did you mean 'depth'?", "dim"]),
        ("sed=1", ["'sed'", "Did you mean 'seed'?"]),
        ("model.num_heads=2", ["'model.num_heads'.", "try: model.mixer.num_heads=..."]),
        ("trainer.lr=1", ["'trainer.lr'.", "try: optimizer.lr=..."]),
        ("trainer.seed=1", ["'trainer.seed'.", "try: seed=..."]),
        ("seed=", ["seed"]),
        ("trainer.max_epochs=-1", ["trainer.max_epochs=-1: input should be greater than 0"]),
        ("model.depth=[", ["cannot read 'model.depth=['", "brackets"]),
        ("expriment=demo", ["'expriment'", "Did you mean 'experiment'?", "+sweep, ablation"]),
        ("model=nan", ["there is no model=nan. Choices: chela,"]),
        ("trainer=null", ["there is no trainer=null", "leave trainer= out"]),
        ("experiment=true", ["there is no experiment=true. Choices: demo"]),
        ("model=[1]", ["a run has one"]),
        ("model=[chela,s4d]", ["a run has one", "-m model=chela,s4d"]),
        ("hydra/launcher=1", ["there is no hydra/launcher=1"]),
        ("~task", ["task cannot be left out. Choices: "]),
        ("~seed", ["seed is missing", "try: without ~seed"]),
        ("~model.mixer", ["model.mixer is missing", "try: without ~model.mixer"]),
        ("~trainer.max_epochs", ["trainer.max_epochs is missing", "~trainer.max_epochs"]),
        ("~model=3", ["model cannot be left out. Choices: chela"]),
        ("+model=s4d", ["try: model=s4d"]),
        ("++optimizer=adam", ["try: optimizer=adam"]),
        (
            "task=a,b",
            ["this is a single run", "try: chela train -m task=a,b for a run of each\n"],
        ),
        ("seed=range(0,3)", ["this is a single run", "-m 'seed=range(0,3)' for"]),
        ("optimizer.betas=0.9,0.98", ["single run", "'optimizer.betas=[0.9,0.98]' for one list"]),
        ("task=listops,", ["try: task=listops\n"]),
        ("model=s5d;", ["try: model=s5d"]),
        ("data_dir=a=b", ["cannot read 'data_dir=a=b'", """try: 'data_dir="a=b"'"""]),
        ("data_dir=$HOME/x", ["only the shell knows $HOME", f"try: data_dir={Path.home()}/x"]),
        ("hydra.launcher.at_once=2", ["hydra.launcher.at_once", "try: hydra/launcher=processes"]),
        ("data_dir=~/x", ["only the shell", f"try: data_dir={Path.home()}/x"]),
        ("name=über", ["cannot read 'name=über'", """try: 'name="über"'"""]),
        ("name=a#b", ["""try: 'name="a#b"'"""]),
        ("name=it's", ["cannot read"]),
        ("seed==3", ["try: seed=3"]),
        ("trainer.max_steps = 10", ["blank", "try: trainer.max_steps=10\n"]),
        ("seed=0, 1", ["blank", "try: seed=0,1\n"]),
        ("optimizer.betas=[0.9, 0.98]", ["blank", "try: 'optimizer.betas=[0.9,0.98]'"]),
        ("optimizer.betas=(0.9,0.98)", ["square", "try: 'optimizer.betas=[0.9,0.98]'"]),
        ("seed=interval(0,1)", ["seed=interval(0,1) has no end", "try: seed=range(0,3)"]),
        ("seed=choice(0,range(1,3))", ["no such function", "the values, seed=1,2,3"]),
        ("model=CHELA", ["Did you mean 'chela'?"]),
        ("optimizer=AdamW", ["Did you mean 'adamw'?"]),
        ("task=listops.yaml", ["there is no task=listops.yaml", "try: task=listops\n"]),
        ("experiment=../experiment/demo", ["there is no", "try: experiment=demo\n"]),
        ("task=./listops", ["there is no task=./listops", "try: task=listops\n"]),
        ("sweep=lra_table", ["several runs", "try: chela train -m +sweep=lra_table"]),
        ("hydra.sweeper.params.seed='0,1'", ["is for files", "try: chela train -m seed=0,1\n"]),
        ("+hydra.sweeper.params.seed=0,1", ["is for files", "try: chela train -m seed=0,1\n"]),
        ("hydra.sweeper.params={seed:'0,1'}", ["is for files", "try: chela train -m seed=0,1\n"]),
        ("search=chela", ["several runs", "try: chela search search=chela"]),
        ("model/chela", ["try: model=chela\n"]),
        ("foo/bar=1", ["there is no foo/bar=1. Choices: ablation,"]),
        ("lr=0.1", ["unknown key 'lr'", "try: optimizer.lr=..."]),
        ("epochs=3", ["unknown key 'epochs'", "try: trainer.max_epochs=..."]),
        ("resume=", ["resume= is not one of auto, false"]),
        ("seed=true", ["seed=true should be a number"]),
        ("model.mixer.qk_dim=true", ["model.mixer.qk_dim=true should be a number"]),
        ("data_dir=[a]", ["data_dir=['a']: input should be a valid string\n"]),
        ("task._target_=os.system", ["task._target_=os.system is not a class"]),
        ("model.mixer._target_=a.B", ["there is no module 'a' on Python's path."]),
        ("--cfg foo", ["--cfg: invalid choice: 'foo' (choose from 'job', 'hydra', 'all')"]),
        ("--config-name", ["--config-name: expected one argument"]),
        ("--verbose", ["there is no flag --verbose", "try: --help lists"]),
        ("seed:3", ["try: seed=3"]),
        ("seed: 3", ["try: seed=3"]),
        ("listops", ["try: task=listops"]),
        ("=", ["key=value, without blanks around ="]),
        ("=3", ["key=value, without blanks around ="]),
        (".seed=3", ["key=value"]),
        ("optimizer.betas=[0.9,0.98", ["brackets", "must be closed"]),
        ("name={a}", ["brackets", """try: 'name="{a}"' if it is a text"""]),
        ("trainer.augment=flip", ["trainer.augment=flip is neither true nor false\n"]),
        ("trainer.verbose=[]", ["trainer.verbose=[] is neither true nor false\n"]),
        ("name=3", ["name=3: input should be a valid string", """try: 'name="3"'"""]),
        ("name=true", ["""try: 'name="true"'"""]),
        ("logger.tags=a", ["should be a valid list", "try: 'logger.tags=[a]'"]),
        ("seed=${nope}", ["'nope' not found"]),
        ("name='${oc.env:NOPE_X}'", ["NOPE_X"]),
        ("data_dir=", ["data_dir='' names no folder", "data_dir=."]),
        ("task=bytes task.path=", ["task.path=", "at least 1 character"]),
        ("task=listops task.tsv_dir=", ["task.tsv_dir=", "at least 1 character"]),
        ("output_dir=", ["output_dir='' names no folder", "output_dir=."]),
        ("optimizer.lr=inf", ["optimizer.lr=inf", "finite"]),
        ("trainer.max_epochs=inf", ["trainer.max_epochs=inf", "finite"]),
        ("seed=99999999999999999999", ["less than 4294967296"]),
        ("model.mixer=3", ["model.mixer=3 stands where the keys of a section", "override /model"]),
        ("model.mixer.long_conv_state_space=3", ["long_conv_state_space=3"]),
        ("TASK=listops", ["unknown key 'TASK'", "task"]),
        ("hydra.foo=3", ["unknown key 'hydra.foo'"]),
        ("--task listops", ["there is no flag --task", "try: task=listops"]),
        ("--model.depth=3", ["there is no flag --model.depth", "try: model.depth=3"]),
        ("--max-steps 20", ["there is no flag --max-steps", "try: max_steps=20"]),
        ("-seed=3", ["there is no flag -seed", "try: seed=3"]),
    ],
)
def test_a_mistyped_word_gets_a_sentence_and_the_remedy(train, word, parts) -> None:
    said = train(*([word] if ": " in word else word.split(" ")))  # as a shell would
    for part in parts:
        assert part in said
    assert "hydra.cc" not in said
    assert "Got " not in said


@pytest.mark.parametrize(
    "words",
    [
        ['data_dir="a=b"'],
        ["-m", "task=listops,text"],
        ["task=listops,text", "hydra.mode=MULTIRUN"],
        ["~experiment/lra"],
        ["model={dim: 64}"],
        ["+sweep=small_table"],
        ["hydra/launcher=processes"],
        ["--cfg", "job", "seed=3"],
    ],
)
def test_what_hydra_can_read_is_left_to_it(words: list[str]) -> None:
    """A remedy, as the shell hands it on, is no mistake; nor is a sweep with its flag."""
    refuse_mistyped(words)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GLOBAL + "model:\n\tdim: 3\n", ["mine.yaml, line 3: a tab", "blanks"]),
        (GLOBAL + "model:\n  dim: 3\n  dim: 4\n", ["mine.yaml, line 4: the key 'dim'", "second"]),
        (GLOBAL + "name: a: b\n", ["mine.yaml, line 2", "quotes"]),
        (GLOBAL + "name: [a\n", ["mine.yaml, line 3"]),
        (GLOBAL + "name: !!python/object:os.system x\n", ["mine.yaml, line 2"]),
        (GLOBAL + "name: x${\n", ["name"]),
        (GLOBAL + "name: ${nope}\n", ["'nope' not found", "in name"]),
        (GLOBAL + "- a\n", ["mine.yaml has no keys"]),
        (GLOBAL + "defaults: demo\n", ["mine.yaml: defaults must be a list", "try: defaults: ["]),
        (GLOBAL + "defaults: {model: s4d}\n", ["mine.yaml: defaults must be a list"]),
        (GLOBAL + "defaults: [1]\n", ["mine.yaml: defaults must be a list"]),
        (GLOBAL + "defaults: [override /model: 3]\n", ["mine.yaml: defaults must be a list"]),
        (GLOBAL + "defaults: [override /model: s5d]\n", ["no model=s5d. Did you mean 's4d'"]),
        (GLOBAL + "defaults: [mine]\n", ["circle"]),
        (GLOBAL + "model: s4d\n", ["model='s4d' stands where", "defaults: [override /model:"]),
        (GLOBAL + "trainer: [1]\n", ["mine.yaml: trainer: [1]", "defaults: [override /trainer"]),
        (GLOBAL.encode() + "name: ü\n".encode("latin-1"), ["mine.yaml is not written in UTF-8"]),
        ("name: x\n".encode("utf-16"), ["mine.yaml is not written in UTF-8"]),
        ("model:\n  dim: 32\n", ["experiment=mine sets nothing", "# @package _global_ as the f"]),
        ("", ["experiment=mine sets nothing", "mine.yaml"]),
        ("\ufeff" + GLOBAL + "name: x\n", ["first line", "without a byte-order mark"]),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_told(train, text: str | bytes, parts) -> None:
    said = train("experiment=mine", experiment__mine=text)
    for part in parts:
        assert part in said
    assert "_type=" not in said


def test_choices_of_ones_own_are_listed(train) -> None:
    said = train("experiment=mime", experiment__mine=GLOBAL, experiment__other=GLOBAL)
    told, _, choices = said.strip().partition(" Choices: ")
    assert told.endswith("no experiment=mime. Did you mean 'mine'?")
    assert {"demo", "mine", "other", "small/listops-s4d"} <= set(choices.split(", "))


def test_a_choice_of_ones_own_is_looked_for_where_the_command_says(train) -> None:
    assert "try: --config-dir <folder>, if model/mine.yaml in it is your own" in train("model=mine")
    said = train("model=mine", "--config-dir", "mu/configs")
    assert "--config-dir mu/configs: there is no such folder (seen from " in said
    assert "own has no model/mine.yaml" in train("model=mine", experiment__mine=GLOBAL)


@pytest.mark.parametrize("group", ["task", "model"])
def test_a_module_of_ones_own_that_is_not_found_names_the_path(train, group: str) -> None:
    """What a module imports itself is another matter."""
    target = "_target_: nowhere.Mine\n"
    text = {"task": f"name: mine\n{target}", "model": f"name: mine\nmixer:\n  {target}"}[group]
    said = train(f"{group}=mine", **{f"{group}__mine": text})
    assert "there is no module 'nowhere'" in said
    assert "try: PYTHONPATH=<the folder that holds nowhere.py>" in said


def test_a_folder_in_a_file_may_begin_with_the_home(monkeypatch, tmp_path) -> None:
    """YAML knows no ~; a folder of that name in the current one would be dangerous to remove."""
    monkeypatch.setenv("HOME", str(tmp_path))
    read = config(('data_dir="~/x"', 'output_dir="~/y"'))
    assert (read.data_dir, read.output_dir) == (f"{tmp_path}/x", f"{tmp_path}/y")


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        (["task=listops", "model=chela"], None),
        (["task=cifar", "model=s4d"], "experiment/lra/cifar-s4d.yaml"),
        (["task=listops", "model=chela", "experiment=demo"], None),
        (["+sweep=small_table", "task=gratings", "model=s4d", "seed=0"], None),
        (
            ["+sweep=small_table", "task=gratings", "model=sgconv", "seed=0"],
            "experiment/small/gratings-sgconv.yaml",
        ),
    ],
)
def test_a_pair_without_a_recipe_runs_on_defaults_and_says_so(
    words: list[str], recipe: str | None
) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose("config", words, return_hydra_config=True)
    parse(composed)
    chosen = Chosen.of(composed)
    assert chosen is not None
    said = chosen.without_recipe()
    if recipe is None:
        assert said is None
    else:
        assert f"no recipe for {words[-3 if 'seed=0' in words else 0]}" in (said or "")
        assert recipe in (said or "")


def test_the_small_table_is_small_for_any_model() -> None:
    words = ["+sweep=small_table", "task=listops", "seed=0"]
    own, known = (config((*words, f"model={model}")) for model in ("sgconv", "s4d"))
    assert own.task == known.task
    assert own.trainer == known.trainer
    assert own.name == "small-listops-sgconv"
