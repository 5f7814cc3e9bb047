"""What an objective asks a backbone by: a head that reads a whole sample, or each of its tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from chela.layers.norms import BatchNorm
from chela.layers.sequence import own_share, part
from chela.model.backbone import Backbone, BackboneConfig
from chela.model.encoders import TokenEncoder
from chela.model.head import Unread, make_head, pool, unread


class Model(nn.Module):
    """A backbone and the head that an objective needs.

    Args:
        config: sizes and choices.
        make_mixer: called once per block, see ``Backbone``.
        vocab_size: how many token ids there are; None for real values.
        input_dim: channels of real values; unused for token ids.
        num_classes: logits for each answer.
        documents: sequences of a sample.

    Raises:
        ValueError: the form of the samples is none for this head.
    """

    def __init__(
        self,
        config: BackboneConfig,
        make_mixer: Callable[[], nn.Module],
        *,
        vocab_size: int | None,
        input_dim: int,
        num_classes: int,
        documents: int = 1,
    ) -> None:
        super().__init__()
        self.documents = documents
        self.backbone = Backbone(config, make_mixer, vocab_size=vocab_size, input_dim=input_dim)
        hidden_dim = 2 * config.dim if config.head_dim is None else config.head_dim
        features = config.dim if documents == 1 else 4 * config.dim
        self.pooled_norm = BatchNorm(config.dim) if config.pooled_norm == "batch" else None
        self.head = make_head(config.head, features, hidden_dim, num_classes)
        self.complete(config, vocab_size, num_classes)

    def complete(self, config: BackboneConfig, vocab_size: int | None, num_classes: int) -> None:
        """Refuse what this head cannot have, and add what it has beside; see the class."""

    def fold(self) -> Model:
        """``Backbone.fold``: inference form, in place, in eval mode; returns itself."""
        self.eval()
        self.backbone.fold()
        return self


class Classifier(Model):
    """Pools over the true length, then classifies one sequence (``documents=1``) or a pair (2).

    Of a pair, both documents go through the same backbone, neither knowing of the other, and the
    head reads [x1, x2, x1 - x2, x1 * x2] of their pooled features, as S4's model for Retrieval.
    """

    def complete(self, config: BackboneConfig, vocab_size: int | None, num_classes: int) -> None:
        """Keep how features are pooled.

        Raises:
            ValueError: a sample is more than a pair, or embeddings are to be tied.
        """
        if self.documents not in (1, 2):
            raise ValueError(
                f"documents={self.documents}: a sample is 1 sequence, or 2 to be compared"
            )
        if config.tie_embeddings:
            raise ValueError(
                "tie_embeddings=true, but the classes of a sample are not the tokens that are "
                "read; set tie_embeddings=false"
            )
        self.pooling = config.pooling

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            values: token ids (B, L), or floats (B, L) or (B, L, C); padding may hold anything.
                Of pairs: (B, 2, L) or (B, 2, L, C).
            lengths: (B,) true lengths from 0 to L, of pairs (B, 2); None when nothing is padded.

        Returns:
            Logits (B, classes).

        Raises:
            ValueError: the values do not fit the encoder, or are not pairs where pairs are
                compared, or L exceeds a mixer's max_length; see ``Backbone.forward`` as well.
        """
        if self.documents == 1:
            return self.head(self.encode(values, lengths))
        if values.ndim < 3 or values.shape[1] != 2 or not _are_pairs(lengths):
            found = tuple(lengths.shape) if isinstance(lengths, Tensor) else lengths
            raise ValueError(
                f"pairs must be (B, 2, L) with lengths (B, 2), not {tuple(values.shape)} with "
                f"{found}; for single sequences build the model with documents=1"
            )
        # As one batch of 2B sequences: a norm over the batch sees both documents alike.
        flat_lengths = None if lengths is None else lengths.flatten()  # (2B,)
        pooled = self.encode(values.flatten(0, 1), flat_lengths)  # (2B, D)
        return self.head(compare(*pooled.unflatten(0, (-1, 2)).unbind(1)))

    def encode(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pooled features (B, D) of single sequences (B, L), before the head."""
        own, of_own = own_share(values, lengths)
        pooled = pool(self.backbone(own, of_own), of_own, self.pooling)  # (B, D)
        if self.pooled_norm is None:
            return pooled
        real = None if lengths is None else (lengths > 0)[:, None]  # (B, 1)
        if part() > 0:  # whoever holds the same sequences has the same features: they count once
            real = torch.zeros(len(pooled), 1, dtype=torch.bool, device=pooled.device)
        return self.pooled_norm(pooled[:, None], real)[:, 0]


class TokenModel(Model):
    """Reads each token: an answer at every position. Nothing is pooled, a sample is 1 sequence."""

    def complete(self, config: BackboneConfig, vocab_size: int | None, num_classes: int) -> None:
        """Tie the embeddings, if they are to be.

        Raises:
            ValueError: a sample is more than one sequence, it is said how to pool, or tied
                embeddings are not of the same tokens.
        """
        if self.documents != 1:
            raise ValueError(f"documents={self.documents}: tokens are those of 1 sequence")
        for key, idle in (("pooling", "mean"), ("pooled_norm", "none")):
            if (value := getattr(config, key)) != idle:
                raise ValueError(
                    f"{key}={value}, but nothing is pooled where each token has an answer; "
                    f"set {key}={idle}"
                )
        if config.tie_embeddings:
            if vocab_size != num_classes:
                raise ValueError(
                    f"tie_embeddings=true, but {num_classes} tokens are asked and "
                    f"{vocab_size} are read; set tie_embeddings=false"
                )
            assert isinstance(self.backbone.encoder, TokenEncoder)
            self.head.weight = self.backbone.encoder.embedding.weight

    def forward(
        self, values: Tensor, lengths: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Logits (B, L, classes), arbitrary at padded positions; see ``Backbone.forward``.

        Of processes that hold a sequence together each has those of its own positions.

        Args:
            values: token ids (B, L), or floats (B, L) or (B, L, C).
            lengths: (B,) true lengths, None when nothing is padded.
            places: (B, K) positions, of these, whose logits (B, K, classes) alone are computed.
        """
        return self.head(self.features(values, lengths, places))

    def unread(
        self, values: Tensor, lengths: Tensor | None = None, places: Tensor | None = None
    ) -> Unread:
        """What ``forward`` would return, before the last linear map."""
        return unread(self.head, self.features(values, lengths, places))

    def features(
        self, values: Tensor, lengths: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """What the head reads (B, L, D), or at ``places`` alone (B, K, D)."""
        features = self.backbone(*own_share(values, lengths))  # (B, L, D)
        if places is not None:
            features = features.take_along_dim(places[..., None], dim=1)  # (B, K, D)
        return features


def compare(first: Tensor, second: Tensor) -> Tensor:
    """What the head reads of two documents' features (B, D): (B, 4 D)."""
    return torch.cat([first, second, first - second, first * second], dim=-1)


def _are_pairs(lengths: Tensor | None) -> bool:
    if lengths is None:
        return True
    return isinstance(lengths, Tensor) and lengths.ndim == 2 and lengths.shape[1] == 2
