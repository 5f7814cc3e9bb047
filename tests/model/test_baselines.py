"""What holds for every baseline: padding, causality, gradients, precision, kernels."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from baseline_variants import BASELINES, LOCAL, make_baseline, make_baseline_model
from test_padding import gradients, padded_further
from variants import DIM, MAX_LENGTH, ragged

from chela.config.settings import OptimizerConfig
from chela.kernels import use_kernels
from chela.mixers import LinearTransformerConfig, LinearTransformerMixer
from chela.training.optim import parameter_groups

CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
# What is added to all keys adds the same to all scores of a query: a softmax does not see it.
SOFTMAX_MEGA = ["mega", "mega-chunk", "mega-rotary-plain"]
NAMES = pytest.mark.parametrize("name", BASELINES)


@CAUSAL
@NAMES
def test_the_padded_length_and_its_content_do_not_matter(name, causal):
    """Logits and every parameter's gradient, an empty sequence among them."""
    model = make_baseline_model(name, causal)
    other = copy.deepcopy(model)
    ids, lengths = ragged()
    longer = padded_further(ids, lengths)
    short, long = model(ids, lengths), other(longer, lengths)
    assert torch.isfinite(short).all()
    torch.testing.assert_close(long, short, rtol=1e-10, atol=1e-10)
    longer_gradients = gradients(other, longer, lengths)
    for parameter, gradient in gradients(model, ids, lengths).items():
        torch.testing.assert_close(longer_gradients[parameter], gradient, rtol=1e-8, atol=1e-10)


@CAUSAL
@NAMES
def test_a_padded_sequence_is_what_it_is_alone(name, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(3, 17, DIM, dtype=torch.float64)
    lengths = torch.tensor([17, 9, 1])
    dirty = x.clone()
    dirty[torch.arange(17) >= lengths[:, None]] = float("nan")
    together = mixer(dirty, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = mixer(x[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-9, atol=1e-10)


@NAMES
def test_no_output_of_a_causal_mixer_sees_the_future(name):
    mixer = make_baseline(name, causal=True)
    x = torch.randn(1, 12, DIM, dtype=torch.float64, requires_grad=True)
    y = mixer(x)
    for t in range(11):
        (gradient,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        assert gradient[:, t + 1 :].abs().max() < 1e-13  # the FFT rounds; all else is exactly zero
        assert gradient[:, t].norm() > 1e-3


@CAUSAL
@NAMES
def test_outputs_see_all_they_may_see(name, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(1, 12, DIM, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mixer(x)[:, 6].sum(), x)
    first, last = (5, 7) if name in LOCAL else (0, 11)
    assert gradient[:, first].norm() > 1e-6
    assert (gradient[:, last].norm() > 1e-6) is not causal


@NAMES
def test_mixers_tell_the_order_of_tokens_unless_they_have_no_positions(name):
    mixer = make_baseline(name)
    x = torch.randn(1, 11, DIM, dtype=torch.float64)
    order = torch.randperm(11)
    moved = (mixer(x[:, order]) - mixer(x)[:, order]).abs().max()
    assert (moved > 1e-6) is not name.endswith("-none")


@CAUSAL
@NAMES
def test_gradients_are_those_of_finite_differences(name, causal):
    mixer = make_baseline(name, causal, max_length=6)
    x = torch.randn(2, 6, DIM, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([6, 4])
    parameters = list(mixer.parameters())
    mask = (torch.arange(6) < lengths[:, None])[..., None]

    def outputs(x, *_):
        return mixer(x, lengths) * mask

    # fast_mode: along random directions, of the input and of all parameters at once
    assert torch.autograd.gradcheck(outputs, (x, *parameters), fast_mode=True)


@CAUSAL
@NAMES
def test_every_parameter_is_trained(name, causal):
    model = make_baseline_model(name, causal)
    ids, lengths = ragged(MAX_LENGTH)
    F.cross_entropy(model(ids, lengths), torch.tensor([0, 1, 2, 0, 1])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        idle = parameter_name.endswith("shift_k") and name in SOFTMAX_MEGA
        assert (parameter.grad.norm() > 1e-12) is not idle, parameter_name


@CAUSAL
@NAMES
def test_bfloat16_is_close_to_float64(name, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(2, 21, DIM, dtype=torch.float64)
    lengths = torch.tensor([21, 13])
    exact = mixer(x, lengths)
    narrow = copy.deepcopy(mixer).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = narrow(x.float(), lengths)
    assert y.dtype == torch.bfloat16
    real = torch.arange(21) < lengths[:, None]
    error = (y.double() - exact)[real].norm() / exact[real].norm()
    assert error < 0.02  # a few roundings of 2^-9 each
    y[real].float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in narrow.parameters())


@pytest.mark.parametrize("name", ["transformer", "s4d", "sgconv", "mega"])
def test_dropout_acts_in_training_only(name):
    mixer = make_baseline(name, dropout=0.5)
    x = torch.randn(2, 9, DIM, dtype=torch.float64)
    assert not torch.equal(mixer.train()(x), mixer(x))
    assert torch.equal(mixer.eval()(x), mixer(x))


@CAUSAL
@pytest.mark.parametrize("name", ["linear", "s4d", "sgconv", "mega-chunk"])
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
    assert make_baseline("linear").kernel_obstacle() is None
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
        ("transformer", set()),
        ("linear", set()),
        ("s4d", {"kernel.log_dt", "kernel.log_decay", "kernel.frequency"}),
        ("sgconv", {"kernel.sub_kernels"}),
        ("mega", {"ema.alpha", "ema.delta", "ema.beta", "ema.eta"}),
    ],
    ids=["transformer", "linear", "s4d", "sgconv", "mega"],
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
