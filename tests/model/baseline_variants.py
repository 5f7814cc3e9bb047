"""Every mixer in sizes for tests, with every choice of theirs once."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from chela.bench.params import model_names, run_config
from chela.config.component import Component
from chela.mixers import (
    ChelaMixer,
    LinearTransformerMixer,
    MegaMixer,
    S4DMixer,
    SGConvMixer,
    TransformerMixer,
)
from chela.testing import MAX_LENGTH, Subject, without_dropout
from tests.model.variants import CAUSAL, MIXERS, mixer_config

MEGA: dict[str, Any] = {"qk_dim": 4, "v_dim": 12, "ema_dim": 3}

BASELINES: dict[str, tuple[Any, dict[str, Any]]] = {
    "transformer": (TransformerMixer, {"num_heads": 2}),
    "transformer-none": (TransformerMixer, {"num_heads": 4, "positions": "none"}),
    "transformer-wide": (TransformerMixer, {"num_heads": 3, "attention_dim": 12}),
    "linear_transformer": (LinearTransformerMixer, {"num_heads": 2, "chunk_size": 5}),
    "linear-none": (LinearTransformerMixer, {"num_heads": 4, "positions": "none"}),
    "s4d": (S4DMixer, {"state_dim": 6}),
    "s4d-inv-bilinear": (S4DMixer, {"state_dim": 6, "init": "inv", "discretization": "bilinear"}),
    "sgconv": (SGConvMixer, {"taps": 4}),
    "sgconv-1": (SGConvMixer, {"taps": 1, "decay": 1.0}),
    "mega": (MegaMixer, MEGA),
    "mega_chunk": (MegaMixer, {**MEGA, "chunk_size": 5}),
    "mega-laplace": (MegaMixer, {**MEGA, "attention": "laplace", "position_bias": "rotary"}),
    "mega-relu2-chunk": (MegaMixer, {**MEGA, "attention": "relu2", "chunk_size": 4}),
    "mega-rotary-plain": (MegaMixer, {**MEGA, "position_bias": "rotary", "ema_silu": False}),
}

# All of them, and those of CHELA, with their configurations; some have to be causal.
EVERY: dict[str, tuple[Any, Any]] = {
    **{name: (ChelaMixer, mixer_config(**choices)) for name, choices in (MIXERS | CAUSAL).items()},
    **{name: (mixer, mixer.Config(**choices)) for name, (mixer, choices) in BASELINES.items()},
}
# Every model of configs/model/ is tested, of which no size for tests stands above as in its file.
NAMES = [*BASELINES, *(name for name in model_names() if name not in BASELINES)]


def subject(name: str, **changes: Any) -> Subject:
    """A baseline, or the mixer of a file of ``configs/model/``."""
    if name in BASELINES:
        mixer, choices = BASELINES[name]
        return Subject(mixer, mixer.Config(**{**choices, **changes}))
    found = of_the_file(name)
    return Subject(found.target, dataclasses.replace(without_dropout(found.config), **changes))


@cache
def of_the_file(name: str) -> Component:
    return run_config(name, ["~experiment/lra"]).model.mixer


def make_baseline(
    name: str, causal: bool = False, max_length: int = MAX_LENGTH, **changes: Any
) -> Any:
    """A mixer in float64 whose every parameter is off its initial value."""
    return subject(name, **changes).make_mixer(causal, max_length)
