"""A tree of wavelets by Triton behind an operator: one kernel forward and one backward."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from chela.kernels.launching import check, on, register
from chela.kernels.wavelet_tree import fused_kernels as kernels

LOW = 6  # bits of a lag that are a tile's columns
ROWS = 64  # of a tile at most: runs of 2^LOW taps
FORM = {"LOW": LOW, "num_warps": 4, "num_stages": 1}


def wavelet_tree(filters: Tensor, weights: Tensor, length: int) -> Tensor:
    """``wavelet_tree`` after its checks.

    Raises:
        ValueError: a dtype or device that the kernels do not serve.
    """
    check(filters, weights.dtype, served=(torch.float32,))
    return _forward(filters, weights, length)


def _cut(length: int) -> tuple[int, int]:
    """Into how many tiles the taps are cut, the same on every GPU, and the rows of each."""
    runs = triton.cdiv(length, 2**LOW)
    rows = min(triton.next_power_of_2(runs), ROWS)
    return triton.cdiv(runs, rows), rows


@torch.library.custom_op("chela::wavelet_tree", mutates_args=())
def _forward(filters: Tensor, weights: Tensor, length: int) -> Tensor:
    filters, weights = filters.contiguous(), weights.contiguous()
    directions, dim, scales = weights.shape
    out = weights.new_empty(directions, dim, length)
    parts, rows = _cut(length)
    with on(weights):
        kernels.wavelet_tree_forward[(directions * dim, parts)](
            filters, weights, out, length, scales - 1, ROWS=rows, **FORM
        )
    return out


@_forward.register_fake
def _(filters: Tensor, weights: Tensor, length: int) -> Tensor:
    return weights.new_empty(*weights.shape[:2], length)


@torch.library.custom_op("chela::wavelet_tree_backward", mutates_args=())
def _backward(dout: Tensor, filters: Tensor, weights: Tensor, length: int) -> tuple[Tensor, Tensor]:
    filters, weights, dout = filters.contiguous(), weights.contiguous(), dout.contiguous()
    directions, dim, scales = weights.shape
    parts, rows = _cut(length)
    found = tuple(each.new_empty(parts, *each.shape) for each in (filters, weights))
    with on(weights):
        kernels.wavelet_tree_backward[(directions * dim, parts)](
            filters, weights, dout, *found, length, scales - 1,
            S=triton.next_power_of_2(max(scales, 2 * LOW + 1) - LOW), ROWS=rows, **FORM,
        )  # fmt: skip
    dfilters, dweights = (each[0] if parts == 1 else each.sum(0) for each in found)
    return dfilters, dweights


@_backward.register_fake
def _(dout: Tensor, filters: Tensor, weights: Tensor, length: int) -> tuple[Tensor, Tensor]:
    return filters.new_empty(filters.shape), weights.new_empty(weights.shape)


register(_forward, _backward)
