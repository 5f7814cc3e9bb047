"""Compile the kernels of tokens, wide heads and taps for a Hopper GPU without one; a script."""

from __future__ import annotations

import torch
from compile_for_hopper import compile_launches_of

from chela.kernels.exponentials import fused as exponentials
from chela.kernels.linear_attention import epilogue
from chela.kernels.norm_linear import fused as norm_linear
from chela.kernels.query_key import fused as query_key
from chela.kernels.token_mlp import fused as token_mlp
from chela.kernels.wavelet_tree import fused as wavelet_tree

BF16, FP32 = torch.bfloat16, torch.float32


def mlp(part: str, dim: int, hidden: int, dtype: torch.dtype, p: float, tied: bool = False) -> None:
    """Both directions of a GLU with a norm and dropout, or of a gate; with and without padding."""
    glu = part == "glu"
    x, factor = torch.zeros(2, 50, dim, dtype=dtype), torch.zeros(2, 50, hidden, dtype=dtype)
    matrix, bias = torch.zeros(hidden, dim), torch.zeros(hidden)
    head = (x, None if glu else factor)
    vector = torch.zeros(dim) if glu else None
    weights = (matrix, bias, matrix if glu else None, bias if glu else None, matrix.mT)
    lengths, seed = torch.tensor([50, 9]) if glu else None, torch.tensor([1]) if p else None
    options = (lengths, seed, "layer" if glu else "none", 1e-5, glu, p, p, tied, dtype)
    residual = None if glu else x
    token_mlp._forward(*head, residual, vector, vector, *weights, torch.zeros(dim), *options)
    token_mlp._backward(x, *head, vector, vector, *weights, *options)


def others(dim: int, features: int, dtype: torch.dtype) -> None:
    """Both directions of norm with linear map, and of queries and keys."""
    x, y = torch.zeros(2, 50, dim, dtype=dtype), torch.zeros(2, 50, features, dtype=dtype)
    matrix, bias, vector = torch.zeros(features, dim), torch.zeros(features), torch.zeros(dim)
    norm = (vector, None, matrix, bias, torch.tensor([50, 9]))
    h, _ = norm_linear._forward(x, *norm, "rms", 1e-5, dtype)
    norm_linear._backward(h, y, x, *norm, h, "rms", 1e-5, dtype)
    query_key._forward(x, matrix, bias, bias, bias, bias, bias, dtype)
    query_key._backward(y, y, x, matrix, bias, bias, bias, dtype)


def taps(dim: int, n: int, directions: int, length: int) -> None:
    """Both directions of sums of exponentials."""
    modes, amplitudes = torch.zeros(dim, n), torch.zeros(directions, dim, n)
    out = exponentials._forward(modes, modes, amplitudes, amplitudes, length)
    exponentials._backward(out, modes, modes, amplitudes, amplitudes, length)


def tree(length: int, scales: int) -> None:
    """Both directions of a tree of wavelets."""
    filters, weights = torch.zeros(2, 1, 2, 2), torch.zeros(1, 2, scales + 1)
    out = wavelet_tree._forward(filters, weights, length)
    wavelet_tree._backward(out, filters, weights, length)


def heads(dim: int, dtype: torch.dtype) -> None:
    """Both directions of the norm and gate of a wide head."""
    o, weight, lengths = torch.zeros(2, 50, 1, dim, dtype=dtype), torch.ones(dim), torch.ones(2)
    epilogue.attention_epilogue(o, weight, o, lengths.long())
    epilogue.attention_epilogue_backward(o, o, weight, o, lengths.long())


def main() -> None:
    mlp("glu", 128, 256, BF16, 0.1)
    mlp("glu", 128, 256, BF16, 0.1, tied=True)
    mlp("gate", 512, 512, BF16, 0.0)
    mlp("gate", 80, 160, FP32, 0.0)
    others(128, 64, BF16)
    others(160, 320, BF16)
    heads(320, BF16)
    heads(768, FP32)
    taps(256, 32, 2, 1024)
    taps(320, 2, 2, 2048)
    taps(640, 16, 1, 4096)
    tree(1, 1)
    tree(1024, 10)
    tree(1 << 20, 20)


if __name__ == "__main__":
    compile_launches_of(main)
