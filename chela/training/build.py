"""From a checked configuration to the objects of a run: task, model, trainer."""

from __future__ import annotations

import gc
import logging
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from chela.config import ModelConfig, RunConfig
from chela.errors import ConfigError, RunError
from chela.kernels.choice import Asked, choose, use_kernels
from chela.model import Classifier
from chela.records.environment import reset_peak_memory
from chela.training.checkpoints import AtomicCheckpointIO
from chela.training.module import ClassificationModule
from chela.training.settings import Step, TrainerConfig
from tasks.base import Task, TaskSpec

CPU = torch.device("cpu")


def check_hardware(config: TrainerConfig) -> torch.device:
    """The device the run will compute on.

    Raises:
        RunError: a GPU, or more GPUs, or a precision was asked for that this machine has not; or
            the batch cannot be split over the devices.
    """
    if config.batch_size % config.devices:
        raise RunError(
            f"trainer.batch_size={config.batch_size} cannot be split over {config.devices} devices."
            f"\n  try: {-(-config.batch_size // config.devices) * config.devices}"
        )
    if config.micro_batch_size is not None and config.devices > 1:
        raise RunError(
            "trainer.micro_batch_size is for one device.\n  try: trainer.micro_batch_size=null; "
            "each device has its share of trainer.batch_size"
        )
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.accelerator == "cpu" or (config.accelerator == "auto" and not available):
        return torch.device("cpu")
    if not available:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        raise RunError(
            f"trainer.accelerator=gpu, but torch {torch.__version__} ({build}) finds no GPU.\n"
            "  try: trainer.accelerator=cpu, or a CUDA build of torch; nvidia-smi shows the driver"
        )
    if config.devices > available:
        raise RunError(
            f"trainer.devices={config.devices}, but there are {available} GPUs.\n"
            f"  try: trainer.devices={available}, or look at CUDA_VISIBLE_DEVICES"
        )
    if config.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RunError("this GPU has no bfloat16.\n  try: trainer.precision=float32")
    return torch.device("cuda")


def precision(config: TrainerConfig, device: torch.device) -> str:
    """``float32`` or ``bf16``: what ``auto`` means on ``device``."""
    if config.precision != "auto":
        return config.precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "float32"


def check_kernels(asked: Asked, device: torch.device) -> None:
    """Refuse early what ``use_kernels`` would refuse late.

    Raises:
        RunError: Triton kernels were asked for that ``device`` cannot run.
    """
    try:
        choose(asked, device)
    except ValueError as error:
        raise RunError(str(error)) from error


def compute_dtype(config: TrainerConfig, device: torch.device) -> torch.dtype:
    """In which the model's activations are."""
    return torch.bfloat16 if precision(config, device) == "bf16" else torch.float32


def step_form(config: TrainerConfig, device: torch.device) -> Step:
    """What ``trainer.step`` means on ``device``.

    Raises:
        RunError: a graph was asked for where there is none.
    """
    alone = device.type == "cuda" and config.devices == 1
    if config.step == "auto":
        return "graph" if alone else "compile" if device.type == "cuda" else "eager"
    if config.step == "graph" and not alone:
        raise RunError(
            "trainer.step=graph is for one GPU.\n  try: trainer.step=auto, or trainer.devices=1"
        )
    return config.step


def engine(config: TrainerConfig, task: Task) -> dict[str, str]:
    """How a run is computed: ``{"step": ..., "data": ...}``, for its first lines and record."""
    forms = {"graph": "one CUDA graph, compiled", "compile": "compiled"}
    return {
        "step": forms.get(step_form(config, task.device), "eager"),
        "data": "on the GPU" if task.on_device else "read from disk",
    }


def compile_blocks(model: Classifier, one_for_all_lengths: bool) -> None:
    """Compile each block when it is first called: all blocks share what is compiled for one.

    And the last norm, whose statistics and slopes are many passes over the tokens otherwise.
    Where ``one_for_all_lengths``, one program serves batches of every length: compiling one for
    each would take minutes. (Mega's bias and chunks need that all the same.) But that program is
    made for the length that came first, and may sum in an order that suits it. A resumed run meets
    another one first: so where the same bits are asked for, each length needs one of its own.
    """
    torch._dynamo.reset()  # what an earlier run of this process compiled counts towards the limit
    torch._dynamo.config.recompile_limit = 64  # training, evaluation, Mega by width
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # instead of going on uncompiled
    torch._dynamo.config.specialize_float = True  # rates of dropout do not change
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    for part in (*model.backbone.blocks, model.backbone.final_norm):
        if part is not None:  # post-norm blocks end in a norm of their own
            part.compile(dynamic=one_for_all_lengths)


def build_task(config: RunConfig, device: torch.device = CPU) -> Task:
    """The task's data module, for a model on ``device``; nothing is read or prepared yet."""
    task = config.task.target(
        config.task.config,
        data_dir=Path(config.data_dir),
        batch_size=config.trainer.batch_size,
        eval_batch_size=config.trainer.eval_batch_size,
        seed=config.seed,
        num_workers=config.trainer.num_workers,
        window=config.trainer.length_window,
        device=device,
        data_on_device=config.trainer.data_on_device,
        few_lengths=step_form(config.trainer, device) != "eager",
    )
    assert isinstance(task, Task)
    return task


def build_model(
    config: ModelConfig, spec: TaskSpec, kernels: Asked = "torch", device: torch.device = CPU
) -> Classifier:
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
        model = Classifier(
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


def build_module(
    config: RunConfig, spec: TaskSpec, device: torch.device, steps: int, padded: bool
) -> ClassificationModule:
    """The model, compiled where ``trainer.step`` says so, with all that trains it.

    Args:
        config: the checked configuration.
        spec: what the task's samples look like.
        device: where it will compute.
        steps: of the run.
        padded: whether batches hold padding.

    Raises:
        ConfigError: the sizes do not fit together.
        RunError: a graph was asked for where there is none.
    """
    model = build_model(config.model, spec, config.kernels, device)
    form = step_form(config.trainer, device)
    if form != "eager":
        compile_blocks(model, one_for_all_lengths=padded and not config.trainer.deterministic)
    return ClassificationModule(
        model,
        config.optimizer,
        config.schedule,
        steps,
        config.trainer.max_skipped_steps,
        padded,
        graph=form == "graph",
        micro_batch_size=config.trainer.micro_batch_size,
    )


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
    device: torch.device,
    folder: Path,
    steps: int,
    validate_every_steps: int,
    callbacks: Iterable[Callback],
) -> L.Trainer:
    """A Lightning trainer that counts in steps: the whole run is one pass of a resumable loader."""
    return L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=config.devices,
        precision={"float32": "32-true", "bf16": "bf16-mixed"}[precision(config, device)],  # type: ignore[arg-type]
        deterministic=config.deterministic,
        max_steps=steps,
        gradient_clip_val=config.gradient_clip,
        val_check_interval=validate_every_steps,
        check_val_every_n_epoch=None,  # the interval counts steps, not the loader's passes
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the task's loaders know their rank
        callbacks=list(callbacks),
        logger=False,  # History keeps the rows, and WandbRows sends them
        plugins=[AtomicCheckpointIO()],
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
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
