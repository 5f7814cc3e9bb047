"""Corpora: split as they say, told from others by their checksum, and plain errors otherwise."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.base import Task
from tasks.errors import DataError
from tasks.language.corpus import WindowsConfig
from tasks.language.hutter import Enwik8, Text8
from tasks.language.own import Bytes
from tasks.language.pieces import WikiText103Pieces, pieces_of, tokenizer_of
from tasks.language.rfc import RfcBytes
from tasks.language.wikitext import HELD_OUT
from tasks.language.words import WikiText2, WikiText103
from tasks.show.pictures import draw_sheet
from tests.tasks.rfcs import made, write_packed

BYTES = bytes(range(1, 251)) * 4  # a thousand
LETTERS = b"the quick brown fox jumps over the lazy dog " * 20
LINES = {
    "train": " \n = Title = \n \n the cat saw the <unk> @-@ dog \n the end \n \n",
    "valid": " \n the dog saw the end \n",
    "test": " \n the dog saw a cat \n \n",
}


def prepared(task: type[Task], folder: Path, **keys: Any) -> Any:
    found = task(task.Config(**keys), folder)
    found.prepare_data(show=False)
    found.setup()
    return found


def text_of(task: Any, split: str) -> str:
    rows = task.split(split)["values"]
    return "".join(task.text_of(row) for row in rows)


def zipped(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("task", "content"), [(Enwik8, BYTES), (Text8, LETTERS)])
def test_a_corpus_of_bytes_is_split_in_order(
    tmp_path: Path, task: type[Any], content: bytes, packed: bool
) -> None:
    name = task.Config().name
    if packed:
        zipped(tmp_path / f"{name}.zip", {name: content})
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(content)
    found = prepared(task, tmp_path, length=16, stand_in="other")
    held_out = len(content) // 20
    splits = {split: found.split(split)["values"] for split in ("train", "val", "test")}
    joined = [np.concatenate(rows) for rows in splits.values()]
    assert [len(each) for each in joined] == [len(content) - 2 * held_out, held_out, held_out]
    whole = np.concatenate(joined)
    assert whole.max() < found.spec.vocab_size == found.spec.num_classes
    assert bytes(found.tokens_of(content[:20].decode("latin1")[:9])) == bytes(whole[:9].tolist())
    if task is Text8:
        assert found.text_of(whole) == content.decode()
    assert found.meta.stand_in and found.meta.source == "other"
    assert found.evaluation == {"context": 8, "stride": 8}
    assert not found.is_padded and len(found.samples("train")) == len(joined[0]) // 16


def test_windows_are_no_part_of_the_prepared_data(tmp_path: Path) -> None:
    zipped(tmp_path / "enwik8.zip", {"enwik8": BYTES})
    one = prepared(Enwik8, tmp_path, length=16, stand_in="other")
    other = prepared(Enwik8, tmp_path, length=32, context=7, stand_in="other")
    assert one.folder == other.folder


@pytest.mark.parametrize(
    ("task", "content", "said"),
    [
        (Enwik8, BYTES, r"not the official file: the md5 .*1,000 bytes(.|\n)*task.stand_in"),
        (Text8, LETTERS, r"text8.zip is not the official file"),
        (Enwik8, b"", r"enwik8.zip is empty"),
        (Text8, b"abc Def", r"byte 4 is 0x44, neither a blank nor a small letter"),
    ],
)
def test_bytes_that_are_not_the_official_ones_are_refused(
    tmp_path: Path, task: type[Any], content: bytes, said: str
) -> None:
    name = task.Config().name
    zipped(tmp_path / f"{name}.zip", {name: content})
    keys = {"stand_in": "other"} if said.startswith("byte") else {}
    with pytest.raises(DataError, match=said):
        prepared(task, tmp_path, **keys)


def test_a_zip_is_read_as_far_as_it_is_sound(tmp_path: Path) -> None:
    file = zipped(tmp_path / "enwik8.zip", {"enwik8": BYTES * 50})
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with pytest.raises(DataError, match="truncated or not what its name says"):
        prepared(Enwik8, tmp_path, stand_in="other")
    file.write_bytes(whole[:90] + bytes([whole[90] ^ 255]) + whole[91:])
    with pytest.raises(DataError, match="truncated or not what its name says"):
        prepared(Enwik8, tmp_path, stand_in="other")
    zipped(file, {"another": BYTES})
    with pytest.raises(DataError, match="has no file enwik8"):
        prepared(Enwik8, tmp_path, stand_in="other")


@pytest.mark.parametrize(
    "task", [Enwik8, Text8, WikiText103, WikiText2, WikiText103Pieces, RfcBytes]
)
def test_what_is_missing_is_said_once_and_whole(tmp_path: Path, task: type[Any]) -> None:
    name = task.Config().name
    with pytest.raises(DataError) as caught:
        prepared(task, tmp_path)
    assert re.search(rf"no data for {name}.*get: .*\n  try: .*task={name}", str(caught.value), re.S)


def words(folder: Path, lines: dict[str, str]) -> None:
    (folder / "wikitext-2").mkdir(exist_ok=True)
    for split, text in lines.items():
        (folder / "wikitext-2" / f"wiki.{split}.tokens").write_text(text)


def test_words_are_numbered_by_their_frequency_and_lines_end(tmp_path: Path) -> None:
    words(tmp_path, LINES)
    task = prepared(WikiText2, tmp_path, stand_in="two", length=4)
    counts = Counter(word for line in LINES["train"].split("\n")[:-1] for word in line.split())
    assert task.text_of(range(task.spec.vocab_size)).split()[:2] == ["the", "="]
    assert task.spec.vocab_size == len(counts) + 1  # and the end of a line
    expected = "\n" + "\n".join(" ".join(line.split()) for line in LINES["test"].split("\n")[1:])
    found = text_of(task, "test").replace(" \n", "\n")
    assert found == expected.replace(" a ", " <unk> ")
    assert len(task.test[0]["values"]) == 5 + 3  # words and line ends
    with pytest.raises(DataError, match="the prompt is empty"):
        task.prompt_of(" ")
    assert task.text_of(task.tokens_of("the dog\nnever saw")) == "the dog \n<unk> saw"


@pytest.mark.filterwarnings("error")
def test_words_can_be_looked_at(tmp_path: Path) -> None:
    """Also those in signs that the font of the picture has not."""
    words(tmp_path, {split: text.replace("dog", "犬") for split, text in LINES.items()})
    task = prepared(WikiText2, tmp_path, stand_in="two", length=4)
    draw_sheet(task, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_a_folder_of_words_is_no_official_set_and_neither_is_any_zip(tmp_path: Path) -> None:
    words(tmp_path, LINES)
    with pytest.raises(DataError, match=r"wikitext-2-v1.zip \(sha256(.|\n)*stand_in=<name>"):
        prepared(WikiText2, tmp_path)
    members = {f"wikitext-2/wiki.{split}.tokens": text.encode() for split, text in LINES.items()}
    zipped(tmp_path / "wikitext-2-v1.zip", members)
    with pytest.raises(DataError, match=r"is not the official wikitext-2-v1\.zip: its sha256"):
        prepared(WikiText2, tmp_path)
    assert prepared(WikiText2, tmp_path, stand_in="two").meta.source == "two"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the hub has of WikiText: a list of lines for each split; the numbers of them pass."""
    found = {
        split: [line and f"{line}\n" for line in text.split("\n")[:-1]]
        for split, text in (
            ("train", LINES["train"]),
            ("validation", LINES["valid"]),
            ("test", LINES["test"]),
        )
    }
    found = {
        split: [line if line.strip() else "" for line in lines] for split, lines in found.items()
    }

    def load_split(repository: str, split: str, edition: str | None) -> Dataset:
        assert (repository, edition) == ("Salesforce/wikitext", "wikitext-2-v1")
        return Dataset.from_dict({"text": found[split]})

    monkeypatch.setattr("tasks.sources.locate.load_split", load_split)
    monkeypatch.setattr(WikiText2, "train_lines", len(found["train"]))
    monkeypatch.setitem(HELD_OUT, "val", len(found["validation"]))
    monkeypatch.setitem(HELD_OUT, "test", len(found["test"]))
    monkeypatch.setattr(WikiText2, "official_words", len({*LINES["train"].split()}) + 1)
    return found


