"""The Triton kernels of linear attention against the naive formula in float64.

On a CPU they run in Triton's interpreter, so cases are small; with a GPU the same cases run
compiled. Uninitialised memory is NaN throughout.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chela.kernels import linear_attention
from chela.kernels.linear_attention import tuning
from chela.kernels.linear_attention.bidirectional_triton import bidirectional_attention
from chela.kernels.linear_attention.causal_triton import causal_attention
from chela.kernels.linear_attention.decayed_triton import chunk_of, decayed_attention
from tests.conftest import program
from tests.kernels.attention_case import DEVICE, KINDS, Case, check, fused, specified
from tests.kernels.comparison import assert_close, assert_same, narrowed

pytestmark = [
    pytest.mark.interpreted,
    pytest.mark.usefixtures("poisoned_memory", "kernels_can_run"),
]


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments and parts of one tile, so that short sequences have several."""
    monkeypatch.setattr(tuning, "TILE", 64)
    monkeypatch.setattr(tuning, "PART_TOKENS", 64)
    monkeypatch.setattr(tuning, "STREAM_TOKENS", 64)


SMALL = [
    Case(causal, length, **options)
    for causal in (True, False)
    for length, options in [
        (1, {}),
        (63, {"dk": 24, "dv": 40, "norm": True}),
        (64, {"gate": True, "batch": 1}),
        (130, {"batch": 1, "norm": True}),  # in parts, and two heads packed into one
        (130, {"dk": 32, "dv": 8, "ragged": True, "batch": 4, "heads": 1}),
        (130, {"norm": True, "gate": True, "ragged": True, "batch": 4, "heads": 1}),
        (130, {"batch": 1, "heads": 1, "norm": True, "gate": True}),
        (200, {"batch": 1, "heads": 1, "dv": 32, "ragged": True}),
        (70, {"batch": 1, "heads": 1, "dv": 160}),  # wide values, in two parts
        (70, {"batch": 4, "dv": 136, "ragged": True, "norm": True, "gate": True}),
        (20, {"batch": 1, "dv": 320, "gate": True}),  # an epilogue of its own
        (20, {"batch": 4, "heads": 1, "dv": 384, "ragged": True, "norm": True}),
    ]
] + [
    Case(True, length, decay=True, **options)
    for length, options in [
        (1, {"state": True}),  # without one nothing is forgotten
        (37, {"dk": 24, "dv": 40, "norm": True, "heads": 3}),
        (64, {"dk": 128, "gate": True, "batch": 1}),  # two slices of a state
        (150, {"dk": 32, "dv": 8, "ragged": True, "batch": 4, "heads": 1}),
        (130, {"norm": True, "gate": True, "batch": 1}),  # in parts
        (100, {"ragged": True, "norm": True, "gate": True, "batch": 4, "heads": 3, "state": True}),
        (20, {"batch": 4, "dv": 136, "ragged": True, "norm": True, "state": True}),  # cut values
    ]
]


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_equals_naive(case, short_parts):
    check(case)


