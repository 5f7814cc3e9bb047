"""Every model on every kind of task, every task with CHELA: it composes, builds and trains."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from chela.bench.params import LRA, model_names, run_config, spec_of
from chela.config.choices import CONFIGS
from chela.model import BackboneConfig
from chela.objectives import objective_of
from chela.training.build import build_model, build_task
from chela.training.optim import build_optimizer
from tasks.base import TaskSpec
from tasks.storage.rows import NOTHING
from tests.arena import arena_models

LENGTH = 64
MANY = 10_000  # symbols
TASKS = sorted(file.stem for file in (CONFIGS / "task").glob("*.yaml"))


def short_spec(task: str) -> TaskSpec:
    """The task as a model sees it, but short."""
    try:
        spec, _ = spec_of(build_task(run_config("chela", [f"task={task}", "data_dir=nowhere"])))
    except RuntimeError:
        pytest.skip("the task's data tell what its samples look like")
    few = {} if spec.vocab_size is None else {"vocab_size": min(spec.vocab_size, MANY)}
    if spec.objective != "classification":  # a vocabulary of words would take gigabytes
        few["num_classes"] = min(spec.num_classes, MANY)
    return dataclasses.replace(spec, max_length=LENGTH, **few)


def batch_of(spec: TaskSpec, samples: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random values, ragged lengths and targets, in the shapes of the task's batches."""
    torch.manual_seed(1)
    rows = (samples,) if spec.documents == 1 else (samples, spec.documents)
    if spec.vocab_size is not None:
        values = torch.randint(spec.vocab_size, (*rows, LENGTH))
    else:
        channels = (spec.input_dim,) if spec.input_dim > 1 else ()
        values = torch.randn(*rows, LENGTH, *channels)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, rows)
    if spec.objective == "classification":
        return values, lengths, torch.arange(samples) % spec.num_classes
    targets = torch.randint(spec.num_classes, values.shape)
    return values, lengths, torch.where(torch.arange(LENGTH) < lengths[:, None], targets, NOTHING)


def test_the_arenas_tasks_are_among_them() -> None:
    assert {short_spec(task).name for task in LRA} == set(LRA)


@pytest.mark.parametrize("task", TASKS)
def test_what_a_model_has_to_know_of_a_task_is_the_same_each_time(task: str) -> None:
    assert short_spec(task) == short_spec(task)


# tokens, one channel, three, pairs, the next token
KINDS = ("listops", "image", "cifar", "retrieval", "enwik8")
PAIRS = [
    (task, name) for task in TASKS for name in model_names() if task in KINDS or name == "chela"
]


@pytest.mark.parametrize(("task", "model_name"), PAIRS)
def test_every_model_trains_on_every_kind_of_task(task: str, model_name: str) -> None:
    """Two steps with the recipe's optimizer; one block, since all are alike."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = short_spec(task)
    config = run_config(model_name, [f"task={task}", "model.depth=1", "model.dropout=0"])
    model = build_model(config.model, spec)
    # A recipe warms up to its rate over thousands of steps; these are the first two.
    optimizer = build_optimizer(model, dataclasses.replace(config.optimizer, lr=3e-4))
    values, lengths, targets = batch_of(spec)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    losses = []
    for _ in range(3):  # the third is not followed by a step: it shows what two did
        loss = objective_of(spec).loss(model(values, lengths), targets)
        losses.append(loss.item())
        if len(losses) < 3:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert all(0 < loss < 20 for loss in losses)
    assert losses[2] < losses[0]
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("model_name", arena_models())
def test_a_models_file_states_the_defaults_of_its_code(model_name: str) -> None:
    """Two places name a default, the dataclass and its YAML: they must agree."""
    config = run_config(model_name, ["~experiment/lra"]).model
    known = {
        "s4d": ({"ffn": "none"}, {}),  # the models whose blocks have no feed-forward part
        "sgconv": ({"ffn": "none"}, {}),
        "mega_chunk": ({}, {"chunk_size": 128}),
    }
    backbone, mixer = known.get(model_name, ({}, {}))
    assert config.name == model_name
    assert config.backbone == BackboneConfig(**backbone)
    assert config.mixer.config == config.mixer.target.Config(**mixer)


@pytest.mark.parametrize("model_name", ["s4d", "sgconv"])
def test_a_models_file_may_choose_a_schedule_that_gives_way(model_name: str) -> None:
    assert run_config(model_name, ["task=text"]).schedule.name == "cosine"
    assert run_config(model_name, ["task=text", "schedule=linear"]).schedule.name == "linear"
    assert run_config("chela", ["task=text"]).schedule.name == "linear"


@pytest.mark.parametrize("task", LRA)
def test_every_lra_task_has_a_recipe_of_every_model_of_the_table(task: str) -> None:
    for name in arena_models():
        assert (CONFIGS / "experiment" / "lra" / f"{task}-{name}.yaml").exists(), name
    chunked, whole = (run_config(name, [f"task={task}"]) for name in ("mega_chunk", "mega"))
    assert chunked.model.mixer.config == dataclasses.replace(
        whole.model.mixer.config, chunk_size=128
    )
    assert (chunked.optimizer, chunked.trainer) == (whole.optimizer, whole.trainer)
