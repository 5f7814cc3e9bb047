"""How a run is computed on this machine: whatever is ``auto`` means something, decided once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from chela.config.schema import RunConfig
from chela.config.settings import TrainerConfig
from chela.errors import RunError
from chela.kernels.choice import Asked, choose

CPU = torch.device("cpu")
FORMS = {"graph": "one CUDA graph, compiled", "compile": "compiled", "eager": "eager"}


@dataclass(frozen=True)
class Engine:
    """What ``resolve`` decided; by itself the plainest: what is read, looked at and loaded."""

    device: torch.device = CPU
    devices: int = 1  # of each node
    nodes: int = 1
    sequence_devices: int = 1  # that hold a sequence together
    precision: Literal["float32", "bf16"] = "float32"
    step: Literal["eager", "compile", "graph"] = "eager"
    kernels: Asked = "auto"  # one of a model's modules may do without, see ``use_kernels``
    data_on_device: Literal["auto", "always", "never"] = "auto"  # the data's size decides, too
    deterministic: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """In which the model's activations are."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def place(self) -> str:
        """``"1 x cuda, bf16"``."""
        nodes = f"{self.nodes} nodes with " if self.nodes > 1 else ""
        together = self.sequence_devices
        sequences = f", a sequence on {together}" if together > 1 else ""
        return f"{nodes}{self.devices} x {self.device.type}{sequences}, {self.precision}"

    def describe(self) -> str:
        """``"1 x cuda, bf16; step one CUDA graph, compiled"``."""
        return f"{self.place}; step {FORMS[self.step]}"


def resolve(config: RunConfig) -> Engine:
    """What the run will compute on, and how.

    Raises:
        RunError: a GPU, more GPUs, a precision, kernels or a graph were asked for that this machine
            has not; or the batch or the channels cannot be split over the devices.
    """
    trainer, dim = config.trainer, config.model.backbone.dim
    device = _device(trainer)
    if trainer.sequence_devices > dim:
        raise RunError(
            f"trainer.sequence_devices={trainer.sequence_devices}, but the model has {dim} "
            "channels, of which each device takes one at least.\n  try: a larger model.dim"
        )
    try:
        choose(config.kernels, device)
    except ValueError as error:
        raise RunError(str(error)) from error
    return Engine(
        device,
        trainer.devices,
        trainer.num_nodes,
        trainer.sequence_devices,
        _precision(trainer, device),
        step_form(trainer, device),
        config.kernels,
        trainer.data_on_device,
        trainer.deterministic,
    )


def step_form(config: TrainerConfig, device: torch.device) -> Literal["eager", "compile", "graph"]:
    """What ``trainer.step`` means on ``device``.

    Raises:
        RunError: a graph was asked for where there is none.
    """
    gpu = device.type == "cuda"
    if config.step == "auto":
        return "graph" if gpu else "eager"
    if config.step == "graph" and not gpu:
        raise RunError("trainer.step=graph is for GPUs.\n  try: trainer.step=auto")
    return config.step


def _device(config: TrainerConfig) -> torch.device:
    processes, together = config.processes, config.sequence_devices
    if processes % together:
        raise RunError(
            f"trainer.sequence_devices={together} does not divide the {processes} devices of the "
            f"run.\n  try: trainer.devices={-(-processes // together) * together}"
        )
    replicas = config.replicas
    if config.batch_size % replicas:
        raise RunError(
            f"trainer.batch_size={config.batch_size} cannot be split over {replicas} devices."
            f"\n  try: {-(-config.batch_size // replicas) * replicas}"
        )
    if config.micro_batch_size is not None and processes > 1:
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


def _precision(config: TrainerConfig, device: torch.device) -> Literal["float32", "bf16"]:
    if config.precision != "auto":
        return config.precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "float32"