def test_the_hub_has_the_words_of_the_zip(tmp_path: Path, hub: dict[str, list[str]]) -> None:
    words(tmp_path, LINES)
    files = prepared(WikiText2, tmp_path, stand_in="two", length=4)
    task = prepared(WikiText2, tmp_path, length=4)
    assert task.meta.fingerprint == files.meta.fingerprint
    assert task.meta.source == "official"
    assert task.folder == prepared(WikiText2, tmp_path, source="hub", length=4).folder


@pytest.mark.parametrize("keys", [{}, {"source": "hub"}])
def test_another_set_of_the_hub_is_refused(
    tmp_path: Path, hub: dict[str, list[str]], keys: dict[str, str]
) -> None:
    hub["validation"].append("more")
    with pytest.raises(
        DataError, match=r"val has 3 lines of text instead of 2(.|\n)*wikitext-2-v1.zip"
    ):
        prepared(WikiText2, tmp_path, **keys)
    with pytest.raises(ValueError, match="leave out source=hub"):
        WikiText2.Config(stand_in="two", source="hub")


def tokenizer(file: Path) -> Tokenizer:
    """A small one of GPT-2's kind, in a file."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(LINES.values(), trainer)
    found.add_tokens(["@-@"])
    found.enable_truncation(3)  # as the files of some models have it; a corpus is not cut
    found.enable_padding()
    found.save(str(file))
    found.no_truncation(), found.no_padding()
    return found


def test_pieces_are_counted_to_the_highest_number() -> None:
    vocabulary = {"a": 0, "b": 7}
    content = Tokenizer(models.WordLevel(vocabulary, unk_token="a")).to_str()
    assert pieces_of(tokenizer_of(content.encode())) == 8


def test_pieces_are_those_of_the_tokenizer_line_by_line(tmp_path: Path) -> None:
    lines = {split: text.replace("dog", "dög") for split, text in LINES.items()}
    members = {f"wikitext-103-raw/wiki.{split}.raw": text.encode() for split, text in lines.items()}
    zipped(tmp_path / "wikitext-103-raw-v1.zip", members)
    cutter = tokenizer(tmp_path / "tokenizer.json")
    keys = {"stand_in": "mine", "tokenizer": str(tmp_path / "tokenizer.json"), "length": 4}
    task = prepared(WikiText103Pieces, tmp_path, **keys)
    assert task.spec.vocab_size == task.spec.num_classes == cutter.get_vocab_size()
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        kept = [f"{line}\n" for line in lines[name].split("\n")[:-1] if line.strip()]
        found = [number for row in task.split(split)["values"] for number in row]
        assert found == [number for line in kept for number in cutter.encode(line).ids]
        assert task.text_of(found) == "".join(kept)
    (tmp_path / "tokenizer.json").rename(tmp_path / "moved.json")
    again = prepared(
        WikiText103Pieces, tmp_path, **{**keys, "tokenizer": str(tmp_path / "moved.json")}
    )
    assert again.folder == task.folder
    assert again.text_of(again.tokens_of("the cät")) == "the cät"
    loaded = WikiText103Pieces(WikiText103Pieces.Config(**{**keys, "tokenizer": "gone"}), tmp_path)
    loaded.expect(task.meta.summary())  # as of a run: the prepared text has the tokenizer
    assert loaded.tokens_of("the dog").tolist() == cutter.encode("the dog").ids
    assert loaded.spec.vocab_size == cutter.get_vocab_size()
    elsewhere = WikiText103Pieces(loaded.config, tmp_path / "elsewhere")
    elsewhere.expect(task.meta.summary())
    with pytest.raises(DataError, match=r"^no data for wikitext103_bpe"):
        elsewhere.tokens_of("the dog")
    elsewhere.expect(task.meta.summary(), task.lexicon())  # of a model that was saved
    assert elsewhere.tokens_of("the dog").tolist() == cutter.encode("the dog").ids
    assert elsewhere.lexicon() == task.lexicon()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        ("{}", "the tokenizer cannot be read"),
        ("", "cannot be read"),
        (Tokenizer(models.WordLevel({"a": 0})).to_str(), "the tokenizer cannot cut the text"),
    ],
)
def test_a_tokenizer_that_is_none_is_said(tmp_path: Path, content: str | None, said: str) -> None:
    zipped(tmp_path / "wikitext-103-raw-v1.zip", {"wikitext-103-raw/wiki.train.raw": b"a b"})
    if content is not None:
        (tmp_path / "t.json").write_text(content)
    with pytest.raises(DataError, match=said):
        prepared(WikiText103Pieces, tmp_path, stand_in="x", tokenizer=str(tmp_path / "t.json"))
    with pytest.raises(DataError, match=r"gpt2 on the Hugging Face hub: (.|\n)*task.tokenizer="):
        prepared(WikiText103Pieces, tmp_path, stand_in="x")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"valid": ""}, "no wikitext-2/wiki.valid.tokens"), ({"test": "\udc80"}, "not in UTF-8")],
)
def test_words_that_are_none_are_named(tmp_path: Path, change: dict[str, str], said: str) -> None:
    words(tmp_path, LINES)
    for split, text in change.items():
        file = tmp_path / "wikitext-2" / f"wiki.{split}.tokens"
        file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=said):
        prepared(WikiText2, tmp_path, stand_in="two")


def own_folder(folder: Path, files: int) -> Path:
    for number in range(files):
        (folder / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        (folder / f"{number % 3}" / f"{number}.txt").write_text(f"{number} " * 30)
    (folder / ".hidden").write_text("x")
    (folder / "empty").write_bytes(b"")
    return folder


def test_a_folder_is_split_by_document_in_an_order_of_the_seed(tmp_path: Path) -> None:
    path = own_folder(tmp_path / "texts", 60)
    task = prepared(Bytes, tmp_path / "a", path=str(path), length=8)
    texts = {split: text_of(task, split).split("\0") for split in ("train", "val", "test")}
    assert all(parts.pop() == "" for parts in texts.values())  # each ends with the end symbol
    whole = [each for parts in texts.values() for each in parts]
    assert sorted(whole) == sorted(f"{number} " * 30 for number in range(60))
    assert {split: len(parts) for split, parts in texts.items()} in (
        {"train": 54, "val": 3, "test": 3},
        {"train": 52, "val": 4, "test": 4},
        {"train": 53, "val": 4, "test": 3},
        {"train": 53, "val": 3, "test": 4},
    )
    assert task.meta.parameters["split"] == "document"
    again = prepared(Bytes, tmp_path / "b", path=str(path), length=8)
    other = prepared(Bytes, tmp_path / "c", path=str(path), length=8, data_seed=1)
    assert task.meta.fingerprint == again.meta.fingerprint != other.meta.fingerprint


def test_a_file_is_split_by_share_and_another_text_is_prepared_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("0123456789" * 20)
    task = prepared(Bytes, tmp_path, path=str(file), length=4)
    assert task.meta.parameters["split"] == "share"
    assert [len(task.split(each)[0]["values"]) for each in ("train", "val", "test")] == [
        180,
        10,
        10,
    ]
    assert text_of(task, "test") == "0123456789"
    file.write_text("9876543210" * 20)
    assert prepared(Bytes, tmp_path, path=str(file), length=4).folder != task.folder


def test_a_text_that_changes_while_it_is_read_is_not_prepared(tmp_path: Path) -> None:
    """It would lie under the checksum of what it was: a file that another program writes."""
    file = tmp_path / "a.txt"
    file.write_text("0123456789" * 20)
    task = Bytes(Bytes.Config(path=str(file), length=4), tmp_path)
    known = task.folder
    file.write_text("0123456789" * 21)
    with pytest.raises(DataError, match=r"has changed while it was read(.|\n)*try: "):
        task.prepare_data(show=False)
    assert not known.exists()


def test_a_document_that_is_there_again_is_taken_once(tmp_path: Path) -> None:
    """A copy or a link in the test would be a text that was trained on."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "abcd":
        (folder / name).write_bytes(name.encode() * 30)
    (folder / "e").symlink_to(folder / "a")
    shutil.copy(folder / "b", folder / "f")
    task = prepared(Bytes, tmp_path / "data", path=str(folder), length=8)
    texts = [text_of(task, split) for split in ("train", "val", "test")]
    assert Counter("".join(texts).replace("\0", "")) == Counter("abcd" * 30)


