"""What a trained model does inside: the kernels it has learned, and how far an output sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chela.mixers.chela.long_conv import FoldedLongConv, LongConv, LongStage
from chela.mixers.long_kernels import LongKernel
from chela.model import Model


@torch.no_grad()
def long_kernels(model: nn.Module, length: int | None = None) -> dict[str, Tensor]:
    """The long convolutions' kernels of a model, as they are in evaluation.

    CHELA's have their short branches and the skip in them, of which its kernel is the sum.

    Args:
        model: of any kind; in evaluation mode.
        length: taps of each; None: as many as it was built for.

    Returns:
        By the module's name, in the order of the blocks: (directions, D, length), in float32. The
        first direction has lags 0, 1, ..., the second, of a bidirectional model, -1, -2, ...

    Raises:
        ValueError: more taps than some kernel was built for, or none.
    """
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (LongStage, LongKernel)) or name.rpartition(".")[0] in found:
            continue  # no kernel, or that of a stage which has it
        taps = module.max_length if length is None else length
        if not 1 <= taps <= module.max_length:
            raise ValueError(f"length={taps}, but {name} was built for {module.max_length} taps")
        if isinstance(module, LongConv):
            found[name] = module.merged(taps)[0]
        elif isinstance(module, FoldedLongConv):
            found[name] = module.kernel[..., :taps]
        else:
            found[name] = module(taps)
    return {name: kernel.float() for name, kernel in found.items()}


def receptive_field(
    model: Model, values: Tensor, lengths: Tensor | None = None, place: int = -1
) -> Tensor:
    """How much the features at one token depend on each token: the effective receptive field.

    It is the norm of the gradient by each token's embedding, of the features behind the last block
    at ``place``, as one random mix of their channels (a norm fixes the sum of all), averaged over
    the batch (Luo et al. 2016).

    Args:
        model: in evaluation mode; its samples are single sequences.
        values: a batch as the task's ``batches`` or ``encode`` gives it, (B, L) or (B, L, C).
        lengths: (B,) true lengths; None when nothing is padded. ``place`` must lie within all.
        place: the token whose features are looked at; negative: counted from the end.

    Returns:
        (L,), with 1 for the token that matters most.

    Raises:
        ValueError: the samples are pairs, or some have no token at ``place``.
    """
    if model.documents != 1:
        raise ValueError("a sample of this model is a pair; encode one document of it")
    length = values.shape[1]
    if not -length <= place < length:
        raise ValueError(f"place={place}, but the batch has {length} tokens")
    shortest = length if lengths is None else int(lengths.min())
    place = place % length
    if place >= shortest:
        raise ValueError(f"place={place}, but a sequence of the batch has {shortest} tokens alone")
    embedded: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    hook = model.backbone.encoder.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            features = model.backbone(values, lengths)[:, place]  # (B, D)
    finally:
        hook.remove()
    mix = torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((features * mix.to(features)).sum(), embedded[0])
    seen = gradient.norm(dim=-1).mean(0)  # (L,)
    return seen / seen.max()
