"""The long stage: many branches in training, one kernel in inference, the same numbers."""

from __future__ import annotations

import pytest
import torch

from chela.kernels import zero_padding
from chela.mixers.chela.long_conv import FoldedLongConv, LongConv
from chela.testing import DIM, MAX_LENGTH, ragged
from tests.model.variants import MIXERS, make_mixer, make_model

STAGES = {
    "default": {},
    "no-branches": {"branch_widths": ()},
    "branches": {"branch_widths": (1, 3, 7)},
    "wider-than-the-sequence": {"branch_widths": (31,)},
    "batchnorm": {"branch_norm": "batch", "branch_widths": (3, 7)},
    "batchnorm-ema": {"branch_norm": "batch", "long_conv_kernel": "ema"},
    "explicit": {"long_conv_kernel": "explicit"},
    "s4d": {"long_conv_kernel": "s4d"},
}


def stage(causal: bool, name: str) -> LongConv:
    found = make_mixer(causal, **STAGES[name]).long_conv
    assert isinstance(found, LongConv)
    return found


def trained(found: LongConv) -> LongConv:
    """After some steps of running statistics."""
    found.train()
    for _ in range(5):
        found(2 * torch.randn(3, MAX_LENGTH, DIM, dtype=found.skip.dtype) + 0.5)
    return found.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("length", [1, 2, 6, MAX_LENGTH])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", STAGES)
def test_merged_equals_unmerged_and_folded(name, causal, length, dtype, tolerance):
    found = trained(stage(causal, name).to(dtype))
    s = torch.randn(3, length, DIM, dtype=dtype)
    separate, merged = found.unmerged(s), found(s)
    folded = found.fold()
    assert not list(folded.parameters())
    for other in (merged, folded(s)):
        assert (other - separate).norm() <= tolerance * separate.norm()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["default", "branches"])
def test_merging_has_the_same_gradients(name, causal):
    found = stage(causal, name)
    s = torch.randn(2, 9, DIM, dtype=torch.float64, requires_grad=True)
    leaves = [s, *found.parameters()]
    upstream = torch.randn(2, 9, DIM, dtype=torch.float64)
    for mine, true in zip(
        torch.autograd.grad(found(s), leaves, upstream),
        torch.autograd.grad(found.unmerged(s), leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, true)


def test_branch_batchnorm_trains_on_the_batch_and_evaluates_on_the_average():
    found = stage(False, "batchnorm")
    _, lengths = ragged()
    mask = torch.arange(17) < lengths[:, None]
    s = zero_padding(torch.randn(5, 17, DIM, dtype=torch.float64), lengths)
    before = found.norms[0].running_mean.clone()
    in_training = found.train()(s, mask)
    assert not torch.equal(found.norms[0].running_mean, before)
    torch.testing.assert_close(in_training, found(s, mask))  # the batch's own statistics
    assert not torch.allclose(in_training, found.eval()(s, mask))


@pytest.mark.parametrize("causal", [True, False])
def test_branches_align_at_lag_zero_or_around_it(causal):
    found = stage(causal, "no-branches")
    taps = torch.tensor([[1.0, 2.0, 3.0]]).double().expand(DIM, 3)
    sides = found._as_long(taps, 4)[:, 0].tolist()
    assert sides == ([[1, 2, 3, 0]] if causal else [[2, 3, 0, 0], [1, 0, 0, 0]])


def test_longer_than_built_for_names_the_remedy():
    found = stage(False, "default")
    too_long = torch.zeros(1, MAX_LENGTH + 1, DIM).double()
    for module in (found, found.fold()):
        with pytest.raises(ValueError, match="max_length=23; build it with"):
            module(too_long)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", MIXERS)
def test_a_folded_model_gives_the_same_logits(name, causal):
    model = make_model(MIXERS[name], {"norm": "batch"}, causal=causal)
    ids, lengths = ragged()
    expected = model.eval()(ids, lengths)
    size = sum(p.numel() for p in model.parameters())
    folded = model.train().fold()
    assert folded is model
    assert not model.training
    torch.testing.assert_close(model(ids, lengths), expected, rtol=1e-10, atol=1e-12)
    assert not any(hasattr(module, "kernel_parameters") for module in model.modules())
    if MIXERS[name].get("use_long_conv", True):
        assert sum(isinstance(m, FoldedLongConv) for m in model.modules()) == 2
        assert sum(p.numel() for p in model.parameters()) < size
    model.fold()  # once more changes nothing
    torch.testing.assert_close(model(ids, lengths), expected, rtol=1e-10, atol=1e-12)
