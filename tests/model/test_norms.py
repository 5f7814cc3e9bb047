"""Norms: what padding must not touch, and BatchNorm against PyTorch's on the real tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from chela.layers.norms import BatchNorm, RMSNorm, make_norm

LENGTHS = torch.tensor([7, 0, 1, 4])
MASK = torch.arange(7) < LENGTHS[:, None]


def activations() -> torch.Tensor:
    torch.manual_seed(0)
    return 3 + 2 * torch.randn(4, 7, 5, dtype=torch.float64)


def test_batch_norm_is_pytorchs_on_the_real_tokens():
    ours, reference = BatchNorm(5).double(), nn.BatchNorm1d(5, momentum=None).double()
    with torch.no_grad():
        for norm in (ours, reference):
            norm.weight.copy_(torch.arange(1.0, 6))
            norm.bias.copy_(torch.arange(5.0))
    for _ in range(3):  # the running statistics build up
        x = activations().requires_grad_()
        y, z = ours(x, MASK)[MASK], reference(x[MASK])
        torch.testing.assert_close(y, z)
        upstream = torch.randn_like(z)
        leaves, others = [x, *ours.parameters()], [x, *reference.parameters()]
        for mine, true in zip(
            torch.autograd.grad(y, leaves, upstream),
            torch.autograd.grad(z, others, upstream),
            strict=True,
        ):
            torch.testing.assert_close(mine, true)
    torch.testing.assert_close(ours.running_mean, reference.running_mean)
    torch.testing.assert_close(ours.running_var, reference.running_var)
    x = activations()
    torch.testing.assert_close(ours.eval()(x, MASK)[MASK], reference.eval()(x[MASK]))


def test_the_running_average_is_over_all_batches_then_over_the_recent_ones():
    norm, values = BatchNorm(1, recent=10).double(), torch.randn(40, dtype=torch.float64)

    def mean_after(value):
        norm(value + torch.tensor([[[-1.0], [1.0]]], dtype=torch.float64))
        return norm.running_mean.item()

    means = [mean_after(value) for value in values]
    assert means[9] == pytest.approx(values[:10].mean().item())
    expected = values[:10].mean()
    for value in values[10:]:
        expected = 0.9 * expected + 0.1 * value
    assert means[-1] == pytest.approx(expected.item())
    norm.restart()
    assert mean_after(values[3]) == pytest.approx(values[3].item())


@pytest.mark.parametrize("real", [0, 1])
def test_batch_norm_of_fewer_than_two_tokens_uses_and_keeps_the_running_statistics(real):
    norm = BatchNorm(5).double()
    norm.running_mean.fill_(3)
    norm.running_var.fill_(4)
    before = copy.deepcopy(norm.state_dict())
    x = activations()[:, :1].requires_grad_()
    mask = (torch.arange(4) < real)[:, None]
    y = norm(x, mask)
    torch.testing.assert_close(y, (x - 3) / (4 + 1e-5) ** 0.5)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(gradient).all()
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


def test_batch_norm_without_a_mask_counts_every_token():
    """Computed in another way: to the last digits only."""
    x = activations().requires_grad_()
    masks = (None, torch.ones(4, 7, dtype=torch.bool))
    norms = [BatchNorm(5).double() for _ in masks]
    ours, theirs = (norm(x, mask) for norm, mask in zip(norms, masks, strict=True))
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, upstream)[0] for y in (ours, theirs)))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(*(getattr(norm, name) for norm in norms))


@pytest.mark.parametrize("mask", [None, MASK])
def test_a_batch_that_is_not_finite_leaves_the_running_average(mask):
    """Its step is skipped; evaluation later must not know of it."""
    norm, x = BatchNorm(5).double(), activations()
    norm(x, mask)
    before = copy.deepcopy(norm.state_dict())
    x[0, 0, 2] = float("nan")
    assert norm(x, mask).isnan().any()
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("name", ["layer", "rms", "batch", "scale"])
@pytest.mark.parametrize("training", [True, False])
def test_real_tokens_do_not_see_the_padding(name, training):
    norm = make_norm(name, 5).double().train(training)
    x = activations()
    garbage = torch.where(MASK[..., None], x, torch.full_like(x, float("nan")))
    assert torch.equal(copy.deepcopy(norm)(x, MASK)[MASK], norm(garbage, MASK)[MASK])


@pytest.mark.parametrize(("name", "squared"), [("layer", 5), ("rms", 5), ("scale", 5)])
def test_tokens_have_their_size_and_layer_norm_no_mean(name, squared):
    y = make_norm(name, 5).double()(activations(), None)
    torch.testing.assert_close(
        y.square().sum(-1), torch.full((4, 7), float(squared)).double(), rtol=1e-4, atol=0
    )
    assert (y.mean(-1).abs().max() < 1e-10) == (name == "layer")


def test_gains_are_per_channel_but_one_for_scale_norm():
    assert RMSNorm(5).weight.shape == (5,)
    assert make_norm("scale", 5).weight.shape == (1,)
    x = activations()
    for name in ("rms", "scale", "layer", "batch"):
        norm = make_norm(name, 5).double()
        plain = norm(x, None)
        with torch.no_grad():
            norm.weight.fill_(2)
        torch.testing.assert_close(norm(x, None), 2 * plain)


def test_bfloat16_is_normalised_in_float32():
    x = activations().bfloat16()
    for name in ("rms", "scale", "layer", "batch"):
        y = make_norm(name, 5)(x, None)
        exact = make_norm(name, 5).double()(x.double(), None)
        assert y.dtype == torch.bfloat16
        assert (y.double() - exact).norm() < 4e-3 * exact.norm()
