"""A language run from its text to its record: what is tested is what a loop over the text finds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from chela.commands.train import go_on
from chela.commands.train import train as train_command
from chela.config.schema import parse
from chela.doctor import diagnose
from chela.errors import ConfigError
from chela.hub import load_run
from chela.objectives import tokens
from chela.records.collect import collect
from chela.report.published import published
from chela.report.render import markdown
from chela.report.table import build
from chela.training.build import build_task
from chela.training.run import run
from tasks.errors import DataError
from tests.conftest import TINY, composed_of
from tests.training.runs import folder_of, record_of
from tests.training.test_distributed import QUIET, assert_same_rows, train
from tests.training.test_distributed import record as record_below
from tests.training.test_resume import assert_resumes

pytestmark = pytest.mark.training

OWN = [*(each for each in TINY if not each.startswith("task")), "task=bytes", "task.length=32"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Sentences of few words, six thousand bytes."""
    random.seed(0)
    words = [random.choice(["the", "cat", "saw", "a", "dog.", "Then"]) for _ in range(1500)]
    file = tmp_path / "text.txt"
    file.write_text(" ".join(words))
    return file


@pytest.fixture
def language(text: Path, tmp_path: Path):
    """``language("model.depth=2")``: the tiny configuration on the text, with overrides."""
    torch.set_num_threads(1)
    places = [f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path / 'outputs'}"]

    def composed(*overrides: str) -> DictConfig:
        return composed_of(*OWN, f"task.path={text}", *places, *overrides)

    return composed


def records_below(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in folder.glob("outputs/*/seed0/record.json")]


