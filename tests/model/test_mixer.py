"""The mixer against its formula, its choices one by one, and its bad values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from chela.kernels import use_kernels
from chela.kernels.linear_attention import naive as attention
from chela.kernels.long_conv import naive as long_conv
from chela.kernels.short_conv import naive as short_conv
from chela.kernels.tokens import NO_NORM
from chela.mixers import ChelaConfig, ChelaMixer
from chela.testing import DIM, MAX_LENGTH
from tests.model.variants import make_mixer, mixer_config


def formula(mixer: ChelaMixer, h: torch.Tensor, heads: int, causal: bool) -> torch.Tensor:
    """The module's docstring, letter by letter, for SiLU everywhere and one branch of width 5."""
    stage, attend, gate = mixer.long_conv, mixer.attention, mixer.gate
    s = F.silu(
        short_conv.convolve(h, mixer.short_conv.weight, mixer.short_conv.bias, causal=causal)
    )
    long = long_conv.convolve(s, stage.kernel(s.shape[1])) * stage.norms[0].weight
    short = short_conv.convolve(s, stage.branches[0], causal=causal) * stage.norms[1].weight
    z = long + short + stage.skip * s
    views = attend.query_key
    u = F.silu(z @ views.shared.weight.T + views.shared.bias)
    q = views.scale_q * u + views.shift_q
    k = views.scale_k * u + views.shift_k
    v = F.silu(h @ mixer.value.weight.T + mixer.value.bias)
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    o = attention.causal(q, k, v)[0] if causal else attention.bidirectional(q, k, v)
    o = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attend.head_norm.weight
    g = F.silu(z @ gate.gate.weight.T + gate.gate.bias)
    y = (g * o.reshape(g.shape)) @ gate.out.weight.T + gate.out.bias
    a, b = (F.gelu(z) @ mixer.path.out.weight.T + mixer.path.out.bias).chunk(2, -1)
    return y + a * torch.sigmoid(b)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_the_mixer_is_its_formula(causal, heads):
    mixer = make_mixer(causal, num_heads=heads)
    h = torch.randn(2, 13, DIM, dtype=torch.float64)
    torch.testing.assert_close(mixer(h), formula(mixer, h, heads, causal))


@pytest.mark.parametrize("decay", ["none", "data"])
@pytest.mark.parametrize("shift", [True, False])
def test_keys_of_the_token_before_and_a_decay_from_the_data(shift, decay):
    """The formula on the mixer's own q, k and v; heads that forget share one q and k."""
    choices = {"key_shift": shift, "attention_decay": decay, "num_heads": 2}
    attend = make_mixer(True, head_norm="none", **choices).attention
    z = torch.randn(2, 13, DIM, dtype=torch.float64)
    v = torch.randn(2, 13, 2, DIM, dtype=torch.float64)
    q, k = (x.unflatten(-1, (1 if decay == "data" else 2, -1)) for x in attend.query_key(z))
    if shift:
        k = torch.cat([torch.zeros_like(k[:, :1]), k[:, :-1]], dim=1)
    log_decay = None
    if decay == "data":
        gate = attend.decay
        log_decay = torch.log(1 - torch.sigmoid(z @ gate.weight.T + gate.bias))
    expected, _ = attention.causal(q, k, v, log_decay=log_decay)
    torch.testing.assert_close(attend(z, v.flatten(2)), expected.flatten(2))


@pytest.mark.parametrize("heads", [1, 6])
def test_memories_begin_with_half_lives_of_every_length(heads):
    mixer = ChelaMixer(
        DIM, MAX_LENGTH, True, mixer_config(attention_decay="data", num_heads=heads, v_dim=12)
    )
    lives = math.log(0.5) / mixer.attention.decay(torch.randn(1, 3, DIM))
    assert (lives[0, 0] - lives[0]).abs().max() == 0
    assert lives[0, 0, 0] >= 16
    assert lives[0, 0, -1] <= 4096
    ratios = lives[0, 0, 1:] / lives[0, 0, :-1]
    torch.testing.assert_close(ratios, torch.full_like(ratios, 256 ** (1 / heads)))


def test_a_linear_path_is_added_to_the_gated_attention():
    without, mixer = make_mixer(conv_path="none"), make_mixer(conv_path="linear")
    mixer.load_state_dict(without.state_dict(), strict=False)
    h = torch.randn(2, 13, DIM, dtype=torch.float64)
    _, z, _ = mixer._streams(h, NO_NORM, None)
    direct = F.silu(z) @ mixer.path.out.weight.T + mixer.path.out.bias
    torch.testing.assert_close(mixer(h), without(h) + direct)


def test_megas_gate_mixes_input_and_candidate():
    mixer = make_mixer(gate="mega")
    gate = mixer.gate
    h, z = torch.randn(2, 2, 5, DIM, dtype=torch.float64)
    o = torch.randn(2, 5, 2 * DIM, dtype=torch.float64)
    update = torch.sigmoid(gate.update(z))
    candidate = F.silu(gate.candidate(z) + gate.out(F.silu(gate.reset(z)) * o))
    gated = F.silu(gate.preactivation(z)) * o
    torch.testing.assert_close(h + gate(h, z, gated), (1 - update) * h + update * candidate)


