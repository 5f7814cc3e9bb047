"""Cosines and sines of whole multiples of a step, as kernels make them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

import chela.kernels
from chela.kernels.turn_kernels import cos_sin
from tests.kernels.comparison import DEVICE

pytestmark = pytest.mark.interpreted


@triton.jit
def each(step, numbers, cosines, sines, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    cos, sin = cos_sin(step, tl.load(numbers + place))
    tl.store(cosines + place, cos)
    tl.store(sines + place, sin)


@pytest.mark.parametrize("size", [4, 80, 1 << 22])  # steps of a turn
def test_are_as_exact_as_float32_however_many_turns(size):
    numbers = torch.randint(0, 1 << 28, (1024,), dtype=torch.int32, device=DEVICE)
    numbers[:8] = torch.arange(8)
    cos, sin = (torch.empty(1024, device=DEVICE) for _ in range(2))
    each[(1,)]((1 << 64) // size, numbers, cos, sin, SIZE=1024)
    angle = (numbers.long() % size).double() * (2 * torch.pi / size)
    assert (cos - angle.cos()).abs().max() < 2e-7
    assert (sin - angle.sin()).abs().max() < 2e-7


def test_no_kernel_has_the_branch_for_large_angles():
    folder = Path(chela.kernels.__file__).parent
    text = {file: file.read_text() for file in folder.rglob("*.py")}
    calls = [file.name for file, code in text.items() if "tl.cos(" in code or "tl.sin(" in code]
    assert not calls
