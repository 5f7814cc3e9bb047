"""From a checked configuration to the objects of a run: task, model, trainer."""

from __future__ import annotations

import gc
import logging
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from chela.config.schema import ModelConfig, RunConfig
from chela.config.settings import TrainerConfig
from chela.errors import ConfigError
from chela.kernels.choice import Asked, use_kernels
from chela.model import Model
from chela.objectives import OBJECTIVES, objective_of
from chela.records.environment import reset_peak_memory
from chela.training.augmentation import augmentation_of
from chela.training.checkpoints import AtomicCheckpointIO
from chela.training.distributed import OneStep, environment
from chela.training.engine import CPU, Engine
from chela.training.module import TrainingModule
from chela.training.optim import build_optimizer
from tasks.base import Task, TaskSpec


def inductor_options() -> dict[str, Any]:
    """What Inductor is told wherever this project compiles for training.

    It would make one kernel of sums over the channels of (B, L, D) and over its tokens, such as the
    gradients of a norm are, which moves 2 to 4 times the bytes that they need: 107 us where 39
    suffice on an H200 (torch 2.11). Versions of torch that cannot do so have no such option.
    """
    option = "triton.mix_order_reduction"
    return {option: False} if option in torch._inductor.list_options() else {}


def compile_blocks(model: Model, one_for_all_lengths: bool) -> None:
    """Compile each block when it is first called: all blocks share what is compiled for one.

    And the last norm, whose statistics and slopes are many passes over the tokens otherwise.
    Where ``one_for_all_lengths``, one program serves batches of every length: compiling one for
    each would take minutes. (Mega's bias and chunks need that all the same.) But that program is
    made for the length that came first, and may sum in an order that suits it. A resumed run meets
    another one first: so where the same bits are asked for, each length needs one of its own.
    """
    torch._dynamo.reset()  # what an earlier run of this process compiled counts towards the limit
    torch._dynamo.config.recompile_limit = 128  # training, evaluation, Mega by width
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # instead of going on uncompiled
    torch._dynamo.config.specialize_float = True  # rates of dropout do not change
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    options = inductor_options()
    for part in (*model.backbone.blocks, model.backbone.final_norm):
        if part is not None:  # post-norm blocks end in a norm of their own
            part.compile(dynamic=one_for_all_lengths, options=options)


def build_task(config: RunConfig) -> Task:
    """The task; nothing is read or prepared yet."""
    task = config.task.target(config.task.config, Path(config.data_dir))
    assert isinstance(task, Task)
    return task


def build_model(
    config: ModelConfig,
    spec: TaskSpec,
    kernels: Asked = "torch",
    device: torch.device = CPU,
) -> Model:
    """The backbone with the configured mixer in every block, sized for the task.

    Args:
        config: the checked configuration.
        spec: what the task's samples look like.
        kernels: which implementation its operations use.
        device: where it will compute.

    Raises:
        ConfigError: the sizes do not fit together; the message says what would.
        ValueError: kernels that cannot run there.
    """

    def make_mixer() -> nn.Module:
        mixer = config.mixer.target(
            dim=config.backbone.dim,
            max_length=spec.max_length,
            causal=config.backbone.causal,
            config=config.mixer.config,
        )
        assert isinstance(mixer, nn.Module)
        return mixer

    try:
        model = OBJECTIVES[spec.objective].model(
            config.backbone,
            make_mixer,
            vocab_size=spec.vocab_size,
            input_dim=spec.input_dim,
            num_classes=spec.num_classes,
            documents=spec.documents,
        )
    except ValueError as error:
        raise ConfigError(f"model={config.name}: {error}") from error
    use_kernels(model, kernels, device)
    return model


def refuse_unsplit(model: Model, name: str, devices: int) -> None:
    """See that each sequence can be held by several devices.

    What mixes tokens says so itself: its ``split_obstacle()`` is None, or why not and what to do.

    Args:
        model: whose blocks' mixers have the method; other modules may.
        name: of the model, for the message.
        devices: that hold a sequence together.

    Raises:
        ConfigError: a part cannot, or a mixer does not say.
    """
    mixers: list[Any] = [block.mixer for block in model.backbone.blocks]
    reasons = [
        f"{type(mixer).__name__} does not say whether its tokens can be those of several devices; "
        "give it a method split_obstacle() that returns None where they can"
        for mixer in mixers
        if not hasattr(mixer, "split_obstacle")
    ]
    parts: list[Any] = [each for each in model.modules() if hasattr(each, "split_obstacle")]
    reasons += filter(None, (part.split_obstacle() for part in parts))
    if reasons:
        raise ConfigError(
            f"model={name} cannot have each sequence on {devices} devices: {reasons[0]}, or "
            "trainer.sequence_devices=1"
        )


