"""Looking into a model: its kernels, how far an output sees, its test with less of each sample."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from chela.bench.context import cut, measure, powers_to, shuffled
from chela.commands import start
from chela.errors import RunError
from chela.hub import load_run
from chela.inside import long_kernels, receptive_field
from chela.mixers import ChelaConfig, ChelaMixer
from chela.mixers.s4d import S4DConfig, S4DMixer
from chela.model import BackboneConfig, Classifier
from chela.testing import DIM, MAX_LENGTH, Subject
from chela.training.run import run as train
from tasks.base import TaskSpec
from tasks.loader import Batch
from tests.conftest import TINY, composed_of
from tests.model.variants import SMALL
from tests.test_generation import MQAR
from tests.training.runs import folder_of, record_of

CHELA = Subject(ChelaMixer, ChelaConfig(**SMALL))


@pytest.mark.parametrize("causal", [False, True])
def test_a_kernel_is_what_an_impulse_gives(causal: bool) -> None:
    model = CHELA.make_model(causal).eval()
    kernels = long_kernels(model)
    assert len(kernels) == len(model.backbone.blocks)
    impulse = torch.zeros(1, MAX_LENGTH, DIM)
    impulse[:, 9] = 1
    for name, kernel in kernels.items():
        stage = model.float().get_submodule(name)
        with torch.no_grad():
            answer = stage(impulse)[0] - stage(torch.zeros_like(impulse))[0]  # (L, D)
        torch.testing.assert_close(answer[9:], kernel[0, :, : MAX_LENGTH - 9].T)
        before = torch.zeros(9, DIM) if causal else kernel[1, :, :9].T.flip(0)
        torch.testing.assert_close(answer[:9], before)
    folded = long_kernels(model.fold(), length=7)
    assert [*folded] == [*kernels]
    for name, kernel in folded.items():
        torch.testing.assert_close(kernel, kernels[name][..., :7])


def test_a_baseline_has_its_kernels_too() -> None:
    model = Subject(S4DMixer, S4DConfig(state_dim=6)).make_model()
    for name, kernel in long_kernels(model, length=5).items():
        assert torch.equal(kernel, model.get_submodule(name)(5).float())
        assert kernel.shape == (2, DIM, 5)


@pytest.mark.parametrize("length", [0, MAX_LENGTH + 1])
@pytest.mark.parametrize("folded", [False, True])
def test_taps_that_a_kernel_has_not_are_refused(folded: bool, length: int) -> None:
    model = CHELA.make_model().eval()
    with pytest.raises(ValueError, match=f"length={length}, but .* for {MAX_LENGTH} taps"):
        long_kernels(model.fold() if folded else model, length)


@pytest.mark.parametrize("causal", [False, True])
def test_an_output_sees_as_far_as_its_convolutions_reach(causal: bool) -> None:
    parts = {"use_long_conv": False, "use_attention": False, "short_conv_width": 3}
    model = Subject(ChelaMixer, ChelaConfig(**SMALL | parts)).make_model(causal).eval()
    seen = receptive_field(model, torch.arange(10)[None], torch.tensor([10]), place=5)
    reach = slice(1, 6) if causal else slice(3, 8)  # two blocks of width 3
    assert seen.max() == 1 and (seen[reach] > 0).all()
    assert seen.count_nonzero() == 5
    assert not model.backbone.encoder._forward_hooks
    whole = receptive_field(CHELA.make_model(causal).eval(), torch.arange(10)[None])
    assert (whole > 0).all()  # at its last token


def test_a_token_behind_a_sequence_is_refused() -> None:
    ids = torch.zeros(2, 6, dtype=torch.long)
    for place in (6, -7):
        with pytest.raises(ValueError, match=f"place={place}, but the batch has 6 tokens"):
            receptive_field(CHELA.make_model(), ids, place=place)
    with pytest.raises(ValueError, match=r"place=5, but a sequence .* 4 tokens alone"):
        receptive_field(CHELA.make_model(), ids, torch.tensor([6, 4]))


def test_the_last_tokens_stay_and_those_before_are_cut_or_in_another_order() -> None:
    values = torch.stack([torch.arange(40), torch.arange(40, 80)])
    lengths = torch.tensor([40, 9])
    places, kept = cut(values, lengths, 12)
    rows = values.gather(1, places)
    assert kept.tolist() == [12, 9]
    assert rows[0].tolist() == [*range(28, 40)] and rows[1, :9].tolist() == [*range(40, 49)]
    places, kept = shuffled(values, lengths, 12)
    rows = values.gather(1, places)
    assert torch.equal(kept, lengths)
    assert rows[0, 28:].tolist() == [*range(28, 40)] and torch.equal(rows[1], values[1])
    assert sorted(rows[0, :28].tolist()) == [*range(28)] != rows[0, :28].tolist()
    assert powers_to(40) == [4, 8, 16, 32, 40] and powers_to(4) == [4]


def test_both_documents_of_a_pair_are_cut() -> None:
    config = BackboneConfig(dim=DIM, depth=1, dropout=0.0)
    make = lambda: ChelaMixer(DIM, 8, False, ChelaConfig(**SMALL))  # noqa: E731
    form = {"vocab_size": 9, "input_dim": 1, "num_classes": 2}
    model = Classifier(config, make, documents=2, **form).eval()
    values, lengths = torch.arange(32).reshape(2, 2, 8) % 9, torch.tensor([[8, 5], [3, 8]])
    batch = Batch(values, lengths, torch.tensor([0, 1]), torch.arange(2))
    spec = TaskSpec("pairs", 2, 8, vocab_size=9, input_dim=1, documents=2)
    task = SimpleNamespace(spec=spec, metric="loss", batches=lambda split, size: [batch])
    run = SimpleNamespace(model=model, task=task)
    _, (short, whole, *_) = measure(run, [2, 8], samples=2, batch=2, scored=2)
    losses = [
        torch.nn.functional.cross_entropy(model(*given), batch.targets).item()
        for given in (
            (torch.stack([torch.stack([values[i, j, n - 2 : n] for j, n in enumerate(row)])
                          for i, row in enumerate(lengths.tolist())]), torch.full((2, 2), 2)),
            (values, lengths),
        )
    ]  # fmt: skip
    assert [short.value, whole.value] == pytest.approx(losses, rel=1e-5)


@pytest.mark.training
@pytest.mark.parametrize("words", [TINY, MQAR], ids=["listops", "mqar"])
def test_with_all_of_each_sample_it_is_the_test_of_the_run(
    words, tmp_path: Path, capsys, monkeypatch
) -> None:
    torch.set_num_threads(1)
    config = composed_of(*words, f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path}")
    train(config)
    folder = folder_of(config)
    longest = load_run(folder).task.spec.max_length
    start("context", [f"run={folder}", f"keep=[6,{longest}]", f"scored={longest}"])
    tested = record_of(config)["test"]["metrics"]["accuracy"]
    with (folder / "context.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["what is further back"] for row in rows] == ["cut"] * 2 + ["shuffled"] * 2
    for row in (rows[1], rows[3]):
        assert float(row["accuracy"]) == pytest.approx(tested["value"], abs=1e-6)
        assert int(row["answers"]) == record_of(config)["test"]["n"]
    assert (folder / "context.png").stat().st_size > 0
    assert f"last {longest:>6,} tokens" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for word, message in [
        (f"keep=[6,{longest + 1}]", f"a sample has {longest} tokens at most"),
        ("device=cuda", "torch finds no GPU"),
    ]:
        with pytest.raises(SystemExit):
            start("context", [f"run={folder}", word])
        assert message in capsys.readouterr().err


def test_where_nothing_is_asked_the_key_is_named() -> None:
    targets = torch.full((1, 8), -100)
    targets[0, 0] = 1
    batch = Batch(torch.zeros(1, 8).long(), torch.tensor([8]), targets, torch.arange(1))
    spec = TaskSpec("tokens", 2, 8, vocab_size=9, input_dim=1, objective="tokens")
    task = SimpleNamespace(spec=spec, metric="loss", batches=lambda split, size: [batch])
    head = torch.nn.Embedding(9, 2)
    run = SimpleNamespace(model=_Answers(head), task=task)
    with pytest.raises(RunError, match=r"nothing is asked in the last 4 tokens(.|\n)*scored="):
        measure(run, [4], samples=1, batch=1, scored=4)


class _Answers(torch.nn.Module):
    """Logits of each token by itself."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(values)
