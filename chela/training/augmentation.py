"""Samples as they are not in the data, in other forms or made of two: harder to learn by heart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from chela.config.settings import Mixing, TrainerConfig
from chela.errors import ConfigError, RunError
from tasks.base import Batch
from tasks.spec import TaskSpec


class Mixed(NamedTuple):
    """A ``Batch`` of which each sample has a part of another one in it."""

    values: Tensor
    lengths: Tensor
    targets: Tensor  # (B,) their own
    index: Tensor  # type: ignore[assignment]
    others: Tensor  # (B,) the others' targets
    share: Tensor  # (B,) of a sample's own target, 0.5 to 1; the rest is the other's


def augmentation_of(
    config: TrainerConfig, spec: TaskSpec, padded: bool
) -> Callable[[Batch], Batch | Mixed]:
    """What makes of a training batch the one that is seen in its place; drawn anew at each call.

    Args:
        config: what is asked for.
        spec: what the task's samples look like.
        padded: whether batches hold padding.

    Raises:
        ConfigError: these samples have no other form, or cannot be mixed.
        RunError: at a call, where the task makes no batch of the same shapes and types of it.
    """
    augment = spec.augment if config.augment else None
    if config.augment and (why := _why_not_augmented(config, spec)):
        raise ConfigError(
            f"trainer.augment=true cannot be had: {why}.\n  try: trainer.augment=false"
        )
    how = config.mixing
    if how != "none" and (why := _why_not_mixed(config, spec, padded)):
        raise ConfigError(f"trainer.mixing={how} cannot be had: {why}.\n  try: trainer.mixing=none")

    def augmented(batch: Batch) -> Batch | Mixed:
        seen = batch if augment is None else augment(batch)
        if seen is not batch and (given := _form(batch)) != (made := _form(seen)):
            raise RunError(
                f"of {spec.name} a step has {given}, and TaskSpec.augment makes {made} of it.\n"
                "  try: batch._replace(values=<of the same shape and type>) in the task's function"
            )
        return seen if how == "none" else mix(seen, how)

    return augmented


def mix(batch: Batch, how: Mixing, share: Tensor | None = None) -> Mixed:
    """Mix each sample with the one before it in the batch.

    ``mixup`` takes the mean of both that ``share`` says (Zhang et al. 2018, arXiv 1710.09412,
    equation 2); ``cutmix`` takes a piece of that length from the other one, from where it goes to
    (Yun et al. 2019, arXiv 1905.04899, equation 1, along a sequence). Shares are uniform, Beta(1,
    1), as both papers have them for small pictures. The larger one is a sample's own: a smaller one
    would be the same mixture seen from the other sample.

    Args:
        batch: of sequences (B, L) or (B, L, C); for ``mixup`` of continuous values of one length.
        how: ``"mixup"`` or ``"cutmix"``.
        share: (B,) of each sample's own; None: drawn on the device.
    """
    values, size = batch.values, len(batch.targets)
    if share is None:
        share = 1 - torch.rand(size, device=values.device) / 2
    other = values.roll(1, 0)
    rest = [1] * (values.ndim - 2)  # channels
    if how == "mixup":
        mixed = torch.lerp(other, values, share.view(-1, 1, *rest).to(values.dtype))
    else:
        room = torch.minimum(batch.lengths, batch.lengths.roll(1))  # both have so many positions
        cut = ((1 - share) * room).round()
        first = (torch.rand(size, device=values.device) * (room - cut + 1)).floor()
        at = torch.arange(values.shape[1], device=values.device)
        inside = (at >= first[:, None]) & (at < (first + cut)[:, None])  # (B, L)
        mixed = torch.where(inside.view(*inside.shape, *rest), other, values)
        share = 1 - cut / batch.lengths.clamp(min=1)
    return Mixed(*batch._replace(values=mixed), batch.targets.roll(1, 0), share)


def _form(batch: object) -> str:
    """What a recorded step asks of a batch: that it is one, its shapes and its types."""
    if not isinstance(batch, Batch):
        return f"a {type(batch).__name__}"
    parts = (f"{name} {x.dtype} {tuple(x.shape)}" for name, x in batch._asdict().items())
    return f"a Batch of {', '.join(parts)}"


def _why_not_augmented(config: TrainerConfig, spec: TaskSpec) -> str | None:
    if spec.augment is None:
        return f"{spec.name} does not say in which other forms a sample has the same class"
    if config.sequence_devices > 1:
        return "devices that hold a sequence together each have a part of a sample"
    return None


def _why_not_mixed(config: TrainerConfig, spec: TaskSpec, padded: bool) -> str | None:
    if spec.objective != "classification" or spec.documents > 1:
        return f"{spec.name} does not ask for the class of one sequence"
    if config.sequence_devices > 1:
        return "devices that hold a sequence together would each mix another one into it"
    if config.batch_size == config.replicas:
        return "a device has one sample of each batch, and no other one to mix it with"
    if config.mixing == "mixup" and spec.vocab_size is not None:
        return f"{spec.name} has symbols, of which there is no mean"
    if config.mixing == "mixup" and padded:
        return f"the sequences of {spec.name} have different lengths"
    return None
