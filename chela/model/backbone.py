"""The model around the mixers: encoder, blocks, head. It knows no mixer by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from chela.kernels import valid_mask
from chela.layers.basic import Dropout
from chela.layers.norms import BatchNorm, NormName, make_norm
from chela.model.block import Block
from chela.model.encoders import TokenEncoder, ValueEncoder
from chela.model.ffn import GLU, MLP
from chela.model.head import HeadName, Pooling, Unread, make_head, pool, unread

PositiveInt = Annotated[int, Gt(0)]


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class BackboneConfig:
    """Everything but the mixer; sizes are Mega's for Text, the middle of its range."""

    dim: PositiveInt = 128  # channels D of the residual stream
    depth: PositiveInt = 6  # blocks
    ffn: Literal["mlp", "glu", "none"] = "mlp"  # none: the mixer alone makes a block
    # null: 2 * dim; the mixer has the other half of the weights. ffn=none makes it null
    ffn_dim: PositiveInt | None = None
    norm: NormName = "layer"  # batch and scale are better on some tasks; layer is safe on all
    prenorm: bool = True  # trains without a long warm-up; Mega's text tasks use post-norm
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1  # on what is added to the residual stream
    # dropout as for a whole channel; named as in S4's published code
    tie_dropout: bool = field(default=False, metadata={"neutral": False})
    causal: bool = False  # classification may look at the whole sequence
    pooling: Pooling = "mean"  # over the true length; last is for causal models
    # batch: pooled features of one scale, however little a mean over many tokens varies
    pooled_norm: Literal["none", "batch"] = field(default="none", metadata={"neutral": "none"})
    head: HeadName = "mlp"  # as LRA's models; S4's is linear
    head_dim: PositiveInt | None = None  # hidden width of an mlp head; null: 2 * dim
    # one matrix for the tokens that are read and those that are asked (Press & Wolf 2017): a large
    # vocabulary counts once. Off: of bytes it is small, and two kinds of token may be unlike.
    tie_embeddings: bool = field(default=False, metadata={"neutral": False})

    def __post_init__(self) -> None:
        if self.ffn == "none":  # one model, one id, whatever the recipe had for its other forms
            object.__setattr__(self, "ffn_dim", None)
        if self.tie_embeddings and self.head != "linear":
            raise ValueError(
                f"tie_embeddings=true, but head={self.head} has no matrix of embeddings; "
                "set head=linear"
            )
        if self.head == "linear" and self.head_dim is not None:
            raise ValueError(
                f"head_dim={self.head_dim}, but a linear head has no hidden channels; "
                "set head=mlp or head_dim=null"
            )


