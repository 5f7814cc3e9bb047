"""A search: trials that finish, are pruned, fail or die, and what is made of the best."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from hydra import compose, initialize_config_dir
from optuna.trial import TrialState

import chela.training.run
from chela.commands import start
from chela.config.recipe import experiment
from chela.config.schema import computation, parse
from chela.errors import ConfigError
from chela.launch.search import JournalLock, Search, _storage
from chela.launch.space import SearchConfig, read_search
from chela.records.collect import collect
from chela.training.pruning import Pruned
from tasks.errors import DataError
from tasks.lease import holder_of
from tests.conftest import ROOT, TINY

CONFIGS = ROOT / "configs"
HEADS = "model.mixer.num_heads"
COMMON = [each for each in TINY if not each.startswith(HEADS)]
SPACE = {
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    HEADS: {"choices": [2, 3]},  # three do not divide the channels
}
CONFIG = SearchConfig(SPACE, startup_trials=1, warmup_validations=0, seed=0)


@pytest.fixture
def overrides(tmp_path: Path, shared_data: Path) -> Iterator[list[str]]:
    torch.set_num_threads(1)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield [*COMMON, f"data_dir={shared_data}", f"output_dir={tmp_path}"]


@pytest.fixture(autouse=True)
def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHELA_SWEEP", "")  # which a search sets; put back after the test


def params(lr: float, heads: int) -> dict[str, float]:
    return {"optimizer.lr": lr, HEADS: heads}


def states(search: Search) -> list[TrialState]:
    return [trial.state for trial in search.trials()]


@pytest.mark.training
def test_one_finishes_one_fails_one_is_pruned(overrides: list[str], tmp_path: Path) -> None:
    search = Search(CONFIG, overrides)
    for each in (params(1e-2, 2), params(1e-2, 3), params(1e-4, 2)):
        search.study.enqueue_trial(each)
    search._one(search.study.ask())
    search._one(search.study.ask())
    search.study.pruner = optuna.pruners.ThresholdPruner(lower=1.1)  # nothing is good enough
    search.run(3)
    assert states(search) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]
    finished, failed, pruned = search.trials()
    assert "set qk_dim=9" in failed.user_attrs["error"]
    assert list(finished.intermediate_values) == [1, 2, 3]  # at steps 5, 10 and 12
    assert list(pruned.intermediate_values) == [1]
    best = search.best()
    assert best is not None
    assert best.number == 0
    assert search.overrides_of(best.params) == ["optimizer.lr=0.01", f"{HEADS}=2"]
    found = [json.loads(file.read_text()) for file in search.folder.glob("*/seed0/record.json")]
    by_status = {record["status"]: record for record in found}
    assert set(by_status) == {"finished", "interrupted"}
    assert by_status["finished"]["best"]["value"] == finished.value
    assert by_status["interrupted"]["pruned"] == "pruned at step 5, after validation 1"
    assert "test" not in by_status["interrupted"]
    with pytest.raises(DataError, match="no record"):
        collect([tmp_path])  # a table of the whole has no trials in it
    assert len(collect([search.folder]).runs) == 2


@pytest.mark.training
def test_a_pruned_run_can_go_on(overrides: list[str]) -> None:
    config = compose("config", [*overrides, f"{HEADS}=2"])
    told: list[tuple[int, float]] = []

    def report(validation: int, accuracy: float) -> bool:
        told.append((validation, accuracy))
        return validation == 2 and len(told) == 2

    with pytest.raises(Pruned, match="step 10"):
        chela.training.run.run(config, report)
    best = chela.training.run.run(config, report)
    # the second session tells those of the first again, which its checkpoint holds
    assert [number for number, _ in told] == [1, 2, 1, 2, 3]
    assert told[:2] == told[2:4]
    assert best == max(accuracy for _, accuracy in told)


class Runs:
    """In place of real runs: the accuracies of each validation, by learning rate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, curves: dict[float, list[float]]) -> None:
        self.curves, self.identities = curves, []
        monkeypatch.setattr(chela.training.run, "run", self)

    def __call__(self, composed, report) -> float:
        config = parse(composed)
        self.identities.append(config.identity)
        curve = self.curves[config.optimizer.lr]
        for number, accuracy in enumerate(curve, 1):
            if report(number, accuracy):
                raise Pruned("pruned")
        return max(curve)


