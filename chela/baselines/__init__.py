"""The models CHELA is compared with: one file each, a mixer as ``chela.model`` describes it.

Each is written after its paper and held to a naive form of its formulas by a test; where a kernel
of ours computes a part of it, that kernel is used. The backbone, the tasks and the training around
it are the same for all.
"""

from chela.baselines.linear_transformer import LinearTransformerConfig, LinearTransformerMixer
from chela.baselines.mega import MegaConfig, MegaMixer
from chela.baselines.s4d import S4DConfig, S4DMixer
from chela.baselines.sgconv import SGConvConfig, SGConvMixer
from chela.baselines.transformer import TransformerConfig, TransformerMixer

__all__ = [
    "LinearTransformerConfig",
    "LinearTransformerMixer",
    "MegaConfig",
    "MegaMixer",
    "S4DConfig",
    "S4DMixer",
    "SGConvConfig",
    "SGConvMixer",
    "TransformerConfig",
    "TransformerMixer",
]