class Backbone(nn.Module):
    """Encoder and blocks: values to one vector per token.

    Args:
        config: sizes and choices.
        make_mixer: called once per block; returns a module that is called with
            (x (B, L, D), lengths (B,) or None) and returns (B, L, D).
        vocab_size: how many token ids there are; None for real values.
        input_dim: channels of real values; unused for token ids.

    Raises:
        ValueError: the backbone is to be causal, and a part of a mixer says that it is not.
    """

    def __init__(
        self,
        config: BackboneConfig,
        make_mixer: Callable[[], nn.Module],
        *,
        vocab_size: int | None,
        input_dim: int,
    ) -> None:
        super().__init__()
        if vocab_size is not None:
            self.encoder: nn.Module = TokenEncoder(vocab_size, config.dim)
        else:
            self.encoder = ValueEncoder(input_dim, config.dim)
        self.blocks = nn.ModuleList(
            Block(
                make_mixer(), _ffn(config), config.dim, config.norm, config.prenorm, config.dropout
            )
            for _ in range(config.depth)
        )
        for module in self.blocks.modules():
            if config.causal and not getattr(module, "causal", True):
                raise ValueError(
                    "the backbone is to be causal, but make_mixer makes a mixer with a "
                    f"{type(module).__name__} that is not; give the mixer causal=True as well"
                )
            if isinstance(module, Dropout):
                module.tied = config.tie_dropout
        # Post-norm blocks end in a norm already; a pre-norm stream has never been through one.
        self.final_norm = make_norm(config.norm, config.dim) if config.prenorm else None

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Values (B, L) or (B, L, C) to (B, L, D); arbitrary at padded positions.

        Raises:
            ValueError: the values do not fit the encoder, the lengths not the values, or the
                weights are narrower than float32.
        """
        self.check(values, lengths)
        x = self.encoder(values, lengths)  # (B, L, D)
        for block in self.blocks:
            x = block(x, lengths)
        if self.final_norm is None:
            return x
        return self.final_norm(x, None if lengths is None else valid_mask(lengths, x.shape[1]))

    def check(self, values: Tensor, lengths: Tensor | None) -> None:
        """Refuse at the front what would be computed wrong, or fail far inside; see ``forward``."""
        dtype = next(self.encoder.parameters()).dtype
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the weights are {dtype}, which norms and long kernels cannot do with; keep them "
                "in float32 (model.float()) and call the model under "
                "torch.autocast(device_type, torch.bfloat16)"
            )
        if lengths is None:
            return
        if (
            not isinstance(lengths, Tensor)
            or lengths.shape != values.shape[:1]
            or lengths.is_floating_point()
            or lengths.dtype == torch.bool
        ):
            found = (
                f"{lengths.dtype} {tuple(lengths.shape)}"
                if isinstance(lengths, Tensor)
                else lengths
            )
            raise ValueError(
                f"lengths must be a tensor of integers ({len(values)},), one for each sequence of "
                f"the batch, not {found}"
            )
        # Asking a GPU for values makes the host wait: not in training, nor for a graph.
        graph = torch.compiler.is_compiling() or (
            lengths.is_cuda and (self.training or torch.cuda.is_current_stream_capturing())
        )
        if (
            not lengths.is_meta
            and not graph
            and not ((lengths >= 0) & (lengths <= values.shape[1])).all()
        ):
            raise ValueError(
                f"lengths must be from 0 to the padded length {values.shape[1]}, not from "
                f"{lengths.min()} to {lengths.max()}"
            )

    def fold(self) -> Backbone:
        """Fold every mixer that can be folded into its inference form; in place, in eval mode.

        Returns:
            The same object: fewer parameters, the same outputs, no longer to be trained.
        """
        self.eval()
        for block in self.blocks:
            fold = getattr(block.mixer, "fold", None)
            if callable(fold):
                fold()
        return self


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
            ValueError: a sample is more than a pair.
        """
        if self.documents not in (1, 2):
            raise ValueError(
                f"documents={self.documents}: a sample is 1 sequence, or 2 to be compared"
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
        pooled = pool(self.backbone(values, lengths), lengths, self.pooling)  # (B, D)
        if self.pooled_norm is None:
            return pooled
        real = None if lengths is None else (lengths > 0)[:, None]  # (B, 1)
        return self.pooled_norm(pooled[:, None], real)[:, 0]


class TokenModel(Model):
    """Reads each token: an answer at every position. Nothing is pooled, a sample is 1 sequence."""

    def complete(self, config: BackboneConfig, vocab_size: int | None, num_classes: int) -> None:
        """Tie the embeddings, if they are to be.

        Raises:
            ValueError: a sample is more than one sequence, pooled features are to be normalised,
                or tied embeddings are not of the same tokens.
        """
        if self.documents != 1:
            raise ValueError(f"documents={self.documents}: tokens are those of 1 sequence")
        if config.pooled_norm != "none":
            raise ValueError(
                f"pooled_norm={config.pooled_norm}, but nothing is pooled where each token has an "
                "answer; set pooled_norm=none"
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

        Args:
            values: token ids (B, L), or floats (B, L) or (B, L, C).
            lengths: (B,) true lengths, None when nothing is padded.
            places: (B, K) positions whose logits (B, K, classes) alone are computed.
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
        features = self.backbone(values, lengths)  # (B, L, D)
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


def _ffn(config: BackboneConfig) -> nn.Module | None:
    hidden_dim = 2 * config.dim if config.ffn_dim is None else config.ffn_dim
    if config.ffn == "none":
        return None
    return {"mlp": MLP, "glu": GLU}[config.ffn](config.dim, hidden_dim, config.dropout)
