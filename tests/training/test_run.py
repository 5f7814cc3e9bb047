"""A whole run: what it does, what it leaves, and how it fails."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir

from chela.config import parse
from chela.errors import RunError
from chela.model.ffn import MLP
from chela.records.record import read_record
from chela.training import build, progress
from chela.training.checkpoints import AtomicCheckpointIO
from chela.training.evidence import implementations
from chela.training.folder import RunFolder
from chela.training.module import ClassificationModule
from chela.training.run import run
from tests.conftest import ROOT


def folder_of(config) -> Path:
    return RunFolder(parse(config)).path


def record_of(config) -> dict:
    record = read_record(folder_of(config))
    assert record is not None
    return record


def test_a_run_leaves_a_complete_record(composed, capsys) -> None:
    config = composed()
    best = run(config)
    record, folder = record_of(config), folder_of(config)
    assert record["status"] == "finished"
    assert record["best"]["accuracy"] == best
    assert record["run_id"] == parse(config).run_id
    assert record["training"]["steps"] == record["training"]["planned_steps"] == 12
    assert record["training"]["epochs"] == pytest.approx(12 * 16 / 200, abs=1e-4)
    assert record["training"]["peak_memory_bytes"] > 1e6
    assert record["training"]["tokens_per_second"] > 0
    assert record["versions"]["torch"] == torch.__version__
    assert record["hardware"]["device"] == "cpu"
    assert record["config"]["model"]["dim"] == 16
    assert record["config"]["model"]["mixer"]["_target_"].endswith("ChelaMixer")
    assert len(record["data"]["fingerprint"]) == 64
    assert record["data"]["source"] == "generated"
    operations = [
        "linear_attention",
        "long_conv",
        "norm_linear",
        "query_key",
        "short_conv",
        "token_mlp",
    ]
    assert record["implementations"] == dict.fromkeys(operations, "torch")
    assert record["parameters"]["total"] > 1000
    assert record["test"]["n"] == 50
    assert [row["step"] for row in record["metrics"]] == [4, 5, 8, 10, 12]
    validated = [row["step"] for row in record["metrics"] if "val/accuracy" in row]
    assert validated == [5, 10, 12]
    for file in record["files"].values():
        assert (folder / file).stat().st_size > 0
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [4, 5, 8, 10, 12]
    shown = capsys.readouterr().out
    assert "test accuracy" in shown
    assert "n = 50" in shown
    assert "majority class" in shown


def test_the_tested_weights_are_those_of_the_best_validation(composed, monkeypatch) -> None:
    """The test split is read once, with the weights whose validation accuracy is in the record."""
    tested = []
    original = ClassificationModule.test_step

    def spy(self, batch, index):
        tested.append((batch.index.tolist(), {k: v.clone() for k, v in self.state_dict().items()}))
        return original(self, batch, index)

    monkeypatch.setattr(ClassificationModule, "test_step", spy)
    config = composed("trainer.eval_batch_size=16", "optimizer.lr=0.05")
    run(config)
    assert [row for rows, _ in tested for row in rows] == list(range(50))
    best = torch.load(RunFolder(parse(config)).best, weights_only=True)["state_dict"]
    for name, value in tested[0][1].items():
        if name.startswith("model."):
            assert torch.equal(value, best[name]), name
    record = record_of(config)
    validations = [row for row in record["metrics"] if "val/accuracy" in row]
    highest = max(row["val/accuracy"] for row in validations)
    first = next(row["step"] for row in validations if row["val/accuracy"] == highest)
    assert record["best"] == {"step": first, "accuracy": highest}


def test_the_recorded_accuracy_is_that_of_the_whole_split(composed) -> None:
    """Recomputed sample by sample, without loaders, metrics and padding."""
    config = composed("trainer.eval_batch_size=7")
    run(config)
    parsed = parse(config)
    task = build.build_task(parsed)
    task.prepare_data()
    task.setup()
    model = build.build_model(parsed.model, task.spec).eval()
    weights = torch.load(RunFolder(parsed).best, weights_only=True)["state_dict"]
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    )
    right = 0
    with torch.no_grad():
        for sample in range(50):
            row = task.test[sample]
            values = torch.as_tensor(row["values"])[None].long()
            logits = model(values, torch.tensor([values.shape[1]]))
            right += int(logits.argmax() == int(row["label"]))
    assert record_of(config)["test"]["accuracy"] == pytest.approx(right / 50)


def test_kernels_that_cannot_run_are_refused_before_anything_is_prepared(
    composed, monkeypatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    config = composed("kernels=triton")
    with pytest.raises(RunError, match="the device is a CPU; use kernels=auto"):
        run(config)
    assert not folder_of(config).exists()


def test_a_finished_run_is_shown_and_not_run_again(composed, capsys, monkeypatch) -> None:
    config = composed()
    first = run(config)
    before = (folder_of(config) / "record.json").read_bytes()
    monkeypatch.setattr(L.Trainer, "fit", lambda *_: pytest.fail("trained again"))
    assert run(config) == first
    assert (folder_of(config) / "record.json").read_bytes() == before
    assert "is finished" in capsys.readouterr().out


def test_resume_false_moves_the_earlier_run_aside(composed) -> None:
    config = composed()
    run(config)
    first = record_of(config)
    again = composed("resume=false")
    run(again)
    run(again)
    folder = folder_of(config)
    kept = read_record(folder.with_name(f"{folder.name}.earlier-1"))
    assert kept == first
    ids = [first["wandb_id"], record_of(again)["wandb_id"]]
    ids.append(read_record(folder.with_name(f"{folder.name}.earlier-2"))["wandb_id"])
    assert len(set(ids)) == 3
    assert record_of(again)["test"] == first["test"]


def test_a_loss_that_is_not_finite_stops_the_run(composed, monkeypatch) -> None:
    original = ClassificationModule.forward
    batches = []

    def poisoned(self, values, lengths):
        logits = original(self, values, lengths)
        return logits * float("nan") if self.training and self.global_step == 7 else logits

    def spy(self, batch, *rest):
        batches.append(batch.index.tolist())

    monkeypatch.setattr(ClassificationModule, "forward", poisoned)
    monkeypatch.setattr(ClassificationModule, "on_train_batch_start", spy)
    config = composed("trainer.checkpoint_every_steps=3")
    with pytest.raises(RunError) as caught:
        run(config)
    message = str(caught.value)
    assert "step 8" in message
    assert str(batches[-1]) in message
    assert str(RunFolder(parse(config)).last) in message
    assert torch.load(RunFolder(parse(config)).last, weights_only=True)["global_step"] == 6
    record = record_of(config)
    assert record["status"] == "failed"
    assert "not" in record["error"] or "nan" in record["error"]


def test_a_gradient_that_is_not_finite_changes_no_weight(composed, monkeypatch) -> None:
    seen = {}
    original = ClassificationModule.training_step

    def poisoned(self, batch, index):
        seen["weights"] = {k: v.clone() for k, v in self.model.state_dict().items()}
        seen["module"] = self
        loss = original(self, batch, index)
        return loss * torch.tensor(1e38) * 1e38 if self.global_step == 2 else loss

    monkeypatch.setattr(ClassificationModule, "training_step", poisoned)
    with pytest.raises(RunError, match="gradient"):
        run(composed())
    for name, value in seen["module"].model.state_dict().items():
        assert torch.equal(value, seen["weights"][name]), name


def test_the_rows_and_random_state_of_a_step_that_was_not_finite_are_kept(
    composed, monkeypatch
) -> None:
    original = ClassificationModule.forward
    poisoned = lambda self, *batch: original(self, *batch) * torch.nan  # noqa: E731
    monkeypatch.setattr(ClassificationModule, "forward", poisoned)
    config = composed()
    with pytest.raises(RunError, match=r"nonfinite\.pt"):
        run(config)
    kept = torch.load(folder_of(config) / "nonfinite.pt", weights_only=True)
    assert (kept["step"], len(kept["rows"])) == (1, 16)
    assert kept["random_state"]["torch"].dtype == torch.uint8


def test_steps_that_are_not_finite_are_skipped_and_counted(composed, monkeypatch) -> None:
    """A poisoned loss and a poisoned gradient change nothing; the third one is too many."""
    original, weights = ClassificationModule.forward, []
    bad = {3: torch.nan, 5: torch.inf}

    def poisoned(self, values, lengths):
        if self.training:
            weights.append([p.detach().clone() for p in self.model.parameters()])
            return original(self, values, lengths) * bad.get(self.global_step, 1.0)
        return original(self, values, lengths)

    monkeypatch.setattr(ClassificationModule, "forward", poisoned)
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


@pytest.mark.parametrize(("lr", "said"), [(1e-12, 1), (0.01, 0)])
def test_a_loss_that_stays_at_guessing_is_spoken_of_once(composed, capsys, lr, said) -> None:
    config = composed(
        f"optimizer.lr={lr}",
        f"optimizer.kernel_lr={lr}",
        "trainer.plateau_steps=5",
        "trainer.log_every_steps=1",
        "task.num_train=16" if not said else "task.num_train=200",
        "trainer.max_steps=40" if not said else "trainer.max_steps=12",
    )
    run(config)
    assert capsys.readouterr().out.count("about ln(classes) = 2.303") == said


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_said_before_any_work(composed, tmp_path) -> None:
    config = composed("trainer.accelerator=gpu", f"data_dir={tmp_path / 'nothing'}")
    with pytest.raises(RunError, match=r"finds no GPU(.|\n)*trainer.accelerator=cpu"):
        run(config)
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "outputs").exists()


def test_a_folder_in_use_is_refused(composed) -> None:
    config = composed()
    with RunFolder(parse(config)).lock(), pytest.raises(RunError, match="another process"):
        run(config)


def test_a_missing_checkpoint_is_named(composed) -> None:
    with pytest.raises(RunError, match=r"resume=nowhere\.ckpt: there is no such file"):
        run(composed("resume=nowhere.ckpt"))


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(composed) -> None:
    first = composed()
    run(first)
    last = RunFolder(parse(first)).last
    other = composed("model.depth=2", f"resume={last}")
    with pytest.raises(RunError, match=r"model\.depth: 1 there, 2 here"):
        run(other)


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


def test_two_seeds_are_two_runs(composed) -> None:
    one, other = composed("seed=0"), composed("seed=1")
    run(one)
    run(other)
    assert folder_of(one).parent == folder_of(other).parent
    assert folder_of(one) != folder_of(other)
    assert record_of(one)["metrics"] != record_of(other)["metrics"]
    assert record_of(one)["wandb_id"] != record_of(other)["wandb_id"]


def test_the_same_seed_is_the_same_run(composed, tmp_path) -> None:
    one, other = composed(), composed(f"output_dir={tmp_path / 'other'}")
    run(one)
    run(other)
    for name in ["best", "test"]:
        assert record_of(one)[name] == record_of(other)[name]


def test_wandb_offline_holds_the_run(composed, capsys) -> None:
    config = composed("logger=wandb")
    run(config)
    folder = folder_of(config)
    offline = list((folder / "wandb").glob("offline-run-*"))
    assert len(offline) == 1
    assert offline[0].name.endswith(parse(config).run_id)
    assert f"wandb sync {offline[0]}" in capsys.readouterr().out.replace("\n", "")
    assert json.loads((folder / "record.json").read_text())["wandb_mode"] == "offline"


def test_bf16_trains(composed) -> None:
    config = composed("trainer.precision=bf16")
    run(config)
    assert record_of(config)["precision"] == "bf16"


def test_a_slow_run_shows_that_it_lives(composed, monkeypatch, capsys) -> None:
    """Without a terminal, and before the first row of metrics is due."""
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    run(composed("trainer.progress=true", "trainer.log_every_steps=100"))
    assert "step 1/12" in capsys.readouterr().out


def test_sequences_of_one_length_need_no_mask(composed, monkeypatch, tmp_path) -> None:
    """Pictures are all equally long: the model is told so, and computes the same."""
    overrides = [
        "task=pathfinder",
        "task.num_train=20",
        "task.num_val=6",
        "task.num_test=6",
        "model.dim=16",
        "model.depth=1",
        "model.mixer.qk_dim=8",
        "model.mixer.v_dim=16",
        "trainer.batch_size=4",
        "trainer.max_steps=2",
        "optimizer.lr=1e-6",  # else the first step makes more of what rounding differs in
        "trainer.accelerator=cpu",
        "trainer.progress=false",
        "logger=csv",
        f"data_dir={tmp_path}",
    ]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        configs = [compose("config", [*overrides, f"output_dir={tmp_path / n}"]) for n in "ab"]
    seen, original = [], ClassificationModule.forward

    def with_lengths(self, values, lengths):
        seen.append(lengths)
        return original(self, values, torch.full((len(values),), values.shape[1]))

    run(configs[0])
    monkeypatch.setattr(ClassificationModule, "forward", with_lengths)
    run(configs[1])
    assert seen
    assert all(lengths is None for lengths in seen)
    loss, same_loss = (record_of(config)["test"]["loss"] for config in configs)
    assert loss == pytest.approx(same_loss, rel=1e-5)


def test_a_finished_run_on_other_data_is_not_shown(composed, tmp_path) -> None:
    """Official files that appear later are other data than those that were generated."""
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
    folder.best.unlink()
    with pytest.raises(RunError, match=r"best\.ckpt is missing"):
        run(config)


def test_a_damaged_record_is_named(composed) -> None:
    config = composed()
    run(config)
    (folder_of(config) / "record.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot be read(.|\n)*record\.json"):
        run(config)


def test_parts_that_run_differently_are_all_named():
    parts = [MLP(4, 4, 0.0) for _ in range(3)]
    parts[1].implementation = "triton"
    found = implementations(torch.nn.Sequential(*parts), torch.float32)
    assert found == {"token_mlp": "torch and triton"}