@pytest.mark.training
def test_who_is_below_the_median_is_pruned(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Runs(monkeypatch, {0.01: [0.5, 0.6], 0.02: [0.6, 0.7], 0.03: [0.1, 0.9], 0.04: [0.7, 0.5]})
    search = Search(CONFIG, overrides)
    for lr in (0.01, 0.02, 0.03, 0.04):
        search.study.enqueue_trial(params(lr, 2))
    search.run(4)
    expected = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    assert states(search)[:3] == expected
    assert search.trials()[1].value == 0.7


@pytest.mark.training
def test_repeated_it_goes_on_until_there_are_enough(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chela.training.run, "run", lambda composed, report: 0.5)
    Search(CONFIG, overrides).run(2)
    again = Search(CONFIG, overrides)
    again.run(2)
    assert len(again.trials()) == 2
    again.run(3)
    drawn = [trial.params["optimizer.lr"] for trial in again.trials()]
    assert len(set(drawn)) == 3
    assert Search(CONFIG, [*overrides, "model.depth=2"]).trials() == []  # another study


@pytest.mark.training
def test_a_trial_whose_process_died_is_gone_on_with(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(monkeypatch, {0.01: [0.5]})
    first = Search(CONFIG, overrides)
    first.study.enqueue_trial(params(0.01, 2))
    died = first.study.ask()
    for key, dimension in first.dimensions.items():
        dimension.draw(died, key)
    died.set_user_attr("started", True)  # and then the process was killed: nobody holds its lease
    second = Search(CONFIG, overrides)
    second.run(1)
    (trial,) = second.trials()
    assert (trial.state, trial.value, trial.params) == (TrialState.COMPLETE, 0.5, died.params)
    assert len(runs.identities) == 1


@pytest.mark.training
def test_a_search_never_selects_on_the_test_split(tmp_path: Path) -> None:
    space = {"optimizer.lr": SPACE["optimizer.lr"]}
    config = SearchConfig(space, startup_trials=1, warmup_validations=0, seed=0)
    text = ["task=text", "task.protocol=lra", f"output_dir={tmp_path}"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        search = Search(config, text)
        assert search.selects_on_test
        assert search._compose([]).task.protocol == "heldout"
        assert search.asked_for == text  # the command of the best has it again


@pytest.mark.parametrize(
    "space, given, message",
    [
        ({"optimizer.lrr": {"low": 0.1, "high": 0.2}}, [], "Did you mean 'optimizer.lr'"),
        ({"optimizer.lr": {"low": 0.1, "high": 0.2}}, ["optimizer.lr=1e-3"], "leave it out"),
        ({"optimizer.lr": {"low": 0.2, "high": 0.1}}, [], "low=0.2 must be below high=0.1"),
        ({"optimizer.lr": {"low": 0.0, "high": 1.0, "log": True}}, [], "needs low > 0"),
        ({"optimizer.lr": {"lo": 0.1, "high": 1.0}}, [], "Did you mean 'low'"),
        ({"optimizer.lr": {"choices": []}}, [], "choices is empty"),
        ({}, ["trainer.devices=2"], r"one device(.|\n)*try: trainer\.devices=1"),
        ({"trainer.devices": {"choices": [1, 2]}}, [], "one device"),
        ({}, ["trainer.num_nodes=2"], r"one device(.|\n)*try: trainer\.num_nodes=1"),
    ],
)
def test_a_space_that_does_not_fit_is_one_message(
    overrides: list[str], tmp_path: Path, space: dict, given: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Search(SearchConfig(space, 1, 0, 0), [*overrides, *given])
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("file", sorted((CONFIGS / "search").glob("*.yaml")), ids=lambda f: f.stem)
def test_the_spaces_fit_their_models(file: Path, tmp_path: Path) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        Search(read_search(file), ["task=listops", "model=chela", f"output_dir={tmp_path}"])


def test_a_file_that_is_none_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Choices: chela, optimizer"):
        read_search(CONFIGS / "search" / "chelo.yaml")
    for text in ("space: [", "- 1", "spice: {}"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ConfigError):
            read_search(tmp_path / "x.yaml")


def test_an_experiment_does_what_the_overrides_do(tmp_path: Path) -> None:
    given = ["experiment=demo", "schedule=constant", "model.depth=1", "optimizer.lr=0.0031"]
    text = experiment([*given, "output_dir=elsewhere"], {"output_dir"}, "from a test")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "found.yaml").write_text(text)
    assert "elsewhere" not in text
    search_path = f"hydra.searchpath=[file://{tmp_path}]"
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        wanted = computation(parse(compose("config", given)))
        found = computation(parse(compose("config", ["experiment=found", search_path])))
        assert found == wanted
        with pytest.raises(ConfigError, match="cannot add or delete"):
            experiment(["+sweep=small_table"], (), "")


@pytest.mark.training
def test_the_command_prints_the_best_and_writes_it(
    command: Callable[..., SimpleNamespace], tmp_path: Path, shared_data: Path
) -> None:
    """From a space and an experiment in a folder of one's own."""
    own = tmp_path / "my configs"
    for file, text in (
        ("search/space", "space: {model.mixer.num_heads: {choices: [2]}}\nseed: 0\n"),
        ("experiment/mine", "# @package _global_\nname: mine\n"),
    ):
        (own / file).parent.mkdir(parents=True)
        (own / f"{file}.yaml").write_text(text)
    with (own / "search/space.yaml").open("a") as space:
        space.write("startup_trials: 1\nwarmup_validations: 0\n")
    places = [f"data_dir={shared_data}", f"output_dir={tmp_path}", "--config-dir", str(own)]
    chosen = ["search=space", "trials=1", f"write={tmp_path}/f.yaml", "experiment=mine"]
    said = command("search", *chosen, *COMMON, *places).stdout
    assert "chela train experiment=mine task=listops" in said
    assert f"--config-dir '{own}'" in said
    assert [*tmp_path.glob("search/mine-*")]
    assert said.rstrip().endswith(f"written to {tmp_path}/f.yaml")
    assert "num_heads: 2" in (tmp_path / "f.yaml").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "search=NAME is missing"),
        (["search=chela", "trials=0"], "trials=0 is not"),
        (["search=chela", "model.dpth=1"], "Did you mean 'depth'"),
        (["search=chela", "task=a,b"], "task=a,b lists several values"),
        (["search=chela", "--trials", "20"], "there is no flag --trials"),
        (["search=chela", "-m"], "-m is a flag of chela train"),
    ],
)
def test_bad_arguments_are_one_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        start("search", arguments)
    assert ended.value.code == 1
    assert message in capsys.readouterr().err


def test_what_a_killed_process_left_beside_the_journal_stops_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's own lock, and half a line; in a folder that is named from where one is."""
    monkeypatch.chdir(tmp_path)
    journal = Path("journal.log")
    optuna.create_study(storage=_storage(journal), study_name="a").set_user_attr("first", 1)
    Path("journal.log.lock").symlink_to("journal.log")
    with journal.open("ab") as file:
        file.write(b'{"op_code": 1, "half')
    study = optuna.load_study(storage=_storage(journal), study_name="a")
    study.set_user_attr("second", 2)
    again = optuna.load_study(storage=_storage(journal), study_name="a")
    assert again.user_attrs == {"first": 1, "second": 2}


def test_a_journal_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_text("")
    lock = JournalLock(tmp_path / "journal.log")
    lock.acquire()
    assert holder_of(tmp_path / ".journal.log.lease")
    lock.release()
    assert not holder_of(tmp_path / ".journal.log.lease")
