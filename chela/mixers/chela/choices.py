"""What can be chosen of the CHELA mixer, and why it is by default what it is."""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from chela.layers.basic import Rate
from chela.mixers.state_space import StateSpaceConfig

BranchNorm = Literal["none", "batch"]
FeatureMap = Literal["silu", "identity", "elu1", "relu"]

# What a part's choices have to be where it is left out: they would do nothing, and be in the id.
WITHOUT: dict[str, dict[str, str | bool]] = {
    "use_long_conv": {"branch_norm": "none"},
    "use_attention": {"qk_norm": "none", "key_shift": False, "attention_decay": "none"},
}
# What belongs to a part, or to a kind of long kernel. Without that it is what it is by default,
# whatever a recipe had for the other forms of its model: one model, one id. (The kind of a kernel
# that is left out stays, though: runs that were recorded have it in their ids.)
OF_PART = {
    "use_short_conv": ("short_conv_width",),
    "use_long_conv": ("branch_widths",),
    "use_attention": ("qk_dim", "num_heads", "feature_map", "head_norm"),
}
OF_KERNEL = {
    "multiscale": ("long_conv_taps", "long_conv_decay"),
    "cosine": ("long_conv_terms", "long_conv_window_min", "long_conv_window_max"),
    "wavelet": ("long_conv_filter",),
    "explicit": ("long_conv_soft_threshold", "long_conv_dropout"),
    "ema": ("ema_dim",),
    "s4d": ("long_conv_state_space",),
}


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class ChelaConfig:
    """Every choice inside the mixer; a part that is switched off passes its input on."""

    use_short_conv: bool = True  # off: s = h
    short_conv_width: PositiveInt = 5  # two neighbours on either side; the long stage sees the rest

    use_long_conv: bool = True  # off: z = s
    # multiscale: sublinear, and free in its shape
    long_conv_kernel: Literal["multiscale", "cosine", "wavelet", "explicit", "ema", "s4d"] = (
        "multiscale"
    )
    long_conv_taps: PositiveInt = 64  # multiscale: parameters per scale and channel
    long_conv_decay: Annotated[float, Gt(0), Le(1)] = 0.5  # multiscale: weight from scale to scale
    # cosine: coefficients per channel and direction; free in shape up to so many tokens
    long_conv_terms: PositiveInt = field(default=64, metadata={"neutral": 64})
    # cosine: tokens of the shortest window, a row of a small picture
    long_conv_window_min: PositiveInt = field(default=32, metadata={"neutral": 32})
    # cosine: of the longest; null: as long as the sequence
    long_conv_window_max: PositiveInt | None = field(default=None, metadata={"neutral": None})
    # wavelet: of each of the two filters that all scales share, as published for pictures
    long_conv_filter: Annotated[int, Ge(2)] = field(default=2, metadata={"neutral": 2})
    long_conv_soft_threshold: NonNegativeFloat = 0.1  # explicit: in initial deviations
    long_conv_dropout: Rate = 0.1  # explicit: share of taps dropped in a training step
    ema_dim: PositiveInt = 16  # ema: exponentials per channel, as in Mega
    long_conv_state_space: StateSpaceConfig = field(default_factory=StateSpaceConfig)  # s4d
    branch_widths: tuple[PositiveInt, ...] = (5,)  # short kernels beside the long one
    branch_norm: BranchNorm = "none"  # none keeps the stage a single convolution in training

    use_attention: bool = True  # off: o = v, a gated convolution
    qk_dim: PositiveInt = 64  # of all heads together; Mega's z
    v_dim: PositiveInt | None = None  # of all heads together; null: 2 * dim, as in Mega
    num_heads: PositiveInt = 1  # one head has the largest state for its parameters, as in Mega
    feature_map: FeatureMap = "silu"  # on the shared projection, before q's and k's affine maps
    # l2: queries and keys of unit length per head, so that none is heard louder than another
    qk_norm: Literal["none", "l2"] = field(default="none", metadata={"neutral": "none"})
    # what a softmax's denominator would do: outputs of one size
    head_norm: Literal["rms", "layer", "none"] = "rms"
    gate: Literal["silu", "mega", "none"] = "silu"  # mega: reset and update gates, a matrix more
    # The convolutions' own way to the residual stream, so that attention cannot silence them:
    # without one, a seed of three failed on Text (docs/tried.md).
    conv_path: Literal["glu", "linear", "none"] = field(default="glu", metadata={"neutral": "none"})
    # causal: a token's key is of the one before it: a query reads what came after tokens like it
    key_shift: bool = field(default=False, metadata={"neutral": False})
    # causal: data: each head of v forgets as z says; all heads share one q and k of qk_dim channels
    attention_decay: Literal["none", "data"] = field(default="none", metadata={"neutral": "none"})
    chunk_size: PositiveInt = 64  # causal attention's tile; speed only
    dropout: Rate = 0.0  # on the gated attention; the block drops the mixer's output as well

    def __post_init__(self) -> None:
        if not (self.use_short_conv or self.use_long_conv or self.use_attention):
            raise ValueError(
                "without short convolution, long convolution and attention no token sees another; "
                "switch one of use_short_conv, use_long_conv, use_attention on"
            )
        for part, choices in WITHOUT.items():
            idle = [key for key, off in choices.items() if getattr(self, key) != off]
            if idle and not getattr(self, part):
                on, off = (
                    ", ".join(f"{key}={str(values[key]).lower()}" for key in idle)
                    for values in (vars(self), choices)
                )
                raise ValueError(f"{on} would do nothing: {part}=false; set {off}, or {part}=true")
        kernel = self.long_conv_kernel if self.use_long_conv else None
        without = {key for part in OF_PART if not getattr(self, part) for key in OF_PART[part]}
        without.update(key for kind in OF_KERNEL if kind != kernel for key in OF_KERNEL[kind])
        for each in fields(self):
            if each.name in without:
                made = each.default_factory
                object.__setattr__(self, each.name, each.default if made is MISSING else made())
