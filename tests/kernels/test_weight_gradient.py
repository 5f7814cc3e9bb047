"""The gradient of a linear map's weight and bias against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chela.kernels.tokens import launching
from tests.kernels.comparison import assert_close, on_a_gpu
from tests.kernels.token_cases import DEVICE

pytestmark = pytest.mark.usefixtures("poisoned_memory")
NARROW = [torch.bfloat16, torch.float16]


def operands(
    tokens: int, outputs: int, inputs: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(tokens)
    return tuple(torch.randn(tokens, c, device=DEVICE).to(dtype) for c in (outputs, inputs))


def check(dy: Tensor, x: Tensor) -> None:
    """Operands are exact and sums in float32, which tensor cores cut off instead of rounding: over
    many tokens 2e-5 of the norm were seen on an H100, far below what rounding dy and x costs.
    """
    tolerance = 1e-5 if len(x) <= 500 else 1e-4
    weight = torch.empty(dy.shape[1], x.shape[1])
    both = launching.weight_and_bias(launching.weight_gradient(dy, x), weight)
    expected = (dy.double().t() @ x.double(), dy.double().sum(0))
    for mine, true in zip(both, expected, strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, true, tolerance)


@pytest.mark.parametrize("dtype", [*NARROW, torch.float32])
@pytest.mark.parametrize("tokens", [1, 63, 64, 500])
def test_any_number_of_tokens(dtype, tokens):
    check(*operands(tokens, 24, 40, dtype))


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (17, 130), (256, 128), (60, 80)])
def test_any_width(outputs, inputs):
    check(*operands(200, outputs, inputs))


def test_two_runs_agree_to_the_bit():
    dy, x = operands(500, 64, 64)
    one, other = (launching.weight_gradient(dy, x) for _ in range(2))
    assert torch.equal(one, other)


@on_a_gpu
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(256, 128), (128, 256), (320, 160), (30, 60), (1024, 512)]
)
@pytest.mark.parametrize("tokens", [1, 51200, 100001])
def test_larger_sizes(dtype, outputs, inputs, tokens):
    check(*operands(tokens, outputs, inputs, dtype))
