"""A finished run as objects again."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

import chela
from chela.config.schema import compose_run, parse
from chela.errors import RunError
from chela.mixers import ChelaMixer
from chela.training.build import build_task
from chela.training.run import run
from tasks.errors import DataError
from tests.conftest import TINY, composed_of, program
from tests.documented import blocks
from tests.training.runs import folder_of, record_of

pytestmark = pytest.mark.training


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
        loaded.model(batch.values, batch.lengths).argmax(-1) == batch.targets
        for batch in loaded.task.batches("test", 50)
    ]
    tested = loaded.record["test"]["metrics"]["accuracy"]
    assert torch.cat(hits).double().mean().item() == tested["value"]
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
    assert not chela.load_run(finished).model.training


def test_a_run_of_before_its_classes_moved_loads(finished) -> None:
    config = json.loads((finished / "record.json").read_text())["config"]
    task = {**config["task"], "_target_": "tasks.before.Task"}
    mixer = {**config["model"]["mixer"], "_target_": "chela.before.Mixer"}
    change(finished, config={"task": task, "model": {**config["model"], "mixer": mixer}})
    assert chela.load_run(finished).task.name == "listops"


def test_a_run_of_before_a_key_of_its_training_loads(finished) -> None:
    """Each key that says how, not what: what is younger than a record does not matter to it."""
    record = json.loads((finished / "record.json").read_text())
    for section in ("trainer", "logger", "schedule", "optimizer"):
        assert record["config"][section]
        change(finished, config={section: {}})
    assert not chela.load_run(finished).model.training
    change(finished, config={"trainer": {"unknown": 1}})
    with pytest.raises(RunError, match=r"unknown key 'trainer\.unknown'"):
        chela.load_run(finished)


def test_a_run_loads_that_had_a_key_which_did_nothing(finished) -> None:
    """What is refused of a new run, as its id would differ for nothing."""
    schedule = json.loads((finished / "record.json").read_text())["config"]["schedule"]
    change(finished, config={"schedule": {**schedule, "name": "constant", "final_ratio": 0.0}})
    assert chela.load_run(finished).config.schedule.name == "constant"


def test_what_cannot_be_loaded_is_named(finished, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run's folder\.\n  try: .*seed0"):
        chela.load_run(finished.parent)
    with pytest.raises(RunError, match=r"no run's folder\.\n  try: a run's folder, <output_dir>"):
        chela.load_run(tmp_path / "nowhere")
    record = (finished / "record.json").read_text()
    for sections, message in [
        ({"status": "interrupted"}, r"is interrupted(.|\n)*finish it first"),
        ({"status": "failed"}, r"has failed(.|\n)*finish it first: (python|chela) "),
        ({"best": {"step": 1}}, r"but its record selected step 1(.|\n)*resume=false"),
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
    change(finished, config={"model": {**model, "depth": 10**12}})
    with pytest.raises(RunError, match="too small for the 1,000,000,000,000 blocks"):
        chela.load_run(finished)
    (finished / "record.json").write_text(record)
    (finished / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(RunError, match=r"best\.ckpt is missing, the weights of step(.|\n)*copy it"):
        chela.load_run(finished)


def test_weights_need_no_data_and_data_come_when_asked_for(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a process: it would import the script that calls load_run")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refuse)
    config = json.loads((finished / "record.json").read_text())["config"]
    change(
        finished,
        config={**config, "data_dir": "/proc/no/\0", "task": {**config["task"], "workers": 2}},
    )
    loaded = chela.load_run(finished)
    values, lengths = loaded.task.encode(["[MAX 2 [MIN 4 7 ] 0 ]"])
    assert loaded.model(values, lengths).shape == (1, 10)
    place = tmp_path / "elsewhere"
    task = chela.load_run(finished, data_dir=place).task
    assert not place.exists()
    assert len(task.test) == 50
    assert place.exists()
    change(finished, data={"fingerprint": "0" * 64})
    with pytest.raises(DataError, match=r"not those of the run(.|\n)*000 then(.|\n)*data_dir=<"):
        len(chela.load_run(finished, data_dir=place).task.test)


def test_the_symbols_of_texts_are_known_from_the_record_alone() -> None:
    for name in ("text", "retrieval"):
        task = build_task(compose_run([f"task={name}"]))
        task.expect({"facts": {"alphabet": "abc "}, "fingerprint": "0"})
        assert task.spec.vocab_size == 3 + 4
        example = "a cab" if name == "text" else ("a cab", "b")
        assert task.encode([example])[1].flatten()[0] == 6
        task.expect({"fingerprint": "0"})
        with pytest.raises(KeyError, match="alphabet"):
            _ = task.spec


def test_only_known_classes_are_made_and_nothing_is_imported_or_resolved(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evilmod.py").write_text("class A: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    record = (finished / "record.json").read_text()
    config = json.loads(record)["config"]
    mixer, mine = config["model"]["mixer"], {"name": "mine"}
    moved = {**config["model"], "mixer": {**mixer, "_target_": "evilmod.A"}}
    change(finished, config={**config, "model": moved})
    assert chela.load_run(finished).config.model.mixer.target is ChelaMixer  # by its name
    for target in ("evilmod.A", "subprocess.Popen", "tasks.base.Task", 5, None):
        for section in (
            {"model": {**config["model"], **mine, "mixer": {**mixer, "_target_": target}}},
            {"task": {**config["task"], **mine, "_target_": target}},
        ):
            change(finished, config={**config, **section})
            with pytest.raises(RunError, match=r"_target_(.|\n)*classes=\["):
                chela.load_run(finished)
    assert "evilmod" not in sys.modules
    monkeypatch.setenv("SECRET", "told")
    for value in ("${oc.env:SECRET}", "${model}"):
        change(finished, config={**config, "output_dir": value})
        assert chela.load_run(finished).config.output_dir == value
        change(finished, config={**config, "optimizer": value})
        with pytest.raises(RunError, match="optimizer"):
            chela.load_run(finished)


def test_what_a_foreign_record_says_moves_no_cursor(finished) -> None:
    code = {"hash": "0", "files": {"\x1b[2J": "0"}}
    change(finished, code=code, git={"commit": "\x1b[3J"})
    with pytest.warns(UserWarning, match=r"differs from that run's: \\x1b\[2J"):
        chela.load_run(finished)
    change(finished, config={"unknown": 1})
    with pytest.raises(RunError, match=r"commit \\x1b\[3J"):
        chela.load_run(finished)


def test_a_class_of_ones_own_is_named_by_the_caller(finished) -> None:
    config = json.loads((finished / "record.json").read_text())["config"]
    mixer = {**config["model"]["mixer"], "_target_": f"{Own.__module__}.Own"}
    change(
        finished, config={**config, "model": {**config["model"], "name": "mine", "mixer": mixer}}
    )
    with pytest.raises(RunError, match="not a class that is known here"):
        chela.load_run(finished)
    loaded = chela.load_run(finished, classes=[Own])
    assert any(isinstance(each, Own) for each in loaded.model.modules())


class Own(ChelaMixer):
    """As anyone may write it."""


class Attack:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (exec, ("import os; os.environ['EVIL'] = 'ran'",))


def flip(file: Path) -> None:
    """Change one bit of the largest weight."""
    content = bytearray(file.read_bytes())
    weights = torch.load(file, weights_only=True)["state_dict"].values()
    value = max(weights, key=lambda each: each.numel()).numpy().tobytes()
    content[content.index(value) + len(value) // 2] ^= 1
    file.write_bytes(content)


def with_weights(file: Path, form) -> None:
    content = torch.load(file, weights_only=True)
    content["state_dict"] = {k: form(v) for k, v in content["state_dict"].items()}
    torch.save(content, file)


def repacked(file: Path, method: int, form) -> None:
    with zipfile.ZipFile(file) as parts:
        held = [(each.filename, parts.read(each)) for each in parts.infolist()]
    with zipfile.ZipFile(file, "w", method) as parts:
        for name, value in held:
            parts.writestr(name, form(value) if "/data/" in name else value)


def doubling() -> list:
    """Sixty lists, each of them twice in the next: few bytes, 2 ** 60 values."""
    found: list = []
    for _ in range(60):
        found = [found, found]
    return found


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES = {
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-1000]),
    "one bit": flip,
    "no archive": lambda file: file.write_bytes(b"\x80\x02" + b"x" * 100),
    "code": lambda file: torch.save({"global_step": 1, "state_dict": Attack()}, file),
    "no step": lambda file: torch.save({"state_dict": {}}, file),
    "a list": lambda file: torch.save([1], file),
    "compressed": lambda file: repacked(file, zipfile.ZIP_DEFLATED, bytes),
    "smaller than its tensors": lambda file: repacked(file, 0, lambda part: part[:4]),
    "expanded": lambda file: with_weights(file, lambda v: v.flatten()[:1].expand(10**12)),
    "too large": lambda file: with_weights(file, lambda v: v.new_zeros(10**6)),
    "double": lambda file: with_weights(file, torch.Tensor.double),
    "sparse": lambda file: with_weights(file, torch.Tensor.to_sparse),
    "nowhere": lambda file: with_weights(file, lambda v: v.to("meta")),
    "no tensors": lambda file: with_weights(file, lambda v: 5),
    "lists without end": lambda file: with_weights(file, lambda v: doubling()),
    "a pipe": pipe,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_is_not_the_weights_is_one_error(damaged: Path, damage) -> None:
    damage(damaged / "checkpoints" / "best.ckpt")
    with pytest.raises(RunError, match=r"cannot be read as|another model|weights of step|small"):
        chela.load_run(damaged)
    assert os.environ.get("EVIL") is None


@settings.get_profile("fuzz")
@given(
    st.sampled_from(["record.json", "checkpoints/best.ckpt"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(max_size=8),
    st.booleans(),
)
def test_other_bytes_are_one_error_or_the_same_model(loadable, name, place, other, cut) -> None:
    """A few bytes of a run's file are others, or what follows them is gone."""
    file = loadable / name
    before = file.read_bytes()
    start = int(place * len(before))
    after = before[:start] + other + (b"" if cut else before[start + len(other) :])
    try:
        file.write_bytes(after)
        model = chela.load_run(loadable).model
    except RunError:
        event("refused")
        return
    finally:
        file.write_bytes(before)
    event("read")
    whole = chela.load_run(loadable).model.state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in model.state_dict().items())


@pytest.fixture
def damaged(loadable: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(loadable, tmp_path / "run"))


@pytest.fixture(scope="module")
def loadable(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """The folder of a finished run, made once."""
    place = tmp_path_factory.mktemp("loadable")
    places = [f"data_dir={shared_data}", f"output_dir={place}", "trainer.max_steps=2"]
    config = composed_of(*TINY, *places)
    run(config)
    return folder_of(config)


def test_the_documented_lines_run(finished, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # where a model is saved
    code = "".join(blocks("outputs/README.md", "Use a trained model", "python"))
    there = re.sub(r'load_run\("[^"]+"\)', f"load_run({str(finished)!r})", code)
    assert there != code
    exec(there, {})
    tested = json.loads((finished / "record.json").read_text())["test"]["metrics"]
    accuracy = tested["accuracy"]["value"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{accuracy} tensor([")
    assert lines[1] in {f"tensor([{digit}])" for digit in range(10)}


def test_to_import_chela_is_cheap() -> None:
    code = "import chela, sys; print('torch' in sys.modules, callable(chela.load_run))"
    assert program("-c", code).stdout.split() == ["False", "True"]
