"""The token-wise MLP as one Triton kernel per direction, behind a PyTorch operator.

Forward reads the tokens and writes the result; nothing is kept for the backward pass but the
inputs. Backward writes the hidden channels and their gradients, of which a kernel of its own makes
those of weights and biases; the norm's are summed per tile of tokens, then over tiles, so all sums
run in float32 and in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chela.kernels.launching import no_second_order, on, padded
from chela.kernels.masking import zero_padding
from chela.kernels.token_mlp import fused_kernels as kernels
from chela.kernels.token_mlp.arguments import Weights
from chela.kernels.tokens import TokenNorm, launching
from chela.kernels.tokens.launching import Tile, flattened, given, tokens_of, weight_and_bias


def mlp(
    x: Tensor,
    weights: Weights,
    norm: TokenNorm,
    factor: Tensor | None,
    residual: Tensor | None,
    add_x: bool,
    lengths: Tensor | None,
    hidden_dropout: float,
    dropout: float,
    tied: bool,
    dtype: torch.dtype,
) -> Tensor:
    """``token_mlp.mlp`` after its checks.

    Raises:
        ValueError: a dtype, D or device that the kernels do not serve.
    """
    launching.check(x, dtype)
    seed = None
    if hidden_dropout or dropout:
        seed = torch.randint(2**62, (1,), device=x.device)  # PyTorch's generator decides
    w, n = weights, norm
    return _forward(
        x, factor, residual, n.weight, n.bias, w.w_hidden, w.b_hidden, w.w_up, w.b_up, w.w_out,
        w.b_out, lengths, seed, n.kind, n.eps, add_x, hidden_dropout, dropout, tied, dtype,
    )  # fmt: skip


def _tile(dtype: torch.dtype, width: int, kind: str, backward: bool) -> Tile:
    """The fastest of a sweep on an H100 at D 128 with H 256, and at 160 (a width of 256) with 320.

    Not swept: a second projection (``up``), which has more to keep, and widths above 256.
    """
    if dtype == torch.float32:  # no tensor cores: small tiles keep the products in registers
        return Tile(16, 32, 4, 1) if width <= 128 else Tile(16, 16, 8, 1)
    if width > 256:
        return Tile(32, 32, 8, 2)
    if kind == "up":
        return Tile(64, 32, 4, 3) if width <= 128 else Tile(64, 32, 8, 2)
    if width <= 128:
        return Tile(64, 64, 4, 1) if kind == "none" and backward else Tile(64, 64, 4, 2)
    if kind == "none":
        return Tile(64, 64, 8, 2) if backward else Tile(64, 32, 4, 2)
    return Tile(128, 32, 8, 1) if backward else Tile(64, 64, 4, 1)


def _factor_kind(factor: Tensor | None, w_up: Tensor | None) -> str:
    if w_up is not None:
        return "up"
    return "none" if factor is None else "given"


@torch.library.custom_op("chela::token_mlp", mutates_args=())
def _forward(
    x: Tensor,
    factor: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_up: Tensor | None,
    b_up: Tensor | None,
    w_out: Tensor,
    b_out: Tensor,
    lengths: Tensor | None,
    seed: Tensor | None,
    norm: str,
    eps: float,
    add_x: bool,
    p_hidden: float,
    p_out: float,
    tied: bool,
    dtype: torch.dtype,
) -> Tensor:
    y = _output(x, residual, add_x, dtype)
    if y.numel() == 0:
        return y
    flat = tokens_of(x)
    kind = _factor_kind(factor, w_up)
    tile = _tile(dtype, padded(flat.shape[1]), kind, backward=False)
    tiles, constants = launching.cut(flat, "H", w_hidden.shape[0], tile)
    with on(x):
        kernels.token_mlp_forward[(tiles,)](
            flat, flattened(factor), flattened(residual), given(norm_weight), given(norm_bias),
            given(w_hidden, dtype), given(b_hidden), given(w_up, dtype), given(b_up),
            given(w_out, dtype), given(b_out), given(lengths), seed, y, flat.shape[0], x.shape[1],
            eps, p_hidden, p_out, NORM=norm, FACTOR=kind,
            RESIDUAL="x" if add_x else "none" if residual is None else "given",
            DROP_HIDDEN=p_hidden > 0, DROP_OUT=p_out > 0, TIED=tied, RAGGED=lengths is not None,
            **constants,
        )  # fmt: skip
    return y


@_forward.register_fake
def _(x: Tensor, factor: Tensor | None, residual: Tensor | None, *rest: Any) -> Tensor:
    add_x, *_, dtype = rest[-5:]
    return _output(x, residual, add_x, dtype)


def _output(x: Tensor, residual: Tensor | None, add_x: bool, dtype: torch.dtype) -> Tensor:
    """Memory for y."""
    if add_x:
        residual = x
    if residual is not None:
        dtype = torch.promote_types(dtype, residual.dtype)
    return x.new_empty(x.shape, dtype=dtype)


@torch.library.custom_op("chela::token_mlp_backward", mutates_args=())
def _backward(
    dy: Tensor,
    x: Tensor,
    factor: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_up: Tensor | None,
    b_up: Tensor | None,
    w_out: Tensor,
    lengths: Tensor | None,
    seed: Tensor | None,
    norm: str,
    eps: float,
    add_x: bool,
    p_hidden: float,
    p_out: float,
    tied: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, factor, three maps (each weight and bias) and the norm.

    Those of what is not given are empty. A map's is ``launching.weight_gradient``; the norm's
    (2 D,) are of its weight and bias.
    """
    dx, dfactor, *parameters = _gradients(x, factor, norm_weight, w_hidden, w_up)
    if x.numel() == 0:
        of_hidden, of_up, of_out, of_norm = (gradient.zero_() for gradient in parameters)
        return dx, dfactor, of_hidden, of_up, of_out, of_norm
    flat, upstream = tokens_of(x), tokens_of(dy)
    tokens, (size, dim) = flat.shape[0], w_hidden.shape
    kind = _factor_kind(factor, w_up)
    tile = _tile(dtype, padded(flat.shape[1]), kind, backward=True)
    tiles, constants = launching.cut(flat, "H", size, tile)
    # What the products for the weights read is x and dy themselves, unless they differ from that.
    normal = flat.new_empty(flat.shape, dtype=dtype)
    own = norm == "none" and x.dtype == dtype and lengths is None
    rounded = flat.new_empty(flat.shape, dtype=dtype)
    same = p_out == 0 and dy.dtype == dtype and lengths is None
    hidden = flat.new_empty((tokens, size), dtype=dtype)
    dhidden = torch.empty_like(hidden)
    dsecond = torch.empty_like(hidden) if kind == "up" else dfactor
    sums = None if norm == "none" else x.new_empty((tiles, 2 * dim), dtype=torch.float32)
    with on(x):
        kernels.token_mlp_backward[(tiles,)](
            upstream, flat, flattened(factor), given(norm_weight), given(norm_bias),
            given(w_hidden, dtype), given(b_hidden), given(w_up, dtype), given(b_up),
            given(w_out, dtype), given(lengths), seed, dx, None if kind == "none" else dsecond,
            None if own else normal, None if same else rounded, hidden, dhidden, sums, tokens,
            x.shape[1], eps, p_hidden, p_out, NORM=norm, FACTOR=kind,
            RESIDUAL="x" if add_x else "none", DROP_HIDDEN=p_hidden > 0, DROP_OUT=p_out > 0,
            TIED=tied, RAGGED=lengths is not None, **constants,
        )  # fmt: skip
    n, g = flat if own else normal, upstream if same else rounded
    _, of_up, _, of_norm = parameters
    return (
        dx,
        dfactor,
        launching.weight_gradient(dhidden, n),
        launching.weight_gradient(dsecond, n) if kind == "up" else of_up,
        launching.weight_gradient(g, hidden),
        of_norm if sums is None else sums.sum(0),
    )


