"""Cosines and sines in Triton kernels, of angles that are whole multiples of a step."""

import triton
import triton.language as tl


@triton.jit
def cos_sin(step, number):
    """Cosine and sine of ``number`` steps, given in 2^-64 of a turn as int64.

    Products of integers drop whole turns by themselves; float32 knows thousands of turns to a
    thousandth. The polynomials, the best ones of their degrees for an eighth of a turn either way,
    are as exact as float32 and need no branch for large angles, which tl.cos and tl.sin have.
    """
    turned = ((step * number.to(tl.int64)) >> 32).to(tl.int32)  # in 2^-32 of a turn
    quarter = ((turned >> 29) + 1) >> 1  # the nearest one
    x = (turned << 2).to(tl.float32) * 2.3283064365386963e-10  # the rest, in quarters: 2^-32
    y = x * x
    sin = x * (1.5707963 + y * (-0.64596295 + y * (0.079675905 + y * -0.0045922892)))
    cos = 1.0 + y * (-1.2337005 + y * (0.25366923 + y * (-0.020860288 + y * 0.00090402167)))
    odd = (quarter & 1) != 0
    along = tl.where(odd, sin, cos)
    across = tl.where(odd, cos, sin)
    along = tl.where(((quarter + 1) & 2) != 0, -along, along)
    return along, tl.where((quarter & 2) != 0, -across, across)
