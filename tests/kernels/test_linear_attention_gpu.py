"""What only a GPU can show of linear attention's kernels: `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chela.kernels import linear_attention
from chela.kernels.linear_attention import tuning
from tests.kernels.attention_case import DEVICE, KINDS, Case, check, fused
from tests.kernels.comparison import assert_close, assert_replays, assert_same, gpu_only, narrowed

pytestmark = [*gpu_only, pytest.mark.usefixtures("poisoned_memory")]

HEADS = [(16, 16), (32, 32), (48, 48), (64, 64), (128, 128), (16, 128), (64, 32), (64, 256)]
EVERYTHING = {"batch": 4, "ragged": True, "norm": True, "gate": True}
FORMS = [(True, False), (True, True), (False, False)]  # causal, and forgetting


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dk", "dv"), HEADS)
@pytest.mark.parametrize("length", [1, 63, 64, 500, 1000, 1213, 4096])
def test_every_length_and_head_in_bfloat16(length, dk, dv, causal):
    check(Case(causal, length, dk, dv, 1, dtype=torch.bfloat16, state=causal))
    if length > 1:  # the norm of one product does not depend on q and k: no gradient to compare
        check(Case(causal, length, dk, dv, dtype=torch.bfloat16, state=causal, **EVERYTHING))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dk", "dv"), [(32, 16), (128, 64), (256, 64)])
@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("parts", [1, 3])
def test_each_thing_that_a_call_which_forgets_may_have(parts, heads, dk, dv, kind, monkeypatch):
    monkeypatch.setattr(tuning, "forward_parts", lambda *_: (parts, 450 if parts == 1 else 192))
    check(Case(True, 450, dk, dv, heads=heads, dtype=torch.bfloat16, decay=True, **KINDS[kind]))


@pytest.mark.parametrize(("dk", "dv"), [(32, 16), (128, 64), (256, 64)])
def test_what_forgets_gives_the_same_every_time(dk, dv):
    """Threads that did not wait for each other would differ now and then; a wrong product not."""
    case = Case(True, 450, dk, dv, dtype=torch.bfloat16, decay=True, **KINDS["everything"])
    leaves = case.leaves()
    upstream = [torch.randn_like(out) for out in fused(case, leaves, case.lengths)]

    def run() -> list[Tensor]:
        ours = fused(case, leaves, case.lengths)
        return [*ours, *torch.autograd.grad(ours, list(leaves.values()), upstream)]

    first = run()
    names = ("output", "state", *leaves)
    for _ in range(50):
        again = zip(names, first, run(), strict=True)
        assert [name for name, a, b in again if not torch.equal(a, b)] == []


@pytest.mark.parametrize("kind", ["state", "everything"])
@pytest.mark.parametrize(("dk", "dv"), [*HEADS[:6], (128, 64), (128, 384), (256, 64), (256, 128)])
@pytest.mark.parametrize("length", [2, 63, 64, 500, 1213, 4096])
def test_every_length_and_head_that_forgets_in_bfloat16(length, dk, dv, kind):
    heads, dtype = (6 if kind == "state" else 2), torch.bfloat16
    check(Case(True, length, dk, dv, heads=heads, dtype=dtype, decay=True, **KINDS[kind]))


def test_the_form_that_forgets_of_whole_batches():
    """The shape of the language models, without a split; the plain form in float64 says what is."""
    torch.manual_seed(0)
    shapes = [(16, 4096, 1, 128), (16, 4096, 1, 128), (16, 4096, 6, 64)]
    narrow, wide = narrowed([torch.randn(s, device=DEVICE) for s in shapes], torch.bfloat16)
    names = ("q", "k", "v", "log_decay")
    log_decay = -(torch.rand(16, 4096, 6, device=DEVICE) ** 8)
    for leaves, dtype in ((narrow, torch.float32), (wide, torch.float64)):
        leaves.append(log_decay.to(dtype).requires_grad_())
    ours = linear_attention.causal(*narrow[:3], log_decay=narrow[3], implementation="triton")
    reference = linear_attention.causal(*wide[:3], log_decay=wide[3])
    assert_same(ours, reference, narrow, wide, 5e-3, names)


@pytest.mark.parametrize(("causal", "decay"), FORMS)
@pytest.mark.parametrize(("dk", "dv"), [(32, 32), (64, 64), (128, 128)])
@pytest.mark.parametrize("length", [64, 1213])
@pytest.mark.parametrize("products", ["highest", "high"])
def test_float32_and_tf32(products, length, dk, dv, causal, decay):
    torch.set_float32_matmul_precision(products)
    try:
        tolerance = 1e-5 if products == "highest" else 1e-3
        check(Case(causal, length, dk, dv, state=causal, decay=decay, **EVERYTHING), tolerance)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("causal", "decay"), FORMS)
@pytest.mark.parametrize("warps", [2, 4, 8])
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("head", [32, 64])
def test_any_number_of_warps(head, stages, warps, causal, decay, monkeypatch):
    """A miscompiled product showed at particular tiles only: these are all that may be chosen."""
    for name in ("forward_tiles", "backward_tiles", "stream_tiles", "decayed_tiles"):
        monkeypatch.setattr(tuning, name, lambda *_: tuning.Tiles(64, warps, stages))
    dk = 2 * head if decay else head
    check(Case(causal, 1000, dk, head, 2, 4, torch.bfloat16, decay=decay))


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize(("causal", "decay"), FORMS)
def test_a_cuda_graph_replays_it(causal, decay, batch):
    options = {"norm": True, "gate": True, "decay": decay}
    case = Case(causal, 1024, 64, 64, batch, dtype=torch.bfloat16, **options)
    leaves = case.leaves()
    upstream = torch.randn_like(leaves["v"])

    def step() -> list[Tensor]:
        out = fused(case, leaves, None)[0]
        return [out, *torch.autograd.grad(out, list(leaves.values()), upstream)]

    assert_replays(step, list(leaves.values()))


def test_a_million_tokens_of_one_sequence():
    """The plain form in float64 is the reference: the naive one would need 16 TB."""
    torch.manual_seed(0)
    sizes = (1, 2**20, 2, 64)
    narrow, wide = narrowed([torch.randn(sizes, device=DEVICE) for _ in range(3)], torch.bfloat16)
    out, _ = linear_attention.causal(*narrow, implementation="triton")
    reference, _ = linear_attention.causal(*wide)
    assert_same([out], [reference], narrow, wide, 5e-3)


def test_more_elements_than_32_bits_count():
    """The last sequence of a batch of 2^31 elements and more is computed at its own address."""
    q = torch.zeros(33, 2**20, 1, 64, device=DEVICE, dtype=torch.bfloat16)
    q[-1, :512].normal_()
    out, state = linear_attention.causal(q, q, q, implementation="triton")
    expected, last = linear_attention.causal(*[q[-1:, :512].double()] * 3)
    assert_close(out[-1:, :512], expected, 5e-3)
    assert_close(state[-1:], last, 5e-3)
