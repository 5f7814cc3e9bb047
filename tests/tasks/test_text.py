"""The Text task from small files in the official form, a tar of them, and the hub's schema."""

from __future__ import annotations

import random
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tasks.base import TaskSpec
from tasks.errors import DataError
from tasks.text import reviews as text_reviews
from tasks.text.reviews import Review, checksum
from tasks.text.task import Text, TextConfig, held_out
from tests.tasks.samples import fingerprint_of, ready

Make = Callable[..., Text]
WORDS = ["good", "BAD", "<br /><br />", '"quoted"', "tab\there", "café", "\x96", "naïve", "🎬"]


def reviews(split: str) -> dict[str, list[str]]:
    """30 short texts of each class; one of train's is there twice."""
    made = random.Random(split)
    texts = {
        name: [
            f"{name} {n}: " + " ".join(made.choices(WORDS, k=made.randint(1, 9))) for n in range(30)
        ]
        for name in ("neg", "pos")
    }
    texts["pos"][7] = texts["pos"][3]
    return texts


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with ``aclImdb`` as the archive unpacks."""
    root = tmp_path / "data" / "aclImdb"
    for split in ("train", "test"):
        for name, texts in reviews(split).items():
            (root / split / name).mkdir(parents=True)
            for number, text in enumerate(texts):
                (root / split / name / f"{number}_{number % 10}.txt").write_bytes(text.encode())
    (root / "train" / "unsup").mkdir()
    (root / "train" / "unsup" / "0_0.txt").write_text("no label")
    (root / "imdb.vocab").write_text("good\nbad\n")
    return tmp_path / "data"


@pytest.fixture
def text(data_dir: Path) -> Make:
    """``text(level="bytes")``: the small task as a stand-in; not yet prepared."""

    def build(**changes: Any) -> Text:
        place = changes.pop("data_dir", data_dir)
        config = {"stand_in": "toy", "min_frequency": 2, **changes}
        return Text(TextConfig(**config), place)

    return build


@pytest.fixture
def as_official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small data have the official checksums."""
    for split in ("train", "test"):
        found = sorted(
            Review(text.encode(), label)
            for label, name in enumerate(("neg", "pos"))
            for text in reviews(split)[name]
        )
        monkeypatch.setitem(text_reviews.OFFICIAL, split, checksum(found))


def packed(data_dir: Path, name: str = "aclImdb_v1.tar.gz") -> Path:
    """The folder as a tar in an order of its own; the folder is gone."""
    root = data_dir / "aclImdb"
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    random.Random(0).shuffle(files)
    with tarfile.open(data_dir / name, "w:gz") as archive:
        for file in files:
            archive.add(file, arcname=file.relative_to(data_dir).as_posix())
    root.rename(data_dir / "away")
    return data_dir / name


