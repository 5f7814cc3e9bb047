"""From what a task gives, token ids or real values, to the first activations."""

from __future__ import annotations

from torch import Tensor, nn

from chela.kernels import zero_padding
from chela.layers.basic import compute_dtype, linear


class TokenEncoder(nn.Module):
    """An embedding per token; zero at padded positions, whichever ids fill them.

    Entries start with variance 1 / dim (Vaswani et al. 2017): embeddings of norm 1, small beside
    what the first block adds, so no token's identity drowns its context.
    """

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Ids (B, L) to (B, L, D).

        Raises:
            ValueError: the values are no ids.
        """
        if values.is_floating_point() or values.ndim != 2:
            raise ValueError(
                f"token ids must be integers (B, L), not {values.dtype} {tuple(values.shape)}; "
                "for real values build the model with vocab_size=None"
            )
        ids = zero_padding(values, lengths)  # padding may hold ids beyond the vocabulary
        x = self.embedding(ids)
        return zero_padding(x.to(compute_dtype(x)), lengths)  # as a linear map of values gives them


class ValueEncoder(nn.Module):
    """A linear map of real values; zero at padded positions."""

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = linear(input_dim, dim)

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Values (B, L), or (B, L, C) with C channels, to (B, L, D).

        Raises:
            ValueError: the values are integers or have another number of channels.
        """
        if values.ndim == 2:
            values = values[..., None]  # (B, L, 1)
        if not values.is_floating_point() or values.shape[2:] != (self.linear.in_features,):
            raise ValueError(
                f"values must be floats (B, L, {self.linear.in_features}), not {values.dtype} "
                f"{tuple(values.shape)}; for token ids build the model with a vocab_size"
            )
        values = zero_padding(values.to(self.linear.weight.dtype), lengths)
        return zero_padding(self.linear(values), lengths)
