"""What holds for every mixer: padding, causality, gradients, precision, kernels."""

from __future__ import annotations

import itertools

import pytest
import torch

from chela.config.settings import OptimizerConfig
from chela.kernels import use_kernels
from chela.mixers import LinearTransformerConfig, LinearTransformerMixer
from chela.testing import (
    CHECKS,
    DIM,
    MAX_LENGTH,
    Subject,
    gradients_are_those_of_finite_differences,
    steps_are_the_whole_sequence,
)
from chela.training.optim import parameter_groups
from tests.model.baseline_variants import EVERY, NAMES, make_baseline, subject
from tests.model.variants import CAUSAL as ONLY_CAUSAL
from tests.model.variants import MIXERS

CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
# Of CHELA: its operations are held to naive forms, and test_stepping.py has the steps.
ELSEWHERE = (gradients_are_those_of_finite_differences, steps_are_the_whole_sequence)


@CAUSAL
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_mixer_keeps(name, check, causal):
    if check is steps_are_the_whole_sequence and not causal:
        with pytest.raises(NotImplementedError):
            check(subject(name), causal)
    else:
        check(subject(name), causal)


@pytest.mark.parametrize(
    "check",
    [each for each in CHECKS if each not in ELSEWHERE],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize(
    ("name", "causal"),
    [*itertools.product(MIXERS, (False, True)), *itertools.product(ONLY_CAUSAL, (True,))],
)
def test_every_choice_of_chela_keeps(name, causal, check):
    check(Subject(*EVERY[name]), causal)


@pytest.mark.parametrize("name", NAMES)
def test_mixers_tell_the_order_of_tokens_unless_they_have_no_positions(name):
    mixer = make_baseline(name)
    x = torch.randn(1, 11, DIM, dtype=torch.float64)
    order = torch.randperm(11)
    moved = (mixer(x[:, order]) - mixer(x)[:, order]).abs().max()
    assert (moved > 1e-6) is not name.endswith("-none")


@pytest.mark.parametrize("name", ["chela", "transformer", "s4d", "sgconv", "mega"])
def test_dropout_acts_in_training_only(name):
    mixer = make_baseline(name, dropout=0.5)
    x = torch.randn(2, 9, DIM, dtype=torch.float64)
    assert not torch.equal(mixer.train()(x), mixer(x))
    assert torch.equal(mixer.eval()(x), mixer(x))


@pytest.mark.interpreted
@CAUSAL
@pytest.mark.parametrize("name", ["linear_transformer", "s4d", "sgconv", "mega_chunk"])
def test_the_kernels_compute_the_same_mixer(name, causal):
    """Attention in float32; long convolutions in bfloat16, since float32 ones are FFTs anyway."""
    mixer = make_baseline(name, causal).float()
    exact = isinstance(mixer, LinearTransformerMixer)
    x = torch.randn(2, 13, DIM, dtype=torch.float32 if exact else torch.bfloat16)
    lengths = torch.tensor([13, 9])
    results = []
    for asked in ("torch", "triton"):
        use_kernels(mixer, asked, x.device)
        assert mixer.implementation == asked
        mixer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not exact):
            y = mixer(x, lengths)[:, :9]
        y.float().square().mean().backward()
        results.append([y.detach().float(), *(p.grad for p in mixer.parameters())])
    for plain, fused in zip(*results, strict=True):
        error = (fused - plain).norm() / plain.norm().clamp(min=1e-3)
        assert error < (1e-5 if exact else 0.02)


def test_a_convolution_says_what_computes_it():
    mixer = make_baseline("s4d")
    assert mixer.implementation_in(torch.bfloat16) == "torch"
    mixer.implementation = "triton"
    assert mixer.implementation_in(torch.bfloat16) == "triton (monarch)"
    assert mixer.implementation_in(torch.float32) == "torch (fft)"


def test_heads_wider_than_the_kernels_stay_on_torch():
    mixer = LinearTransformerMixer(136, 9, config=LinearTransformerConfig(num_heads=1))
    assert (
        mixer.kernel_obstacle()
        == "q and k of 136 channels a head are wider than 128: take more num_heads"
    )
    assert make_baseline("linear_transformer").kernel_obstacle() is None
    with pytest.raises(ValueError, match="linear_attention: q and k of 136 channels"):
        use_kernels(mixer, "triton", torch.device("cpu"))


@pytest.mark.parametrize("name", ["s4d", "sgconv", "mega", "mega-rotary-plain"])
def test_a_batch_longer_than_the_model_is_refused(name):
    mixer = make_baseline(name)
    with pytest.raises(ValueError, match="build it with the task's longest length"):
        mixer(torch.zeros(1, MAX_LENGTH + 1, DIM, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("chela", {"long_conv.kernel.sub_kernels"}),
        ("transformer", set()),
        ("linear_transformer", set()),
        ("s4d", {"kernel.log_dt", "kernel.log_decay", "kernel.frequency"}),
        ("sgconv", {"kernel.sub_kernels"}),
        ("mega", {"ema.alpha", "ema.delta", "ema.beta", "ema.eta"}),
    ],
    ids=["chela", "transformer", "linear_transformer", "s4d", "sgconv", "mega"],
)
def test_what_is_trained_at_the_kernels_rate(name, kernels):
    mixer = make_baseline(name)
    names = {id(parameter): name for name, parameter in mixer.named_parameters()}
    config = OptimizerConfig("adamw", 0.1, 0.001, 0.5, [0.9, 0.98], 1e-8)
    groups = {group["name"]: group for group in parameter_groups(mixer, config)}
    found = {names[id(parameter)] for parameter in groups.get("kernels", {"params": []})["params"]}
    assert found == kernels
    if kernels:
        assert (groups["kernels"]["lr"], groups["kernels"]["weight_decay"]) == (0.001, 0.0)