@pytest.mark.parametrize("batch", [1, 3])  # in parts, and one program per head
@pytest.mark.parametrize("epilogue", [False, True])
def test_causal_continues_from_a_state(batch, epilogue, short_parts):
    options = {"state": True, "ragged": batch > 1, "norm": epilogue, "gate": epilogue}
    check(Case(True, 150, 16, 32, batch, heads=1, **options))
    check(Case(True, 70, 16, 136, batch, heads=2, **options))
    check(Case(True, 150, 16, 32, batch, heads=1, decay=True, **options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [True, False])
def test_narrow_dtypes(causal, dtype, short_parts):
    check(Case(causal, 150, 32, 16, 4, 1, dtype, ragged=True, norm=True, gate=True))
    check(Case(causal, 150, 16, 48, 1, 1, dtype, state=causal))
    check(Case(causal, 20, 16, 192, 3, 2, dtype, ragged=True, norm=True, gate=True))


FORGETTING = [(kind, torch.bfloat16, False) for kind in KINDS] + [
    ("plain", torch.bfloat16, True),
    ("everything", torch.bfloat16, True),
    ("everything", torch.float16, False),
    ("everything", torch.float16, True),
]


@pytest.mark.parametrize(("kind", "dtype", "split"), FORGETTING, ids=str)
def test_narrow_dtypes_that_forget(kind, dtype, split, short_parts, monkeypatch):
    """One thing at a time, cut into parts or not on every device: what fails says what is wrong.

    The interpreter rounds where a GPU does, so that it shows the same errors. What rounding leaves
    of the gradient of log_decay would grow with the length.
    """
    monkeypatch.setattr(tuning, "processors", lambda _: 132 if split else 1)
    length = 500 if kind == "plain" and not split else 150
    check(Case(True, length, 32, 16, dtype=dtype, decay=True, **KINDS[kind]))


@pytest.mark.parametrize("scale", [1e4, 1e-8])
@pytest.mark.parametrize("causal", [True, False])
def test_extreme_values(causal, scale):
    for dtype in (torch.float32, torch.bfloat16):
        check(Case(causal, 70, dtype=dtype, batch=1, scale=scale, state=causal))


def test_the_norm_keeps_large_outputs_finite():
    check(Case(True, 70, dtype=torch.bfloat16, norm=True, gate=True, scale=1e4, state=True))


@pytest.mark.parametrize("dv", [16, 136])
@pytest.mark.parametrize(("causal", "decay"), [(True, False), (True, True), (False, False)])
def test_padding_may_hold_anything_and_gets_zeros(causal, decay, dv):
    options = {"batch": 4, "heads": 1, "ragged": True, "norm": True, "gate": True, "decay": decay}
    case = Case(causal, 70, dv=dv, dtype=torch.float16, **options)
    leaves, lengths = case.leaves(), case.lengths
    clean = fused(case, leaves, lengths)
    padded = torch.arange(70, device=DEVICE) >= lengths[:, None]
    with torch.no_grad():
        for name in leaves.keys() - {"norm_weight"}:
            leaves[name][padded] = float("nan")
    dirty = fused(case, leaves, lengths)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert not dirty[0][padded].any()
    upstream = torch.ones_like(dirty[0])
    upstream[padded] = float("nan")
    gradients = torch.autograd.grad(dirty[0], list(leaves.values()), upstream)
    for name, gradient in zip(leaves, gradients, strict=True):
        assert torch.isfinite(gradient).all(), name
        if name != "norm_weight":
            assert not gradient[padded].any(), name


@pytest.mark.parametrize("decay", [False, True])
def test_the_state_alone_has_gradients(decay):
    """No gradient arrives at the output: k, v and the first state have theirs, q has zeros."""
    leaves = Case(True, 70, state=True, batch=1, decay=decay).leaves()
    wide = {name: x.detach().double().requires_grad_() for name, x in leaves.items()}
    _, ours = fused(Case(True, 70), leaves, None)
    _, reference = specified(Case(True, 70), wide, None)
    upstream = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, list(leaves.values()), upstream)
    names = [name for name in leaves if name != "q"]
    expected = torch.autograd.grad(reference, [wide[n] for n in names], upstream.double())
    assert not gradients[0].any()
    for mine, true in zip(gradients[1:], expected, strict=True):
        assert_close(mine, true, 1e-5)


def test_two_pieces_equal_the_whole(short_parts):
    q, k, v = (x.detach() for x in Case(True, 150, batch=1).leaves().values())
    whole, end = linear_attention.causal(q, k, v, implementation="triton")
    head, middle = linear_attention.causal(
        q[:, :100], k[:, :100], v[:, :100], implementation="triton"
    )
    tail, final = linear_attention.causal(
        q[:, 100:], k[:, 100:], v[:, 100:], initial_state=middle, implementation="triton"
    )
    assert_close(torch.cat([head, tail], 1), whole.double(), 1e-5)
    assert_close(final, end.double(), 1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_upstream_of_any_layout_and_no_gradient_at_all(causal):
    case = Case(causal, 70, norm=True, gate=True)
    leaves = case.leaves()
    out = fused(case, leaves, None)[0]
    broadcast = torch.autograd.grad(out.sum(), list(leaves.values()), retain_graph=True)
    dense = torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out))
    assert all(torch.equal(a, b) for a, b in zip(broadcast, dense, strict=True))
    with torch.no_grad():
        assert torch.equal(fused(case, leaves, None)[0], out)


