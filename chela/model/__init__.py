"""The model around a mixer: encoder, blocks, pooling, head."""

from chela.model.backbone import Backbone, BackboneConfig
from chela.model.head import Unread
from chela.model.models import Classifier, Model, TokenModel

__all__ = ["Backbone", "BackboneConfig", "Classifier", "Model", "TokenModel", "Unread"]