def test_a_pattern_chooses_among_the_files_of_a_folder(tmp_path: Path) -> None:
    path = own_folder(tmp_path / "texts", 12)
    (path / "picture.png").write_bytes(b"\x89PNG")
    task = prepared(Bytes, tmp_path, path=str(path), pattern="1*.txt", length=8)
    found = sorted(text_of(task, split) for split in ("train", "val", "test"))
    assert found == sorted(f"{number} " * 30 + "\0" for number in (1, 10, 11))


@pytest.mark.parametrize("ending", ["zip", "tar", "gztar", "xztar"])
def test_an_archive_is_the_files_that_are_in_it(tmp_path: Path, ending: str) -> None:
    """Not its own bytes, of which nothing can be learnt."""
    own_folder(tmp_path / "texts", 9)
    file = shutil.make_archive(str(tmp_path / "packed"), ending, tmp_path / "texts")
    task = prepared(Bytes, tmp_path / "data", path=file, pattern="[0-5].txt", length=8)
    texts = [text_of(task, split).split("\0")[:-1] for split in ("train", "val", "test")]
    assert sorted(chain.from_iterable(texts)) == sorted(f"{number} " * 30 for number in range(6))
    with pytest.raises(DataError, match=r"no file z with anything in it(.|\n)*pattern='\*'"):
        prepared(Bytes, tmp_path / "data", path=file, pattern="z")


