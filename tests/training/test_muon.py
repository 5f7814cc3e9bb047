"""Muon against its formula in float64, and what the engine asks of an optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from chela.bench.profiling import Operations
from chela.config.settings import OptimizerConfig
from chela.errors import ConfigError
from chela.mixers import ChelaMixer
from chela.model import BackboneConfig, Classifier
from chela.training import muon
from chela.training.muon import ADAM_RMS, QUINTIC, Muon, orthogonalize
from chela.training.optim import build_optimizer, follow_the_device, parameter_groups

CONFIG = OptimizerConfig("muon", 0.1, 0.01, 0.5, [0.9, 0.98], 1e-8)


def naive_polar(matrix: Tensor) -> Tensor:
    """Newton and Schulz's quintic on the singular values themselves, in float64."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    a, b, c = QUINTIC
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vt


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=30)
def test_the_iteration_is_its_polynomial_of_the_singular_values(rows, columns, n, seed) -> None:
    matrices = torch.randn(n, rows, columns, generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([naive_polar(matrix) for matrix in matrices])
    assert torch.allclose(orthogonalize(matrices).double(), expected, atol=1e-4)


def test_singular_values_of_a_common_matrix_come_near_one() -> None:
    matrix = torch.randn(1, 64, 160, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(1e-6 * matrix)[0])  # of any size
    assert 0.6 < values.min() <= values.max() < 1.3
    assert orthogonalize(torch.zeros(1, 4, 3)).eq(0).all()


N = 160
KINDS = {
    "normal": lambda: torch.randn(N, N),
    "all equal": lambda: torch.ones(N, N),
    "nearly equal": lambda: 1 + 0.01 * torch.randn(N, N),
    "of one rank": lambda: torch.randn(N, 1) @ torch.randn(1, N),
    "of three ranks": lambda: torch.randn(N, 3) @ torch.randn(3, N),
    "diagonal": lambda: torch.rand(N).diag(),
    "values that decay": lambda: (
        torch.linalg.qr(torch.randn(N, N)).Q @ (0.8 ** torch.arange(N)).diag()
    ),
    "few rows": lambda: torch.randn(N, N) * (torch.arange(N)[:, None] % 50 == 0),
    "few large entries": lambda: torch.randn(N, N) ** 7,
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_singular_value_comes_near_where_the_iteration_runs_away(kind: str) -> None:
    """Which is above 1.26; in bfloat16, as on a GPU."""
    torch.manual_seed(0)
    update = orthogonalize(KINDS[kind]()[None].bfloat16())
    assert torch.linalg.matrix_norm(update[0].float(), 2) < 1.21


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=30)
def test_matrices_of_many_shapes_at_once_are_updated_as_each_alone(shapes, rates, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    weights = [nn.Parameter(draw(shape)) for shape in shapes]
    gradients = [[draw(shape) for shape in shapes] for _ in range(3)]
    expected = [
        naive_steps(weight.detach().clone(), [step[i] for step in gradients], 0.1, 0.5)
        for i, weight in enumerate(weights)
    ]
    group = {"params": weights, "orthogonal": True, "weight_decay": 0.5}
    optimizer = Muon([group], 0.1, (0.9, 0.98), 1e-8)
    if rates:  # as in a graph
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1, dtype=torch.float64)
        optimizer.found_inf = torch.zeros(())
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient
        optimizer.step()
    for weight, true in zip(weights, expected, strict=True):
        assert torch.allclose(weight, true, rtol=1e-6, atol=1e-6)  # 1e-7 beside the norm


def launches(matrices: list[nn.Parameter]) -> int:
    optimizer = Muon([{"params": matrices, "orthogonal": True}], 0.1, (0.9, 0.98), 1e-8)
    optimizer.found_inf = torch.zeros(())
    for matrix in matrices:
        matrix.grad = torch.ones_like(matrix)
    optimizer.step()
    with Operations() as operations:
        optimizer.step()
    return sum(operations.calls.values())


def test_more_matrices_are_no_more_launches() -> None:
    few = [nn.Parameter(torch.ones(shape)) for shape in ((8, 8), (4, 8), (16, 8))]
    many = [nn.Parameter(torch.ones(few[i % 3].shape)) for i in range(30)]
    assert launches(many) == launches(few) <= 50


def naive_steps(matrix: Tensor, gradients: list[Tensor], rate: float, decay: float) -> Tensor:
    """The formula of Muon for one matrix, in float64."""
    matrix, momentum = matrix.double(), torch.zeros_like(matrix, dtype=torch.float64)
    for gradient in gradients:
        momentum = 0.9 * momentum + 0.1 * gradient
        update = naive_polar(0.1 * gradient + 0.9 * momentum)
        scale = ADAM_RMS * max(matrix.shape) ** 0.5
        matrix = matrix - rate * (scale * update + decay * matrix)
    return matrix


def classifier() -> Classifier:
    torch.manual_seed(0)
    config = BackboneConfig(dim=8, depth=2)
    return Classifier(config, lambda: ChelaMixer(8, 16), vocab_size=5, input_dim=1, num_classes=3)


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_hidden_matrices_are_those_inside_of_blocks() -> None:
    model = classifier()
    groups = {group["name"]: group["params"] for group in parameter_groups(model, CONFIG)}
    hidden = {id(parameter) for parameter in groups["hidden"]}
    inside = model.backbone.blocks[0].mixer.value.weight
    assert id(inside) in hidden
    assert all(parameter.ndim == 2 for parameter in groups["hidden"])
    for outside in (model.backbone.encoder, model.head):
        assert not hidden & {id(parameter) for parameter in outside.parameters()}
    short = model.backbone.blocks[0].mixer.short_conv.parameters()
    assert not hidden & {id(parameter) for parameter in short}
    assert sum(map(len, groups.values())) == len(list(model.parameters()))  # each in one group


@pytest.mark.parametrize("as_in_a_graph", [False, True])
def test_steps_are_the_formula_for_matrices_and_adamw_for_the_rest(as_in_a_graph) -> None:
    model, other = classifier(), classifier()
    optimizer = build_optimizer(model, CONFIG)
    adamw = build_optimizer(other, OptimizerConfig("adamw", 0.1, 0.01, 0.5, [0.9, 0.98], 1e-8))
    if as_in_a_graph:  # rates as tensors, and the word that the gradient is finite
        for each in (optimizer, adamw):
            follow_the_device(each, torch.device("cpu"))
            each.found_inf = torch.zeros(())  # type: ignore[attr-defined]
            for group in each.param_groups:
                group["capturable"] = False  # which a CPU's fused AdamW does not have
    start = copy.deepcopy(dict(model.named_parameters()))
    hidden = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    gradients: dict[str, list[Tensor]] = {name: [] for name in start}
    for seed in range(3):
        for each, steps in ((model, optimizer), (other, adamw)):
            give_gradients(each, seed)
            steps.step()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradients[name].append(parameter.grad.clone())
    compared = 0
    for (name, parameter), its_other in zip(
        model.named_parameters(), other.parameters(), strict=True
    ):
        if id(parameter) in hidden:
            expected = naive_steps(start[name].detach(), gradients[name], 0.1, 0.5)
            assert torch.allclose(parameter.double(), expected, atol=1e-4), name
            compared += 1
        else:
            assert torch.equal(parameter, its_other), name
    assert compared == len(hidden) > 4


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    model = classifier()
    optimizer = build_optimizer(model, CONFIG)
    give_gradients(model, 0)
    optimizer.step()
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert_unchanged(model, optimizer, weights, state)


@pytest.mark.parametrize("wrong", [1e20, float("inf"), float("nan"), 30.0])
def test_an_update_that_no_gradient_can_have_changes_nothing(wrong: float, monkeypatch) -> None:
    """One number that a machine gets wrong, in one of many matrices, where gradients are finite."""
    model = classifier()
    optimizer = build_optimizer(model, CONFIG)
    give_gradients(model, 0)
    optimizer.step()
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())

    def broken(matrices: Tensor) -> Tensor:
        update = orthogonalize(matrices)
        update[1, 0, 0] = wrong
        return update

    give_gradients(model, 1)
    monkeypatch.setattr(muon, "orthogonalize", broken)
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert optimizer.found_inf == 1
    assert_unchanged(model, optimizer, weights, state)
    monkeypatch.undo()
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert optimizer.found_inf == 0
    changed = (not torch.equal(weights[name], each) for name, each in model.named_parameters())
    assert all(changed)


def assert_unchanged(model: nn.Module, optimizer: Muon, weights: dict, state: dict) -> None:
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    for before, after in zip(
        state["state"].values(), optimizer.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_state_that_is_loaded_goes_on_as_it_would_have() -> None:
    model = classifier()
    optimizer = build_optimizer(model, CONFIG)
    give_gradients(model, 0)
    optimizer.step()
    other = copy.deepcopy(model)
    again = build_optimizer(other, CONFIG)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, steps in ((model, optimizer), (other, again)):
        give_gradients(each, 1)
        steps.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_parameters_without_gradients_and_a_closure() -> None:
    model = classifier()
    optimizer = build_optimizer(model, CONFIG)
    before = copy.deepcopy(model.state_dict())
    assert optimizer.step(lambda: 7.0) == 7.0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert isinstance(optimizer, Muon)
    with pytest.raises(ValueError, match="empty"):
        Muon([], 0.1, (0.9, 0.98), 1e-8)
    with pytest.raises(ConfigError, match="no block has a linear map"):
        build_optimizer(nn.Linear(2, 2), CONFIG)
