"""The global convolution against its definition, tap by tap."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chela.testing import DIM
from tests.model.baseline_variants import make_baseline


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["sgconv", "sgconv-1"])
def test_the_mixer_is_its_formula(name, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(13, DIM, dtype=torch.float64)
    kernel = mixer.kernel(13)
    y = []
    for t in range(13):
        token = mixer.skip * x[t] + sum(kernel[0, :, lag] * x[t - lag] for lag in range(t + 1))
        if not causal:
            later = range(1, 13 - t)
            token = token + sum(kernel[1, :, lag - 1] * x[t + lag] for lag in later)
        y.append(token)
    mixed = F.gelu(torch.stack(y)) @ mixer.out.weight.T + mixer.out.bias
    a, b = mixed.chunk(2, dim=-1)
    torch.testing.assert_close(mixer(x[None])[0], a * torch.sigmoid(b))


def test_the_kernel_is_as_sgconv_stretches_and_weighs_it():
    """2 + 2 taps as they are, then stretched to 4 and to 8; each scale half as large."""
    mixer = make_baseline("sgconv", causal=True, max_length=16, taps=2)
    parts = mixer.kernel.sub_kernels[:, 0]  # (scales, D, taps)
    assert parts.shape == (4, DIM, 2)
    first = torch.cat([parts[0], 0.5 * parts[1]], dim=-1)
    a, b = parts[2].unbind(-1)
    third = 0.25 * torch.stack([a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b], dim=-1)
    kernel = mixer.kernel(16) * mixer.kernel.initial_norm
    torch.testing.assert_close(kernel[0, :, :4], first)
    torch.testing.assert_close(kernel[0, :, 4:8], third)
