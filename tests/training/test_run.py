"""A whole run: what it does and what it leaves."""

from __future__ import annotations

import csv
import json
import shutil

import lightning as L
import pytest
import torch

from chela.config.schema import parse
from chela.errors import RunError
from chela.model import Classifier
from chela.model.ffn import MLP
from chela.records.record import read_record
from chela.training import build, progress
from chela.training.evidence import implementations
from chela.training.folder import RunFolder
from chela.training.module import TrainingModule
from chela.training.run import run
from tests.conftest import composed_of
from tests.training.runs import folder_of, record_of

pytestmark = pytest.mark.training


def test_a_run_leaves_a_complete_record(composed, capsys) -> None:
    config = composed()
    best = run(config)
    record, folder = record_of(config), folder_of(config)
    assert record["status"] == "finished"
    assert record["best"]["value"] == best
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
    original = TrainingModule.test_step

    def spy(self, batch, index):
        tested.append((batch.index.tolist(), {k: v.clone() for k, v in self.state_dict().items()}))
        return original(self, batch, index)

    monkeypatch.setattr(TrainingModule, "test_step", spy)
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
    assert record["best"] == {"step": first, "value": highest}


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
    assert record_of(config)["test"]["metrics"]["accuracy"]["value"] == pytest.approx(right / 50)


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
    assert record_of(again)["test"] == first["test"]
    shutil.rmtree(folder.with_name(f"{folder.name}.earlier-1"))  # whoever tidies up
    run(again)
    ids.append(record_of(again)["wandb_id"])
    assert len(set(ids)) == 4


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


def test_a_finished_or_resumed_run_says_that_the_code_is_another_now(composed, capsys) -> None:
    config = composed()
    run(config)
    folder = folder_of(config)
    record = json.loads((folder / "record.json").read_text())
    assert record["code"]["earlier"] == []
    assert record["hardware"]["host"]
    assert "batch_job" in record
    capsys.readouterr()
    run(config)
    assert "differs" not in capsys.readouterr().out
    record["code"]["files"]["chela.mixers.chela.mixer"] = record["code"]["hash"] = "0" * 16
    (folder / "record.json").write_text(json.dumps(record))
    run(config)
    said = capsys.readouterr().out
    assert "the code differs from that run's: chela.mixers.chela.mixer" in said
    assert "resume=false" in said
    (folder / "record.json").unlink()
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["callbacks"]["Provenance"]["code"] = record["code"]
    torch.save(content, last)
    run(config)
    assert "the code is not that of the steps before" in capsys.readouterr().out
    assert record_of(config)["code"]["earlier"] == ["0" * 16]


def test_a_checkpoint_that_other_code_cannot_go_on_from_is_told_in_a_sentence(composed) -> None:
    """A requeued job finds the code that is there by then: another model, another optimizer."""
    config = composed()
    run(config)
    (folder_of(config) / "record.json").unlink()
    last = folder_of(config) / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    weights, states = content["state_dict"], content["optimizer_states"]
    name = next(iter(weights))
    code = content["callbacks"]["Provenance"]["code"]["files"]
    fewer = [{**each, "param_groups": each["param_groups"][1:]} for each in states]
    for part, other, said in [
        ("state_dict", {k: v for k, v in weights.items() if k != name}, name),
        ("optimizer_states", fewer, "parameter groups"),
    ]:
        for files in (code, {**code, "a.b": "0"}):
            content["callbacks"]["Provenance"]["code"] = {"hash": "0", "files": files}
            torch.save({**content, part: other}, last)
            with pytest.raises((RuntimeError, ValueError, RunError), match=said) as raised:
                run(config)
            # of the same code it is a fault, which needs its traceback
            assert isinstance(raised.value, RunError) == ("a.b" in files)
        assert "(a.b differ)" in str(raised.value)
        assert "resume=false" in str(raised.value)
        assert "is of other code" in record_of(config)["error"]


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


def test_four_lines_say_what_will_run(composed, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["output_dir=outputs", "trainer.max_steps=2", "schedule.warmup_steps=1"]
    run(composed(*short))
    *lines, end = capsys.readouterr().out.splitlines()[:5]
    assert [line.split()[0] for line in lines] == ["data", "model", "training", "record"]
    assert max(map(len, lines)) <= 80
    assert (tmp_path / lines[-1].split()[1]).is_file()
    assert end.startswith("listops-chela-")  # the table of what came out
    run(composed(*short, "trainer.verbose=true", "resume=false"))
    said = capsys.readouterr().out
    assert said.startswith("\n".join(lines))
    for part in ("fingerprint ", "short_conv: torch", "step eager; data read from disk", "-seed0"):
        assert part in said.partition("\nW&B")[0]
        assert part not in "\n".join(lines)


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
    configs = [composed_of(*overrides, f"output_dir={tmp_path / n}") for n in "ab"]
    seen, original = [], Classifier.forward

    def with_lengths(self, values, lengths):
        seen.append(lengths)
        return original(self, values, torch.full((len(values),), values.shape[1]))

    run(configs[0])
    monkeypatch.setattr(Classifier, "forward", with_lengths)
    run(configs[1])
    assert seen
    assert all(lengths is None for lengths in seen)
    loss, same_loss = (record_of(config)["test"]["metrics"]["loss"]["value"] for config in configs)
    assert loss == pytest.approx(same_loss, rel=1e-5)


def test_parts_that_run_differently_are_all_named():
    parts = [MLP(4, 4, 0.0) for _ in range(3)]
    parts[1].implementation = "triton"
    found = implementations(torch.nn.Sequential(*parts), torch.float32)
    assert found == {"token_mlp": "torch and triton"}
