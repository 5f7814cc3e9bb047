"""The baselines in sizes for tests, with every choice of theirs once."""

from __future__ import annotations

from typing import Any

import torch
from variants import DIM, MAX_LENGTH, VOCAB, unsettled

from chela.mixers import LinearTransformerMixer, MegaMixer, S4DMixer, SGConvMixer, TransformerMixer
from chela.model import BackboneConfig, Classifier

CLASSES = 3
MEGA: dict[str, Any] = {"qk_dim": 4, "v_dim": 12, "ema_dim": 3}

BASELINES: dict[str, tuple[Any, dict[str, Any]]] = {
    "transformer": (TransformerMixer, {"num_heads": 2}),
    "transformer-none": (TransformerMixer, {"num_heads": 4, "positions": "none"}),
    "transformer-wide": (TransformerMixer, {"num_heads": 3, "attention_dim": 12}),
    "linear": (LinearTransformerMixer, {"num_heads": 2, "chunk_size": 5}),
    "linear-none": (LinearTransformerMixer, {"num_heads": 4, "positions": "none"}),
    "s4d": (S4DMixer, {"state_dim": 6}),
    "s4d-inv-bilinear": (S4DMixer, {"state_dim": 6, "init": "inv", "discretization": "bilinear"}),
    "sgconv": (SGConvMixer, {"taps": 4}),
    "sgconv-1": (SGConvMixer, {"taps": 1, "decay": 1.0}),
    "mega": (MegaMixer, MEGA),
    "mega-chunk": (MegaMixer, {**MEGA, "chunk_size": 5}),
    "mega-laplace": (MegaMixer, {**MEGA, "attention": "laplace", "position_bias": "rotary"}),
    "mega-relu2-chunk": (MegaMixer, {**MEGA, "attention": "relu2", "chunk_size": 4}),
    "mega-rotary-plain": (MegaMixer, {**MEGA, "position_bias": "rotary", "ema_silu": False}),
}

# Variants whose outputs see their neighbours alone, such as a short convolution's.
LOCAL: set[str] = set()


def make_baseline(
    name: str, causal: bool = False, max_length: int = MAX_LENGTH, **changes: Any
) -> Any:
    """A mixer in float64 whose every parameter is off its initial value."""
    torch.manual_seed(0)
    mixer, choices = BASELINES[name]
    config = mixer.Config(**{**choices, **changes})
    return unsettled(mixer(DIM, max_length, causal, config))


def make_baseline_model(name: str, causal: bool = False, **backbone: Any) -> Classifier:
    """A classifier of two blocks in float64, likewise."""
    torch.manual_seed(0)
    mixer, choices = BASELINES[name]
    config = BackboneConfig(**{"dim": DIM, "depth": 2, "dropout": 0, "causal": causal, **backbone})
    model = Classifier(
        config,
        lambda: mixer(DIM, MAX_LENGTH, causal, mixer.Config(**choices)),
        vocab_size=VOCAB,
        input_dim=1,
        num_classes=CLASSES,
    )
    return unsettled(model)
