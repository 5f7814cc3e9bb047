"""How a run fails, what it refuses, and what survives a failure."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from chela.config.schema import parse
from chela.errors import ConfigError, RunError
from chela.records.files import atomic_file
from chela.records.state import lease_of
from chela.training import muon
from chela.training.checkpoints import AtomicCheckpointIO
from chela.training.folder import RunFolder
from chela.training.module import TrainingModule
from chela.training.nonfinite import NonFinite
from chela.training.run import run
from tasks.errors import DataError
from tasks.lease import holder_of
from tasks.listops import official
from tests.conftest import composed_of
from tests.training.replayed import replay_on_cpu, state_of
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


def test_a_loss_that_is_not_finite_stops_the_run(composed, monkeypatch) -> None:
    original = TrainingModule.forward
    batches = []

    def poisoned(self, values, lengths):
        logits = original(self, values, lengths)
        return logits * float("nan") if self.training and self.global_step == 7 else logits

    def spy(self, batch, *rest):
        batches.append(batch.index.tolist())

    monkeypatch.setattr(TrainingModule, "forward", poisoned)
    monkeypatch.setattr(TrainingModule, "on_train_batch_start", spy)
    config = composed("trainer.checkpoint_every_steps=3")
    with pytest.raises(RunError) as caught:
        run(config)
    message = str(caught.value)
    assert "step 8" in message
    first = ", ".join(map(str, batches[-1][:3]))
    assert f"the batch: 16 rows of the training split ({first}, ...)" in message
    assert f"last good checkpoint: {RunFolder(parse(config)).last}, step 6" in message
    record = record_of(config)
    assert record["status"] == "failed"
    assert "nan" in record["error"]
    assert str(batches[-1][3:])[1:-1] not in record["error"]


def test_a_gradient_that_is_not_finite_changes_no_weight(composed, monkeypatch) -> None:
    seen = {}
    original = TrainingModule._loss

    def poisoned(self, *batch):
        seen["weights"] = {k: v.clone() for k, v in self.model.state_dict().items()}
        seen["module"] = self
        loss, sums = original(self, *batch)
        return (loss * torch.tensor(1e38) * 1e38 if self.global_step == 2 else loss), sums

    monkeypatch.setattr(TrainingModule, "_loss", poisoned)
    with pytest.raises(RunError, match="gradient"):
        run(composed())
    for name, value in seen["module"].model.state_dict().items():
        assert torch.equal(value, seen["weights"][name]), name


def test_the_rows_and_random_state_of_a_step_that_was_not_finite_are_kept(
    composed, monkeypatch
) -> None:
    original = TrainingModule.forward
    poisoned = lambda self, *batch: original(self, *batch) * torch.nan  # noqa: E731
    monkeypatch.setattr(TrainingModule, "forward", poisoned)
    config = composed()
    with pytest.raises(RunError, match=r"nonfinite\.pt"):
        run(config)
    kept = torch.load(folder_of(config) / "nonfinite.pt", weights_only=True)
    assert (kept["step"], len(kept["rows"])) == (1, 16)
    assert kept["random_state"]["torch"].dtype == torch.uint8


def test_steps_that_are_not_finite_are_skipped_and_counted(composed, monkeypatch) -> None:
    """A poisoned loss and a poisoned gradient change nothing; the third one is too many."""
    original, weights = TrainingModule.forward, []
    bad = {3: torch.nan, 5: torch.inf}

    def poisoned(self, values, lengths):
        if self.training:
            weights.append([p.detach().clone() for p in self.model.parameters()])
            return original(self, values, lengths) * bad.get(self.global_step, 1.0)
        return original(self, values, lengths)

    monkeypatch.setattr(TrainingModule, "forward", poisoned)
    config = composed("trainer.max_skipped_steps=2")
    run(config)
    record = record_of(config)
    assert record["training"]["skipped_steps"] == 2
    assert record["status"] == "finished"
    for step in range(11):
        same = all(map(torch.equal, weights[step], weights[step + 1]))
        assert same == (step in bad), step
    assert all(row.get("train/loss", 0.0) is not None for row in record["metrics"])
    with pytest.raises(RunError, match="after 1 skipped"):
        run(composed("trainer.max_skipped_steps=1"))


def test_an_update_beyond_its_formula_is_a_step_that_is_not_finite(composed, monkeypatch) -> None:
    original, steps = muon.orthogonalize, []

    def broken(matrices: Tensor) -> Tensor:
        if not isinstance(matrices, FakeTensor):  # which the estimate of memory steps with
            steps.append(1)
        return original(matrices) * (1e9 if len(steps) == 4 else 1)

    monkeypatch.setattr(muon, "orthogonalize", broken)
    with pytest.raises(RunError, match=r"Muon's update is larger(.|\n)* step 4; (.|\n)*of MPS"):
        run(composed("optimizer=muon"))
    steps.clear()
    config = composed("optimizer=muon", "trainer.max_skipped_steps=1")
    run(config)
    assert record_of(config)["training"]["skipped_steps"] == 1


GRATINGS = [
    *("task=gratings", "task.num_train=64", "task.num_val=16", "task.num_test=16"),
    *("model.dim=16", "model.depth=2", "model.mixer.qk_dim=8", "trainer.accelerator=cpu"),
    *("trainer.max_steps=6", "trainer.log_every_steps=1", "trainer.validate_every_steps=3"),
    *("trainer.batch_size=16", "trainer.max_skipped_steps=1", "trainer.progress=false"),
    *("logger=csv", "model.dropout=0.1", "schedule.warmup_steps=2"),
]
BOOKS = {"steps", "skipped", "gradient_norm"}  # of the module itself
CHELA = ["model.norm=batch", "model.mixer.branch_norm=batch"]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        ["model=chela", *CHELA, "optimizer=muon", "trainer.gradient_clip=null"],
        ["model=chela", *CHELA, "model.prenorm=false"],
        ["model=s4d", "model.norm=batch"],
    ],
)
def test_a_batch_that_is_not_finite_leaves_all_that_the_next_step_reads(
    tmp_path, monkeypatch, more, graph
) -> None:
    if graph:
        replay_on_cpu(monkeypatch)
    original, changed = TrainingModule.whole_step, []

    def poisoned(self, batch):
        optimizer = self.trainer.optimizers[0]
        if self.global_step != 2:
            return original(self, batch)
        values = batch.values.clone()
        values[0, 0] = torch.inf
        before = state_of(self, optimizer)
        loss = original(self, batch._replace(values=values))
        after = state_of(self, optimizer)
        changed.extend(
            k for k in after if "random" not in k and not torch.equal(after[k], before[k])
        )
        return loss

    monkeypatch.setattr(TrainingModule, "whole_step", poisoned)
    sizes = [each for each in GRATINGS if "qk_dim" not in each or "model=chela" in more]
    config = composed_of(*sizes, *more, f"output_dir={tmp_path}", f"data_dir={tmp_path}/data")
    run(config)
    record = record_of(config)
    assert set(changed) == BOOKS
    assert record["training"]["skipped_steps"] == 1
    rows = record["metrics"]
    assert all(math.isfinite(row["gradient_norm"]) for row in rows if row["step"] != 3)
    assert all(math.isfinite(row["val/loss"]) for row in rows if "val/loss" in row)


def test_what_was_broken_before_is_told_and_kept(composed, monkeypatch) -> None:
    """Else one looks for the fault in a batch that has none."""
    original, weights = TrainingModule.whole_step, []

    def breaking(self, batch):
        if self.global_step == 2:
            weights.extend(name for name, _ in self.model.named_parameters())
            with torch.no_grad():
                self.model.get_parameter(weights[-1])[0] = torch.nan
        return original(self, batch)

    monkeypatch.setattr(TrainingModule, "whole_step", breaking)
    config = composed()
    with pytest.raises(RunError, match=r"not finite since an earlier step: ") as error:
        run(config)
    assert "all rows, the weights and" in str(error.value)
    kept = torch.load(folder_of(config) / "nonfinite.pt", weights_only=True)
    assert kept["broken"] == weights[-1:]
    assert kept["model"][weights[-1]].isnan().sum() == 1


def test_a_mask_of_infinities_is_not_called_broken() -> None:
    model = torch.nn.Linear(2, 1)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
    bad = {"step": 3, "loss": math.nan, "norm": math.nan}
    tensors = {name: torch.tensor(x) for name, x in bad.items()} | {"rows": torch.arange(2)}
    error = NonFinite.of(tensors, 1, model, torch.optim.SGD(model.parameters()))
    assert "all weights, running averages and states of the optimizer are finite" in str(error)


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
