"""The benchmark: what is right gets a speed, what is wrong gets none, and the script runs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from chela.bench.measure import Case, Result, Shape, copy_bandwidth, draw, measure, relative_error
from chela.bench.profiling import Kernel, Profile
from chela.errors import RunError
from tests.conftest import program

ROOT = Path(__file__).parents[2]
SHAPE = Shape(2, 8, 4)


def case(call, implementation: str = "mine", shape: Shape = SHAPE) -> Case:
    """Squaring, whose gradient is 2 x."""
    return Case(
        "square",
        implementation,
        shape,
        inputs=lambda s: [torch.randn(s.batch, s.length, s.channels, requires_grad=True)],
        call=call,
        reference=lambda x: x * x,
        floor_bytes=lambda s: 5 * s.pass_bytes,
    )


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2.1 * ctx.saved_tensors[0]


def test_a_right_case_has_a_speed():
    result = measure(case(lambda x: x.square()), bandwidth=1e9)
    assert result.error < 1e-6
    assert result.seconds > 0
    assert result.floor == 5 * 2 * (2 * 8 * 4) / 1e9
    assert f"{result.floor / result.seconds:.2f}" in result.row()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: 1.1 * x * x, 0.1),
        (WrongGradient.apply, 0.05),
        (lambda x: x * x + float("nan"), math.inf),
    ],
    ids=["output", "gradient", "nan"],
)
def test_a_wrong_case_has_none(call, error):
    result = measure(case(call), bandwidth=1e9)
    assert result.error == pytest.approx(error, rel=1e-3)
    assert result.seconds is None
    assert "no speed" in result.row()


def test_the_error_is_that_of_one_sequence_of_full_length():
    seen = []
    relative_error(case(lambda x: seen.append(x.shape) or x * x, shape=Shape(64, 9, 4)))
    assert seen == [(1, 9, 4)]


def test_the_bandwidth_is_one_of_memory():
    assert 1e8 < copy_bandwidth(torch.device("cpu")) < 1e13


def test_a_drawing_needs_something_to_draw(tmp_path):
    results = [
        Result(case(torch.square, name, Shape(1, length, 4, 2)), 0.0, seconds, floor=1e-3)
        for name in ("torch", "triton")
        for length, seconds in ((10, 1e-2), (100, 1e-1), (1000, None))
    ]
    draw(results, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RunError, match="nothing to draw"):
        draw(results[2:3], tmp_path / "none.png")


def test_a_profile_knows_whose_each_kernel_is():
    source = "\n".join(file.read_text() for file in (ROOT / "chela/kernels").rglob("*.py"))
    made = set(re.findall(r"^@triton\.jit\ndef (\w+)", source, re.MULTILINE))
    launched = {name for name in made if re.search(rf"kernels\.{name}\b|\b{name}\[", source)}
    assert {"causal_forward", "mix_middle", "exponential_sums_gradients"} <= launched
    parts = {name: next(iter(Profile((Kernel(name, 1, 1.0),), {}).parts())) for name in launched}
    assert [name for name, part in parts.items() if part == "other"] == []
    taps = {
        parts[name]
        for name in parts
        if "taps" in name or name.startswith(("exponential", "wavelet"))
    }
    assert taps == {"long convolution"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shape", "8x2048"], "'8x2048' is no BxLxD"),
        (["--shape", "8x2048x0"], "is no BxLxD"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--device", "cuda"], "torch finds no GPU.\n  try: --device cpu"),
        (["--device", "cpu", "--operation", "none", "--plot", "x.png"], "nothing to draw"),
    ],
)
def test_what_cannot_be_measured_is_one_message(words, said, command, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = command("bench-kernels", *words)
    assert done.returncode > 0
    assert said in done.stderr


@pytest.mark.process
def test_the_script_prints_a_line_per_case():
    done = program("-m", "chela", "bench-kernels", "--device", "cpu", "--shape", "2x100x64")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split() == [
        "operation",
        "implementation",
        "shape",
        "error",
        "ms",
        "floor",
        "ms",
        "frac",
    ]
    shapes = [line.split()[-5] for line in lines[2:]]
    two = ["2x100x64/32", "2x100x64/64"]
    heads = [*two, "2x100x64/64", *two]  # attention: causal, one that forgets, bidirectional
    blocks = ["2x100x64/64", "2x100x64/128"]  # of the values, 128 in all
    assert shapes == [
        *heads,
        *["2x100x64"] * 9,
        *blocks,
    ]  # two convolutions, two of taps, five token by token
