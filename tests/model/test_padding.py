"""Padding never leaks: a batch padded further, with garbage, gives the same logits."""

from __future__ import annotations

import copy

import pytest
import torch

from chela.testing import gradients, padded_further, ragged
from tests.model.variants import BACKBONES, MIXERS, make_model

CASES = [("default", name) for name in BACKBONES]  # test_baselines.py has all mixers
CASES += [
    ("ema-batchnorm", "layer-pre"),
    ("branch-batchnorm", "batch-pre"),
    ("mega-gate", "batch-post"),
    ("ema", "last"),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("mixer", "backbone"), CASES)
def test_the_padded_length_and_its_content_do_not_matter(mixer, backbone, causal, training):
    model = make_model(MIXERS[mixer], BACKBONES[backbone], causal=causal).train(training)
    other = copy.deepcopy(model)
    ids, lengths = ragged()
    longer = padded_further(ids, lengths)
    short, long = model(ids, lengths), other(longer, lengths)
    assert torch.isfinite(short).all()
    torch.testing.assert_close(long, short, rtol=1e-10, atol=1e-10)
    for (name, mine), true in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, true, msg=name)  # running statistics too
    longer_gradients = gradients(other, longer, lengths)
    for name, gradient in gradients(model, ids, lengths).items():
        torch.testing.assert_close(longer_gradients[name], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("mixer", "backbone"), CASES)
def test_a_sequence_in_a_batch_is_what_it_is_alone(mixer, backbone, causal):
    model = make_model(MIXERS[mixer], BACKBONES[backbone], causal=causal).eval()
    ids, lengths = ragged()
    together = model(ids, lengths)
    for row, length in enumerate(lengths.tolist()):
        if length:
            alone = model(ids[row : row + 1, :length])  # no lengths: nothing is padded
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(5, 17, 2), (5, 17)])
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_real_values_may_be_padded_with_nan(shape, norm):
    model = make_model({}, {"norm": norm}, tokens=False)
    if len(shape) == 2:
        model.backbone.encoder.linear = torch.nn.Linear(1, 8).double()
    _, lengths = ragged()
    values = torch.randn(shape, dtype=torch.float64)
    dirty = values.clone()
    dirty[torch.arange(17) >= lengths[:, None]] = float("nan")
    other = copy.deepcopy(model)
    clean_gradients = gradients(model, values, lengths)
    for name, gradient in gradients(other, dirty, lengths).items():
        torch.testing.assert_close(gradient, clean_gradients[name], msg=name)
