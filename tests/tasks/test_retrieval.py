"""The Retrieval task from its sources to its batches, and through a whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from chela.config.schema import compose_run, parse
from chela.errors import ConfigError
from chela.records.record import read_record
from chela.training.folder import RunFolder
from chela.training.run import run
from tasks.base import TaskSpec
from tasks.characters import EOS, SPECIAL
from tasks.errors import DataError
from tasks.retrieval.aan import FILES
from tasks.retrieval.task import BLOCK, Retrieval, RetrievalConfig
from tests.conftest import composed_of
from tests.tasks.rfcs import made, write_packed
from tests.tasks.samples import fingerprint_of, ready
from tests.tasks.test_aan import SPLITS, write

Make = Callable[..., Retrieval]
SMALL = {"num_train": 60, "num_val": 10, "num_test": 20}


@pytest.fixture
def retrieval(tmp_path: Path) -> Make:
    """``retrieval(data="rfc")``: the task in a folder of its own; not yet prepared."""

    def build(**changes) -> Retrieval:
        place = changes.pop("data_dir", tmp_path / "data")
        if changes.get("data") == "rfc":
            changes = {"name": "retrieval-rfc", **SMALL, **changes}
        return Retrieval(RetrievalConfig(**changes), place)

    return build


def test_a_stand_in_has_its_own_name_everywhere() -> None:
    config = compose_run(["task=retrieval", "task.data=rfc"])
    assert config.task.config.name == "retrieval-rfc"
    assert config.run_id.startswith("retrieval-rfc-chela-")
    official = compose_run(["task=retrieval"])
    assert official.run_id.startswith("retrieval-chela-")
    assert official.model == config.model  # one recipe
    assert official.model.backbone.norm == "batch"  # not the model's own, layer


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["task.data=acl"], ["task.data=acl", "'aan'", "'rfc'"]),
        (["task.data=rfc", "task.name=retrieval"], ["not that of data=rfc"]),
        (["task.data=rfc", "task.stand_in=mine"], ["stand-in by itself"]),
        (["task.stand_in=my/pairs"], ["letters, digits"]),
        (["task.stand_in=official"], ["another meaning"]),
        (["task.num_val=7"], ["task.num_val=7", "multiple of 2"]),
        (["task.max_length=1"], ["task.max_length=1"]),
    ],
)
def test_what_cannot_be_is_refused(overrides, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(["task=retrieval", *overrides])
    for part in parts:
        assert part in str(caught.value)


def test_official_pairs_from_source_to_batches(retrieval: Make) -> None:
    many = {split: pairs * 200 for split, pairs in SPLITS.items()}
    assert len(many["train"]) > 2 * BLOCK
    task = retrieval(stand_in="made", max_length=9)
    write(task.data_dir / "aan", many)
    ready(task)
    known = task.meta.facts["alphabet"]
    cut = [text[:8] for pair in many["train"] for text in pair[:2]]
    assert known == "".join(dict.fromkeys("".join(cut)))
    assert task.spec == TaskSpec("retrieval", 2, 9, SPECIAL + len(known), 1, documents=2)
    assert (task.meta.source, task.meta.stand_in) == ("made", True)
    assert [len(split) for split in (task.train, task.val, task.test)] == [600, 200, 400]
    assert fingerprint_of(task.folder) == task.meta.fingerprint
    for loader, pairs in ((task.batches("val", 4), many["val"]), (task.batches("test", 4), None)):
        for batch in loader:
            assert batch.values.shape == (4, 2, int(batch.lengths.max()))
            assert batch.lengths.shape == (4, 2)
            if pairs is not None:
                continue
            for row, index in enumerate(batch.index.tolist()):
                *texts, label = many["test"][index]
                assert batch.targets[row] == label
                for place, text in enumerate(texts):
                    numbers = [known.find(c) + SPECIAL if c in known else 1 for c in text[:8]]
                    found = batch.values[row, place, : batch.lengths[row, place]].tolist()
                    assert found == [*numbers, EOS]
    shown = task.sample("val", 0)
    assert shown.split("\n")[0] == "".join(c if c in known else "\ufffd" for c in "third")


def test_other_pairs_do_not_pass_for_the_official_ones(retrieval: Make) -> None:
    task = retrieval()
    write(task.data_dir / "aan")
    with pytest.raises(DataError, match=r"train\.tsv has 3 pairs, not .*147,086(.|\n)*stand_in="):
        task.prepare_data()
    assert not task.folder.exists()
    assert task.expected_rows() == 147_086 + 18_090 + 17_437


def test_without_a_source_nothing_is_begun(retrieval: Make) -> None:
    for task in (retrieval(), retrieval(data="rfc")):
        with pytest.raises(DataError, match="looked for"):
            task.prepare_data()
        assert not task.data_dir.exists()


def test_a_damaged_source_leaves_nothing_prepared(retrieval: Make) -> None:
    task = retrieval(stand_in="made")
    folder = write(task.data_dir / "aan")
    with (folder / FILES["test"]).open("ab") as file:
        file.write(b"1.0\tW1\tP2\tcut o")
    with pytest.raises(DataError, match=r"line 3: 4 columns .*truncated"):
        task.prepare_data()
    assert not task.folder.exists()
    write(folder)
    ready(task)


def test_prepared_data_are_used_without_their_source(retrieval: Make) -> None:
    task = retrieval(data="rfc")
    source = write_packed(task.data_dir / "rfc", *made())
    before = ready(task).meta
    for file in source.iterdir():
        file.unlink()
    source.rmdir()
    assert ready(retrieval(data="rfc")).meta == before


def test_rfcs_from_source_to_batches(retrieval: Make) -> None:
    task = retrieval(data="rfc", max_length=40)
    rows, links = made()
    write_packed(task.data_dir / "rfc", rows, links)
    ready(task)
    assert task.folder.parent.name == task.name == task.spec.name == "retrieval-rfc"
    assert (task.meta.source, task.meta.stand_in) == ("rfc", True)
    assert {name: split.rows for name, split in task.meta.splits.items()} == {
        "train": 60,
        "val": 10,
        "test": 20,
    }
    assert all(s.class_counts == [s.rows // 2] * 2 for s in task.meta.splits.values())
    # Each row against the made-up corpus: texts are unique, so they tell their documents.
    number = {str(row["text_masked"]).split("\n\n")[-1][:39]: row["id"] for row in rows}
    assert len(number) == len(rows)
    for split in ("train", "val", "test"):
        for index, label in enumerate(task.split(split)["label"]):
            first, second = task.sample(split, index).split("\n" + "-" * 72 + "\n")
            assert ([number[first], number[second]] in links) == (label == 1)
    found = task.meta.facts["baselines"]
    assert list(found) == ["TF-IDF cosine", "years between", "in-degree"]
    assert all(0 <= value <= 1 for score in found.values() for value in score.values())
    assert "to beat on test: TF-IDF cosine" in task.meta.describe()
    assert task.meta.facts["corpus"]["documents"] == 57


def test_what_determines_the_data_names_the_folder(retrieval: Make) -> None:
    folder = retrieval(data="rfc").folder
    for other in (
        {"num_train": 62},
        {"num_val": 12},
        {"num_test": 22},
        {"data_seed": 1},
        {"max_length": 99},
        {"max_in_degree": 99},
        {"year_window": 3},
    ):
        assert retrieval(data="rfc", **other).folder != folder, other
    official = retrieval().folder
    assert retrieval(data_seed=3, num_train=2).folder == official  # keys of rfc alone
    assert retrieval(stand_in="mine").folder != official


@pytest.mark.training
def test_a_run_trains_tests_and_counts_both_documents(tmp_path: Path, capsys) -> None:
    write_packed(tmp_path / "data" / "rfc", *made())
    config = composed_of(
        "task=retrieval",
        "task.data=rfc",
        "task.max_length=60",
        *(f"task.{key}={value}" for key, value in SMALL.items()),
        "model=chela",
        "model.dim=8",
        "model.depth=1",
        "model.ffn_dim=8",
        "model.mixer.qk_dim=8",
        "model.mixer.v_dim=8",
        "trainer.batch_size=30",
        "trainer.max_steps=4",
        "trainer.log_every_steps=2",
        "trainer.accelerator=cpu",
        "trainer.progress=false",
        "logger=csv",
        f"data_dir={tmp_path / 'data'}",
        f"output_dir={tmp_path / 'outputs'}",
    )
    run(config)
    record = read_record(RunFolder(parse(config)).path)
    assert record is not None
    assert record["test"]["n"] == 20
    assert record["data"]["task"] == "retrieval-rfc"
    assert record["data"]["stand_in"] is True
    best = max(each["accuracy"] for each in record["data"]["facts"]["baselines"].values())
    assert f"trivial score  │ {best:.4f} (" in capsys.readouterr().out
    # Four batches of 30 are the training split twice, whatever the order.
    mean = record["data"]["splits"]["train"]["mean_length"]
    assert record["training"]["tokens"] == round(2 * 60 * mean)
    assert OmegaConf.load(RunFolder(parse(config)).path / "config.yaml").task.name == (
        "retrieval-rfc"
    )
