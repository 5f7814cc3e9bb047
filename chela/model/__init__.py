"""The model around a mixer: encoder, blocks, pooling, head."""

from chela.model.backbone import Backbone, BackboneConfig, Classifier, Model, TokenModel
from chela.model.head import Unread

__all__ = ["Backbone", "BackboneConfig", "Classifier", "Model", "TokenModel", "Unread"]
