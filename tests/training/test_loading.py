"""A finished run as objects again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import chela
from chela.config import parse
from chela.errors import RunError
from chela.training.run import run
from tests.conftest import ROOT
from tests.documented import blocks
from tests.training.runs import folder_of, record_of


@pytest.fixture
def finished(composed) -> Path:
    """The folder of a finished run, whose weights BatchNorm's statistics belong to."""
    config = composed("model.norm=batch")
    run(config)
    return folder_of(config)


def change(folder: Path, **sections) -> None:
    record = json.loads((folder / "record.json").read_text())
    for name, values in sections.items():
        record[name] = {**record[name], **values} if isinstance(values, dict) else values
    (folder / "record.json").write_text(json.dumps(record))


@torch.no_grad()
def test_the_loaded_model_has_the_accuracy_of_the_record(composed, finished) -> None:
    loaded = chela.load_run(finished)
    assert loaded.record == record_of(composed("model.norm=batch"))
    assert not loaded.model.training
    hits = [
        loaded.model(batch.values, batch.lengths).argmax(-1) == batch.labels
        for batch in loaded.task.test_dataloader()
    ]
    assert torch.cat(hits).float().mean().item() == loaded.record["test"]["accuracy"]
    assert loaded.record["test"]["n"] == len(torch.cat(hits))


def test_it_has_the_selected_weights_and_the_configuration(composed, finished) -> None:
    loaded = chela.load_run(str(finished), device="meta")
    assert {each.device.type for each in loaded.model.parameters()} == {"meta"}
    loaded = chela.load_run(finished)
    state = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, state[f"model.{name}"]), name
    config = parse(composed("model.norm=batch"))
    assert loaded.config.run_id == config.run_id
    assert (loaded.config.model, loaded.config.task) == (config.model, config.task)


def test_a_run_of_a_gpu_loads_without_one(finished) -> None:
    config = json.loads((finished / "record.json").read_text())["config"]
    change(
        finished,
        config={
            "kernels": "triton",
            "trainer": {**config["trainer"], "step": "graph", "data_on_device": "always"},
        },
    )
    assert chela.load_run(finished).config.trainer.step == "eager"


def test_a_run_of_before_its_classes_moved_loads(finished) -> None:
    config = json.loads((finished / "record.json").read_text())["config"]
    task = {**config["task"], "_target_": "tasks.before.Task"}
    mixer = {**config["model"]["mixer"], "_target_": "chela.before.Mixer"}
    change(finished, config={"task": task, "model": {**config["model"], "mixer": mixer}})
    assert chela.load_run(finished).task.name == "listops"


def test_what_cannot_be_loaded_is_named(finished, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run's folder\.\n  try: .*seed0"):
        chela.load_run(finished.parent)
    with pytest.raises(RunError, match=r"no run's folder\.\n  try: a run's folder, <output_dir>"):
        chela.load_run(tmp_path / "nowhere")
    record = (finished / "record.json").read_text()
    for sections, message in [
        ({"status": "interrupted"}, r"is interrupted(.|\n)*finish it first"),
        ({"best": {"step": 1}}, r"but its record selected step 1(.|\n)*resume=false"),
        ({"data": {"fingerprint": "0" * 64}}, r"not those of(.|\n)*000 then(.|\n)*data_dir=<"),
        ({"config": {"unknown": 1}}, r"not one of this code: unknown key(.|\n)*commit"),
    ]:
        change(finished, **sections)
        with pytest.raises(RunError, match=message):
            chela.load_run(finished)
        (finished / "record.json").write_text(record)
    model = {**json.loads(record)["config"]["model"], "dim": 24}
    change(finished, config={"model": model})
    with pytest.raises(RunError, match=r"another model:\n  .*16.* there, .*24(.|\n)*try: the code"):
        chela.load_run(finished)
    (finished / "record.json").write_text(record)
    (finished / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(RunError, match=r"best\.ckpt is missing, the weights of step(.|\n)*copy it"):
        chela.load_run(finished)


def test_data_may_have_moved(finished, shared_data: Path, tmp_path: Path) -> None:
    config = json.loads((finished / "record.json").read_text())["config"]
    change(finished, config={**config, "data_dir": str(tmp_path / "gone" / "\0")})
    assert chela.load_run(finished, data_dir=shared_data).task.data_dir == shared_data


def test_the_documented_lines_run(finished, capsys) -> None:
    code = "".join(blocks("outputs/README.md", "Use a trained model", "python"))
    there = re.sub(r'load_run\("[^"]+"\)', f"load_run({str(finished)!r})", code)
    assert there != code
    exec(there, {})
    accuracy = json.loads((finished / "record.json").read_text())["test"]["accuracy"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{accuracy} tensor([")
    assert lines[1] in {f"tensor([{digit}])" for digit in range(10)}


def test_to_import_chela_is_cheap() -> None:
    code = "import chela, sys; print('torch' in sys.modules, callable(chela.load_run))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True"], result.stderr
