"""What the Triton kernels of the token-wise operations are made of.

A tile is ROWS tokens of x (tokens, D), with D filled up with zeros to a power of two BD. Rows past
the end, and padded tokens of a ragged batch, are loaded as zeros, whatever stands there.

Under Triton's interpreter (``WIDE``) tl.dot and tl.sum misread bfloat16, so operands are widened to
float32 after they were rounded, and a cast to bfloat16 truncates, so rounding is done by hand; on a
GPU operands stay narrow. Sums are float32 on both.
"""

import triton
import triton.language as tl


@triton.jit
def tile_rows(first, tokens, lengths, L, ROWS: tl.constexpr, RAGGED: tl.constexpr):
    """Tokens first .. first + ROWS: their numbers, which exist, and which are not padding."""
    rows = first + tl.arange(0, ROWS)
    inside = rows < tokens
    real = inside
    if RAGGED:
        length = tl.load(lengths + rows // L, mask=inside, other=0)
        real = inside & (rows % L < length)
    return rows, inside, real


@triton.jit
def _places(rows, columns, mask, D: tl.constexpr, N: tl.constexpr):
    """Offsets of (rows, columns) in (tokens, D) and which exist; N columns are asked for."""
    offsets = rows.to(tl.int64)[:, None] * D + columns[None, :]
    inside = mask[:, None]
    if D % N != 0:
        inside = inside & (columns < D)[None, :]
    return offsets, inside


@triton.jit
def load_tile(x, rows, columns, mask, D: tl.constexpr, N: tl.constexpr):
    """(rows, N columns) of x (tokens, D) as float32, zeros outside of ``mask`` and D."""
    offsets, inside = _places(rows, columns, mask, D, N)
    return tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def rounded(x, dtype: tl.constexpr, WIDE: tl.constexpr):
    """A float32 tile in ``dtype``, rounded to the nearest, ties to even."""
    if WIDE and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        x = (bits & 0xFFFF0000).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def store_tile(x, tile, rows, columns, mask, D: tl.constexpr, N: tl.constexpr, WIDE: tl.constexpr):
    """Write (rows, N columns) to x (tokens, D), rounded to its dtype."""
    offsets, inside = _places(rows, columns, mask, D, N)
    tl.store(x + offsets, rounded(tile, x.dtype.element_ty, WIDE), mask=inside)


@triton.jit
def load_vector(x, columns, D: tl.constexpr):
    """Elements ``columns`` of x (D,) as float32, zeros from D on."""
    return tl.load(x + columns, mask=columns < D, other=0.0).to(tl.float32)


@triton.jit
def load_matrix(
    w,
    rows,
    columns,
    R: tl.constexpr,
    C: tl.constexpr,
    NR: tl.constexpr,
    NC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """(NR rows, NC columns) of a weight (R, C) as an operand of tl.dot, zeros outside."""
    pointers = w + rows[:, None] * C + columns[None, :]
    if R % NR == 0 and C % NC == 0:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=(rows < R)[:, None] & (columns < C)[None, :], other=0.0)
    if WIDE:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def operand(x, w, WIDE: tl.constexpr):
    """A float32 tile rounded to the dtype of the weight it is multiplied with."""
    x = rounded(x, w.dtype.element_ty, WIDE)
    if WIDE:
        x = x.to(tl.float32)
    return x


@triton.jit
def statistics(x, columns, eps, D: tl.constexpr, NORM: tl.constexpr):
    """The mean (ROWS,) that the norm takes off its tokens, and the factor (ROWS,) it puts on."""
    mean = tl.zeros((x.shape[0],), tl.float32)
    scale = tl.full((x.shape[0],), 1.0, tl.float32)
    if NORM == "layer":
        mean = tl.sum(x, axis=1) / D
        x = standardised(x, mean, scale, columns, D, NORM)
    if NORM == "layer" or NORM == "rms":
        scale = tl.rsqrt(tl.sum(x * x, axis=1) / D + eps)
    return mean, scale


@triton.jit
def standardised(x, mean, scale, columns, D: tl.constexpr, NORM: tl.constexpr):
    """The tokens before the norm's affine map."""
    if NORM == "layer":
        x = x - mean[:, None]
        if x.shape[1] != D:
            x = tl.where((columns < D)[None, :], x, 0.0)
    if NORM == "layer" or NORM == "rms":
        x = x * scale[:, None]
    return x


@triton.jit
def affine(x, columns, weight, bias, D: tl.constexpr, NORM: tl.constexpr):
    """n(x) from the tokens before the norm's affine map."""
    if NORM != "none":
        x = x * load_vector(weight, columns, D)[None, :]
        if bias is not None:
            x += load_vector(bias, columns, D)[None, :]
    return x


@triton.jit
def normalise_backward(dn, x, scale, columns, weight, D: tl.constexpr, NORM: tl.constexpr):
    """dx from dn; x are the tokens before the norm's affine map."""
    if NORM != "none":
        dn = dn * load_vector(weight, columns, D)[None, :]
    if NORM == "layer" or NORM == "rms":
        along = tl.sum(dn * x, axis=1) / D
        dx = dn - x * along[:, None]
        if NORM == "layer":
            dx -= (tl.sum(dn, axis=1) / D)[:, None]
        dn = dx * scale[:, None]
    return dn


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)); a reciprocal as the square of rsqrt, which is one instruction.

    A division, and an exponential to base e, each cost several more for arguments that do not occur
    here: 1 + 2^y lies between 1 and infinity.
    """
    root = tl.rsqrt(1.0 + tl.exp2(x * -1.4426950408889634))
    return root * root


@triton.jit
def silu_slope(x, s):
    """The derivative of x * sigmoid(x), with s = sigmoid(x)."""
    return s * (1.0 + x * (1.0 - s))


@triton.jit
def store_sum(
    sums, tile, columns, w, WIDTH: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr
):
    """The sum of a tile over its tokens to sums (WIDTH,), a program's own share of a gradient.

    A product with ones, its summands rounded to the dtype of the weight w as those of the weight's
    gradient are: tensor cores have nothing else to do then, while tl.sum shuffles every column
    across threads. All 16 rows of the product, the least there are, are the same: one is stored.
    """
    row = tl.arange(0, 16)[:, None]
    if WIDE:
        ones = tl.full((16, tile.shape[0]), 1.0, tl.float32)
    else:
        ones = tl.full((16, tile.shape[0]), 1.0, w.dtype.element_ty)
    total = tl.dot(ones, operand(tile, w, WIDE), input_precision=PRECISION)
    mask = (row == 0) & (columns < WIDTH)[None, :]
    tl.store(sums + columns[None, :] + row * 0, total, mask=mask)


@triton.jit
def store_exact_sum(sums, tile, columns, WIDTH: tl.constexpr):
    """The same with float32 summands: those of a norm's gradients cancel more than others."""
    tl.store(sums + columns, tl.sum(tile, axis=0), mask=columns < WIDTH)


@triton.jit
def token_keys(seed, rows, L, TIED: tl.constexpr):
    """Two random numbers per token, one for each of two dropouts: Philox, counting tokens.

    If TIED it counts sequences of L tokens, so that all tokens of one have the same two.
    """
    counts = rows
    if TIED:
        counts = rows // L
    first, second, _, _ = tl.randint4x(tl.load(seed), counts)
    return first.to(tl.uint32, bitcast=True), second.to(tl.uint32, bitcast=True)


@triton.jit
def drop(x, key, columns, p):
    """x / (1 - p) where a hash of (token's key, channel) says so, else 0: the same each time.

    The hash is a finaliser of two rounds of xor-shift and multiplication, a tenth of Philox.
    """
    bits = key[:, None] + (columns.to(tl.uint32) * 0x9E3779B9)[None, :]
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    bits = bits ^ (bits >> 16)
    uniform = (bits >> 8).to(tl.float32) * 5.9604645e-08  # 24 bits, in [0, 1)
    return tl.where(uniform >= p, x / (1.0 - p), 0.0)
