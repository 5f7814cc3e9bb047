"""What each operation with kernels of ours is to PyTorch: an operator like those of its own.

Without a GPU the kernels run in Triton's interpreter, so cases are small.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from chela.kernels import launching, long_conv, short_conv
from chela.kernels.exponentials import exponential_sums
from chela.kernels.linear_attention import bidirectional, causal, tuning
from chela.kernels.norm_linear import norm_linear
from chela.kernels.token_mlp import Weights, mlp
from chela.kernels.wavelet_tree import wavelet_tree
from tests.kernels import mlp_case, test_exponentials, test_projections, test_wavelet_tree
from tests.kernels.attention_case import Case, fused
from tests.kernels.comparison import DEVICE, assert_close, assert_replays, gpu_only
from tests.kernels.token_cases import lengths_of

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("poisoned_memory")]

Leaves = dict[str, Tensor]
Form = Callable[..., tuple[Tensor, ...]]


def conv_leaves(taps: tuple[int, ...], dtype: torch.dtype, length: int) -> Leaves:
    torch.manual_seed(length)
    dim = taps[-2]
    shapes = {"x": (2, dim, length), "taps": taps, "bias": (dim,)}
    made = {name: torch.randn(shape, device=DEVICE) for name, shape in shapes.items()}
    return {**made, "x": made["x"].to(dtype).mT}


def short(t: Leaves) -> list[Tensor]:
    return [short_conv.convolve(*t.values(), causal=True, activation="silu", **TRITON)]


def attention_case(form: str, dtype: torch.dtype, length: int) -> Case:
    return Case(
        form != "bidirectional",
        length,
        batch=3,
        heads=1,
        dtype=dtype,
        ragged=True,
        norm=True,
        gate=True,
        decay=form == "decayed",
    )


def attention(form: str, t: Leaves) -> list[Tensor]:
    case = attention_case(form, t["q"].dtype, t["q"].shape[1])
    return fused(case, t, case.lengths)


def of_mlp(part: str, t: Leaves) -> list[Tensor]:
    arguments = mlp_case.arguments(part, "layer", t)
    lengths = lengths_of(*t["x"].shape[:2]) if part == "gate" else None
    return [mlp(**arguments, lengths=lengths, dropout=0.3, **TRITON)]


TRITON = {"implementation": "triton"}
OPERATIONS = {  # leaves in a dtype and of a length, and what is called with them
    "short_conv": (partial(conv_leaves, (12, 5)), short),
    "long_conv": (
        # in float32 it is an FFT
        lambda dtype, length: conv_leaves((2, 6, 12), torch.bfloat16, min(length, 12)),
        lambda t: [long_conv.convolve(*t.values(), **TRITON)],
    ),
    **{
        form: (
            lambda *size, form=form: attention_case(form, *size).leaves(),
            partial(attention, form),
        )
        for form in ("causal", "decayed", "bidirectional")
    },
    "norm_linear": (
        lambda dtype, length: test_projections.case("layer", dtype, length=length),
        partial(test_projections.call, "layer"),
    ),
    "query_key": (
        lambda dtype, length: test_projections.case("query_key", dtype, length=length),
        partial(test_projections.call, "query_key"),
    ),
    "exponential_sums": (
        # in float32 alone, and of any number of taps
        lambda dtype, length: dict(zip("abcd", test_exponentials.draw(2, 3, 5), strict=True)),
        lambda t: [exponential_sums(*t.values(), 70, **TRITON)],
    ),
    "wavelet_tree": (
        # in float32 alone, and of fewer taps than the tree has
        lambda dtype, length: dict(zip("hw", test_wavelet_tree.tree(2 * length, 2), strict=True)),
        lambda t: [wavelet_tree(*t.values(), 3 * 2 ** (t["w"].shape[-1] - 3), **TRITON)],
    ),
    "wide_head": (
        lambda dtype, length: Case(
            False, length, 16, 136, heads=1, dtype=dtype, norm=True, gate=True
        ).leaves(),
        lambda t: fused(Case(False, t["q"].shape[1]), t, None),
    ),
    **{
        part: (
            lambda dtype, length, part=part: mlp_case.case(part, "layer", dtype, length=length),
            partial(of_mlp, part),
        )
        for part in ("glu", "gate")
    },
}


def operation(name: str, dtype: torch.dtype, length: int) -> tuple[Form, list[Tensor]]:
    """A function of tensors, and leaves for it."""
    make, call = OPERATIONS[name]
    leaves = make(dtype, length)
    form = lambda *tensors: tuple(call(dict(zip(leaves, tensors, strict=True))))  # noqa: E731
    return form, [t.detach().requires_grad_() for t in leaves.values()]


def with_gradients(form: Form, leaves: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(3)  # for dropout
    outputs = form(*leaves)
    total = torch.stack([out.float().square().sum() for out in outputs]).sum()
    for leaf in leaves:
        leaf.grad = None
    total.backward()
    return [*outputs, *[leaf.grad for leaf in leaves]]


each_operation = pytest.mark.parametrize("name", OPERATIONS)


@each_operation
def test_two_runs_agree_to_the_bit(name, monkeypatch):
    for size in ("TILE", "PART_TOKENS", "STREAM_TOKENS"):  # attention in several parts
        monkeypatch.setattr(tuning, size, 64)
    form, leaves = operation(name, torch.bfloat16, 100)
    one, other = (with_gradients(form, leaves) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@each_operation
def test_autocast_and_checkpointing_change_nothing(name):
    form, leaves = operation(name, torch.float32, 21)
    plain = with_gradients(form, leaves)
    for way in (False, True):
        with torch.autocast(DEVICE, torch.bfloat16):
            again = with_gradients(partial(checkpoint, form, use_reentrant=way), leaves)
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@each_operation
def test_compiles_as_one_graph(name):
    """With operations before and after it: the same outputs and gradients."""
    form, leaves = operation(name, torch.float32, 21)
    around = lambda *tensors: [3 * out for out in form(*[2 * t for t in tensors])]  # noqa: E731
    torch.compiler.reset()  # all operations' lambdas are one piece of code, of which few are kept
    # inductor needs a C++ compiler on a CPU
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"
    compiled = torch.compile(around, fullgraph=True, backend=backend)
    with torch._inductor.config.patch(fallback_random=True):  # seeds of dropout as eager draws them
        results = [with_gradients(f, leaves) for f in (compiled, around)]
    for mine, true in zip(*results, strict=True):
        assert_close(mine, true.double(), 1e-5)


@each_operation
def test_a_second_derivative_is_refused(name):
    form, leaves = operation(name, torch.float32, 5)
    (gradient,) = torch.autograd.grad(form(*leaves)[0].sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="implementation='torch'"):
        gradient.sum().backward()


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_what_would_be_broadcast_is_refused(implementation):
    """By Triton it would be read beyond its end."""
    x, how = torch.ones(2, 3, 4, device=DEVICE), {"implementation": implementation}
    one = torch.ones(1, dtype=torch.int64, device=DEVICE)
    heads = [x[:, :, None]] * 3
    with pytest.raises(ValueError, match=r"skip is \(1,\); give \(D,\) = \(4,\)"):
        long_conv.convolve(x, x.mT, one, **how)
    with pytest.raises(ValueError, match=r"bias is \(1,\); give \(D,\) = \(4,\)"):
        short_conv.convolve(x, x[0].mT, one, causal=True, **how)
    for form, given in (
        (bidirectional, heads),
        (causal, heads),
        (norm_linear, (x, x[0], x[0, :, 0])),
        (mlp, (x, Weights(x[0], x[0, :, 0], x[0].mT, x[0, 0]))),
    ):
        with pytest.raises(ValueError, match=r"lengths are \(1,\); give \(B,\) = \(2,\)"):
            form(*given, lengths=one, **how)


@each_operation
def test_what_no_kernel_serves_names_the_remedy(name, monkeypatch):
    form, leaves = operation(name, torch.float32, 5)
    if name != "long_conv":  # which is an FFT then
        with pytest.raises(ValueError, match=r"float64: .* use implementation='torch'"):
            form(*[t.double() for t in leaves])
    monkeypatch.setattr(launching, "INTERPRETED", False)
    with pytest.raises(ValueError, match="is on cpu: Triton needs a GPU; use implementation="):
        form(*[t.cpu() for t in leaves])


@pytest.mark.parametrize(
    "name", [pytest.param(f"{n}_conv", marks=gpu_only) for n in ("short", "long")]
)
def test_replays_in_a_cuda_graph(name):
    form, leaves = operation(name, torch.bfloat16, 500)
    assert_replays(
        lambda: [*form(*leaves), *torch.autograd.grad(form(*leaves)[0].sum(), leaves)], leaves
    )
