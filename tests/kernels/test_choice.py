"""Which implementation runs where, and how a model learns of it."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch
import triton
from packaging.requirements import Requirement
from torch import nn

from chela.kernels import choice, choose, launching, use_kernels
from tests.conftest import ROOT

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Operation(nn.Module):
    operation = "some_operation"
    has_triton = True
    implementation = "torch"


class OnlyTorch(Operation):
    has_triton = False


class Slow(Operation):
    def kernel_drawback(self) -> str:
        return "half of each tile is padding"


class Unserved(Operation):
    def kernel_obstacle(self) -> str:
        return "too wide"


@pytest.fixture
def compute_capability(monkeypatch: pytest.MonkeyPatch):
    def pretend(major: int, minor: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, minor))

    return pretend


@pytest.mark.parametrize("interpreted", ["0", "1"])
def test_a_cpu_takes_plain_pytorch_by_itself(monkeypatch, interpreted):
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    assert choose("auto", CPU) == choose("torch", CPU) == "torch"


def test_a_cpu_runs_the_kernels_in_the_interpreter_when_asked(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose("triton", CPU) == "triton"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="the device is a CPU; use kernels=auto or kernels=torch"):
        choose("triton", CPU)


def test_a_gpu_from_ampere_on_takes_the_kernels(compute_capability):
    compute_capability(8, 0)
    assert choose("auto", GPU) == choose("triton", GPU) == "triton"
    assert choose("torch", GPU) == "torch"


def test_an_older_gpu_is_told_apart(compute_capability):
    compute_capability(7, 5)
    assert choose("auto", GPU) == "torch"
    with pytest.raises(ValueError, match=r"capability is 7.5, and the kernels need 8.0"):
        choose("triton", GPU)


def test_other_devices_and_a_missing_triton(monkeypatch, compute_capability):
    assert choose("auto", torch.device("mps")) == "torch"
    with pytest.raises(ValueError, match="the device is mps"):
        choose("triton", torch.device("mps"))
    compute_capability(9, 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose("auto", GPU) == "torch"
    with pytest.raises(ValueError, match="triton is not installed"):
        choose("triton", GPU)


def test_a_model_uses_kernels_where_it_has_them(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    model = nn.Sequential(Operation(), nn.Sequential(Operation()), OnlyTorch(), nn.Linear(2, 2))
    use_kernels(model, "triton", CPU)
    found = [m.implementation for m in model.modules() if isinstance(m, Operation)]
    assert found == ["triton", "triton", "torch"]
    assert Operation.implementation == "torch"  # the class is untouched
    use_kernels(model, "torch", CPU)
    assert {m.implementation for m in model.modules() if isinstance(m, Operation)} == {"torch"}


def test_what_is_slower_runs_on_kernels_only_when_asked(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    slow = Slow()
    use_kernels(slow, "triton", CPU)
    assert slow.implementation == "triton"
    monkeypatch.setattr(choice, "choose", lambda asked, device: "triton")  # as on a GPU
    model = nn.Sequential(slow, Operation(), Unserved())
    use_kernels(model, "auto", CPU)
    assert [part.implementation for part in model] == ["torch", "triton", "torch"]
    with pytest.raises(ValueError, match="kernels=triton, but some_operation: too wide"):
        use_kernels(model, "triton", CPU)


@pytest.mark.parametrize(
    ("version", "stages"), [("3.6.0", 1), ("3.7.0", 1), ("3.7.1", 3), ("3.10.0+git1", 3)]
)
def test_loads_are_in_flight_only_where_triton_fences_them(version, stages, monkeypatch):
    """What is installed by constraints.txt does."""
    monkeypatch.setattr(triton, "__version__", version)
    assert launching.stages.__wrapped__(3) == stages
    pins = map(Requirement, re.findall(r"^triton.*", (ROOT / "constraints.txt").read_text(), re.M))
    assert stages == 3 or not any(version in pin.specifier for pin in pins)
