"""One matrix for the tokens that are read and those that are asked."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from chela.mixers import ChelaMixer
from chela.model import BackboneConfig, Classifier, Model, TokenModel
from chela.objectives import objective_of, tokens
from tasks.base import TaskSpec
from tasks.storage.rows import NOTHING

TIED = BackboneConfig(dim=8, depth=1, head="linear", causal=True, tie_embeddings=True, dropout=0.0)
WORDS = 11


def model_of(config: BackboneConfig, classes: int = WORDS, kind: type[Model] = TokenModel) -> Any:
    torch.manual_seed(0)

    def mixer() -> ChelaMixer:
        return ChelaMixer(config.dim, 16, causal=True)

    return kind(config, mixer, vocab_size=WORDS, input_dim=1, num_classes=classes)


def test_one_matrix_counts_once_and_learns_from_both_ends() -> None:
    tied, apart = model_of(TIED), model_of(dataclasses.replace(TIED, tie_embeddings=False))
    sizes = [sum(each.numel() for each in model.parameters()) for model in (tied, apart)]
    assert sizes[1] - sizes[0] == WORDS * TIED.dim
    apart.load_state_dict(tied.state_dict())  # the same matrix at both ends
    ids = torch.randint(WORDS, (3, 12))
    for model in (tied, apart):
        model(ids).logsumexp(-1).square().sum().backward()
    embedding = apart.backbone.encoder.embedding.weight.grad + apart.head.weight.grad
    torch.testing.assert_close(tied.head.weight.grad, embedding)
    again = copy.deepcopy(tied)
    assert again.head.weight is again.backbone.encoder.embedding.weight


@pytest.mark.parametrize(
    ("change", "classes", "kind", "said"),
    [
        ({"head": "mlp"}, WORDS, TokenModel, "set head=linear"),
        ({}, 5, TokenModel, "set tie_embeddings=false"),
        ({}, WORDS, Classifier, "classes of a sample.*set tie_embeddings=false"),
    ],
)
def test_what_cannot_be_tied_is_refused(
    change: dict, classes: int, kind: type[Model], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        model_of(dataclasses.replace(TIED, **change), classes, kind)


@pytest.mark.parametrize("answers", [None, 4])
@pytest.mark.parametrize("change", [{}, {"head": "mlp", "tie_embeddings": False}])
def test_many_words_are_judged_as_few_are(monkeypatch, change: dict, answers: int | None) -> None:
    """Losses, hits and gradients, whether the scores are ever whole or not."""
    spec = TaskSpec("toy", WORDS, 12, WORDS, 1, objective="tokens", answers=answers)
    model = model_of(dataclasses.replace(TIED, **change)).double()
    ids, targets = torch.randint(WORDS, (2, 3, 12))
    targets[:, : 8 if answers else 2] = NOTHING
    found = []
    for many in (WORDS + 1, WORDS):
        monkeypatch.setattr(tokens, "MANY", many)
        objective = objective_of(spec)
        judged = objective.judge(*objective.ask(model, ids, None, targets))
        model.zero_grad()
        judged[0].sum().backward()
        found.append([*judged, *(each.grad for each in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-5, atol=1e-6)
