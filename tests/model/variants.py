"""Small models that cover every choice, and the batches they are tried on."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from chela.mixers import ChelaConfig, ChelaMixer
from chela.mixers.state_space import StateSpaceConfig
from chela.model import BackboneConfig, Classifier
from chela.testing import CLASSES, DIM, MAX_LENGTH, VOCAB, unsettled

SMALL: dict[str, Any] = {"long_conv_taps": 4, "qk_dim": 8, "chunk_size": 5, "long_conv_dropout": 0}

MIXERS: dict[str, dict[str, Any]] = {
    "default": {},
    "no-short-conv": {"use_short_conv": False},
    "no-long-conv": {"use_long_conv": False},
    "no-attention": {"use_attention": False},
    "only-attention": {"use_short_conv": False, "use_long_conv": False},
    "only-long-conv": {"use_short_conv": False, "use_attention": False},
    "explicit": {"long_conv_kernel": "explicit"},
    "ema": {"long_conv_kernel": "ema"},
    "s4d-kernel": {
        "long_conv_kernel": "s4d",
        "long_conv_state_space": StateSpaceConfig(state_dim=6),
    },
    "no-branches": {"branch_widths": ()},
    "branches-3-7": {"branch_widths": (3, 7)},
    "branch-batchnorm": {"branch_norm": "batch", "branch_widths": (3, 7)},
    "ema-batchnorm": {"branch_norm": "batch", "long_conv_kernel": "ema"},
    "heads": {"num_heads": 4, "v_dim": 12},
    "identity": {"feature_map": "identity"},
    "elu1": {"feature_map": "elu1"},
    "relu": {"feature_map": "relu"},
    "unit-keys": {"qk_norm": "l2", "num_heads": 2},
    "head-layer": {"head_norm": "layer", "num_heads": 2},
    "head-none": {"head_norm": "none"},
    "mega-gate": {"gate": "mega"},
    "no-gate": {"gate": "none"},
    "linear-path": {"conv_path": "linear"},
    "no-path": {"conv_path": "none"},
    "cosine": {"long_conv_kernel": "cosine", "long_conv_terms": 5, "long_conv_window_min": 4},
    "wavelet": {"long_conv_kernel": "wavelet", "long_conv_filter": 3},
    "width-1": {"short_conv_width": 1},
}
# What only causal models have.
CAUSAL: dict[str, dict[str, Any]] = {
    "key-shift": {"key_shift": True, "num_heads": 2},
    "decay": {"attention_decay": "data", "num_heads": 4, "qk_dim": 6, "v_dim": 12},
    "decay-and-shift": {
        "attention_decay": "data",
        "key_shift": True,
        "num_heads": 2,
        "head_norm": "layer",
        "qk_norm": "l2",
    },
}
OF_TOKENS: dict[str, dict[str, Any]] = {
    **{
        f"{norm}-{'pre' if prenorm else 'post'}": {"norm": norm, "prenorm": prenorm}
        for norm, prenorm in itertools.product(("layer", "rms", "batch", "scale"), (True, False))
    },
    "glu": {"ffn": "glu"},
    "no-ffn": {"ffn": "none"},
    "linear-head": {"head": "linear"},
}
BACKBONES: dict[str, dict[str, Any]] = {
    **OF_TOKENS,
    "last": {"pooling": "last"},
    "max": {"pooling": "max"},
    "pooled-norm": {"pooled_norm": "batch"},
}


def mixer_config(**choices: Any) -> ChelaConfig:
    return ChelaConfig(**{**SMALL, **choices})


def make_mixer(causal: bool = False, **choices: Any) -> ChelaMixer:
    """A mixer in float64 whose every parameter and statistic is off its initial value."""
    torch.manual_seed(0)
    return unsettled(ChelaMixer(DIM, MAX_LENGTH, causal, mixer_config(**choices)))


def make_model(
    mixer: dict[str, Any], backbone: dict[str, Any], tokens: bool = True, causal: bool = False
) -> Classifier:
    """A classifier of two blocks in float64, likewise."""
    torch.manual_seed(0)
    choices = {"dim": DIM, "depth": 2, "dropout": 0.0, "causal": causal, **backbone}
    model = Classifier(
        BackboneConfig(**choices),
        lambda: ChelaMixer(DIM, MAX_LENGTH, causal, mixer_config(**mixer)),
        vocab_size=VOCAB if tokens else None,
        input_dim=2,
        num_classes=CLASSES,
    )
    return unsettled(model)
