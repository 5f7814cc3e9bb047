"""How a run fails, what it refuses, and what survives a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chela.config.schema import parse
from chela.errors import ConfigError, RunError
from chela.records.files import atomic_file
from chela.records.state import lease_of
from chela.training.checkpoints import AtomicCheckpointIO
from chela.training.folder import RunFolder
from chela.training.run import run
from tasks.errors import DataError
from tasks.lease import holder_of
from tasks.listops import official
from tests.conftest import composed_of
from tests.training.runs import folder_of, record_of

pytestmark = pytest.mark.training


def test_kernels_that_cannot_run_are_refused_before_anything_is_prepared(
    composed, monkeypatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    config = composed("kernels=triton")
    with pytest.raises(RunError, match="the device is a CPU; use kernels=auto"):
        run(config)
    assert not folder_of(config).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_said_before_any_work(composed, tmp_path) -> None:
    config = composed("trainer.accelerator=gpu", f"data_dir={tmp_path / 'nothing'}")
    with pytest.raises(RunError, match=r"finds no GPU(.|\n)*trainer.accelerator=cpu"):
        run(config)
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=listops", "trainer.mixing=mixup"], "listops has symbols, of which there is no"),
        (["task=text", "trainer.mixing=mixup"], "text has symbols, of which there is no mean"),
        (["task=retrieval", "trainer.mixing=cutmix"], "retrieval does not ask for the class of"),
        (["task=text", "trainer.augment=true"], "text does not say in which other forms"),
        (["task=mqar", "trainer.label_smoothing=0.1"], "and mqar asks for tokens"),
        (["task=wikitext103", "model.pooling=last"], "nothing is pooled"),
        (["task=bytes", "task.path=x", "trainer.length_window=2"], "all windows of bytes have one"),
        (["model=mega", "trainer.devices=2", "trainer.sequence_devices=2"], "cannot have each seq"),
        (["optimizer=muon"], "no block has a linear map"),
    ],
)
def test_what_no_data_would_make_fit_is_refused_before_there_are_any(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the vocabulary is known without them or not."""
    monkeypatch.setattr("chela.training.optim._hidden_matrices", lambda model: iter(()))
    small = ["model=chela", "model.dim=16", "model.depth=1", "trainer.accelerator=cpu"]
    places = [f"data_dir={tmp_path / 'nothing'}", f"output_dir={tmp_path / 'outputs'}"]
    with pytest.raises(ConfigError, match=said):
        run(composed_of(*small, *words, *places, "logger=csv"))
    assert not (tmp_path / "nothing").exists()


def test_a_run_without_data_leaves_no_folder(composed, tmp_path) -> None:
    config = composed("task.source=official", f"data_dir={tmp_path / 'nothing'}")
    with pytest.raises(DataError):
        run(config)
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_start_that_fails_leaves_other_seeds_alone(composed, tmp_path) -> None:
    nowhere = ["task.source=official", f"data_dir={tmp_path / 'nothing'}"]
    other = RunFolder(parse(composed(*nowhere, "seed=1")))
    with other.held():
        with pytest.raises(DataError):
            run(composed(*nowhere, "seed=0"))
        assert list(other.path.parent.iterdir()) == [Path(f"{lease_of(other.path)}.1")]


def test_a_folder_in_use_is_refused(composed) -> None:
    config = composed()
    with RunFolder(parse(config)).held(), pytest.raises(RunError, match="another process"):
        run(config)


def test_a_start_that_comes_to_nothing_leaves_nothing(composed) -> None:
    folder = RunFolder(parse(composed()))
    with folder.held():
        assert holder_of(lease_of(folder.path))
    assert not folder.path.parent.exists()


def test_what_a_killed_process_was_writing_is_gone_when_the_run_goes_on(composed) -> None:
    folder = RunFolder(parse(composed()))
    folder.checkpoints.mkdir(parents=True)
    writing = [atomic_file(each) for each in (folder.path / "record.json", folder.last)]
    for each in writing:
        each.__enter__()  # and it never ends
    assert len(list(folder.path.rglob("*.unfinished"))) == 2
    with folder.held():
        assert not list(folder.path.rglob("*.unfinished"))


def test_a_missing_checkpoint_is_named(composed) -> None:
    with pytest.raises(RunError, match=r"resume=nowhere\.ckpt: there is no such file"):
        run(composed("resume=nowhere.ckpt"))


