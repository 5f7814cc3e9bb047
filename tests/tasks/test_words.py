"""Corpora of words and of pieces: numbered as they say, and plain errors otherwise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.errors import DataError
from tasks.language.pieces import WikiText103Pieces, pieces_of, tokenizer_of
from tasks.language.wikitext import HELD_OUT
from tasks.language.words import WikiText2
from tasks.show.pictures import draw_sheet
from tests.tasks.corpora import prepared, text_of, zipped

LINES = {
    "train": " \n = Title = \n \n the cat saw the <unk> @-@ dog \n the end \n \n",
    "valid": " \n the dog saw the end \n",
    "test": " \n the dog saw a cat \n \n",
}


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