@pytest.mark.parametrize(
    ("name", "phi"),
    [
        ("silu", F.silu),
        ("identity", lambda x: x),
        ("elu1", lambda x: F.elu(x) + 1),
        ("relu", F.relu),
    ],
)
def test_feature_maps_act_before_the_affine_maps(name, phi):
    attend = make_mixer(feature_map=name, head_norm="none").attention
    z = torch.randn(2, 7, DIM, dtype=torch.float64)
    v = torch.randn(2, 7, 2 * DIM, dtype=torch.float64)
    views = attend.query_key
    u = phi(views.shared(z))
    q, k = views.scale_q * u + views.shift_q, views.scale_k * u + views.shift_k
    expected = attention.bidirectional(q[:, :, None], k[:, :, None], v[:, :, None])[:, :, 0]
    torch.testing.assert_close(attend(z, v), expected)


def test_unit_queries_and_keys_per_head_and_one_of_zeros_alone():
    """A ReLU makes such: its slope may not be so steep that nothing else is learned."""
    choices = {"feature_map": "relu", "qk_norm": "l2", "num_heads": 2, "head_norm": "none"}
    attend = make_mixer(**choices).attention
    views = attend.query_key
    with torch.no_grad():
        for each in (views.shift_q, views.shift_k, views.shared.bias):
            each.zero_()
    z = 1e3 * torch.randn(2, 7, DIM, dtype=torch.float64)
    z[1, 3] = 0
    v = torch.randn(2, 7, 2 * DIM, dtype=torch.float64)
    q, k = (x.unflatten(-1, (2, -1)) for x in views(z))
    unit = [x / x.norm(dim=-1, keepdim=True).clamp(min=1e-9) for x in (q, k)]
    expected = attention.bidirectional(*unit, v.unflatten(-1, (2, -1))).flatten(2)
    found = attend(z, v)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert views.shift_q.grad.norm() < 1e5


def test_every_operation_says_which_implementation_runs():
    found = {
        module.operation: module.implementation
        for module in make_mixer().modules()
        if hasattr(module, "operation")
    }
    names = ["linear_attention", "long_conv", "norm_linear", "query_key", "short_conv", "token_mlp"]
    assert found == dict.fromkeys(names, "torch")


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("causal", "choices"),
    [
        *itertools.product((True, False), ({}, {"head_norm": "none"}, {"head_norm": "layer"})),
        (True, {"key_shift": True, "attention_decay": "data"}),
    ],
    ids=str,
)
def test_the_kernels_compute_the_same_mixer(causal, choices):
    """With a length as well as without, and every parameter's gradient."""
    mixer = make_mixer(causal, num_heads=2, **choices).float()
    x = torch.randn(2, 13, DIM)
    lengths = torch.tensor([13, 9])
    results = []
    for asked in ("torch", "triton"):
        use_kernels(mixer, asked, x.device)
        assert mixer.attention.implementation == asked
        mixer.zero_grad()
        y = mixer(x, lengths)[:, :9]
        y.square().sum().backward()
        results.append([y, *(p.grad for p in mixer.parameters())])
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("causal", "choices", "remedy"),
    [
        (False, {"qk_dim": 9, "num_heads": 2}, "set qk_dim=10"),
        (False, {"v_dim": 9, "num_heads": 2}, "set v_dim=10"),
        (True, {"v_dim": 9, "num_heads": 2, "attention_decay": "data"}, "set v_dim=10"),
        (False, {"key_shift": True}, "bidirectional .* set key_shift=false, or causal=true"),
        (False, {"attention_decay": "data"}, "set attention_decay=none, or causal=true"),
        (False, {"short_conv_width": 4}, "needs an odd width, e.g. 5"),
        (False, {"branch_widths": (3, 4)}, r"branch_widths has \[4\].* e.g. \[5\]"),
    ],
)
def test_sizes_that_do_not_fit_name_the_remedy(causal, choices, remedy):
    with pytest.raises(ValueError, match=remedy):
        ChelaMixer(DIM, MAX_LENGTH, causal, mixer_config(**choices))


def test_even_widths_are_fine_when_causal():
    make_mixer(True, short_conv_width=4, branch_widths=(2, 4))(torch.zeros(1, 5, DIM).double())


def test_something_must_mix_tokens():
    with pytest.raises(ValueError, match="switch one of"):
        ChelaConfig(use_short_conv=False, use_long_conv=False, use_attention=False)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (
            {"use_attention": False, "attention_decay": "data", "key_shift": True},
            "key_shift=true, attention_decay=data would do nothing: use_attention=false; "
            "set key_shift=false, attention_decay=none, or use_attention=true",
        ),
        ({"use_attention": False, "qk_norm": "l2"}, "set qk_norm=none, or use_attention=true"),
        ({"use_long_conv": False, "branch_norm": "batch"}, "set branch_norm=none, or use_long"),
    ],
)
def test_what_would_do_nothing_is_refused(choices, told):
    with pytest.raises(ValueError, match=told):
        mixer_config(**choices)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        ChelaMixer(DIM, 0)
