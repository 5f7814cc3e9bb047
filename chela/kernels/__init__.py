"""The operations that take a model's time, each in a folder of its own.

A folder holds ``naive.py``, the formula as literally as PyTorch can say it, which is the
specification; ``eager.py``, a faster form in plain PyTorch, if any; and ``__init__.py``, the public
function that checks its arguments and picks the implementation; where there are Triton kernels,
they are further files of that folder, and ``implementation="triton"`` asks for them. Activations
are (B, L, ...) as the model has them, in float64, float32 or bfloat16; sums are accumulated in
float32 or better. Autocast is off inside: an operation computes in the precision of what it is
handed.
"""

from chela.kernels import (
    exponentials,
    linear_attention,
    long_conv,
    norm_linear,
    query_key,
    short_conv,
    token_mlp,
    wavelet_tree,
)
from chela.kernels.choice import choose, use_kernels
from chela.kernels.masking import valid_mask, zero_padding

__all__ = [
    "choose",
    "exponentials",
    "linear_attention",
    "long_conv",
    "norm_linear",
    "query_key",
    "short_conv",
    "token_mlp",
    "use_kernels",
    "valid_mask",
    "wavelet_tree",
    "zero_padding",
]
