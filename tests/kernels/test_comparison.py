"""What a comparison says of operations that are wrong."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.comparison import assert_same


def test_every_wrong_output_and_gradient_is_named():
    leaves = [torch.tensor([3.0, 4.0], requires_grad=True) for _ in range(2)]

    def compare(factor: int, *names: list[str]) -> None:
        ours, right = ([leaves[0] * 2, leaves[1] * each] for each in (factor, 2))
        assert_same(ours, right, leaves, leaves, 1e-5, *names)

    compare(2)
    said = "{'output 1': 'relative error 5.0e-01', 'gradient of b': 'relative error 5.0e-01'}"
    with pytest.raises(AssertionError, match=said):
        compare(3, ["a", "b"])
    with pytest.raises(AssertionError, match="'gradient of 1'"):
        compare(3)
