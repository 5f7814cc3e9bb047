"""Sequences that several processes hold together are computed as one computes them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from chela.errors import ConfigError
from chela.training.build import refuse_unsplit
from tests.conftest import program
from tests.model.baseline_variants import NAMES, subject
from tests.model.shares import SPLIT
from tests.model.variants import MIXERS, make_model

# the number of processes, and how many of them hold a sequence
WORLDS = ("2/2", "4/4", "4/2")


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, dict]]:
    """What ``tests.model.shares`` prints."""
    result = program("-m", "tests.model.shares", OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.process
@pytest.mark.parametrize("world", WORLDS)
def test_outputs_and_gradients_are_those_of_one_process(world: str, measured: dict) -> None:
    errors = measured[world]["errors"]
    assert {name: error for name, error in errors.items() if not error < 1e-10} == {}
    assert len(errors) > (20 if world.startswith("4") else len(MIXERS) + len(SPLIT))


@pytest.mark.process
@pytest.mark.parametrize("world", WORLDS)
def test_what_is_sent_is_known_and_near_the_least(world: str, measured: dict) -> None:
    """Counted where collectives are called; ``Shares`` has the formulas and the reasons."""
    parts = int(world[-1])
    exchanged = measured[world]["traffic"]
    groups = int(world[0]) // parts
    for name, (sent, least) in exchanged.items():
        several = {
            "only-short-conv, both ways": 1,
            "only-short-conv, causal": 1,
            "only-long-conv, both ways": 2 * (parts - 1) / parts,
            "only-long-conv, causal": 2,
            "only-attention, both ways": 1,
            "only-attention, causal": parts / 2,
            # of each head, beside its state of 6 x 3 numbers, what is left of the one before
            "only-decay, causal": parts * (6 * 3 + 1) / (6 * 3),
        }.get(name)
        if several is not None:
            assert sent == round(several * least * groups) > 0, name
        assert least * groups <= sent <= max(2, several or 0) * least * groups, name


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_two_gpus_round_as_one_does() -> None:
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    result = program("-m", *torchrun, "-m", "tests.model.shares", "rounding")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert len(found) == 4
    for name, pairs in found.items():  # relative errors of logits and of each weight's gradient
        ones, twos = zip(*pairs, strict=True)
        assert math.hypot(*twos) < 1.5 * math.hypot(*ones), name
        for one, two in pairs:
            assert two < 2 * one + 0.1, name  # of a wrong one it would be about 1


@pytest.mark.parametrize("name", NAMES)
def test_every_mixer_says_whether_it_can_be_split(name: str) -> None:
    model = subject(name).make_model()
    if name in SPLIT or name == "chela":
        refuse_unsplit(model, name, 2)
        return
    with pytest.raises(ConfigError) as refused:
        refuse_unsplit(model, name, 2)
    assert f"model={name} cannot have each sequence on 2 devices: " in str(refused.value)
    assert "attention looks at" in str(refused.value)
    assert "take model=chela, linear_transformer, s4d or sgconv" in str(refused.value)


class Silent(nn.Identity):
    """A mixer that says nothing."""


@pytest.mark.parametrize(
    ("mixer", "backbone", "reason"),
    [
        ({"short_conv_width": 19}, {}, "width 19 looks at 9 tokens .* make its width 17 at most"),
        ({"branch_norm": "batch", "branch_widths": (21,)}, {}, "width 21 looks at 10 tokens"),
        ({}, {"tie_dropout": True, "dropout": 0.1}, "tied dropout .* set tie_dropout=false"),
        (None, {}, r"Silent does not say .* give it a method split_obstacle\(\)"),
    ],
)
def test_what_cannot_be_split_says_what_to_do(
    mixer: dict | None, backbone: dict, reason: str
) -> None:
    model = make_model(mixer or {}, backbone)
    if mixer is None:
        model.backbone.blocks[0].mixer = Silent()  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=f"{reason}.*, or trainer.sequence_devices=1"):
        refuse_unsplit(model, "x", 2)
