"""An objective against its definition: targets one by one, in sums that can be cut anywhere."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from chela.model import BackboneConfig, TokenModel
from chela.objectives import OBJECTIVES, objective_of
from chela.objectives.base import ACCURACY, LOSS, Means
from tasks.base import TaskSpec
from tasks.storage.rows import NOTHING, Rows

CLASSES = 5


class Before(torch.nn.Module):
    """A mixer: what stood one place before."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        return x.roll(1, 1)


def answers(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and targets in the shapes of an objective."""
    torch.manual_seed(3)
    shape = (8,) if kind == "classification" else (8, 6)
    targets = torch.randint(0, CLASSES, shape)
    if kind == "tokens":
        targets[torch.rand(shape) < 0.5] = NOTHING
        targets[2] = NOTHING  # a sample of which nothing is asked
    return torch.randn(*shape, CLASSES), targets


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_sums_are_those_of_the_targets_one_by_one(kind: str) -> None:
    logits, targets = answers(kind)
    objective = OBJECTIVES[kind](CLASSES)
    losses, hits = [], []
    for scores, target in zip(logits.reshape(-1, CLASSES), targets.flatten().tolist(), strict=True):
        if target != NOTHING:
            losses.append(math.log(sum(map(math.exp, scores.tolist()))) - scores[target].item())
            hits.append(int(scores.argmax()) == target)
    sums = objective.evaluate(logits, targets).sum(0)
    assert objective.evaluate(logits, targets).shape == (len(targets), 4)
    naive = [sum(losses), sum(hits), len(hits), sum(loss**2 for loss in losses)]
    assert sums.tolist() == pytest.approx(naive, rel=1e-6)
    means = Means.of(sums.tolist())
    assert objective.loss(logits, targets).item() == pytest.approx(means.loss, rel=1e-6)
    assert LOSS.error(means) == pytest.approx(np.std(losses) / len(losses) ** 0.5, rel=1e-6)
    right = np.mean(hits)
    assert ACCURACY.error(means) == pytest.approx((right * (1 - right) / len(hits)) ** 0.5)
    for cut in (1, 2, 3, 7):  # also where a part asks nothing
        parts = [slice(0, cut), slice(cut, None)]
        found = sum(objective.evaluate(logits[part], targets[part]).sum(0) for part in parts)
        assert torch.allclose(found, sums, rtol=1e-14)


def test_a_smoothed_target_is_a_mean_over_the_classes() -> None:
    logits, targets = answers("classification")
    losses = torch.stack([-logits.log_softmax(-1)[i, y] for i, y in enumerate(targets.tolist())])
    evenly = -logits.log_softmax(-1).mean(-1)
    found, hits, _ = OBJECTIVES["classification"](CLASSES).judge(logits, targets, 0.1)
    assert torch.allclose(found, 0.9 * losses + 0.1 * evenly, rtol=1e-5)
    assert hits.tolist() == (logits.argmax(-1) == targets).float().tolist()


def test_where_nothing_is_asked_the_loss_is_zero() -> None:
    logits, targets = torch.randn(2, 3, CLASSES, requires_grad=True), torch.full((2, 3), NOTHING)
    loss = OBJECTIVES["tokens"](CLASSES).loss(logits, targets)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()
    assert Means.of([0.0, 0.0, 0.0, 0.0]) == Means(0, 0, 0, 0)


def test_the_first_of_equals_stays_and_nan_never_comes() -> None:
    assert ACCURACY.better(0.0, None) and ACCURACY.better(0.6, 0.5) and LOSS.better(0.5, 0.6)
    for metric in (ACCURACY, LOSS):
        assert not metric.better(0.5, 0.5)
        assert not metric.better(math.nan, None) and not metric.better(math.nan, 0.5)


def test_a_metric_that_the_objective_has_not_is_refused() -> None:
    spec = TaskSpec("mine", CLASSES, 9, CLASSES, 1)
    with pytest.raises(ValueError, match="perplexity is not one of the metrics loss, accuracy"):
        objective_of(spec, "perplexity")


@pytest.mark.parametrize(
    ("config", "documents", "said"),
    [
        (BackboneConfig(dim=8), 2, "tokens are those of 1 sequence"),
        (BackboneConfig(dim=8, pooled_norm="batch"), 1, "nothing is pooled.*set pooled_norm=none"),
        (BackboneConfig(dim=8, pooling="last"), 1, "nothing is pooled.*set pooling=mean"),
    ],
)
def test_what_tokens_cannot_have_is_refused(config, documents: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TokenModel(
            config,
            torch.nn.Identity,
            vocab_size=3,
            input_dim=1,
            num_classes=3,
            documents=documents,
        )


def test_the_head_reads_no_more_places_than_can_be_asked() -> None:
    torch.manual_seed(4)
    model = TokenModel(
        BackboneConfig(dim=8, depth=1, dropout=0.0),
        Before,
        vocab_size=CLASSES,
        input_dim=1,
        num_classes=CLASSES,
    )
    read: list[tuple[int, ...]] = []
    model.head.register_forward_pre_hook(lambda _, inputs: read.append(tuple(inputs[0].shape)))
    values, targets = torch.randint(0, CLASSES, (3, 9)), torch.full((3, 9), NOTHING)
    targets[0, [1, 8]], targets[1, 4] = torch.tensor([2, 0]), 3  # of the third nothing is asked
    spec = TaskSpec("mine", CLASSES, 9, CLASSES, 1, objective="tokens")
    for lengths in (None, torch.tensor([9, 7, 0])):
        sums, gradients = [], []
        for objective in (objective_of(spec), objective_of(replace(spec, answers=2))):
            model.zero_grad()
            answers = objective.ask(model, values, lengths, targets)
            objective.loss(*answers).backward()
            sums.append(objective.evaluate(*answers).sum(0))
            gradients.append(torch.cat([each.grad.flatten() for each in model.parameters()]))
        assert sums[0][2] == 3
        torch.testing.assert_close(*sums)
        torch.testing.assert_close(*gradients)
    assert read == [(3, 9, 8), (3, 2, 8)] * 2


def test_rows_keep_their_targets_beside_their_values() -> None:
    values = np.arange(6, dtype=np.uint8)
    targets = -np.arange(6, dtype=np.int32)
    rows = Rows(values, np.array([0, 1, 3, 6]), np.zeros(3, np.int64), targets)
    for some in (rows.slice(1, 3), rows.select(np.array([False, True, True]))):
        assert some.targets is not None
        assert some.targets.tolist() == [-1, -2, -3, -4, -5]
        assert some.values.tolist() == [1, 2, 3, 4, 5]
