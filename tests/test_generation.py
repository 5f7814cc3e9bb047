"""`chela generate`: what a run's model says behind a prompt, and to whom it says why not."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import chela
from chela.commands import start
from chela.commands.generate import GenerateConfig
from chela.errors import RunError
from chela.generation import choice, continuation, generate
from chela.hub import load_run
from chela.training.run import run
from tasks.errors import DataError
from tasks.recall.mqar import Mqar
from tasks.screen import Outlet
from tests.conftest import ROOT, TINY, composed_of, program
from tests.documented import blocks
from tests.training.runs import folder_of

pytestmark = pytest.mark.training

MQAR = [
    *(each for each in TINY if not each.startswith(("task", "model.mixer", "model=chela"))),
    *("task=mqar", "task.length=16", "task.pairs=2", "task.vocabulary=64"),
    *("task.num_train=64", "task.num_val=8", "task.num_test=8", "trainer.max_steps=2"),
    *("trainer.validate_every_steps=2", "model.causal=true"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """``finished("model=s4d")``: the folder of a finished small run."""
    place = tmp_path_factory.mktemp("generation")
    done: dict[tuple[str, ...], Path] = {}

    def folder(*overrides: str, base: Sequence[str] = MQAR) -> Path:
        if overrides not in done:
            places = [f"data_dir={place / 'data'}", f"output_dir={place / 'outputs'}"]
            config = composed_of(*base, *places, *overrides)
            run(config)
            done[overrides] = folder_of(config)
        return done[overrides]

    torch.set_num_threads(1)
    return folder


def test_the_most_likely_tokens_are_those_of_the_whole_sequence(finished) -> None:
    loaded = load_run(finished())
    prompts = [[3, 40, 5, 50], [7], [1, 2, 3]]
    said = torch.stack([*generate(loaded.model, prompts, 6, temperature=0)], dim=1)
    assert said.shape == (3, 6)
    for prompt, tokens in zip(prompts, said.tolist(), strict=True):
        sequence = [*prompt]
        for _ in range(6):
            sequence.append(int(loaded.model(torch.tensor([sequence]))[0, -1].argmax()))
        assert sequence == [*prompt, *tokens]


def test_no_tokens_take_no_step(finished, monkeypatch) -> None:
    loaded = load_run(finished())
    monkeypatch.delattr("chela.generation.prefill")
    assert [*generate(loaded.model, [[3], [7]], 0)] == []
    assert [*continuation(loaded, "3 40", 0)] == [""]
    with pytest.raises(RunError, match="the prompt is empty"):
        next(generate(loaded.model, [[]], 0))


def test_a_seed_says_what_is_drawn(finished) -> None:
    loaded = load_run(finished())
    one, again, other = (
        "".join(continuation(loaded, "3 40", 12, seed=seed)).split() for seed in (1, 1, 2)
    )
    assert one == again != other
    assert len(one) == 12


def test_draws_follow_the_temperature_and_stay_among_the_most_likely() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(4000, 1)
    draws = torch.Generator().manual_seed(0)
    shares = choice(logits, 2.0, None, draws).bincount(minlength=4) / 4000
    assert torch.allclose(shares, (logits[0] / 2).softmax(-1), atol=0.03)
    among = choice(logits, 1.0, 2, draws).bincount(minlength=4) / 4000
    assert torch.allclose(among, torch.tensor([0, 0.2689, 0.7311, 0]), atol=0.03)
    for temperature in (0.0, 5e-324, 1e-42):
        assert choice(logits, temperature, None, draws).eq(2).all()
    assert choice(logits, 1e300, 2, draws).unique().tolist() == [1, 2]


def test_the_command_prints_prompt_and_continuation(finished, tmp_path: Path, capsys) -> None:
    words = [f"run={finished()}", "prompt=3 40", "tokens=5", "device=cpu"]
    capsys.readouterr()  # what the run has printed
    start("generate", words)
    streamed = capsys.readouterr()
    assert len(streamed.out.split()) == 7 and streamed.out.startswith("3 40 ")
    assert "5 tokens in" in streamed.err and "seed 0" in streamed.err
    start("generate", [*words, "stream=false"])
    assert capsys.readouterr().out == streamed.out
    saved = load_run(finished()).save_pretrained(tmp_path)
    start("generate", [*words, f"run={saved}"])
    assert capsys.readouterr().out == streamed.out
    start("generate", ["--help"])
    assert "top_k=null" in capsys.readouterr().out


def test_a_text_that_finds_no_room_is_no_success(
    finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished()
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", Outlet(full))
        with pytest.raises(SystemExit, match="1"):
            start("generate", [f"run={run}", "prompt=3 40", "tokens=5", "device=cpu"])
    assert "could not all be written: No space left on device" in capsys.readouterr().err


def test_the_script_is_the_command(finished) -> None:
    result = program("-m", "chela", "generate", f"run={finished()}", "prompt=", "tokens=5")
    assert result.returncode == 1
    assert "prompt=... must be given" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt=3 64"], "symbol 64 is unknown: there are 0 to 63"),
        (["prompt=3 x"], "symbols are numbers"),
        (["prompt= "], "the prompt is empty"),
        (["prompt=\udcff"], "the prompt is not written in UTF-8"),
        (["prompt=" + "3 " * 17], "has 17 tokens, but the model was built for 16"),
        (["prompt=3", "tokens=0"], "tokens=0: input should be greater than 0"),
        (["prompt=3", "temprature=1"], "Did you mean 'temperature'"),
        (["prompt=3", "temperature=-1"], "greater than or equal to 0"),
        (["prompt=3", "top_k=0"], "top_k=0"),
        (["prompt=3", f"seed={2**64}"], "should be less than 9223372036854775808"),
        (["prompt=3", "device=tpu"], "device=tpu is not one of"),
        (["prompt", "3"], "'prompt' is no key=value.\n  try: prompt=..."),
        (["--tokens", "3"], "'--tokens' is no key=value.\n  try: tokens=..."),
        (["The end"], "'The end' is no key=value.\n  try: 'prompt=The end'"),
        (["prompt=3", "top_k=["], "top_k=[ cannot be read as a value.\n  try: close"),
        (["."], "'.' is no key=value.\n  try: run=."),
    ],
)
def test_what_cannot_be_is_one_message(finished, words, message: str, capsys) -> None:
    folder = finished()
    capsys.readouterr()  # what the run has printed
    with pytest.raises(SystemExit) as ended:
        start("generate", [f"run={folder}", *words])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""


def test_a_run_that_cannot_generate_says_why(finished) -> None:
    with pytest.raises(RunError, match=r"is not causal.*causal=True"):
        next(continuation(load_run(finished("model.causal=false")), "3", 2))
    classifier = finished("seed=1", base=TINY)
    with pytest.raises(RunError, match="is a classifier: it gives one answer"):
        next(continuation(load_run(classifier), "3", 2))
    with pytest.raises(RunError, match="no run's folder"):
        load_run(classifier.parent)
    with pytest.raises(RunError, match="token 99 is unknown: the model has those from 0 to 63"):
        next(generate(load_run(finished()).model, [[3], [99]], 2))
    model = load_run(finished()).model
    for empty in ([[3], []], [], torch.zeros(2, 0)):
        with pytest.raises(RunError, match="the prompt is empty"):
            next(generate(model, empty, 2))
    for draws, said in (
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, f"seed={2**64}"),
    ):
        with pytest.raises(RunError, match=f"{said}: it must be"):
            next(generate(model, [[3]], 2, **draws))
    with pytest.raises(RunError, match="count=-1: it must be"):
        next(generate(model, [[3]], -1))
    with pytest.raises(DataError, match="does not say what a text's tokens are"):
        load_run(classifier).task.tokens_of("x")


def test_more_tokens_than_attention_can_tell_apart_are_refused(finished) -> None:
    loaded = load_run(finished("model=mega"))
    with pytest.raises(RunError, match=r"tells apart 16 tokens.*\n.*try: tokens=16 at most"):
        next(generate(loaded.model, [[3]], 40))
    assert len([*generate(loaded.model, [[3]], 16)]) == 16


def test_more_tokens_than_memory_has_place_for_are_said(finished) -> None:
    with pytest.raises(RunError, match=r"memory is short.*\n.*try: fewer tokens"):
        next(generate(load_run(finished("model=transformer")).model, [[3]], 10**12))


def test_another_error_of_the_gpu_is_not_said_to_be_of_memory(finished, monkeypatch) -> None:
    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("chela.generation.prefill", fail)
    with pytest.raises(RuntimeError, match=r"^CUDA error"):
        next(generate(load_run(finished()).model, [[3]], 2))


class Letters(Mqar):
    """Two tokens make a letter, as bytes do."""

    def tokens_of(self, text: str) -> list[int]:
        return list(text.encode())

    def text_of(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")


def test_a_character_is_shown_when_all_its_bytes_are_there(finished, monkeypatch) -> None:
    """Its text is made of the latest tokens, however long the whole is."""
    loaded = load_run(finished())
    loaded.task.__class__ = Letters
    said, read = "ü!" * 20, []
    monkeypatch.setattr(
        "chela.generation.generate", lambda *_: (torch.tensor([each]) for each in said.encode())
    )
    monkeypatch.setattr(
        loaded.task,
        "text_of",
        lambda t: read.append(len(t)) or Letters.text_of(loaded.task, t),
        raising=False,
    )
    assert [*filter(None, continuation(loaded, "a" * 16, 60))] == [*said]
    assert max(read[4:]) <= 4 < read[0] == 16


def test_control_characters_are_shown_not_sent(finished, monkeypatch, capsys) -> None:
    monkeypatch.setattr("chela.generation.continuation", lambda *_: iter(["\x1b[2J", "b"]))
    folder = finished()
    capsys.readouterr()  # what the run has printed
    start("generate", [f"run={folder}", "prompt=3", "tokens=2"])
    assert capsys.readouterr().out == "3\\x1b[2Jb\n"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["chela", "transformer", "s4d", "mega_chunk"])
def test_a_recorded_step_is_the_step(finished, name: str) -> None:
    folder = finished(f"model={name}")
    prompts = [[3, 40, 5, 50], [7]]
    one, two = (
        torch.stack([*generate(load_run(folder, device).model, prompts, 12, temperature=0)])
        for device in ("cpu", "cuda")
    )
    assert torch.equal(one, two)


def test_the_documented_python_goes_on(finished, monkeypatch) -> None:
    (code,) = blocks("docs/generation.md", "In Python", "python")
    monkeypatch.setattr(chela, "load_run", lambda _: load_run(finished()))
    names: dict[str, object] = {}
    exec(code.replace('"Once", 100', '"3 40", 4'), names)
    assert len(str(names["text"]).split()) == 4
    assert len(names["tokens"]) == 20


def test_the_documented_keys_are_those_of_the_command() -> None:
    text = (ROOT / "docs" / "generation.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", text.split("## In")[0], re.M))
    known = {each.name: each.default for each in dataclasses.fields(GenerateConfig)}
    assert rows == {
        name: "" if default is dataclasses.MISSING else json.dumps(default).strip('"')
        for name, default in known.items()
    }