@pytest.mark.parametrize("epilogue", [False, True])
@pytest.mark.parametrize("form", ["bidirectional", "causal", "decayed"])
def test_operators_are_registered_well(form, epilogue):
    """Schema, fake kernel, autograd, and tracing through them, by PyTorch's own examination."""
    causal, decay = form != "bidirectional", form == "decayed"
    options = {"norm": epilogue, "gate": epilogue, "state": causal and epilogue}
    leaves = Case(causal, 20, batch=1, heads=1, decay=decay, **options).leaves()
    qkv = [leaves[name] for name in ("q", "k", "v")]
    rest = [leaves.get("norm_weight"), leaves.get("gate"), None, True]
    torch.use_deterministic_algorithms(False)  # opcheck compares the memory of unused outputs
    before = leaves.get("initial_state")
    if decay:
        decays = -torch.rand(1, 1, 2, chunk_of(*qkv[1:]), device=DEVICE).cumsum(-1)
        decays.requires_grad_()
        torch.library.opcheck(decayed_attention, (*qkv, decays, before, *rest))
    elif causal:
        torch.library.opcheck(causal_attention, (*qkv, before, *rest))
    else:
        torch.library.opcheck(bidirectional_attention, (*qkv, *rest))


def test_arguments_that_do_not_fit_name_the_remedy():
    leaves = {name: x.detach() for name, x in Case(True, 4).leaves().items()}
    v = leaves["v"]

    def call(**changed: Tensor) -> None:
        linear_attention.causal(**(leaves | changed), implementation="triton")

    with pytest.raises(ValueError, match=r"give \(B, L, 1, dk\), or use implementation='torch'"):
        call(log_decay=torch.zeros(v.shape[:3], device=DEVICE))
    with pytest.raises(ValueError, match="take more num_heads"):
        call(v=torch.zeros(*v.shape[:3], 129, device=DEVICE))
    with pytest.raises(ValueError, match=r"norm_weight is \(3,\); give \(dv,\) = \(16,\)"):
        call(norm_weight=torch.ones(3, device=DEVICE))
    with pytest.raises(ValueError, match="give it like v"):
        call(gate=v.half())


@pytest.mark.parametrize("causal", [True, False])
def test_empty_batches_are_empty(causal):
    leaves = {name: x[:0].detach() for name, x in Case(causal, 4).leaves().items()}
    assert fused(Case(causal, 4), leaves, None)[0].shape == (0, 4, 2, 16)


def test_the_plain_epilogue_is_the_same():
    """``norm_weight`` and ``gate`` mean the same to the form in plain PyTorch."""
    case = Case(True, 70, ragged=True, batch=4, norm=True, gate=True)
    leaves = case.leaves()
    narrow, wide = narrowed(list(leaves.values()), torch.float32)
    out, state = linear_attention.causal(
        **dict(zip(leaves, narrow, strict=True)), lengths=case.lengths
    )
    reference = specified(case, dict(zip(leaves, wide, strict=True)), case.lengths)
    assert_same([out, state], reference, narrow, wide, 1e-5)


def test_every_kernel_compiles_for_a_hopper_gpu():
    """Also without one: what the interpreter lets pass a compiler may refuse."""
    done = program("tests/kernels/compile_for_hopper.py", TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {
        "bidirectional_backward_key",
        "bidirectional_backward_query",
        "bidirectional_output",
        "causal_backward",
        "causal_forward",
        "decayed_backward_query_key",
        "decayed_backward_value",
        "decayed_output",
        "decayed_states",
        "epilogue_backward",
        "mean_state",
        "part_states",
        "running_sums",
    }
