"""What can be set about training: types, ranges, choices and the reason of each.

The values themselves stand in ``configs/{optimizer,schedule,trainer,logger}/``.
"""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Annotated, Literal

from annotated_types import Ge, Le, Len, Lt
from pydantic import AfterValidator, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

Step = Literal["auto", "eager", "compile", "graph"]
Mixing = Literal["none", "mixup", "cutmix"]
Fraction = Annotated[float, Ge(0), Lt(1)]
APART = {"identity": False}  # where and how it is computed, not what; see chela.config.identity
NULL = {"neutral": None}  # at null it does nothing

REFUSED = "/\\:;,#?%'\""  # by file systems, or by W&B in a run's id or a project's name


def _carried(text: str, longest: int) -> str:
    """A name as it is, if a folder, W&B, a table and a screen can all carry it.

    Raises:
        ValueError: what they cannot carry, and what they can.
    """
    wrong = sorted({each for each in text if each in REFUSED or not each.isprintable()})
    if wrong:
        reason = f"a name cannot have {' '.join(wrong)}".encode("unicode_escape").decode()
    elif not text or text[0] in ".-~ " or text[-1] in ". ":
        reason = "a name begins with a letter or a digit, and ends with no dot or blank"
    elif len(text.encode()) > longest:
        reason = f"a name has at most {longest} bytes, this one {len(text.encode())}"
    else:
        return text
    raise ValueError(f"{reason}.\n  try: letters, digits and . _ -")


Name = Annotated[str, AfterValidator(partial(_carried, longest=64))]  # W&B's limit for a tag
Project = Annotated[str, AfterValidator(partial(_carried, longest=128))]
Tag = Annotated[str, Len(1, 64)]  # W&B's


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class OptimizerConfig:
    """The optimizer, with groups of parameters (``chela.training.optim``)."""

    name: Literal["adam", "adamw", "muon"]
    lr: PositiveFloat  # of all but the long kernels, at the peak of the schedule
    kernel_lr: PositiveFloat  # of the long kernels (SGConv trains them more slowly than the rest)
    weight_decay: NonNegativeFloat  # of matrices only, never of kernels, norms and biases
    betas: Annotated[list[Fraction], Len(2, 2)]
    eps: PositiveFloat


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class ScheduleConfig:
    """The learning rate over the run: a linear warm-up, then the named shape."""

    name: Literal["linear", "cosine", "constant"]
    warmup_steps: NonNegativeInt
    final_ratio: Annotated[float, Ge(0), Le(1)]  # of the peak, reached at the last step

    def __post_init__(self) -> None:
        if self.name == "constant" and self.final_ratio != 1:
            raise ValueError(
                f"final_ratio={self.final_ratio} would do nothing: a constant rate stays at its "
                "peak; set final_ratio=1, as schedule=constant does, or name=linear"
            )


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class TrainerConfig:
    """How long, on what, how often; batch_size is that of all devices together."""

    max_epochs: PositiveFloat  # passes over the training split; fractions are allowed
    max_steps: PositiveInt | None = field(metadata=NULL)  # when given, counts instead of max_epochs
    batch_size: PositiveInt  # samples per optimizer step
    # samples at once; their gradients add up
    micro_batch_size: PositiveInt | None = field(metadata=NULL)
    eval_batch_size: PositiveInt
    gradient_clip: PositiveFloat | None = field(metadata=NULL)  # by global norm
    # of a training target, spread evenly over all classes; train/loss has it, val/loss has none
    label_smoothing: Fraction = field(metadata={"neutral": 0.0})
    # a training sample in any form that its class is the same in, as the task draws it
    augment: bool = field(metadata={"neutral": False})
    # a training sample with another one, where the class of one sequence is asked for
    mixing: Mixing = field(metadata={"neutral": "none"})
    # whose loss or gradient was not finite; then stop
    max_skipped_steps: NonNegativeInt = field(metadata={"neutral": 0})
    # after which a loss that is still that of guessing is spoken of
    plateau_steps: PositiveInt = field(metadata=APART)
    precision: Literal["auto", "float32", "bf16"]  # auto: bf16 on a GPU, float32 on a CPU
    validate_every_epochs: PositiveFloat
    # when given, counts instead of the epochs
    validate_every_steps: PositiveInt | None = field(metadata=NULL)
    accelerator: Literal["auto", "cpu", "gpu"] = field(metadata=APART)
    devices: PositiveInt = field(metadata=APART)  # of each node
    num_nodes: PositiveInt = field(metadata=APART)
    # in a row, of which each holds a share of every sequence's positions
    sequence_devices: PositiveInt = field(metadata=APART)
    # how a step runs; the same step, but for rounding and the draws of dropout
    step: Step = field(metadata=APART)
    deterministic: bool = field(metadata=APART)  # the same bits in every run on one GPU; slower
    # whether the GPU keeps the prepared data
    data_on_device: Literal["auto", "always", "never"] = field(metadata=APART)
    # batches whose samples are sorted by length together
    length_window: PositiveInt = field(metadata={"neutral": 1})
    # processes that read batches; 0: the training process
    num_workers: NonNegativeInt = field(metadata=APART)
    log_every_steps: PositiveInt = field(metadata=APART)
    # at most this much work is lost to a kill
    checkpoint_every_steps: PositiveInt = field(metadata=APART)
    progress: bool = field(metadata=APART)
    verbose: bool = field(metadata=APART)  # more lines than four before the first step

    @property
    def processes(self) -> int:
        """Of the run, one for each device of each node."""
        return self.devices * self.num_nodes

    @property
    def replicas(self) -> int:
        """Groups of processes among which the samples of a batch are divided."""
        return self.processes // self.sequence_devices


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class LoggerConfig:
    """Weights & Biases; the CSV file beside it is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"]  # auto: online when a key is set
    project: Project | None  # null: WANDB_PROJECT or what `wandb init` said, else chela
    entity: Project | None  # the W&B team; null: WANDB_ENTITY, else the default of the account
    tags: list[Tag]  # beside task, model, protocol and those of WANDB_TAGS
    start_timeout: PositiveFloat  # seconds to wait for the server; then it goes on offline
    finish_timeout: PositiveFloat  # seconds for what is left to send at the end