@_backward.register_fake
def _(
    dy: Tensor, x: Tensor, factor: Tensor | None, norm_weight: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    _, w_hidden, _, w_up, *_ = rest
    return _gradients(x, factor, norm_weight, w_hidden, w_up)


def _gradients(
    x: Tensor,
    factor: Tensor | None,
    norm_weight: Tensor | None,
    w_hidden: Tensor,
    w_up: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Memory for what ``_backward`` returns; the parameters' gradients are in float32."""
    size, dim = w_hidden.shape
    into = x.new_empty(size * dim + size, dtype=torch.float32)
    return (
        x.new_empty(x.shape),
        x.new_empty(0) if factor is None else factor.new_empty(factor.shape),
        into,
        into.new_empty(0 if w_up is None else into.shape),
        into.new_empty(dim * size + dim),
        into.new_empty(0 if norm_weight is None else 2 * dim),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, factor, residual, *rest = inputs
    norm_weight, norm_bias, w_hidden, b_hidden, w_up, b_up, w_out, _, lengths, seed = rest[:10]
    ctx.options = rest[10:]
    ctx.residual = residual is not None
    ctx.save_for_backward(
        x, factor, norm_weight, norm_bias, w_hidden, b_hidden, w_up, b_up, w_out, lengths, seed
    )


def _autograd(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    _, factor, norm_weight, norm_bias, w_hidden, _, w_up, _, w_out, lengths, _ = saved
    dx, dfactor, of_hidden, of_up, of_out, of_norm = _backward(dy, *saved, *ctx.options)
    dw_hidden, db_hidden = weight_and_bias(of_hidden, w_hidden)
    dw_up, db_up = (None, None) if w_up is None else weight_and_bias(of_up, w_up)
    dw_out, db_out = weight_and_bias(of_out, w_out)
    dim = w_hidden.shape[1]
    norm_gradients = (
        None if norm_weight is None else of_norm[:dim],
        None if norm_bias is None else of_norm[dim:],
    )
    dresidual = zero_padding(dy, lengths) if ctx.residual else None
    gradients = (dx, None if factor is None else dfactor, dresidual, *norm_gradients)
    maps = (dw_hidden, db_hidden, dw_up, db_up, dw_out, db_out)
    return (*gradients, *maps, None, None, *[None] * len(ctx.options))


_forward.register_autograd(_autograd, setup_context=_save)
_backward.register_autograd(no_second_order)
