"""A model as a folder that others read, and back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import chela
from chela.errors import ConfigError, RunError
from chela.pretrained import shared
from chela.training.run import run
from tasks.errors import DataError
from tests.conftest import TINY, composed_of
from tests.training.runs import folder_of

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """The folder of a finished run."""
    place = tmp_path_factory.mktemp("pretrained")
    torch.set_num_threads(1)
    config = composed_of(
        *TINY, f"data_dir={shared_data}", f"output_dir={place}", "model.norm=batch",
        "trainer.max_steps=2", "logger.project=secret-project",
    )  # fmt: skip
    run(config)
    return folder_of(config)


@pytest.fixture
def saved(trained: Path, tmp_path: Path) -> Path:
    return chela.load_run(trained).save_pretrained(tmp_path / "saved")


def test_what_comes_back_is_the_run(trained: Path, saved: Path) -> None:
    run_, back = chela.load_run(trained), chela.from_pretrained(saved)
    assert back.config.model == run_.config.model
    assert repr(back) == repr(run_) == f"<run {run_.record['run_id']}: chela on listops>"
    assert not back.model.training
    for name, value in run_.model.state_dict().items():
        assert torch.equal(value, back.model.state_dict()[name]), name
    values, lengths = back.task.encode(["[MAX 2 [MIN 4 7 ] 0 ]"])
    assert torch.equal(back.model(values, lengths), run_.model(values, lengths))
    assert back.record["test"] == run_.record["test"]
    again = chela.from_pretrained(back.save_pretrained(saved.with_name("again")))
    assert again.record == back.record


def test_an_empty_path_is_not_the_current_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="folder='' names no folder"):
        chela.load_run(trained).save_pretrained("")
    assert not [*tmp_path.iterdir()]
    assert chela.load_run(trained).save_pretrained(".") == Path()


def test_the_card_has_the_numbers_of_the_record(trained: Path, saved: Path) -> None:
    record, text = chela.load_run(trained).record, (saved / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["library_name"] == "chela" and "listops" in metadata["tags"]
    (entry,) = metadata["model-index"]
    found = {m["type"]: m["value"] for result in entry["results"] for m in result["metrics"]}
    for name, metric in record["test"]["metrics"].items():
        assert found[name] == metric["value"]
        assert f"| {name} | {metric['value']} | {metric['standard_error']} |" in body
    assert f"tested on {record['test']['n']:,} targets" in body
    assert record["versions"]["torch"] in body and record["data"]["fingerprint"][:12] in body


def test_what_is_nobodys_business_stays(trained: Path, saved: Path) -> None:
    written = "".join(file.read_text() for file in (saved / "config.json", saved / "README.md"))
    record = chela.load_run(trained).record
    for secret in (str(trained.parent.parent), record["config"]["data_dir"], "secret-project"):
        assert secret not in written
    assert "command" not in json.loads((saved / "config.json").read_text())["chela"]
    own = {"path": "/me/book.txt", "tokenizer": "me/t.json", "folder": ".", "prompt": "and/or"}
    whole = {f"task.{key}": value for key, value in own.items()}
    private = {"config": {**record["config"], "task": own}, "identity": whole, "departures": whole}
    others, known = (
        shared({**record, **private}),
        {**own, "path": "book.txt", "tokenizer": "t.json"},
    )
    assert others["config"]["task"] == known  # a folder of no name stays: none would be refused
    expected = {f"task.{key}": value for key, value in known.items()}
    assert others["identity"] == others["departures"] == expected


def test_a_folded_model_is_not_saved(trained: Path, tmp_path: Path) -> None:
    loaded = chela.load_run(trained)
    loaded.model.fold()
    with pytest.raises(RunError, match="folded"):
        loaded.save_pretrained(tmp_path / "folded")


def change(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def changed_model(folder: Path, **values) -> None:
    record = json.loads((folder / "config.json").read_text())["chela"]
    model = {**record["config"]["model"], **values}
    change(folder, chela={**record, "config": {**record["config"], "model": model}})


def pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def with_weights(folder: Path, form) -> None:
    weights = {name: form(value) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    change(folder, sha256=None)


HOSTILE = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json.*load_run"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "cannot be read as weights"),
    "another model_type": (lambda f: change(f, model_type="bert"), "model_type is not chela"),
    "no record": (lambda f: change(f, chela=None), "not a run's record"),
    "not json": (lambda f: (f / "config.json").write_text("{"), "cannot be read as a model"),
    "a pickle": (
        lambda f: torch.save({"a": 1}, f / "model.safetensors"), "cannot be read as weights"
    ),
    "one bit": (flip, "its checksum is not the one"),
    "a pipe": (pipe, "not a regular file|too small for"),
    "wider": (lambda f: changed_model(f, dim=24), "another model"),
    "blocks without end": (lambda f: changed_model(f, depth=10**12), "too small for the 1,000"),
    "double": (lambda f: with_weights(f, torch.Tensor.double), "another model"),
    "too large": (
        lambda f: with_weights(f, lambda v: v.new_zeros(10**6)), "bytes, and can have"
    ),
    "a class": (
        lambda f: changed_model(f, name="mine", mixer={"_target_": "os.system"}), "classes="
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_folder_is_one_error(saved: Path, damage, message: str) -> None:
    damage(saved)
    with pytest.raises(RunError, match=f"(?s){message}"):
        chela.from_pretrained(saved)


@pytest.fixture(scope="module")
def fuzzed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chela.load_run(trained).save_pretrained(tmp_path_factory.mktemp("fuzzed"))


@settings.get_profile("fuzz")
@given(
    st.sampled_from(["config.json", "model.safetensors"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(max_size=8),
    st.booleans(),
)
def test_other_bytes_are_one_error_or_the_same_model(fuzzed, name, place, other, cut) -> None:
    file = fuzzed / name
    before = file.read_bytes()
    start = int(place * len(before))
    try:
        file.write_bytes(before[:start] + other + (b"" if cut else before[start + len(other) :]))
        model = chela.from_pretrained(fuzzed).model
    except RunError:
        event("refused")
        return
    finally:
        file.write_bytes(before)
    event("read")
    whole = chela.from_pretrained(fuzzed).model.state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in model.state_dict().items())


def test_an_id_is_asked_of_the_hub(saved: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []

    def fetched(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(shutil.copytree(saved, tmp_path / "cache"))

    monkeypatch.setattr("chela.pretrained.snapshot_download", fetched)
    assert chela.from_pretrained("someone/model", revision="v1").task.name == "listops"
    ((name, revision, files),) = asked
    assert (name, revision) == ("someone/model", "v1")
    assert {"config.json", "model.safetensors", "lexicon.txt"} <= {*files}


def model_of_words(place: Path) -> Path:
    """What is saved of a model of words, whose data are not there any more."""
    torch.set_num_threads(1)
    (place / "wikitext-2").mkdir()
    for split in ("train", "valid", "test"):
        (place / "wikitext-2" / f"wiki.{split}.tokens").write_text(" the cät saw \n" * 9)
    kept = [each for each in TINY if not each.startswith("task")]
    words = ["task=wikitext2", "task.stand_in=two", "task.length=4", "trainer.max_steps=2"]
    config = composed_of(*kept, *words, f"data_dir={place}", f"output_dir={place / 'outputs'}")
    run(config)
    saved = chela.load_run(folder_of(config)).save_pretrained(place / "saved")
    shutil.rmtree(place / "wikitext-2"), shutil.rmtree(place / "wikitext2")
    return saved


def test_what_tokens_stand_for_goes_with_their_model(tmp_path: Path) -> None:
    back = chela.from_pretrained(model_of_words(tmp_path), data_dir=tmp_path)
    again = chela.from_pretrained(back.save_pretrained(tmp_path / "again"), data_dir=tmp_path)
    for each in (back, again):
        assert each.task.text_of(each.task.prompt_of("the cät said")) == "the cät <unk>"
    for content in (b"the\ncat", b"\xff"):
        (tmp_path / "again" / "lexicon.txt").write_bytes(content)
        with pytest.raises(RunError, match=r"lexicon\.txt cannot be read .* its checksum"):
            chela.from_pretrained(tmp_path / "again")
    (tmp_path / "again" / "lexicon.txt").unlink()  # then it is asked of the data
    with pytest.raises(DataError, match="no data for wikitext2"):
        chela.from_pretrained(tmp_path / "again", data_dir=tmp_path).task.prompt_of("the")


def test_what_is_neither_folder_nor_on_the_hub_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be fetched from the hub"):
        chela.from_pretrained("nobody/nothing-of-this-name")  # offline, as all tests
    with pytest.raises(RunError, match="is no folder"):
        chela.from_pretrained(tmp_path / "nowhere")