def build_module(
    config: RunConfig,
    spec: TaskSpec,
    engine: Engine,
    steps: int,
    padded: bool,
    metric: str = "accuracy",
) -> TrainingModule:
    """The model, compiled where ``trainer.step`` says so, with all that trains it.

    Args:
        config: the checked configuration.
        spec: what the task's samples look like.
        engine: that will compute it.
        steps: of the run.
        padded: whether batches hold padding.
        metric: that selects.

    Raises:
        ConfigError: the sizes do not fit together.
    """
    model = build_fitting(config, spec, engine)
    augment = augmentation_of(config.trainer, spec, padded)
    if engine.step != "eager":
        compile_blocks(model, one_for_all_lengths=padded and not engine.deterministic)
    objective = objective_of(spec, metric)
    graph = engine.step == "graph"
    return TrainingModule(model, objective, config, steps, padded, graph, augment)


def build_fitting(config: RunConfig, spec: TaskSpec, engine: Engine) -> Model:
    """The model of a run that its task, trainer and optimizer can do with.

    All that can be refused without the task's data is refused here; see ``build_module``.

    Raises:
        ConfigError: something of it does not fit the rest.
    """
    model = build_model(config.model, spec, engine.kernels, engine.device)
    if engine.sequence_devices > 1:
        refuse_unsplit(model, config.model.name, engine.sequence_devices)
    if config.trainer.label_smoothing and not OBJECTIVES[spec.objective].per_sample:
        raise ConfigError(
            f"trainer.label_smoothing={config.trainer.label_smoothing} is for tasks that ask for "
            f"the class of a sample, and {spec.name} asks for tokens.\n"
            "  try: trainer.label_smoothing=0"
        )
    augmentation_of(config.trainer, spec, padded=False)  # may refuse
    build_optimizer(model, config.optimizer)  # likewise; Lightning asks for one when it trains
    return model


def free_memory(device: torch.device) -> bool:
    """Take back what an earlier run of this process left, and measure the peak anew.

    Returns:
        Whether that can be: else the peak would be the largest of all its runs.
    """
    gc.collect()
    if device.type != "cuda":
        return reset_peak_memory()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return True


def steps_of(epochs: float, train_samples: int, batch_size: int) -> int:
    """Optimizer steps that see ``epochs`` passes over the training split, at least one."""
    return max(1, math.ceil(epochs * train_samples / batch_size))


def total_steps(config: TrainerConfig, train_samples: int) -> int:
    """Length of the run in optimizer steps."""
    if config.max_steps is not None:
        return config.max_steps
    return steps_of(config.max_epochs, train_samples, config.batch_size)


def validate_every(config: TrainerConfig, train_samples: int) -> int:
    """Optimizer steps between validations; never more than the run has."""
    every = config.validate_every_steps
    if every is None:
        every = steps_of(config.validate_every_epochs, train_samples, config.batch_size)
    return min(every, total_steps(config, train_samples))


def build_trainer(
    config: TrainerConfig,
    engine: Engine,
    folder: Path,
    steps: int,
    validate_every_steps: int,
    callbacks: Iterable[Callback],
) -> L.Trainer:
    """A Lightning trainer that counts in steps: the whole run is one pass of a resumable loader."""
    return L.Trainer(
        accelerator="gpu" if engine.device.type == "cuda" else "cpu",
        devices=engine.devices,
        strategy=OneStep(engine.sequence_devices) if config.processes > 1 else "auto",
        num_nodes=engine.nodes,
        precision={"float32": "32-true", "bf16": "bf16-mixed"}[engine.precision],  # type: ignore[arg-type]
        deterministic=engine.deterministic,
        max_steps=steps,
        gradient_clip_val=config.gradient_clip,
        val_check_interval=validate_every_steps,
        check_val_every_n_epoch=None,  # the interval counts steps, not the loader's passes
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the task's loaders know their rank
        callbacks=list(callbacks),
        logger=False,  # History keeps the rows, and WandbRows sends them
        plugins=[AtomicCheckpointIO(), environment()],
        default_root_dir=folder,
        enable_model_summary=False,
        enable_progress_bar=config.progress,
        log_every_n_steps=1,  # History decides what is logged when
    )


def quiet_lightning() -> None:
    """Lightning's notices that the run's own lines already say, or that do not apply to it."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # they are of all processes
    warnings.filterwarnings("ignore", message=".*TensorFloat32 tensor cores.*")  # exact by choice
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # one process
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