def test_weights_alone_are_no_checkpoint_to_go_on_from(composed) -> None:
    config = composed()
    run(config)
    best = RunFolder(parse(config)).best
    told = r"best\.ckpt: this file holds weights only(.|\n)*last\.ckpt, or start_from="
    with pytest.raises(RunError, match=told):
        run(composed(f"resume={best}"))
    assert record_of(config)["status"] == "finished"


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(composed) -> None:
    first = composed()
    run(first)
    last = RunFolder(parse(first)).last
    other = composed("model.depth=2", f"resume={last}")
    with pytest.raises(RunError, match=r"model\.depth: 1 there, 2 here"):
        run(other)


def test_other_data_than_those_of_the_checkpoint_are_refused(composed, monkeypatch) -> None:
    config = composed()
    run(config)
    folder = RunFolder(parse(config))
    (folder.path / "record.json").unlink()
    content = torch.load(folder.last, weights_only=True)
    content["callbacks"]["Provenance"]["fingerprint"] = "0" * 64
    torch.save(content, folder.last)
    with pytest.raises(RunError, match="not those this run began with"):
        run(config)


def test_a_finished_run_on_other_data_is_not_shown(composed, tmp_path, monkeypatch) -> None:
    """Official files that appear later are other data than those that were generated."""
    monkeypatch.setattr(official, "ROWS", {"train": 200, "val": 50, "test": 50})
    monkeypatch.setattr(official, "MEAN_LENGTH", range(41))
    config = composed(f"data_dir={tmp_path / 'own'}", "task.export_tsv=true")
    run(config)
    (exported,) = (tmp_path / "own" / "listops").glob("generated-*-tsv")
    for file in exported.iterdir():
        file.rename(tmp_path / "own" / "listops" / file.name)
    with pytest.raises(RunError, match=r"with other data(.|\n)*resume=false"):
        run(config)
    again = composed(f"data_dir={tmp_path / 'own'}", "resume=false")
    run(again)
    assert record_of(again)["data"]["source"] == "official"
    assert record_of(again)["test"]["n"] == 50


def test_best_weights_of_another_step_are_not_tested(composed) -> None:
    config = composed()
    run(config)
    folder = RunFolder(parse(config))
    (folder.path / "record.json").unlink()
    content = torch.load(folder.best, weights_only=True)
    torch.save({**content, "global_step": content["global_step"] + 1}, folder.best)
    with pytest.raises(RunError, match="weights of step"):
        run(config)
    damage(folder.best)
    for _ in range(2):
        with pytest.raises(RunError, match=r"best\.ckpt cannot be read(.|\n)*resume=false"):
            run(config)
    folder.best.unlink()
    with pytest.raises(RunError, match=r"best\.ckpt is missing"):
        run(config)


def test_a_damaged_record_is_named(composed) -> None:
    config = composed()
    run(config)
    (folder_of(config) / "record.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot be read(.|\n)*record\.json"):
        run(config)


def damage(file: Path) -> bytes:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file.read_bytes()


def test_a_truncated_checkpoint_falls_back_to_the_one_before(composed, capsys) -> None:
    config = composed()
    run(config)
    folder, whole = RunFolder(parse(config)), record_of(config)
    (folder.path / "record.json").unlink()  # as if the run had been killed
    damage(folder.last)
    run(config)
    shown = capsys.readouterr().out
    assert "last.ckpt cannot be read" in shown
    assert "going on from previous.ckpt" in shown
    assert record_of(config)["test"] == whole["test"]


def test_a_kill_between_two_checkpoints_leaves_the_one_before(composed) -> None:
    config = composed()
    run(config)
    folder, whole = RunFolder(parse(config)), record_of(config)
    (folder.path / "record.json").unlink()
    folder.last.unlink()
    run(config)
    assert record_of(config)["test"] == whole["test"]


def test_truncated_checkpoints_are_named_and_nothing_is_lost(composed) -> None:
    config = composed()
    run(config)
    folder = RunFolder(parse(config))
    (folder.path / "record.json").unlink()
    left = damage(folder.last)
    damage(folder.previous)
    with pytest.raises(RunError, match=r"cannot be read(.|\n)*resume=false"):
        run(config)
    assert folder.last.read_bytes() == left
    assert folder.best.exists()


class Unpicklable:
    def __reduce__(self):
        raise OSError("disk full")


def test_a_checkpoint_that_fails_half_way_leaves_the_one_before(tmp_path) -> None:
    io, target = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, target)
    with pytest.raises(OSError, match="disk full"):
        io.save_checkpoint({"padding": torch.zeros(10_000), "bad": Unpicklable()}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_split_with_fewer_samples_than_devices_is_refused(composed) -> None:
    few = composed("task.num_val=1", "trainer.devices=2", "trainer.batch_size=16")
    with pytest.raises(RunError, match="2 devices share the samples of val, which are 1:"):
        run(few)