def test_each_byte_is_tested_once_behind_its_context(language, text: Path, capsys) -> None:
    config = language("task.context=24", "trainer.eval_batch_size=7")
    best = run(config)
    record = record_of(config)
    assert "heldout, context 24, stride 8" in capsys.readouterr().out
    loaded = load_run(folder_of(config))
    content = text.read_bytes()
    tested = np.frombuffer(content[-(len(content) // 20) :], dtype=np.uint8).astype(int)
    bits, hits = [], []
    for target in range(1, len(tested)):
        # the window's first has all that is before it; later ones begin every 8 bytes
        begin = 0 if target <= 32 else min(-(-(target - 32) // 8) * 8, len(tested) - 33)
        with torch.no_grad():
            window = torch.from_numpy(tested[begin : begin + 32])[None]
            scores = loaded.model(window)[0, target - 1 - begin].double()
        bits.append(-float(scores.log_softmax(-1)[tested[target]]) / np.log(2))
        hits.append(int(scores.argmax()) == tested[target])
    found = record["test"]
    assert (found["n"], found["primary"]) == (len(bits), "bits_per_byte")
    measured = found["metrics"]["bits_per_byte"]
    assert (measured["unit"], measured["direction"]) == ("bits", "min")
    assert measured["value"] == pytest.approx(np.mean(bits), rel=1e-5)
    assert measured["standard_error"] == pytest.approx(np.std(bits) / len(bits) ** 0.5, rel=1e-3)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(hits))
    selected = [row["val/bits_per_byte"] for row in record["metrics"] if "val/loss" in row]
    assert record["best"]["value"] == best == min(selected)
    assert record["protocol"]["evaluation"] == {"context": 24, "stride": 8}
    assert record["config"]["model"]["causal"]  # though nobody said so
    assert record["data"]["parameters"]["split"] == "share"


def test_contexts_stand_in_columns_of_their_own(language, tmp_path: Path) -> None:
    short = ["trainer.max_steps=2", "trainer.validate_every_steps=2"]
    run(language(*short, "task.context=8")), run(language(*short, "task.context=16"))
    report = build(collect([tmp_path / "outputs"]), published())
    titles = {column.title for column in report.columns}
    assert titles == {"bytes, context 8, stride 24", "bytes, context 16, stride 16"}
    assert {column.direction for column in report.columns} == {"min"}
    tested = [run["test"]["metrics"]["bits_per_byte"]["value"] for run in records_below(tmp_path)]
    printed = markdown(report)
    assert all(f"{value:.3f} (1)" in printed for value in tested)  # models differ in the third


def test_interrupted_and_resumed_is_uninterrupted(language, monkeypatch, tmp_path) -> None:
    """Beyond the first epoch, so that windows are cut anew."""
    many = ["trainer.batch_size=64", "task.length=16"]
    whole, broken = language(*many, f"output_dir={tmp_path / 'whole'}"), language(*many)
    assert_resumes(monkeypatch, whole, broken)
    assert record_of(whole)["training"]["epochs"] > 2


def test_many_words_train_as_few_do(language, monkeypatch, tmp_path: Path) -> None:
    """Whether their scores are ever whole or not, and with one matrix at both ends."""
    tied = ["model.head=linear", "model.tie_embeddings=true", "trainer.micro_batch_size=5"]
    curves = []
    for many in (tokens.MANY, 200):
        monkeypatch.setattr(tokens, "MANY", many)
        config = language(*tied, f"output_dir={tmp_path / str(many)}")
        run(config)
        record = record_of(config)
        losses = [row["train/loss"] for row in record["metrics"] if "train/loss" in row]
        curves.append([*losses, record["test"]["metrics"]["loss"]["value"]])
    assert len(curves[0]) == 4
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_it_learns_the_words(language) -> None:
    longer = ["trainer.max_steps=80", "trainer.validate_every_steps=80", "optimizer.lr=0.02"]
    assert run(language(*longer)) < 2.5  # letters alone have more than 3 bits, by their frequency


def test_the_demo_goes_on_from_its_prompt(language, tmp_path: Path, capsys) -> None:
    """All of it but its length, on the text that it names."""
    places = [f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path / 'outputs'}"]
    short = ["trainer.max_steps=2", "trainer.validate_every_steps=2", "trainer.progress=false"]
    train_command(composed_of("experiment=demo_language", "logger=csv", *places, *short))
    said = capsys.readouterr().out
    assert "it goes on: The data" in said
    assert len(said.partition("it goes on: ")[2]) > 100
    (file,) = (tmp_path / "data" / "bytes").glob("*/meta.json")
    assert '"split": "document"' in file.read_text()
    train_command(language("trainer.max_steps=2", "trainer.validate_every_steps=2"))
    assert "goes on" not in capsys.readouterr().out


def test_a_run_of_several_devices_goes_on_in_its_first_process(
    language, monkeypatch, capsys
) -> None:
    """The others do not, so it must ask nothing of them, whoever held the sequences before."""
    steps = ["trainer.max_steps=2", "trainer.validate_every_steps=2"]
    config = language(*steps, "task.prompt=cat")
    run(config)
    monkeypatch.setattr("chela.layers.sequence._parts", 2)
    go_on(config)
    assert "it goes on: cat" in capsys.readouterr().out


def test_a_prompt_of_a_finished_run_is_refused_before_it_is_shown(language, capsys) -> None:
    steps = ["trainer.max_steps=2", "trainer.validate_every_steps=2"]
    train_command(language(*steps))
    train_command(language(*steps, "task.prompt=cat"))
    assert "is finished" in (said := capsys.readouterr().out) and "it goes on: cat" in said
    for prompt, why in (("", "the prompt is empty"), ("a" * 33, "has 33 tokens, but the model")):
        with pytest.raises(DataError, match=why):
            train_command(language(*steps, f"task.prompt={prompt}"))
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("The cat", "byte 0 is 0x54"),
        ("", "the prompt is empty"),
        ("the cat saw a dog and then the end", r"has 34 tokens, but the model(.|\n)*its last 32"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_before_training(
    prompt: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "text8" / "text8"
    file.parent.mkdir()
    file.write_text("the cat saw a dog " * 200)
    places = [f"data_dir={tmp_path}", f"output_dir={tmp_path / 'outputs'}"]
    chosen = ["task=text8", "task.stand_in=cats", "task.length=32", f"task.prompt={prompt}"]
    kept = [each for each in OWN if not each.startswith("task")]
    with pytest.raises(DataError, match=said):
        run(composed_of(*kept, *chosen, *places))
    assert not [*tmp_path.glob("outputs/*/seed0/*")]


def test_the_doctor_lets_it_learn_a_few_tokens_by_heart(language) -> None:
    config = parse(language("model.dim=32", "task.length=512", "task.context=0"))
    task = build_task(config)
    with pytest.raises(DataError, match="no window of 512"):  # the text is too short for it
        task.prepare_data(), task.setup(), task.samples("val")
    *_, last = diagnose(config)
    assert (last.subject, last.fine) == ("data", False) and "no window of 512" in last.text
    config = parse(language("model.dim=32", "task.length=256"))
    found = {finding.subject: finding for finding in diagnose(config, overfits=True)}
    assert found["overfit"].fine, found["overfit"].text


def test_a_model_of_the_next_token_is_causal_whoever_asks(language) -> None:
    assert parse(language("model.causal=false")).model.backbone.causal
    assert not parse(composed_of(*TINY)).model.backbone.causal
    for norm in ("model.norm=batch", "model.mixer.branch_norm=batch"):  # of all tokens of a batch
        with pytest.raises(ConfigError, match=rf"{norm} takes its statistics(.|\n)*try: "):
            parse(language("model=chela", norm))


def test_two_processes_are_one_run(language, text: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(language(*QUIET, f"output_dir={one}"))
    chosen = [f"task.path={text}", "trainer.devices=2"]
    result = train(two, tmp_path / "data", *chosen, base=OWN)
    assert result.returncode == 0, result.stderr
    assert record_below(one)["test"]["n"] == record_below(two)["test"]["n"]
    assert_same_rows(
        one, two, ["train/loss", "val/bits_per_byte", "gradient_norm"], rel=1e-5, within=1e-6
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("many", [tokens.MANY, 200])  # scores whole, and in chunks
def test_a_graph_of_data_on_the_gpu_trains_as_eager_steps_from_disk_do(
    language, tmp_path: Path, monkeypatch, many: int
) -> None:
    monkeypatch.setattr(tokens, "MANY", many)
    large = ["trainer.accelerator=gpu", "model.dim=32", "model.mixer.qk_dim=32", "model.dropout=0"]
    exact = ["trainer.precision=float32", "trainer.deterministic=true"]
    tied = ["model.head=linear", "model.tie_embeddings=true"]
    curves = []
    for name, *how in (
        ("graph", "trainer.step=graph", "trainer.data_on_device=always"),
        ("eager", "trainer.step=eager", "trainer.data_on_device=never"),
    ):
        config = language(*large, *exact, *tied, *how, f"output_dir={tmp_path / name}")
        run(config)
        rows = record_of(config)["metrics"]
        curves.append([row["train/loss"] for row in rows if "train/loss" in row])
    assert len(curves[0]) == 3
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("trainer.label_smoothing=0.1", r"class of a sample.*\n.*label_smoothing=0"),
        ("trainer.length_window=4", r"all windows of bytes have one.*\n.*length_window=1"),
        ("model.pooling=last", "nothing is pooled.*set pooling=mean"),
    ],
)
def test_what_would_do_nothing_to_tokens_is_refused(language, key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(language(key))
