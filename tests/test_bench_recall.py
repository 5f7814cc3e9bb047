"""The picture of recall: a row per model and width, its state counted in numbers per block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chela.bench.recall import as_markdown, points, state_numbers
from chela.commands import start
from chela.config.schema import compose_run
from chela.errors import RunError
from chela.hub import load_run
from chela.records.collect import collect
from chela.records.record import write_record
from chela.training.run import run
from tests.conftest import composed_of
from tests.test_generation import MQAR
from tests.training.runs import folder_of, record_of

# (batch, what is kept): one head of 8 x 32, or of 4 channels, keys and values of 16 tokens, ...
STATES = {
    "chela": 4 * 16 + 15 * 16 + 64 * 32,  # short window, the kernel's 16 taps, one head
    "s4d": 16 * 64,  # 32 complex numbers per channel
    "transformer": 2 * 16 * 16,
    "linear_transformer": 4 * 4 * 4 + 16,  # four heads, and the keys' sum
}

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models on two pairs, and chela on one, with two seeds."""
    place = tmp_path_factory.mktemp("recall")
    torch.set_num_threads(1)
    places = [f"data_dir={place / 'data'}", f"output_dir={place / 'outputs'}"]
    cells = [*((name, 2, 0) for name in STATES), ("chela", 2, 1), ("chela", 1, 0)]
    for name, pairs, seed in cells:
        more = [f"model={name}", f"task.pairs={pairs}", f"seed={seed}"]
        config = composed_of(*MQAR, *places, *more)
        run(config)
        assert record_of(config)["status"] == "finished"
    return place / "outputs"


def test_the_state_is_counted_as_its_parts_say(runs: Path) -> None:
    for each in collect([runs]).runs:
        assert state_numbers(each) == STATES[each.model], each.model


def test_seeds_are_one_point_and_pairs_are_columns(runs: Path, tmp_path: Path, capsys) -> None:
    found = points(collect([runs]).runs)
    assert {(point.model, point.pairs): point.seeds for point in found} == {
        **{(name, 2): 1 for name in STATES}, ("chela", 2): 2, ("chela", 1): 1,
    }  # fmt: skip
    table = as_markdown(found)
    assert "| 1 | 2 pairs |" in table
    assert "| s4d | 16 | each alone | 2 | 16 | 1,024 | — | " in table
    points_of = {point.row for point in found}
    assert len(points_of) == len(STATES)  # seeds and pairs are one row
    start("recall", [str(runs), f"out={tmp_path / 'report'}"])
    assert table in capsys.readouterr().out
    assert (tmp_path / "report" / "recall.png").stat().st_size > 0
    assert (tmp_path / "report" / "recall.md").read_text() == table


def test_a_run_without_a_state_does_not_take_the_others_with_it(runs: Path, tmp_path: Path) -> None:
    places = [f"data_dir={runs.parent / 'data'}", f"output_dir={tmp_path}"]
    config = composed_of(*MQAR, *places, "task.pairs=2", "model.causal=false")
    run(config)
    told: list[str] = []
    assert len(points(collect([runs, tmp_path]).runs, told.append)) == len(STATES) + 1
    (line,) = told
    assert str(folder_of(config)) in line and "is not causal" in line


def test_a_mixture_is_told_apart_in_its_test(tmp_path: Path) -> None:
    """Each kind's accuracy stands in the record and the table, and together they are the whole."""
    places = [f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path / 'outputs'}"]
    kinds = ["task=mqar_mixture", "task.train=[[8,1,40],[16,2,24]]", "task.test=[[8,1],[16,2]]"]
    mine = [each for each in MQAR if not each.startswith("task")]
    config = composed_of(
        *mine, *places, *kinds, "task.vocabulary=8", "task.num_val=6", "task.num_test=10",
        "trainer.eval_batch_size=7", "trainer.max_steps=30", "optimizer.lr=0.02",
    )  # fmt: skip
    run(config)
    tested = record_of(config)["test"]
    assert {name: kind["n"] for name, kind in tested["kinds"].items()} == {"1": 10, "2": 20}
    for name, metric in tested["metrics"].items():
        if name != "perplexity":
            parts = [kind["metrics"][name]["value"] for kind in tested["kinds"].values()]
            assert metric["value"] == pytest.approx((parts[0] * 10 + parts[1] * 20) / 30)
    loaded = load_run(folder_of(config))
    batch = next(iter(loaded.task.batches("test", 20)))
    with torch.no_grad():
        right = loaded.model(batch.values, batch.lengths).argmax(-1) == batch.targets
    assert tested["kinds"]["1"]["metrics"]["accuracy"]["value"] == right[:10].sum() / 10
    one, two = points(collect([tmp_path / "outputs"]).runs)
    assert (one.task, one.pairs, two.pairs, one.length, one.state) == (
        "mqar_mixture", 1, 2, 16, STATES["chela"],
    )  # fmt: skip
    assert one.accuracy == pytest.approx(100 * tested["kinds"]["1"]["metrics"]["accuracy"]["value"])
    assert one.error == pytest.approx(
        100 * tested["kinds"]["1"]["metrics"]["accuracy"]["standard_error"]
    )
    assert "| chela | 16 | all at once | 30 | 16 |" in as_markdown([one, two])
    record = record_of(config)
    (other := tmp_path / "more" / "other-00000000" / "seed0").mkdir(parents=True)
    rate = {**record["identity"], "optimizer.lr": 1}
    run_id = f"{record['config']['name']}-00000000-seed0"
    write_record(other, {**record, "identity": rate, "run_id": run_id})
    both = as_markdown(points(collect([tmp_path]).runs))  # none takes the other's place
    assert both.count("| chela | 16 |") == 2
    record["test"]["kinds"] = {"few": record["test"]["kinds"]["1"], "2": {"n": 20}}
    write_record(folder_of(config), record)
    with pytest.raises(RunError, match="no finished run of task=mqar"):
        points(collect([tmp_path / "outputs"]).runs)


@pytest.mark.parametrize("model", ["chela", "transformer", "linear_transformer", "s4d"])
def test_the_sweep_composes_at_each_width_with_one_head(model: str) -> None:
    config = compose_run(["+sweep=recall", f"model={model}", "model.dim=256", "seed=0"])
    assert [kind[:2] for kind in config.task.config.train] == [*config.task.config.test]
    assert config.model.backbone.dim == 256 and config.model.backbone.ffn == "none"
    assert getattr(config.model.mixer.config, "num_heads", 1) == 1


def test_without_runs_of_it_the_sweep_is_named(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        start("recall", [str(tmp_path)])
    assert "no record.json below" in capsys.readouterr().err
    start("recall", ["--help"])
    assert "chela recall FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["mqar", "mqar_mixture", "induction", "selective_copying"])
def test_the_form_of_the_published_figure_fits_each_task(task: str) -> None:
    config = compose_run(["experiment=recall", f"task={task}", "model=s4d"])
    assert config.model.backbone.causal and config.model.backbone.ffn == "none"
    assert config.schedule.name == "cosine"
