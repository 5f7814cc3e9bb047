"""A key that changes nothing of a model changes no run's id either."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from chela.bench.params import run_config
from chela.config.schema import RunConfig, as_dict, of_values
from chela.errors import ConfigError
from chela.mixers.chela.choices import OF_KERNEL, OF_PART
from chela.training.build import build_model
from tasks.base import TaskSpec
from tests.arena import arena_models

SPEC = TaskSpec("x", num_classes=4, max_length=24, vocab_size=9, input_dim=1)
SMALL = ["model.dim=8", "model.depth=1", "model.head=mlp"]
# Sizes of which each other one is another model of so short sequences.
SIZES = {
    "chela": {"qk_dim": 4, "long_conv_taps": 4, "long_conv_terms": 5, "long_conv_window_min": 4},
    "sgconv": {"taps": 4},
}
SPEED = {"chunk_size"}  # another one is another order of the same sums
KEPT = {"use_long_conv": {"long_conv_kernel"}}  # see OF_PART
OTHERS = [
    *({part: False} for part in OF_PART),
    *({"long_conv_kernel": kind} for kind in OF_KERNEL),
]
BASES = [
    *((name, {"dropout": dropout}, {}) for name in arena_models() for dropout in (0.0, 0.1)),
    *(("chela", {}, mixer) for mixer in OTHERS),
    *(("chela", key, {}) for key in ({"ffn": "none"}, {"head": "linear"})),
]


def outcome(config: RunConfig) -> list[Tensor]:
    """What a fresh model computes in training, of its weights and of its draws."""
    torch.manual_seed(0)
    model = build_model(config.model, SPEC).train()
    values, lengths = torch.arange(72).view(3, 24) % 9, torch.tensor([24, 20, 10])
    torch.manual_seed(1)
    return [model(values, lengths).detach(), *model.state_dict().values()]


def others(hint: Any, value: Any) -> Iterator[Any]:
    """Other values that a key of this type can have."""
    if get_origin(hint) is Literal:
        yield from (each for each in get_args(hint) if each != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 2
    elif isinstance(value, float):
        yield value / 2 or 0.25
    else:
        yield [3] if isinstance(value, tuple) else 12


@pytest.mark.parametrize(("name", "backbone", "mixer"), BASES)
def test_a_key_without_meaning_is_in_no_id(
    name: str, backbone: dict[str, Any], mixer: dict[str, Any]
) -> None:
    values = as_dict(run_config(name, ["task=listops", "~experiment/lra", *SMALL]))
    values["model"] |= backbone
    values["model"]["mixer"] |= SIZES.get(name, {}) | mixer
    config = of_values(values)
    expected = outcome(config)
    parts = [(config.model.backbone, ["model"]), (config.model.mixer.config, ["model", "mixer"])]
    if name == "chela":
        state_space = config.model.mixer.config.long_conv_state_space
        parts.append((state_space, ["model", "mixer", "long_conv_state_space"]))
    wrong = []
    for part, place in parts:
        for key, hint in get_type_hints(type(part)).items():
            if key in SPEED or dataclasses.is_dataclass(hint):
                continue
            for other in others(hint, getattr(part, key)):
                changed = copy.deepcopy(values)
                functools.reduce(operator.getitem, place, changed)[key] = other
                try:
                    config_of_other = of_values(changed)
                    found = outcome(config_of_other)
                except (ConfigError, ValueError):
                    continue  # they do not go together
                same = len(found) == len(expected) and all(map(torch.equal, found, expected))
                if same and config_of_other.identity != config.identity:
                    wrong.append(f"{key}={other}")
    assert {each.split("=")[0] for each in wrong} <= KEPT.get(next(iter(mixer), ""), set())
