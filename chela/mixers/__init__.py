"""What mixes the tokens of a sequence, one file each: CHELA and the models it is compared with.

A mixer is a class with the constructor ``(dim, max_length, causal, config)``, a dataclass of its
choices as its attribute ``Config``, and ``forward(x (B, L, D), lengths) -> (B, L, D)``. Each is
written after its paper and held to a naive form of its formulas by a test; the backbone, the tasks
and the training around it are the same for all.
"""

from chela.mixers.chela.choices import ChelaConfig
from chela.mixers.chela.mixer import ChelaMixer
from chela.mixers.linear_transformer import LinearTransformerConfig, LinearTransformerMixer
from chela.mixers.mega import MegaConfig, MegaMixer
from chela.mixers.s4d import S4DConfig, S4DMixer
from chela.mixers.sgconv import SGConvConfig, SGConvMixer
from chela.mixers.transformer import TransformerConfig, TransformerMixer

__all__ = [
    "ChelaConfig",
    "ChelaMixer",
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
