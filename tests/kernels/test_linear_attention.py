"""Linear attention: chunked = recurrent = quadratic, with every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chela.kernels.linear_attention import (
    bidirectional,
    causal,
    decayed_state,
    eager,
    naive,
    obstacle,
    recurrent_step,
)
from tests.kernels.comparison import assert_same, narrowed

LENGTHS = [1, 2, 63, 64, 65, 130]


def inputs(
    length: int, batch: int = 4, heads: int = 2, dk: int = 3, dv: int = 5
) -> tuple[list[Tensor], Tensor]:
    """q, k, v (not contiguous) and an initial state."""
    torch.manual_seed(length)
    q, k, v = (
        torch.randn(batch, heads, length, d, dtype=torch.float64).transpose(1, 2).requires_grad_()
        for d in (dk, dk, dv)
    )
    state = torch.randn(batch, heads, dk, dv, dtype=torch.float64, requires_grad=True)
    return [q, k, v], state


def ragged(length: int) -> Tensor:
    return torch.tensor([0, 1, max(1, length - 2), length])


@pytest.mark.parametrize(
    ("dk", "dv", "forgets", "said"),
    [
        (256, 64, True, None),
        (256, 64, False, "q and k of 256 channels a head are wider than 128: take"),
        (264, 64, True, "q and k of 264 channels a head are wider than 256: take"),
        (64, 131, True, "wider than 128 and do not divide into parts of 64 to 128: take"),
        (256, 67, True, "wider than 64 and do not divide into parts of 32 to 64: take"),
    ],
)
def test_heads_that_the_kernels_cannot_serve_are_told_what_they_can(dk, dv, forgets, said):
    found = obstacle(dk, dv, forgets)
    assert found is None if said is None else said in found


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_bidirectional_equals_naive(length, padded):
    qkv, _ = inputs(length)
    lengths = ragged(length) if padded else None
    assert_same(
        [bidirectional(*qkv, lengths)], [naive.bidirectional(*qkv, lengths)], qkv, qkv, 1e-10
    )


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 7, 64, 500])
@pytest.mark.parametrize("length", LENGTHS)
def test_causal_equals_naive(length, chunk_size, padded, with_state):
    qkv, state = inputs(length)
    lengths = ragged(length) if padded else None
    state = state if with_state else None
    ours = causal(*qkv, lengths, chunk_size, state)
    reference = naive.causal(*qkv, lengths, initial_state=state)
    leaves = [*qkv, state] if with_state else qkv
    assert_same(ours, reference, leaves, leaves, 1e-10)


def decays(length: int, heads: int, reach: float = 30.0) -> Tensor:
    """Of every size, from what forgets all at once to what forgets nothing."""
    torch.manual_seed(length + 1)
    drawn = torch.rand(4, length, heads, dtype=torch.float64)
    return (-reach * drawn**6).requires_grad_()


@pytest.mark.parametrize("shared", [False, True])  # one head of q and k for all of v
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 7, 64, 500])
@pytest.mark.parametrize("length", LENGTHS)
def test_causal_with_a_decay_equals_naive(length, chunk_size, padded, shared):
    (q, k, v), state = inputs(length, heads=3)
    if shared:
        q, k = (x.detach()[:, :, :1].requires_grad_() for x in (q, k))
    lengths = ragged(length) if padded else None
    leaves = [q, k, v, state, decays(length, 3)]
    ours = causal(q, k, v, lengths, chunk_size, state, log_decay=leaves[4])
    reference = naive.causal(q, k, v, lengths, initial_state=state, log_decay=leaves[4])
    assert_same(ours, reference, leaves, leaves, 1e-10)


def test_many_chunks_with_a_decay_go_in_groups():
    """Of a long sequence the states go through more than one level of products."""
    (q, k, v), _ = inputs(300, dk=2, dv=2)
    leaves = [q, k, v, decays(300, 2)]
    ours = causal(q, k, v, None, 1, log_decay=leaves[3])
    reference = naive.causal(q, k, v, log_decay=leaves[3])
    assert_same(ours, reference, leaves, leaves, 1e-10)


@pytest.mark.parametrize("heads", [1, 2])
def test_without_a_decay_one_head_of_q_and_k_may_serve_all(heads):
    (q, k, v), state = inputs(20)
    q, k = (x.detach()[:, :, :heads].requires_grad_() for x in (q, k))
    leaves = [q, k, v, state]
    assert_same(
        causal(q, k, v, initial_state=state),
        naive.causal(q, k, v, initial_state=state),
        leaves,
        leaves,
        1e-10,
    )


def test_a_decay_of_any_size_stays_finite_in_float32():
    """What forgets all at once, and half lives of a token and of millions."""
    (q, k, v), _ = inputs(200)
    narrow, wide = narrowed([q, k, v], torch.float32)
    for size in (-1e4, -0.7, -1e-7, 0.0):
        g = torch.full((4, 200, 2), size, requires_grad=True)
        wide_g = g.detach().double().requires_grad_()
        ours = causal(*narrow, log_decay=g)
        reference = naive.causal(*wide, log_decay=wide_g)
        assert_same(ours, reference, narrow, wide, 1e-5)
        (gradient,) = torch.autograd.grad(causal(*narrow, log_decay=g)[0].sum(), g)
        assert torch.isfinite(gradient).all()


def test_recurrent_with_a_decay_equals_naive():
    (q, k, v), state = inputs(20)
    q, k = (x.detach()[:, :, :1].requires_grad_() for x in (q, k))
    leaves = [q, k, v, state, decays(20, 2)]
    outs = []
    reference = naive.causal(q, k, v, initial_state=state, log_decay=leaves[4])
    for t in range(20):
        out, state = recurrent_step(q[:, t], k[:, t], v[:, t], state, log_decay=leaves[4][:, t])
        outs.append(out)
    assert_same([torch.stack(outs, 1), state], reference, leaves, leaves, 1e-10)


def test_the_state_of_a_decay_and_what_is_left_of_an_earlier_one():
    (q, k, v), initial = inputs(20)
    log_decay, lengths = decays(20, 2), ragged(20)
    own, left = decayed_state(k, v, log_decay, lengths)
    _, expected = naive.causal(q, k, v, lengths, initial_state=initial, log_decay=log_decay)
    torch.testing.assert_close(own + left[..., None, None] * initial, expected)


@pytest.mark.parametrize("length", LENGTHS)
def test_recurrent_equals_naive(length):
    (q, k, v), initial = inputs(length)
    state, outs = initial, []
    for t in range(length):
        out, state = recurrent_step(q[:, t], k[:, t], v[:, t], state)
        outs.append(out)
    reference = naive.causal(q, k, v, initial_state=initial)
    leaves = [q, k, v, initial]
    assert_same([torch.stack(outs, 1), state], reference, leaves, leaves, 1e-10)


@settings(max_examples=40)
@given(
    length=st.integers(2, 50),
    cut=st.integers(1, 49),
    chunk_size=st.integers(1, 60),
    batch=st.integers(0, 2),
    heads=st.integers(1, 3),
)
def test_two_pieces_equal_the_whole(length, cut, chunk_size, batch, heads):
    cut = min(cut, length - 1)
    (q, k, v), initial = inputs(length, batch, heads)
    whole, end = naive.causal(q, k, v, initial_state=initial)
    head, middle = causal(
        q[:, :cut], k[:, :cut], v[:, :cut], None, chunk_size, initial_state=initial
    )
    tail, final = causal(q[:, cut:], k[:, cut:], v[:, cut:], None, chunk_size, middle)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole)
    torch.testing.assert_close(final, end)


@pytest.mark.parametrize("form", [bidirectional, lambda *a: causal(*a, chunk_size=4)[0]])
def test_padding_may_hold_anything_and_gets_zeros(form):
    (q, k, v), _ = inputs(10)
    lengths = ragged(10)
    clean = form(q, k, v, lengths)
    padded = torch.arange(10) >= lengths[:, None]
    with torch.no_grad():
        for x in (q, k, v):
            x[padded] = float("nan")
    dirty = form(q, k, v, lengths)
    assert torch.equal(clean, dirty)
    assert not dirty[padded].any()
    for gradient in torch.autograd.grad(dirty.sum(), [q, k, v]):
        assert torch.isfinite(gradient).all()
        assert not gradient[padded].any()


@pytest.mark.parametrize("padded", [False, True])
def test_no_tokens_have_no_output_and_leave_the_state(padded):
    (q, k, v), before = inputs(0)
    lengths = torch.zeros(4, dtype=torch.long) if padded else None
    none, decay = torch.zeros_like(before), torch.zeros(v.shape[:-1], dtype=v.dtype)
    assert bidirectional(q, k, v, lengths).shape == v.shape
    for log_decay in (None, decay):
        for state, expected in ((None, none), (before, before)):
            for form in (causal, naive.causal):
                out, after = form(q, k, v, lengths, initial_state=state, log_decay=log_decay)
                assert out.shape == v.shape
                assert torch.equal(after, expected)
    assert torch.equal(eager.state(k, v, lengths), none)
    state, left = decayed_state(k, v, decay, lengths)
    assert torch.equal(state, none)
    assert torch.equal(left, torch.ones_like(left))


def test_no_sequences_have_no_output():
    q, v = torch.zeros(0, 5, 1, 3), torch.zeros(0, 5, 2, 4)
    for log_decay in (None, torch.zeros(0, 5, 2)):
        out, state = causal(q, q, v, log_decay=log_decay)
        assert (out.shape, state.shape) == (v.shape, (0, 2, 3, 4))


def test_the_state_is_that_after_the_true_length():
    (q, k, v), initial = inputs(10)
    _, state = causal(q, k, v, torch.tensor([0, 1, 8, 10]), 4, initial)
    assert torch.equal(state[0], initial[0])
    for row, length in enumerate([0, 1, 8, 10]):
        expected = torch.einsum("lhd,lhe->hde", k[row, :length], v[row, :length]) + initial[row]
        torch.testing.assert_close(state[row], expected)


def test_nothing_later_reaches_an_output():
    (q, k, v), _ = inputs(12, batch=1)
    for chunk_size in (1, 4, 5, 12):
        out, _ = causal(q, k, v, chunk_size=chunk_size)
        for t in range(11):
            for gradient in torch.autograd.grad(out[:, t].sum(), [q, k, v], retain_graph=True):
                assert not gradient[:, t + 1 :].any()
                assert gradient[:, t].any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("form", ["bidirectional", "causal", "decayed"])
def test_narrow_dtypes(form, dtype, tolerance):
    qkv, _ = inputs(130, dk=16, dv=32)
    narrow, wide = narrowed(qkv, dtype)
    lengths = ragged(130)
    if form != "bidirectional":
        g = decays(130, 2).detach() if form == "decayed" else None
        ours, state = causal(*narrow, lengths, 32, log_decay=None if g is None else g.float())
        reference, _ = naive.causal(*wide, lengths, log_decay=g)
        assert state.dtype == torch.float32
    else:
        ours, reference = bidirectional(*narrow, lengths), naive.bidirectional(*wide, lengths)
    assert ours.dtype == dtype
    assert_same([ours], [reference], narrow, wide, tolerance)


def test_sums_over_many_tokens_are_wider_than_float16():
    k = torch.full((1, 20000, 1, 2), 2.0, dtype=torch.float16)
    assert (bidirectional(k, k, k) == 16).all()
    state, _ = decayed_state(k, k, torch.zeros(1, 20000, 1), None)
    assert (state == 80000).all()


def test_recurrent_state_stays_in_float32_for_bfloat16_tokens():
    (q, k, v), state = inputs(1)
    token = [x[:, 0].bfloat16() for x in (q, k, v)]
    out, after = recurrent_step(*token, state.float())
    assert (out.dtype, after.dtype) == (torch.bfloat16, torch.float32)


def test_autocast_does_not_change_the_precision():
    qkv, _ = inputs(20)
    qkv = [x.float() for x in qkv]
    plain = [bidirectional(*qkv), *causal(*qkv, chunk_size=8)]
    with torch.autocast("cpu", torch.bfloat16):
        again = [bidirectional(*qkv), *causal(*qkv, chunk_size=8)]
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_gradcheck():
    qkv, state = inputs(5, batch=2, dk=2, dv=2)
    lengths = torch.tensor([3, 5])
    assert torch.autograd.gradcheck(lambda *t: eager.bidirectional(*t, lengths), qkv)
    assert torch.autograd.gradcheck(
        lambda *t: eager.causal(*t[:3], lengths, 2, t[3]), [*qkv, state]
    )
    token = [x.detach()[:, 0].requires_grad_() for x in qkv]
    assert torch.autograd.gradcheck(eager.recurrent_step, [*token, state])


def test_arguments_that_do_not_fit_name_the_remedy():
    (q, k, v), state = inputs(4)
    with pytest.raises(ValueError, match=r"give all as \(B, L, H, d\)"):
        bidirectional(q, k[:, :2], v)
    with pytest.raises(ValueError, match="cast them"):
        bidirectional(q, k, v.float())
    with pytest.raises(ValueError, match="at least one token"):
        causal(q, k, v, chunk_size=0)
    for wrong in (torch.zeros(4, 4, 2), torch.zeros(4, 4, 1).double()):
        with pytest.raises(ValueError, match=r"each token and head, \(4, 4, 2\), in torch.float64"):
            causal(q, k, v, log_decay=wrong)
    with pytest.raises(ValueError, match=r"give \(B, H, dk, dv\)"):
        causal(q, k, v, initial_state=state[:2])
