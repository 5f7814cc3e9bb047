"""Groups of parameters and the learning rate over a run."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from chela.config.settings import OptimizerConfig, ScheduleConfig
from chela.training.optim import (
    build_optimizer,
    build_schedule,
    learning_rate_factor,
    parameter_groups,
)

CONFIG = OptimizerConfig("adamw", 0.1, 0.01, 0.5, [0.9, 0.98], 1e-8)


class WithKernel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.ones(3, 4))
        self.projection = nn.Linear(4, 4)
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def kernel_parameters(self):
        yield self.taps


def test_each_parameter_is_in_the_group_it_belongs_to() -> None:
    model = nn.Sequential(WithKernel(), nn.LayerNorm(4))
    groups = {group["name"]: group for group in parameter_groups(model, CONFIG)}
    assert [p.shape for p in groups["kernels"]["params"]] == [(3, 4)]
    assert [p.shape for p in groups["matrices"]["params"]] == [(4, 4)]
    assert [p.shape for p in groups["others"]["params"]] == [(4,), (4,), (4,)]
    assert (groups["kernels"]["lr"], groups["kernels"]["weight_decay"]) == (0.01, 0.0)
    assert (groups["matrices"]["lr"], groups["matrices"]["weight_decay"]) == (0.1, 0.5)
    assert (groups["others"]["lr"], groups["others"]["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_a_step_that_another_process_leaves_out_is_left_out(name: str, bad: float, monkeypatch):
    """Its gradients are the same, but what it made of them was not finite."""
    asked = []

    def all_reduce(found: torch.Tensor, how: object) -> None:
        asked.append(how)
        found.clamp_(min=bad)

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 2)]), "head": nn.Linear(2, 2)})
    before = [each.detach().clone() for each in model.parameters()]
    optimizer = build_optimizer(model, replace(CONFIG, name=name))
    for each in model.parameters():
        each.grad = torch.ones_like(each)
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    same = [torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)]
    assert same == [bool(bad)] * 4
    assert asked == [torch.distributed.ReduceOp.MAX]


def test_a_group_without_parameters_is_left_out() -> None:
    assert [g["name"] for g in parameter_groups(nn.LayerNorm(3), CONFIG)] == ["others"]


@given(
    st.sampled_from(["linear", "cosine", "constant"]),
    st.integers(0, 50),
    st.integers(1, 200),
    st.floats(0, 1),
)
def test_the_rate_rises_to_one_and_falls_to_the_final_ratio(name, warmup, total, final) -> None:
    config = ScheduleConfig(name, warmup, 1 if name == "constant" else final)
    factors = [learning_rate_factor(step, total, config) for step in range(total + 1)]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)
    rising, falling = factors[:warmup], factors[warmup:]
    assert rising == sorted(rising)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))
    if 0 < warmup <= total:
        assert factors[warmup - 1] == pytest.approx(1)
    if warmup < total and name != "constant":
        assert factors[total] == pytest.approx(final)


def test_half_way_down() -> None:
    line = learning_rate_factor(60, 110, ScheduleConfig("linear", 10, 0.0))
    cosine = learning_rate_factor(35, 110, ScheduleConfig("cosine", 10, 0.0))
    assert line == pytest.approx(0.5)
    assert cosine == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_the_schedule_scales_every_group_from_its_own_rate() -> None:
    optimizer = build_optimizer(WithKernel(), CONFIG)
    schedule = build_schedule(optimizer, 10, ScheduleConfig("linear", 2, 0.0))
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"kernels": 0.005, "matrices": 0.05, "others": 0.05})
    optimizer.step()
    schedule.step()
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"kernels": 0.01, "matrices": 0.1, "others": 0.1})