@pytest.mark.parametrize("files", [3, 4])
def test_few_documents_leave_none_without_a_part(tmp_path: Path, files: int) -> None:
    path = own_folder(tmp_path / "texts", files)
    task = prepared(Bytes, tmp_path, path=str(path), length=8)
    assert [len(task.split(each)) for each in ("val", "test")] == [1, 1]


@pytest.mark.parametrize("seed", range(6))
def test_most_of_a_text_is_not_held_out(tmp_path: Path, seed: int) -> None:
    """A book beside two notes is what is trained on, whatever the order."""
    for name, length in (("book", 900), ("note", 90), ("other", 80)):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_text("a" * length)
    task = prepared(Bytes, tmp_path, path=str(tmp_path / "texts"), length=8, data_seed=seed)
    assert len(text_of(task, "train")) == 901


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, r"task=bytes has no text(.|\n)*task.path=<a file or a folder>"),
        ("nowhere", "there is no such file or folder"),
        ("empty.txt", "is empty"),
        ("none", r"has no file \* with anything in it"),
    ],
)
def test_a_text_that_is_none_is_said(tmp_path: Path, path: str | None, said: str) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=said):
        prepared(Bytes, tmp_path, path=path and str(tmp_path / path))


def test_a_text_shorter_than_a_window_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789" * 20)
    task = prepared(Bytes, tmp_path, path=str(tmp_path / "a.txt"), length=64)
    assert len(task.samples("train")) == 2
    with pytest.raises(DataError, match=r"10 tokens in val(.|\n)*task.length=8"):
        task.samples("val")


