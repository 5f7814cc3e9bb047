"""The model, one idea per file: CHELA's mixer, and a backbone that takes any mixer.

A mixer is a class with the constructor ``(dim, max_length, causal, config)``, a dataclass of its
choices as its attribute ``Config``, and ``forward(x (B, L, D), lengths) -> (B, L, D)``.
"""

from chela.model.backbone import Backbone, BackboneConfig, Classifier
from chela.model.mixer import ChelaConfig, ChelaMixer

__all__ = ["Backbone", "BackboneConfig", "ChelaConfig", "ChelaMixer", "Classifier"]
