"""The model around the mixers: encoder and blocks. It knows no mixer by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from chela.kernels import valid_mask
from chela.layers.basic import Dropout, Rate
from chela.layers.norms import NormName, make_norm
from chela.model.block import Block
from chela.model.encoders import TokenEncoder, ValueEncoder
from chela.model.ffn import GLU, MLP
from chela.model.head import HeadName, Pooling


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
    dropout: Rate = 0.1  # on what is added to the residual stream
    # dropout as for a whole channel; named as in S4's published code
    tie_dropout: bool = field(default=False, metadata={"neutral": False})
    # of whole tokens of the input: what is learnt must not hang on a few of them
    token_dropout: Rate = field(default=0.0, metadata={"neutral": 0.0})
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
        self.token_dropout = config.token_dropout
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
            ValueError: the values do not fit the encoder or have no position, the lengths do not
                fit the values, or the weights are narrower than float32.
        """
        self.check(values, lengths)
        x = self.encoder(values, lengths)  # (B, L, D)
        if self.token_dropout and self.training:
            x = x * F.dropout(torch.ones_like(x[..., :1]), self.token_dropout)
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
        if values.ndim > 1 and values.shape[1] == 0:
            raise ValueError("the batch has no token at all; pad it to one position at least")
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


def _ffn(config: BackboneConfig) -> nn.Module | None:
    hidden_dim = 2 * config.dim if config.ffn_dim is None else config.ffn_dim
    if config.ffn == "none":
        return None
    return {"mlp": MLP, "glu": GLU}[config.ffn](config.dim, hidden_dim, config.dropout)