def test_rfcs_as_bytes_are_split_by_document_without_boilerplate(tmp_path: Path) -> None:
    rows, links = made(60)
    rows[30]["year"] = 1968  # as RFC 31 has it
    write_packed(tmp_path / "rfc", rows, links, compress=True)
    (tmp_path / "rfc" / "citations.tsv.xz").unlink()  # of no use here
    task = prepared(RfcBytes, tmp_path, length=16, max_characters=100)
    found = [text_of(task, split).split("\0")[:-1] for split in ("train", "val", "test")]
    bodies = [str(row["text_masked"]).partition("All of it.\n\n")[2][:100] for row in rows]
    kept = [body for body, row in zip(bodies, rows, strict=True) if not row["listing"]]
    assert sorted(chain.from_iterable(found)) == sorted(kept)
    assert [len(each) for each in found][1:] == [3, 3]
    assert task.meta.facts == {"documents": 57, "newest": 59}
    assert not task.meta.stand_in


@pytest.mark.parametrize("own", [0, 2])
def test_rfcs_that_are_too_few_to_be_split_are_said(tmp_path: Path, own: int) -> None:
    rows, links = made(5)
    for number, row in enumerate(rows):
        row["listing"] = number >= own
    write_packed(tmp_path / "rfc", rows, links)
    with pytest.raises(DataError, match=rf"rfc: {own} RFCs that are no list(.|\n)*get: "):
        prepared(RfcBytes, tmp_path, length=16)


def test_a_context_leaves_something_to_score() -> None:
    with pytest.raises(ValueError, match="try context=4"):
        WindowsConfig(length=8, context=8)
    assert WindowsConfig(length=8).carried == 4