def on_the_hub(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """A hub with the real one's schema, negatives first."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})

    def load_dataset(repository: str, split: str) -> Dataset:
        assert repository == "stanfordnlp/imdb"
        texts = reviews(split)
        columns = {"text": [*texts["neg"], *texts["pos"]], "label": [0] * 30 + [1] * 30}
        if changes:
            return Dataset.from_dict(columns | changes)
        return Dataset.from_dict(columns, features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_the_defaults_are_s4s_task() -> None:
    config = TextConfig()
    assert (config.level, config.length, config.min_frequency) == ("characters", 4096, 15)
    assert TextConfig(level="bytes").length == 4000


@pytest.mark.parametrize("level, longest", [("characters", 21), ("bytes", 20)])
def test_from_files_to_batches(text: Make, level: str, longest: int) -> None:
    task = ready(text(level=level, max_length=longest))
    assert [len(split) for split in (task.train, task.val, task.test)] == [54, 6, 60]
    assert (task.meta.source, task.meta.stand_in) == ("toy", True)
    assert fingerprint_of(task.folder) == task.meta.fingerprint
    vocabulary = 257
    if level == "characters":
        cut = [text[:20] for texts in reviews("train").values() for text in texts]
        counts = Counter("".join(cut))
        vocabulary = 3 + sum(count >= 2 for count in counts.values())
    assert task.spec == TaskSpec("text", 2, longest, vocabulary, input_dim=1)
    for batch in list(task.batches("train", 8))[:-1]:
        assert batch.values.shape == (8, int(batch.lengths.max()))
        assert int(batch.values.max()) < vocabulary
    assert sum(len(batch.targets) for batch in task.batches("test", 7)) == 60


def test_every_review_is_there_once_with_its_label(text: Make) -> None:
    task = ready(text())
    for split, source in (("test", ["test"]), ("train+val", ["train", "val"])):
        shown = [
            (task.sample(name, row), task.split(name)[row]["label"])
            for name in source
            for row in range(len(task.split(name)))
        ]
        official = reviews(split.split("+")[0])
        both = [(text, int(name == "pos")) for name, texts in official.items() for text in texts]
        assert sorted(shown) == sorted(both)


def test_folder_tar_and_hub_are_the_same(
    text: Make, data_dir: Path, as_official: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(**changes: Any) -> Text:
        task = ready(text(stand_in=None, **changes))
        task.folder.rename(task.folder.with_name(f"was-{len(found)}"))
        return task

    found: list[Text] = []
    found.append(prepared())
    packed(data_dir)
    found.append(prepared(source="official"))
    (data_dir / "aclImdb_v1.tar.gz").unlink()
    on_the_hub(monkeypatch)
    found.append(prepared())
    found.append(prepared(source="hub"))
    assert len({task.meta.fingerprint for task in found}) == 1
    assert [task.meta.source for task in found] == ["official"] * 4
    assert not any(task.meta.stand_in for task in found)


def test_prepared_data_need_no_source(text: Make, data_dir: Path) -> None:
    before = ready(text()).meta
    packed(data_dir).unlink()
    after = ready(text())
    assert after.meta == before
    assert after.spec == ready(text()).spec


def test_other_files_need_a_name_of_their_own(text: Make, data_dir: Path) -> None:
    (data_dir / "aclImdb" / "test" / "neg" / "0_0.txt").unlink()
    for make_tar in (False, True):
        if make_tar:
            packed(data_dir)
        with pytest.raises(DataError) as caught:
            text(stand_in=None).prepare_data()
        for part in ("aclImdb", "train split is not the official", "30 negative", "task.stand_in="):
            assert part in str(caught.value)
    assert ready(text()).meta.stand_in


def test_a_changed_byte_is_seen(text: Make, data_dir: Path, as_official: None) -> None:
    file = data_dir / "aclImdb" / "test" / "pos" / "4_4.txt"
    file.write_bytes(file.read_bytes().replace(b"pos", b"Pos"))
    task = text(stand_in=None)
    with pytest.raises(DataError, match="test split is not the official"):
        task.prepare_data()
    assert not task.folder.exists()


def test_the_protocol_of_the_arena_has_no_validation_split(text: Make) -> None:
    task, held = ready(text(protocol="lra")), ready(text())
    assert task.protocol == "lra"
    assert list(task.meta.splits) == ["train", "test"]
    assert len(task.train) == 60
    assert task.val is task.test
    assert task.spec == held.spec  # the same symbols: counted before the tenth is taken away
    assert task.folder != held.folder
    assert list(task.test["values"]) == list(held.test["values"])


def test_the_tenth_is_stratified_seeded_and_keeps_equal_texts_together() -> None:
    found = sorted(Review(b"%d" % (n // 3), n // 3 % 2) for n in range(600))  # each text 3 times
    held = held_out(found, seed=0)
    for label in (0, 1):
        assert held[[review.label == label for review in found]].sum() == 30
    sides: dict[bytes, set[bool]] = {}
    for review, side in zip(found, held.tolist(), strict=True):
        sides.setdefault(review.text, set()).add(side)
    assert all(len(side) == 1 for side in sides.values())
    assert (held == held_out(found, seed=0)).all()
    assert (held != held_out(found, seed=1)).any()


def test_a_boundary_takes_the_whole_group_and_a_few_reviews_give_one() -> None:
    group = [Review(b"same", 0)] * 20 + [Review(b"x", 1), Review(b"y", 1)]
    held = held_out(sorted(group), seed=0)
    assert held.tolist()[:20] == [True] * 20  # a tenth, 2, cannot be parted from the others
    assert held[20:].sum() == 1


def test_the_tenth_is_a_law_of_all_versions() -> None:
    found = [Review(b"%03d" % n, n % 2) for n in range(40)]
    assert np.flatnonzero(held_out(found, seed=0)).tolist() == [18, 23, 38, 39]


def test_what_determines_the_data_names_the_folder(text: Make) -> None:
    folder = text().folder
    assert text(max_length=4096).folder == folder  # what null means
    for other in ("level=bytes", "max_length=99", "min_frequency=3", "protocol=lra", "data_seed=1"):
        key, value = other.split("=")
        assert text(**{key: int(value) if value.isdigit() else value}).folder != folder, other
    assert text(stand_in="other").folder != folder
    # what has no part in the data is not in the name
    assert text(level="bytes").folder == text(level="bytes", min_frequency=9).folder
    assert text(protocol="lra").folder == text(protocol="lra", data_seed=9).folder


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", r"3_3\.txt is empty"),
        (b"good \xff film", r"3_3\.txt, byte 5: 0xff is not UTF-8"),
        (b"cut \xc3", r"3_3\.txt, byte 4: 0xc3 is not UTF-8"),
    ],
)
@pytest.mark.parametrize("tar", [False, True])
def test_bad_files_are_named(text: Make, data_dir: Path, content, what, tar: bool) -> None:
    (data_dir / "aclImdb" / "train" / "neg" / "3_3.txt").write_bytes(content)
    if tar:
        packed(data_dir)
    with pytest.raises(DataError, match=what):
        text().prepare_data()
    assert not text().folder.exists()


@pytest.mark.parametrize("tar", [False, True])
def test_harmless_oddities_of_a_folder_are_read(text: Make, data_dir: Path, tar: bool) -> None:
    """macOS's hidden files, a byte-order mark, folders that are links to another disk."""
    expected = ready(text()).meta.fingerprint
    root = data_dir / "aclImdb"
    (root / "train" / "pos" / "._0_0.txt").write_bytes(b"\0\5\x16\7\xff")
    review = root / "test" / "neg" / "1_1.txt"
    review.write_bytes(b"\xef\xbb\xbf" + review.read_bytes())
    if tar:
        packed(data_dir)
    else:
        (root / "train").rename(data_dir / "elsewhere")
        (root / "train").symlink_to(data_dir / "elsewhere")
    assert ready(text(stand_in="again")).meta.fingerprint == expected


def test_a_missing_class_is_named(text: Make, data_dir: Path) -> None:
    (data_dir / "aclImdb" / "test" / "pos").rename(data_dir / "aclImdb" / "test" / "positive")
    with pytest.raises(DataError, match=r"aclImdb, test: there is no review of the class 'pos'"):
        text().prepare_data()


@pytest.mark.parametrize(
    "changes, what",
    [({"label": [0] * 59 + [-1]}, "label -1 is neither 0 nor 1"), ({"label": [0] * 60}, "'pos'")],
)
def test_another_hub_dataset_is_refused(text: Make, data_dir, monkeypatch, changes, what) -> None:
    on_the_hub(monkeypatch, **changes)
    with pytest.raises(DataError, match=what):
        text(stand_in=None, source="hub").prepare_data()


def test_other_columns_of_the_hub_are_refused() -> None:
    with pytest.raises(DataError, match="the columns are review, label"):
        text_reviews.read_hub({"train": Dataset.from_dict({"review": ["a"], "label": [0]})})


def test_without_data_the_error_says_what_to_get(text: Make, tmp_path: Path) -> None:
    task = text(stand_in=None, data_dir=tmp_path / "none")
    with pytest.raises(DataError) as caught:
        task.prepare_data()
    for part in ("none/aclImdb", "aclImdb_v1.tar.gz (84,125,825 bytes", "stanfordnlp/imdb"):
        assert part in str(caught.value)
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError) as caught:
        text(data_dir=tmp_path / "none").prepare_data()  # a stand-in is never fetched
    assert "stanfordnlp" not in str(caught.value)


def test_what_cannot_be_is_refused(text: Make) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        text(stand_in="../x")
    with pytest.raises(ValueError, match="source=hub"):
        text(source="hub")


def test_a_batch_is_the_stored_numbers_padded_with_zeros(text: Make) -> None:
    task = ready(text())
    batch = next(iter(task.batches("test", 7)))
    longest = max(batch.lengths.tolist())
    stored = task.test[:7]["values"]
    assert batch.values.tolist() == [row + [0] * (longest - len(row)) for row in stored]
    assert batch.lengths.tolist() == [len(row) for row in stored]
