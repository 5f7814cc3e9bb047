"""The tensor-core long convolution: against the specification, and as a PyTorch operator.

On a CPU the kernels run interpreted, so cases are small; with a GPU the same cases run compiled,
and those marked ``gpu`` join them. Uninitialised memory is NaN throughout.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chela.kernels.long_conv import convolve, eager, monarch, naive
from tests.kernels.comparison import DEVICE, assert_close, assert_same, gpu_only, narrowed

TOLERANCES = {torch.bfloat16: 5e-3, torch.float16: 2e-3, torch.float32: 1e-5}

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("uninitialised_memory_is_nan")]


def inputs(
    batch: int,
    length: int,
    dim: int,
    taps: int,
    directions: int,
    dtype: torch.dtype,
    scale: float = 1.0,
) -> list[Tensor]:
    """x (not contiguous) in ``dtype``, kernel and skip in float32."""
    torch.manual_seed(length * 100 + taps)
    x = (torch.randn(batch, dim, length, device=DEVICE) * scale).to(dtype).mT.requires_grad_()
    kernel = torch.randn(directions, dim, taps, device=DEVICE) * (taps * directions) ** -0.5
    skip = torch.randn(dim, device=DEVICE, requires_grad=True)
    return [x, kernel.requires_grad_(), skip]


def check(leaves: list[Tensor], reference) -> None:
    """The tensor-core form against ``reference`` in float64, with every gradient."""
    _, wide = narrowed(leaves, torch.float64)
    ours = convolve(*leaves, implementation="triton")
    assert ours.dtype == leaves[0].dtype
    assert_same([ours], [reference(*wide)], leaves, wide, TOLERANCES[ours.dtype])


CASES = [  # batch, length, dim, taps, directions, dtype
    (2, 1, 40, 1, 2, torch.bfloat16),
    (2, 16, 5, 16, 1, torch.float16),
    (1, 63, 9, 63, 2, torch.bfloat16),
    (1, 64, 9, 20, 2, torch.float16),
    (1, 65, 17, 65, 1, torch.bfloat16),  # a second block of rows
    (1, 40, 130, 90, 2, torch.bfloat16),  # two channel blocks; taps beyond the sequence
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_naive_with_every_gradient(case):
    check(inputs(*case), naive.convolve)


@pytest.mark.parametrize("scale", [1e4, 1e-8])
def test_extreme_values(scale):
    x, kernel, _ = inputs(1, 48, 6, 48, 2, torch.bfloat16, scale)
    small = (kernel.detach() * 1e-8).requires_grad_()
    large = (kernel.detach() * 1e8).requires_grad_()
    check([x, small], naive.convolve)
    check([x, large], naive.convolve)


def test_magnitudes_that_differ_along_the_sequence_and_the_kernel():
    x, kernel, skip = inputs(1, 48, 6, 48, 2, torch.bfloat16)
    decay = torch.exp(-0.5 * torch.arange(48, device=DEVICE))  # down to 6e-11, far below float16
    x = (x.detach() * decay[:, None]).bfloat16().requires_grad_()
    kernel = (kernel.detach() * decay).requires_grad_()
    check([x, kernel, skip], naive.convolve)


def test_zeros_stay_zero():
    x, kernel, skip = inputs(1, 20, 4, 20, 2, torch.bfloat16)
    zeros = torch.zeros_like(x)
    assert not convolve(zeros, kernel, skip, implementation="triton").any()
    nothing = convolve(x, torch.zeros_like(kernel), torch.zeros_like(skip), implementation="triton")
    assert not nothing.any()


def test_an_empty_batch():
    x, kernel, skip = inputs(0, 20, 4, 20, 2, torch.bfloat16)
    y = convolve(x, kernel, skip, implementation="triton")
    dx, dkernel, dskip = torch.autograd.grad(y.sum(), [x, kernel, skip])
    assert y.shape == dx.shape == (0, 20, 4)
    assert not dkernel.any()
    assert not dskip.any()


def test_no_gradient_is_computed_that_is_not_asked_for():
    x, kernel, _ = inputs(1, 10, 4, 10, 1, torch.bfloat16)
    frozen = x.detach()
    y = convolve(frozen, kernel, implementation="triton")
    (dkernel,) = torch.autograd.grad(y.float().sum(), [kernel])
    (expected,) = torch.autograd.grad(eager.convolve(frozen, kernel).float().sum(), [kernel])
    assert_close(dkernel, expected.double(), 2e-3)


@pytest.mark.parametrize("with_skip", [True, False])
def test_is_a_well_formed_operator(with_skip):
    x, kernel, skip = inputs(1, 2, 1, 2, 2 if with_skip else 1, torch.bfloat16)
    skip = skip if with_skip else None
    torch.library.opcheck(
        torch.ops.chela.long_conv, (x, kernel, skip, monarch.room_for(x.shape[1]))
    )
    kernel = kernel.detach()
    _, *kept = torch.ops.chela.long_conv(x.detach(), kernel, None, monarch.room_for(x.shape[1]))
    torch.library.opcheck(torch.ops.chela.long_conv_backward, (x.detach(), kernel, *kept))


def test_without_gradients_nothing_is_kept_and_the_output_is_the_same():
    x, kernel, skip = inputs(2, 20, 6, 20, 2, torch.bfloat16)
    plain = convolve(x, kernel, skip, implementation="triton")
    with torch.no_grad():
        assert torch.equal(convolve(x, kernel, skip, implementation="triton"), plain)
        _, mixed, *_ = torch.ops.chela.long_conv(x, kernel, skip, 0)
    assert mixed.numel() == 0


def test_trains_under_ddp(tmp_path):
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            _, kernel, skip = inputs(1, 6, 4, 6, 2, torch.bfloat16)
            self.kernel, self.skip = torch.nn.Parameter(kernel.detach()), torch.nn.Parameter(skip)

        def forward(self, x: Tensor) -> Tensor:
            return convolve(x, self.kernel, self.skip, implementation="triton")

    x = inputs(2, 6, 4, 6, 2, torch.bfloat16)[0].detach()
    alone = Module()
    alone(x).float().sum().backward()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(Module())
        wrapped(x).float().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for one, other in zip(wrapped.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_float32_and_no_tokens_take_the_fft():
    empty = inputs(2, 0, 4, 3, 2, torch.bfloat16)
    assert convolve(*empty, implementation="triton").shape == (2, 0, 4)
    leaves = inputs(1, 20, 4, 20, 2, torch.float32)
    assert torch.equal(convolve(*leaves, implementation="triton"), eager.convolve(*leaves))


LENGTHS = [1, 63, 64, 500, 1000, 1024, 1213, 2048, 4000, 4096, 6000, 16384]


@pytest.mark.parametrize("dim", [60, 80, 128, 200])
@pytest.mark.parametrize("length", [pytest.param(length, marks=gpu_only) for length in LENGTHS])
def test_full_sizes(length, dim):
    for dtype in TOLERANCES:
        for batch, directions in [(1, 1), (5, 2)]:
            check(inputs(batch, length, dim, length, directions, dtype), eager.convolve)
